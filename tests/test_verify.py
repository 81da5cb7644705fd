"""A wrong tree is called wrong, by name, with exit code 5."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from imnetprep.catalog.datasets import Layout
from imnetprep.layouts.table import LAYOUTS
from imnetprep.verify import CHECKS
from tests.conftest import Run, tree

WNID, OTHER = "n01440764", "n01443537"


def _first(root: Path) -> Path:
    return min((root / "train" / WNID).iterdir())


def _remove(root: Path) -> str:
    path = _first(root)
    path.unlink()
    return f"missing: train/{WNID}/{path.name}"


def _add(root: Path) -> str:
    shutil.copy(_first(root), root / "train" / WNID / f"{WNID}_999999.JPEG")
    return f"extra: train/{WNID}/{WNID}_999999.JPEG"


def _move(root: Path) -> str:
    path = _first(root)
    path.rename(root / "train" / OTHER / path.name)
    return f"misplaced: train/{OTHER}/{path.name} belongs in train/{WNID}/"


def _flip(root: Path) -> str:
    path = _first(root)
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)
    return f"digest: train/{WNID}/{path.name}"


def _truncate(root: Path) -> str:
    path = _first(root)
    path.write_bytes(path.read_bytes()[:-10])
    return f"size: train/{WNID}/{path.name}"


def _remove_class(root: Path) -> str:
    shutil.rmtree(root / "train" / WNID)
    return f"missing-class: train/{WNID} the class folder is missing, with its 12 images"


def _flatten(root: Path) -> str:
    for path in sorted((root / "val").rglob("*.JPEG")):
        path.rename(root / "val" / path.name)
    return "20 images flat in val/"


def _link(root: Path) -> str:
    path = _first(root)
    path.rename(root / "elsewhere")
    path.symlink_to(root / "nowhere")
    return f"not-a-file: train/{WNID}/{path.name}"


def _remove_split(root: Path) -> str:
    shutil.rmtree(root / "val")
    return "missing-split: val"


def _add_folder(root: Path) -> str:
    (root / "train" / "n99999999").mkdir()
    return "extra-folder: train/n99999999"


@pytest.mark.parametrize(
    "spoil",
    [_remove, _add, _move, _flip, _truncate, _remove_class, _flatten, _link, _remove_split,
     _add_folder],
)  # fmt: skip
def test_a_wrong_tree_is_called_wrong(
    spoil: Callable[[Path], str], organized: Path, run: Run
) -> None:
    told = spoil(organized)
    done = run("verify", "--root", organized, "--digests")
    assert done.returncode == 5
    assert told in done.stdout, done.stdout


def test_every_layout_can_be_read_and_checked() -> None:
    assert set(LAYOUTS) == set(CHECKS) == set(Layout)


def test_a_right_tree_has_no_finding_and_only_the_receipt_is_touched(
    organized: Path, run: Run
) -> None:
    before = tree(organized)
    done = run("verify", "--root", organized, "--digests")
    assert (done.returncode, done.stdout) == (
        0,
        "0 findings in all splits (counts, names, sizes, digests)\n",
    )
    after = tree(organized)
    noted = json.loads(after["receipt.json"])["verified"]
    assert {name: (each["findings"], each["checks"][-1]) for name, each in noted.items()} == {
        "train": (0, "digests"), "val": (0, "digests")
    }  # fmt: skip
    assert run("verify", "--root", organized).returncode == 0
    assert tree(organized) == after, "a verify that looked at less takes no place of a fuller one"
    assert after | {"receipt.json": before["receipt.json"]} == before


def test_where_the_root_cannot_be_written_nothing_is_noted(organized: Path, run: Run) -> None:
    mount = ["mount", "--bind", str(organized), str(organized)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a read-only root is a mount, and this user may not mount")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", organized], check=True)
        before = tree(organized)
        done = run("verify", "--root", organized)
        told = "receipt.json is not to be written to: it does not keep the result\n"
        assert done.returncode == 0 and done.stderr.endswith(told)
        assert tree(organized) == before
    finally:
        subprocess.run(["umount", organized], check=True)


def test_a_split_that_is_not_organized_is_a_finding(packed: Path, tmp_path: Path, run: Run) -> None:
    words = ["--dataset", packed, "--archives", packed.parent]
    assert run("organize", "--root", tmp_path, *words, "--split", "val").returncode == 0
    done = run("verify", "--root", tmp_path)
    assert (done.returncode, done.stdout.splitlines()[0]) == (
        5,
        "missing-split: train is not organized",
    )
    assert run("verify", "--root", tmp_path, "--split", "val").returncode == 0


def test_findings_as_json(organized: Path, run: Run) -> None:
    _remove(organized)
    done = run("verify", "--root", organized, "--json", "--split", "train")
    finding, summary = map(json.loads, done.stdout.splitlines())
    assert (finding["kind"], summary["findings"]) == ("missing", 1)


def test_an_image_that_does_not_decode_is_found(real_data: Path, tmp_path: Path, run: Run) -> None:
    from tests.conftest import DATASETS

    words = ["--dataset", DATASETS / "tiny10.toml", "--archives", real_data / "tiny10"]
    assert run("organize", "--root", tmp_path, *words, "--split", "val").returncode == 0
    path = min((tmp_path / "val").rglob("*.JPEG"))
    path.write_bytes(path.read_bytes()[:-200])
    done = run("verify", "--root", tmp_path, "--decode")
    assert done.returncode == 5
    assert f"decode: val/{path.parent.name}/{path.name} does not decode" in done.stdout


def test_a_root_without_a_dataset_is_told_what_to_do(tmp_path: Path, run: Run) -> None:
    done = run("verify", "--root", tmp_path)
    assert done.returncode == 1
    assert "holds no dataset yet" in done.stderr and "Hint: imnetprep download" in done.stderr
