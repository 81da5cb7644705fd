"""Archives become class folders in one pass, or are refused by name; nothing wrong gets a name."""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import DATASETS, Run, command, tree

TRAIN, VAL = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
Members = list[tuple[tarfile.TarInfo, bytes]]


def _untarred(archive: Path, folder: Path) -> dict[str, bytes]:
    """What GNU tar makes of a tar of tars."""
    outer = folder / "outer"
    outer.mkdir(parents=True)
    subprocess.run(["tar", "-xf", archive, "-C", outer], check=True)
    for inner in outer.iterdir():
        place = folder / "train" / inner.stem
        place.mkdir(parents=True)
        subprocess.run(["tar", "-xf", inner, "-C", place], check=True)
    return tree(folder / "train")


def test_the_tree_is_what_tar_unpacks(packed: Path, organized_once: Path, tmp_path: Path) -> None:
    assert tree(organized_once / "train") == _untarred(packed.parent / TRAIN, tmp_path)
    flat = tmp_path / "val"
    flat.mkdir()
    subprocess.run(["tar", "-xf", packed.parent / VAL, "-C", flat], check=True)
    ours = {Path(name).name: body for name, body in tree(organized_once / "val").items()}
    assert ours == tree(flat)


def test_the_receipt_says_from_what_and_proved_how(packed: Path, organized_once: Path) -> None:
    receipt = json.loads((organized_once / "receipt.json").read_text())
    train = receipt["splits"]["train"]
    assert train["archive"] == TRAIN
    assert train["proof"]["kind"] == "md5"
    assert train["proof"]["digest"] in packed.read_text()
    assert (train["samples"], receipt["splits"]["val"]["samples"]) == (60, 20)


def test_a_finished_root_is_left_alone_even_without_archives(organized: Path, run: Run) -> None:
    before = tree(organized)
    done = run("organize", "--root", organized, "--json")
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["samples"] for line in done.stdout.splitlines()] == [60, 20]
    assert tree(organized) == before


def test_real_photographs_come_out_as_tar_has_them(
    real_data: Path, tmp_path: Path, run: Run
) -> None:
    words = ["--root", tmp_path / "root", "--dataset", DATASETS / "sample1000.toml"]
    done = run("organize", *words, "--archives", real_data / "sample1000")
    assert done.returncode == 0, done.stderr
    ours = tree(tmp_path / "root" / "train")
    assert len({Path(name).parent for name in ours}) == len(ours) == 1000
    assert ours == _untarred(real_data / "sample1000" / TRAIN, tmp_path / "tar")
    verified = run("verify", "--root", tmp_path / "root", "--digests", "--decode")
    assert verified.returncode == 0, verified.stdout


def test_tiny10_taken_for_ilsvrc2012_is_refused(real_data: Path, tmp_path: Path, run: Run) -> None:
    done = run("organize", "--root", tmp_path, "--archives", real_data / "tiny10")
    assert done.returncode == 4
    assert "ilsvrc2012 has 147,897,477,120" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_another_dataset_than_the_roots_is_refused(organized: Path, run: Run) -> None:
    done = run("organize", "--root", organized, "--dataset", "ilsvrc2012")
    assert done.returncode == 1
    assert "holds packed, not ilsvrc2012" in done.stderr


def _repack(archive: Path, change: Callable[[Members], Members]) -> None:
    with tarfile.open(archive) as tar:
        contents = [(info, tar.extractfile(info).read()) for info in tar]  # type: ignore[union-attr]
    with tarfile.open(archive, "w", format=tarfile.USTAR_FORMAT) as tar:
        for info, body in change(contents):
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))


def _in_first_class(change: Callable[[Members], Members]) -> Callable[[Members], Members]:
    def change_outer(contents: Members) -> Members:
        file = Path(os.environ["TMP_INNER"])
        file.write_bytes(contents[0][1])
        _repack(file, change)
        return [(contents[0][0], file.read_bytes()), *contents[1:]]

    return change_outer


def _renamed(name: str) -> Callable[[Members], Members]:
    def change(contents: Members) -> Members:
        contents[0][0].name = name
        return contents

    return change


def _linked(contents: Members) -> Members:
    contents[0][0].type, contents[0][0].linkname = tarfile.SYMTYPE, "/etc/passwd"
    return [(contents[0][0], b""), *contents[1:]]


