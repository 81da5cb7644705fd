"""A tree that another program made is recognised, judged by its names, and adopted if right."""

import errno
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from imnetprep.synthetic import pack_dataset
from tests.conftest import DATASETS, Run, command, tree

WNID, OTHER = "n01440764", "n01443537"


@pytest.fixture
def foreign(organized: Path) -> Path:
    """The trees alone, as another program leaves them."""
    for path in organized.iterdir():
        if path.name not in ("train", "val"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return organized


def test_a_right_tree_is_told_by_name_and_adopted(
    foreign: Path, organized_once: Path, packed: Path, here: Run
) -> None:
    before = tree(foreign)
    words = ["verify", "--root", foreign, "--dataset", packed]
    done = here(*words)
    assert done.returncode == 0
    assert done.stdout == (
        "train: packed by its names, 60 images in 5 class folders, no manifest\n"
        "val: packed by its names, 20 images in 5 class folders, no manifest\n"
        "0 findings in all splits (counts, names, end markers)\n"
    )
    assert tree(foreign) == before
    assert here("adopt", foreign, "--dataset", packed).returncode == 0
    verified = here("verify", "--root", foreign, "--digests")
    assert "0 findings in all splits (counts, names, sizes, digests)" in verified.stdout
    proof = json.loads((foreign / "receipt.json").read_text())["splits"]["train"]["proof"]
    assert proof["kind"] == "none" and "adopted" in proof["why"]
    organized = here("organize", "--root", foreign, "--json").stdout
    assert organized == here("organize", "--root", organized_once, "--json").stdout
    assert here("adopt", foreign).returncode == 0  # nothing to do
    assert {name: body for name, body in tree(foreign).items() if name in before} == before


def test_a_result_that_cannot_be_kept_is_told_and_kept_by_the_next_run(
    foreign: Path, packed: Path, here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace

    def refuse(path: Path, target: Path) -> Path:
        if Path(target).name == "receipt.json" and json.loads(path.read_text())["verified"]:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        return replace(path, target)

    words = ["adopt", foreign, "--dataset", packed]
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refuse)
        done = here(*words)
    assert done.returncode == 1 and "does not keep the result" in done.stderr
    assert here(*words).returncode == 0
    verified = json.loads((foreign / "receipt.json").read_text())["verified"]
    assert {*verified} == {"train", "val"}


def test_what_is_adopted_can_be_looked_at(tmp_path: Path, real_data: Path, here: Run) -> None:
    toml = DATASETS / "tiny10.toml"
    words = ["--root", tmp_path, "--dataset", toml, "--split", "val"]
    assert here("organize", *words, "--archives", real_data / "tiny10").returncode == 0
    (tmp_path / "manifest.db").unlink()
    assert here("adopt", tmp_path, *words[2:]).returncode == 0
    words = ["--root", tmp_path, "--split", "val", "--classes", "2"]
    sheet = here("inspect", *words, "--out", tmp_path / "sheet.png")
    assert sheet.returncode == 0, sheet.stderr


def test_a_tree_with_a_finding_is_not_adopted(foreign: Path, packed: Path, here: Run) -> None:
    path = min((foreign / "train" / WNID).iterdir())
    path.write_bytes(path.read_bytes()[:-10])
    done = here("adopt", foreign, "--dataset", packed)
    assert done.returncode == 5
    assert f"decode: train/{WNID}/{path.name} does not decode" in done.stdout
    assert not (foreign / "manifest.db").exists()
    assert (here("adopt", foreign, "--dataset", packed, "--split", "val")).returncode == 0
    assert here("verify", "--root", foreign, "--split", "val", "--digests").returncode == 0


def test_a_split_that_the_manifest_does_not_list_is_judged_by_its_names(
    organized: Path, foreign: Path, packed: Path, here: Run
) -> None:
    words = ["--root", foreign, "--dataset", packed]
    assert here("adopt", foreign, *words[2:], "--split", "val").returncode == 0
    min((foreign / "train" / WNID).iterdir()).rename(foreign / "train" / OTHER / f"{WNID}_x.JPEG")
    done = here("verify", "--root", foreign)
    assert done.returncode == 5
    assert f"extra: train/{OTHER}/{WNID}_x.JPEG is not of the dataset" in done.stdout
    assert "(counts, names, sizes, end markers)" in done.stdout


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (lambda label, _: label, "the label, from 0"),
        (lambda label, _: label + 1, "the label, from 1"),
        (lambda _, ilsvrc_id: ilsvrc_id, "the ilsvrc_id"),
        (lambda label, _: 7 * label, "neither the label nor the ilsvrc_id"),
    ],
)
def test_numbered_folders_say_which_number_it_is(
    number: "object", told: str, foreign: Path, packed: Path, here: Run
) -> None:
    rows = [line.split("\t") for line in (packed.parent / "synsets.tsv").read_text().splitlines()]
    for label, (wnid, ilsvrc_id, _) in enumerate(rows[1:]):
        place = foreign / "val" / str(number(label, int(ilsvrc_id)))  # type: ignore[operator]
        (foreign / "val" / wnid).rename(place)
    done = here("verify", "--root", foreign, "--dataset", packed, "--split", "val")
    assert done.returncode == 5
    assert f"numeric: val 5 class folders called by numbers: {told}" in done.stdout
    assert f"holds the images of {WNID}" in done.stdout
    assert done.stdout.count("\n") == 8  # what it is, 1 + 5 folders, the sum: no line an image


