"""A folder of images by class becomes train and val; an image's split is its own."""

import json
import os
import shutil
from pathlib import Path

import pytest

from imnetprep.catalog.datasets import Root
from imnetprep.divide import plan_divide
from imnetprep.messages import Silent
from imnetprep.own_images.folder import read_class_folders
from imnetprep.own_images.labels import read_labelled
from tests.conftest import Run, tree
from tests.packings import openable

BIG = "Пёс, (big)"
CLASSES = {"cat": 40, "hot dog": 24, BIG: 2}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Images by class: the same names in each, one that says its class, hidden files beside."""
    folder = tmp_path / "my photos"
    for wnid, images in CLASSES.items():
        (folder / wnid).mkdir(parents=True)
        for at in range(images):
            name = f"{wnid}_{at}.PNG" if at == 1 else f"img {at:03}.jpg"
            (folder / wnid / name).write_bytes(openable(f"{wnid} {at}"))
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "cat" / "._img 001.jpg").write_bytes(b"x")
    return folder


def _words(photos: Path, root: Path, *more: object) -> list[object]:
    return ["divide", photos, "--root", root, "--val-fraction", "0.25", *more]


def _split_of(root: Path) -> dict[str, str]:
    """The split of each image, by its class and name."""
    return {name: split for split in ("train", "val") for name in tree(root / split)}


def test_every_image_is_in_one_split_and_every_class_in_both(
    photos: Path, tmp_path: Path, here: Run
) -> None:
    root = tmp_path / "root"
    done = here(*_words(photos, root))
    assert done.returncode == 0, done.stderr
    train, val = tree(root / "train"), tree(root / "val")
    bodies = sorted([*train.values(), *val.values()])
    assert bodies == sorted(
        openable(f"{wnid} {at}") for wnid in CLASSES for at in range(CLASSES[wnid])
    )
    assert {Path(name).parts[0] for name in val} == set(CLASSES)
    assert 4 <= sum(name.startswith("cat/") for name in val) <= 16
    assert ({**train, **val})["cat/img 000.jpg"] == openable("cat 0")
    linked = next(iter((root / "train" / "hot dog").iterdir()))
    assert linked.stat().st_nlink == 2
    assert here("verify", "--root", root, "--digests").returncode == 0
    receipt = json.loads((root / "receipt.json").read_text())
    assert receipt["splits"]["val"]["source"] == str(photos)


@pytest.mark.parametrize("copy", [False, True])
def test_links_take_no_room_and_no_files_but_their_folders(
    copy: bool, photos: Path, tmp_path: Path
) -> None:
    root = Root(tmp_path / "root")
    content = read_labelled(photos, rule=None, table=None, columns=None)
    plan = plan_divide(root, content, val_fraction=0.25, seed=0, copy=copy, jobs=1)
    needs = plan.needs
    folders, images = 2 * (1 + len(CLASSES)), sum(CLASSES.values())
    assert needs.files == folders + images * copy
    assert (needs.disk_bytes > 0) == copy


def test_images_that_are_added_move_no_other(photos: Path, tmp_path: Path, here: Run) -> None:
    assert here(*_words(photos, tmp_path / "one")).returncode == 0
    for at in range(100, 160):
        (photos / "cat" / f"img {at}.jpg").write_bytes(openable(str(at)))
        (photos / "hot dog" / f"a{at}.jpg").write_bytes(openable(str(at)))
    shutil.copytree(photos / "hot dog", photos / "ant")
    assert here(*_words(photos, tmp_path / "two")).returncode == 0
    before, after = _split_of(tmp_path / "one"), _split_of(tmp_path / "two")
    assert len(after) > len(before) + 100
    assert before.items() <= after.items()


def test_the_seed_decides_and_the_same_seed_decides_the_same(
    photos: Path, tmp_path: Path, here: Run
) -> None:
    for root, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert here(*_words(photos, tmp_path / root, "--seed", seed)).returncode == 0
    assert _split_of(tmp_path / "a") == _split_of(tmp_path / "b") != _split_of(tmp_path / "c")
    done = here(*_words(photos, tmp_path / "a", "--seed", "1"))
    assert done.returncode == 1
    assert "holds another dataset called my-photos" in done.stderr


def test_copies_are_files_of_their_own_and_a_killed_run_goes_on(
    photos: Path, tmp_path: Path, here: Run
) -> None:
    root = tmp_path / "root"
    lost = photos / BIG / "img 000.jpg"
    assert here(*_words(photos, tmp_path / "links")).returncode == 0
    lost.chmod(0)
    if os.access(lost, os.R_OK):  # root reads everything
        lost.unlink()
        lost.symlink_to("nowhere")
    assert here(*_words(photos, root)).returncode != 0
    lost.unlink()
    lost.write_bytes(openable(f"{BIG} 0"))
    done = here(*_words(photos, root, "--copy"))
    assert done.returncode == 0, done.stderr
    assert {path.stat().st_nlink for path in (root / "train").glob("*/*")} == {1}
    assert tree(root / "train") == tree(tmp_path / "links" / "train")
    assert (photos / "cat" / "img 000.jpg").read_bytes() == openable("cat 0")


def test_a_finished_root_is_left_alone_and_other_verbs_know_it(
    photos: Path, tmp_path: Path, here: Run
) -> None:
    root = tmp_path / "root"
    assert here(*_words(photos, root)).returncode == 0
    before = tree(root / "train")
    assert here(*_words(photos, root)).returncode == 0
    assert tree(root / "train") == before
    (tmp_path / "list.txt").write_text("cat\nПёс, (big)\n")
    done = here("subset", tmp_path / "list.txt", "--root", root, "--to", tmp_path / "part")
    assert done.returncode == 0, done.stderr
    assert here("verify", "--root", tmp_path / "part", "--digests").returncode == 0


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("cat/notes.txt", "is no image by its name"),
        ("flat.jpg", "is in no class folder"),
        ("cat/inner/0.jpg", "is a folder in a class folder"),
    ],
)
def test_what_is_no_image_of_a_class_is_told(
    path: str, told: str, photos: Path, tmp_path: Path, here: Run
) -> None:
    (photos / path).parent.mkdir(parents=True, exist_ok=True)
    (photos / path).write_bytes(openable("x"))
    done = here(*_words(photos, tmp_path / "root"))
    assert done.returncode == 1, done.stderr
    assert told in done.stderr
    assert not (tmp_path / "root").exists()


def test_what_makes_no_sense_with_it_is_wrong_usage(
    photos: Path, tmp_path: Path, here: Run
) -> None:
    for more in (["--split", "val"], ["--dataset", "imagenette"], ["--consume"]):
        assert here(*_words(photos, tmp_path / "root", *more)).returncode == 2
    assert here("organize", "--root", tmp_path / "root", "--copy").returncode == 2


def test_a_root_of_links_is_told_before_copies_are_made(
    photos: Path, tmp_path: Path, here: Run
) -> None:
    root = tmp_path / "root"
    assert here(*_words(photos, root)).returncode == 0
    done = here(*_words(photos, root, "--copy"))
    assert done.returncode == 1
    assert f"{root / 'val'} hold hard links already, and no copies" in done.stderr
    for split in ("train", "val"):
        assert f"mv {root / split} {root / split}.old; " in done.stderr
        (root / split).rename(root / f"{split}.old")
    assert here(*_words(photos, root, "--copy")).returncode == 0
    assert {path.stat().st_nlink for path in (root / "train").glob("*/*")} == {1}
    assert here("verify", "--root", root, "--digests").returncode == 0


def test_an_interrupted_division_takes_the_images_as_they_are_now(
    photos: Path, tmp_path: Path, here: Run
) -> None:
    root, content = Root(tmp_path / "root"), read_class_folders(photos)
    plan = plan_divide(root, content, val_fraction=0.25, seed=0, copy=True, jobs=1)
    (photos / "hot dog" / "img 005.jpg").unlink()
    with pytest.raises(OSError, match=r"img 005\.jpg"):
        list(plan.carry_out(Silent()))
    assert root.manifest.exists(), "it is bound to the images of before"
    (photos / "cat" / "img 999.jpg").write_bytes(openable("new"))
    assert here(*_words(photos, root.path)).returncode == 0
    assert {name.split("/")[0]: 0 for name in _split_of(root.path)} == dict.fromkeys(CLASSES, 0)
    assert tree(photos).keys() & _split_of(root.path).keys() == _split_of(root.path).keys()
    assert "cat/img 999.jpg" in _split_of(root.path)
    assert here("verify", "--root", root.path, "--digests").returncode == 0


def test_what_is_organized_already_is_said_to_be_unread(
    photos: Path, tmp_path: Path, here: Run
) -> None:
    root = tmp_path / "root"
    assert "organized already" not in here(*_words(photos, root)).stderr
    done = here("organize", "--root", root)
    assert "train and val: organized already, and not looked at; " in done.stderr
    assert f"imnetprep verify --root {root} looks at the images" in done.stderr