@pytest.mark.parametrize(
    ("archive", "change", "told"),
    [
        (TRAIN, _in_first_class(_renamed("../n01440764_1.JPEG")), "would leave its folder"),
        (TRAIN, _in_first_class(_renamed("n01443537_1.JPEG")), "'n01443537_1.JPEG'"),
        (TRAIN, _in_first_class(_renamed("n01440764_x.JPEG")), "'n01440764_x.JPEG'"),
        (TRAIN, _in_first_class(_linked), "is a link"),
        (TRAIN, _in_first_class(lambda all_: all_[1:]), "n01440764 has 11 images, not 12"),
        (TRAIN, _in_first_class(lambda all_: [*all_, all_[0]]), "a second time"),
        (TRAIN, _renamed("n15075141.tar"), "'n15075141.tar', which packed does not have"),
        (TRAIN, lambda all_: [*all_, all_[0]], "'n01440764.tar', a second time"),
        (TRAIN, lambda all_: all_[1:], "n01440764 has 0 images, not 12"),
        (VAL, _renamed("ILSVRC2012_val_00009999.JPEG"), "ILSVRC2012_val_00009999.JPEG"),
        (VAL, lambda all_: all_[1:], "images, not 4"),
        (VAL, lambda all_: [*all_, all_[0]], "a second time"),
    ],
)
def test_an_archive_that_is_not_the_datasets_is_refused_by_name(
    archive: str,
    change: Callable[[Members], Members],
    told: str,
    packed: Path,
    tmp_path: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TMP_INNER", str(tmp_path / "inner.tar"))
    folder = Path(shutil.copytree(packed.parent, tmp_path / "archives"))
    _repack(folder / archive, change)
    toml = folder / packed.name
    lines = toml.read_text().splitlines()  # a dataset without digests: names and counts must do
    toml.write_text("\n".join(x for x in lines if not x.startswith(("md5", "size_bytes"))))
    split = "train" if archive == TRAIN else "val"
    words = ["--root", tmp_path / "root", "--dataset", toml, "--archives", folder]
    done = run("organize", *words, "--split", split)
    assert done.returncode == 4, done.stderr
    assert told in done.stderr
    assert done.stderr.count("\n") == 2, "one error, one hint"
    assert not (tmp_path / "root" / split).exists()
    assert not (tmp_path / "n01440764_1.JPEG").exists()


def test_a_truncated_archive_is_refused(packed: Path, tmp_path: Path, run: Run) -> None:
    folder = Path(shutil.copytree(packed.parent, tmp_path / "archives"))
    with (folder / TRAIN).open("r+b") as file:
        file.truncate(file.seek(0, os.SEEK_END) // 2)
    words = ["--root", tmp_path / "root", "--dataset", folder / packed.name, "--archives", folder]
    done = run("organize", *words)
    assert done.returncode == 4
    assert "bytes; packed has" in done.stderr
    toml = folder / packed.name
    toml.write_text("\n".join(x for x in toml.read_text().splitlines() if "size_bytes" not in x))
    done = run("organize", *words)
    assert done.returncode == 4
    assert "is truncated" in done.stderr
    assert not (tmp_path / "root" / "train").exists()


def test_a_flipped_bit_is_refused_and_nothing_is_kept(
    packed: Path, tmp_path: Path, run: Run
) -> None:
    folder = Path(shutil.copytree(packed.parent, tmp_path / "archives"))
    with (folder / TRAIN).open("r+b") as file:
        file.seek(2000)
        byte = file.read(1)[0]
        file.seek(2000)
        file.write(bytes([byte ^ 1]))
    words = ["--root", tmp_path / "root", "--dataset", folder / packed.name, "--archives", folder]
    done = run("organize", *words)
    assert done.returncode == 4
    assert "md5 is" in done.stderr
    assert not (tmp_path / "root" / "train").exists()
    assert not (tmp_path / "root" / ".organizing" / "train").exists()
    shutil.copy(packed.parent / TRAIN, folder / TRAIN)
    assert run("organize", *words).returncode == 0


def test_space_that_was_reserved_and_not_filled_is_refused(
    packed: Path, tmp_path: Path, run: Run
) -> None:
    folder = Path(shutil.copytree(packed.parent, tmp_path / "archives"))
    (folder / VAL).write_bytes(bytes((folder / VAL).stat().st_size))
    words = ["--root", tmp_path / "root", "--dataset", folder / packed.name, "--archives", folder]
    done = run("organize", *words, "--split", "val")
    assert done.returncode == 4, done.stderr
    assert "has no member at its start" in done.stderr


def test_an_archive_fetched_again_with_the_same_time_starts_over(
    packed: Path, tmp_path: Path, run: Run
) -> None:
    """A wrong archive leaves right classes and wrong ones behind; the right one uses neither."""
    folder = Path(shutil.copytree(packed.parent, tmp_path / "archives"))
    archive, right = folder / TRAIN, (folder / TRAIN).read_bytes()
    times = (archive.stat().st_atime_ns, archive.stat().st_mtime_ns)
    wrong = bytearray(right)
    wrong[2000] ^= 1  # a bit of the first class's first image
    wrong[len(right) * 3 // 4 : len(right) * 3 // 4 + 2048] = b"x" * 2048
    archive.write_bytes(wrong)
    os.utime(archive, ns=times)
    words = ["--root", tmp_path / "root", "--dataset", folder / packed.name, "--archives", folder]
    assert run("organize", *words).returncode == 4
    archive.unlink()
    archive.write_bytes(right)
    os.utime(archive, ns=times)
    done = run("organize", *words)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "root" / "train") == _untarred(archive, tmp_path / "tar")


def test_what_grew_as_another_dataset_is_dropped(packed: Path, tmp_path: Path, run: Run) -> None:
    folder = Path(shutil.copytree(packed.parent, tmp_path / "archives"))
    toml, root = folder / packed.name, tmp_path / "root"
    (names,) = folder.glob("*train_names*")
    right, definition = names.read_text(), toml.read_text()
    names.write_text(right.rstrip() + " 1\n")  # the last class lacks one, the others are right
    toml.write_text(definition.replace("samples = 60", "samples = 61"))
    words = ["--root", root, "--dataset", toml, "--archives", folder]
    assert run("organize", *words).returncode == 4
    (root / "manifest.db").unlink()
    names.write_text(right)
    toml.write_text(definition)
    done = run("organize", *words)
    assert done.returncode == 0, done.stderr
    assert run("verify", "--root", root, "--digests").returncode == 0


def test_a_damaged_journal_is_told(packed: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / ".organizing").mkdir()
    (tmp_path / ".organizing" / "journal.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 4096)
    words = ["--dataset", packed, "--archives", packed.parent]
    done = run("organize", "--root", tmp_path, *words)
    assert done.returncode == 1
    assert "is damaged" in done.stderr and "Hint: rm -r " in done.stderr


def test_a_folder_that_is_in_the_way_is_not_touched(packed: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "train" / "mine").mkdir(parents=True)
    words = ["--dataset", packed, "--archives", packed.parent]
    done = run("organize", "--root", tmp_path, *words)
    assert done.returncode == 1
    assert "knows nothing of it" in done.stderr and "Hint: mv " in done.stderr
    assert (tmp_path / "train" / "mine").is_dir()


def test_dry_run_touches_nothing(packed: Path, tmp_path: Path, run: Run) -> None:
    words = ["--dataset", packed, "--archives", packed.parent, "--dry-run"]
    done = run("organize", "--root", tmp_path / "root", *words)
    assert done.returncode == 0, done.stderr
    assert "needs" in done.stdout
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("layout", ["imagefolder", "webdataset"])
def test_dry_run_leaves_an_empty_journal_empty(
    packed: Path, tmp_path: Path, run: Run, layout: str
) -> None:
    journal = tmp_path / ".organizing" / "journal.db"
    journal.parent.mkdir()
    journal.touch()
    words = ["--root", tmp_path, "--dataset", packed, "--archives", packed.parent]
    done = run("organize", *words, "--layout", layout, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert [*journal.parent.iterdir()] == [journal]
    assert journal.stat().st_size == 0


def test_the_test_split_is_told_what_can_be_done(tmp_path: Path, run: Run) -> None:
    done = run("organize", "--root", tmp_path, "--split", "test")
    assert done.returncode == 1
    assert "has no labels" in done.stderr and "unpack its archive with tar" in done.stderr


def test_a_split_whose_folder_was_removed_is_made_again(
    packed: Path, organized: Path, run: Run
) -> None:
    before = tree(organized / "val")
    shutil.rmtree(organized / "val")
    assert run("organize", "--root", organized, "--archives", packed.parent).returncode == 0
    assert tree(organized / "val") == before
    assert run("verify", "--root", organized, "--digests").returncode == 0


@pytest.mark.slow
def test_peak_memory_stays_under_300_mb(tmp_path: Path) -> None:
    from imnetprep.synthetic import pack_dataset

    toml = pack_dataset(
        tmp_path, classes=20, train_per_class=400, val_per_class=0, image_bytes=60_000
    )
    words = ["--root", tmp_path / "root", "--dataset", toml, "--archives", tmp_path]
    # From a small process: a child's peak counts the memory of whoever forked it.
    code = (
        "import os, subprocess, sys; process = subprocess.Popen(sys.argv[1:], stdout=sys.stderr);"
        "_, status, usage = os.wait4(process.pid, 0); print(status, usage.ru_maxrss)"
    )
    script = [sys.executable, "-c", code, *command("organize", *words, "--jobs", 8)]
    status, peak_kb = subprocess.check_output(script, text=True).split()
    assert status == "0"
    assert int(peak_kb) < 300_000