def test_labels_by_position_are_summed_up(foreign: Path, packed: Path, here: Run) -> None:
    paths = sorted((foreign / "val").rglob("*.JPEG"), key=lambda path: path.name)
    wnids = [path.parent.name for path in paths]
    for path, wnid in zip(paths, [*wnids[1:], wnids[0]], strict=True):
        path.rename(foreign / "val" / wnid / path.name)
    moved = sum(wnid != after for wnid, after in zip(wnids, [*wnids[1:], wnids[0]], strict=True))
    done = here("verify", "--root", foreign, "--dataset", packed)
    assert f"positional: val {moved} of 20 images lie in a wrong class folder" in done.stdout
    assert done.stdout.count("misplaced: ") == moved


@pytest.mark.parametrize("shape", ["folders of other names", "class folders in the root"])
def test_splits_in_other_places_are_found_and_put_right(
    shape: str, foreign: Path, packed: Path, here: Run
) -> None:
    before = tree(foreign)
    if shape == "folders of other names":
        (foreign / "train").rename(foreign / "training")
        (foreign / "val").rename(foreign / "ILSVRC2012_img_val")
        told = "misplaced: ILSVRC2012_img_val holds the val split of packed"
    else:
        for folder in list((foreign / "train").iterdir()):
            folder.rename(foreign / folder.name)
        (foreign / "train").rmdir()
        for path in list((foreign / "val").rglob("*.JPEG")):
            path.rename(foreign / path.name)
        shutil.rmtree(foreign / "val")
        told = f"misplaced: {WNID} holds the images of {WNID}"
    words = ["--root", foreign, "--dataset", packed]
    done = here("adopt", foreign, *words[2:])
    assert done.returncode == 5 and told in done.stdout, done.stdout
    mended = here("repair", *words)
    assert mended.returncode == 0, mended.stdout
    assert {n: b for n, b in tree(foreign).items() if n.startswith(("train/", "val/"))} == before
    assert here("adopt", foreign, *words[2:]).returncode == 0


def test_digests_without_a_manifest_are_not_pretended(
    foreign: Path, packed: Path, here: Run
) -> None:
    done = here("verify", "--root", foreign, "--dataset", packed, "--digests")
    assert done.returncode == 1
    assert "no manifest lists train" in done.stderr and "imnetprep adopt" in done.stderr


def test_a_root_of_another_dataset_is_not_adopted(organized: Path, here: Run) -> None:
    done = here("adopt", organized, "--dataset", "ilsvrc2012")
    assert done.returncode == 1
    assert "holds packed, not ilsvrc2012" in done.stderr


def test_an_unknown_tree_is_asked_for_its_dataset(foreign: Path, here: Run) -> None:
    done = here("verify", "--root", foreign)
    assert done.returncode == 1
    assert "of no built-in dataset" in done.stderr and "--dataset FILE.toml" in done.stderr


def test_a_part_of_ilsvrc2012_is_recognised_without_a_word(tmp_path: Path, here: Run) -> None:
    """Flat, as the archive unpacks, in a folder of any name."""
    (tmp_path / "images").mkdir()
    body = tmp_path / "body"
    body.write_bytes(b"\xff\xd8\xff\xd9")
    for number in range(1, 5_001):
        os.link(body, tmp_path / "images" / f"ILSVRC2012_val_{number:08}.JPEG")
    done = here("verify", "--root", tmp_path, "--split", "val")
    assert done.returncode == 5, done.stderr
    assert "val: ilsvrc2012 by its names, 5,000 images in 0 class folders" in done.stdout
    assert "misplaced: images holds the val split" in done.stdout
    assert "flat: images/ILSVRC2012_val_" in done.stdout and "5,000 images flat" in done.stdout


def test_adoption_is_whole_or_absent_and_goes_on(tmp_path: Path, here: Run) -> None:
    toml = pack_dataset(
        tmp_path, classes=40, train_per_class=40, val_per_class=0, image_bytes=20_000
    )
    root = tmp_path / "root"
    words = ["--root", root, "--dataset", toml, "--archives", tmp_path]
    assert here("organize", *words).returncode == 0
    for name in ("manifest.db", "receipt.json", ".organizing"):
        path = root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    adopt = ["adopt", root, "--dataset", toml]
    process = subprocess.Popen(command(*adopt), stdout=subprocess.DEVNULL)
    journal = root / ".organizing" / "journal.db"
    while process.poll() is None and not (journal.exists() and journal.stat().st_size > 60_000):
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -9, "it was over before the kill"
    assert not (root / "manifest.db").exists()
    done = here(*adopt)
    assert done.returncode == 0, done.stderr
    assert here("verify", "--root", root, "--digests").returncode == 0


def test_a_published_tree_that_moved_is_adopted_where_it_is_now(
    foreign: Path, packed: Path, tmp_path: Path, here: Run
) -> None:
    root = tmp_path / "mine"
    assert here("adopt", foreign, "--root", root, "--dataset", packed).returncode == 0
    moved = foreign.rename(tmp_path / "moved")
    image = min((moved / "train" / OTHER).iterdir())
    whole = image.read_bytes()
    image.write_bytes(whole[::-1])
    done = here("adopt", moved, "--root", root)
    assert done.returncode == 4
    assert f"train/{OTHER}/{image.name} is another image" in done.stderr
    assert not (root / "train").exists(), "the links lead where they led"
    image.write_bytes(whole)
    done = here("adopt", moved, "--root", root)
    assert done.returncode == 0, done.stdout + done.stderr
    assert here("verify", "--root", root, "--digests").returncode == 0
