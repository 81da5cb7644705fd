"""One answer to "are these the root's own archives?", under whatever path they are named."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from imnetprep.catalog.datasets import Root
from imnetprep.proving.archive_at import home_of
from tests.conftest import Run, tree

TRAIN = "ILSVRC2012_img_train.tar"
PATHS = ("absolute", "relative", "linked", "with ..")


@pytest.fixture(params=PATHS)
def named(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Path], str]:
    """Names ROOT/archives in one of four ways."""

    def name(archives: Path) -> str:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "link").symlink_to(archives)
        return {
            "absolute": str(archives),
            "relative": os.path.relpath(archives, tmp_path),
            "linked": str(tmp_path / "link"),
            "with ..": str(archives / ".." / "archives"),
        }[request.param]

    return name


def _root(packed: Path, tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "archives").mkdir(parents=True)
    shutil.copy(packed.parent / TRAIN, root / "archives")
    return root


def test_whose_archives_they_are(named: Callable[[Path], str], tmp_path: Path) -> None:
    root = Root(tmp_path / "root")
    root.archives.mkdir(parents=True)
    other = Root(tmp_path / "other")
    name = named(root.archives)
    assert home_of(name, root) is root
    home = home_of(name, other)
    assert home is not None
    assert home.path.resolve() == root.path.resolve()


def test_a_folder_of_no_root_a_pipe_and_a_bucket_have_no_home(tmp_path: Path) -> None:
    root = Root(tmp_path / "root")
    for place in (tmp_path, "-", "s3://bucket/archives", "https://example.org/archives"):
        assert home_of(place, root) is None


def test_archives_on_another_disk_are_at_home_by_both_names(tmp_path: Path) -> None:
    root, disk = Root(tmp_path / "root"), tmp_path / "disk"
    disk.mkdir()
    root.path.mkdir()
    root.archives.symlink_to(disk)
    assert home_of(root.archives, root) is root
    assert home_of(disk, root) is root


def test_organize_records_what_proved_the_archive(
    packed: Path, tmp_path: Path, named: Callable[[Path], str], here: Run
) -> None:
    root = _root(packed, tmp_path)
    words = ["--root", root, "--dataset", packed, "--split", "train"]
    done = here("organize", *words, "--archives", named(root / "archives"))
    assert done.returncode == 0, done.stderr
    receipt = json.loads((root / "receipt.json").read_text())
    assert receipt["archives"][TRAIN]["proof"]["kind"] == "md5"


def test_a_proved_archive_is_consumed(
    packed: Path, tmp_path: Path, named: Callable[[Path], str], here: Run
) -> None:
    root = _root(packed, tmp_path)
    archives = named(root / "archives")
    words = ["--root", root, "--dataset", packed, "--split", "train", "--archives", archives]
    done = here("verify-archives", *words)
    assert done.returncode == 0, done.stderr
    done = here("organize", *words, "--consume")
    assert done.returncode == 0, done.stderr
    assert list((root / "archives").iterdir()) == []
    assert tree(root / "train")


def test_repair_knows_what_proved_the_archive(
    packed: Path, tmp_path: Path, named: Callable[[Path], str], here: Run
) -> None:
    root = _root(packed, tmp_path)
    words = ["--root", root, "--split", "train"]
    done = here("organize", *words, "--dataset", packed)
    assert done.returncode == 0, done.stderr
    min((root / "train").glob("*/*")).unlink()
    done = here("repair", *words, "--from", named(root / "archives"))
    assert done.returncode == 0, done.stderr
    assert "the archive's receipt" in done.stdout


def test_an_address_of_no_known_scheme_is_refused(packed: Path, tmp_path: Path, here: Run) -> None:
    words = ["--root", tmp_path / "root", "--dataset", packed, "--split", "train"]
    organize = ["organize", *words, "--archives"]
    for _ in range(2):
        done = here(*organize, "ftp://bucket/imagenet")
        assert (done.returncode, "ftp://… is no source of archives" in done.stderr) == (2, True)
        assert here(*organize, packed.parent).returncode == 0
    done = here("repair", *words[:2], "--from", "ftp://bucket/imagenet")
    assert (done.returncode, "ftp://… is no source of archives" in done.stderr) == (2, True)
