"""Any usual tree of one's own becomes a root by one command, and what is no dataset never does."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from imnetprep.catalog.datasets import load_dataset
from imnetprep.manifest import open_manifest
from tests.conftest import Run, tree


def _image(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (24, 24), (shade * 40 % 256, 90, 200)).save(path)


def _photos(folder: Path, **classes: int) -> Path:
    """So many images 0000.jpg, 0001.jpg … for each class."""
    for at, (wnid, images) in enumerate(classes.items()):
        for number in range(images):
            _image(folder / wnid.replace("__", " ") / f"{number:04}.jpg", at + number)
    return folder


def _labels(root: Path, split: str) -> dict[str, int]:
    """How many images the manifest lists of each class."""
    with open_manifest(root / "manifest.db") as manifest:
        wnids = [synset.wnid for synset in manifest.synsets()]
        (record,) = (each for (name, _), each in manifest.splits().items() if name == split)
        return {wnids[label]: images for label, images in manifest.counts(record).items()}


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("train", "val"), {"train", "val"}),
        (("Training", "valid"), {"train", "val"}),
        (("train", "validation"), {"train", "val"}),
        (("train", "test"), {"train", "val"}),
        (("train",), {"train"}),
    ],
)
def test_a_tree_of_splits_is_adopted_where_it_lies(
    names: tuple[str, ...], splits: set[str], tmp_path: Path, here: Run
) -> None:
    for at, name in enumerate(names):
        _photos(tmp_path / "mine" / name, golden__retriever=4 - at, 狗=3)
    before = tree(tmp_path / "mine")
    done = here("adopt", tmp_path / "mine")
    assert done.returncode == 0, done.stderr
    assert "train: 2 classes: golden retriever 4, 狗 3" in done.stdout
    assert {split for split in ("train", "val") if (tmp_path / "mine" / split).is_dir()} == splits
    assert before.items() <= tree(tmp_path / "mine").items()
    assert _labels(tmp_path / "mine", "train") == {"golden retriever": 4, "狗": 3}
    assert here("verify", "--root", tmp_path / "mine", "--digests", "--decode").returncode == 0
    again = here("adopt", tmp_path / "mine")
    assert again.returncode == 0, again.stderr
    assert here("organize", "--root", tmp_path / "mine", "--layout", "webdataset").returncode == 0


def test_a_folder_that_is_not_to_be_written_becomes_links(tmp_path: Path, here: Run) -> None:
    theirs = tmp_path / "theirs"
    _photos(theirs / "train", cat=3, dog=3)
    _photos(theirs / "valid", cat=2, dog=2)
    before = tree(theirs)
    done = here("adopt", theirs, "--root", tmp_path / "mine")
    assert done.returncode == 0, done.stderr
    assert tree(theirs) == before
    assert (tmp_path / "mine" / "val").is_symlink()
    assert here("verify", "--root", tmp_path / "mine", "--digests").returncode == 0
    assert here("adopt", theirs, "--root", tmp_path / "mine").returncode == 0


def test_what_was_added_is_told_and_nothing_is_misread(tmp_path: Path, here: Run) -> None:
    _photos(tmp_path / "mine" / "train", cat=3, dog=3)
    assert here("adopt", tmp_path / "mine").returncode == 0
    _image(tmp_path / "mine" / "train" / "dog" / "new.jpg", 3)
    done = here("adopt", tmp_path / "mine")
    assert done.returncode == 1
    assert "1 train image more (dog/new.jpg)" in done.stderr
    assert "extra: train/dog/new.jpg" in here("verify", "--root", tmp_path / "mine").stdout


def test_litter_is_passed_over_and_counted(tmp_path: Path, here: Run) -> None:
    _photos(tmp_path / "mine" / "train", cat=2, dog=2)
    for name in ("Thumbs.db", ".DS_Store", "desktop.ini", "._0000.jpg"):
        (tmp_path / "mine" / "train" / "cat" / name).write_bytes(b"x")
    (tmp_path / "mine" / "train" / "@eaDir").mkdir()
    (tmp_path / "mine" / "README.txt").write_bytes(b"x")
    done = here("adopt", tmp_path / "mine")
    assert done.returncode == 0, done.stderr
    assert "passed over, since no images: 6 files" in done.stderr
    assert here("verify", "--root", tmp_path / "mine").returncode == 0


def test_all_that_is_wrong_is_named_at_once_and_left_out_when_asked(
    tmp_path: Path, here: Run
) -> None:
    folder = _photos(tmp_path / "mine" / "train", cat=4, dog=4)
    (folder / "cat" / "0001.jpg").write_bytes(b"")
    whole = (folder / "dog" / "0002.jpg").read_bytes()
    (folder / "dog" / "0002.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "dog" / "0003.jpg").write_bytes(b"<html>not found</html>")
    done = here("adopt", tmp_path / "mine")
    assert done.returncode == 1 and not (tmp_path / "mine" / "manifest.db").exists()
    for name in ("cat/0001.jpg is empty", "dog/0002.jpg does not decode", "dog/0003.jpg is a"):
        assert name in done.stderr, done.stderr
    (folder / "dog" / "notes.txt").write_bytes(b"x")
    done = here("adopt", tmp_path / "mine")
    assert done.returncode == 1 and "dog/notes.txt is no image by its name" in done.stderr
    done = here("adopt", tmp_path / "mine", "--skip-bad")
    assert done.returncode == 0, done.stderr
    assert _labels(tmp_path / "mine", "train") == {"cat": 3, "dog": 2}
    receipt = json.loads((tmp_path / "mine" / "receipt.json").read_text())
    assert sorted(receipt["splits"]["train"]["skipped"]) == [
        "cat/0001.jpg", "dog/0002.jpg", "dog/0003.jpg", "dog/notes.txt"]  # fmt: skip
    assert here("verify", "--root", tmp_path / "mine", "--digests").returncode == 0
    assert here("adopt", tmp_path / "mine", "--skip-bad").returncode == 0


def _classes(folder: Path) -> None:
    _photos(folder, cat=2, dog=2)


def _flat(folder: Path) -> None:
    for number in range(3):
        _image(folder / f"cat.{number}.jpg", number)


def _flat_splits(folder: Path) -> None:
    _flat(folder / "train")
    _flat(folder / "test1")


def _wrapped(folder: Path) -> None:
    _photos(folder / "pets-v2" / "train", cat=2, dog=2)


def _deep(folder: Path) -> None:
    _photos(folder / "train" / "animals", cat=2, dog=2)


def _one_class(folder: Path) -> None:
    _photos(folder / "train", cat=2)


def _strange_val(folder: Path) -> None:
    _photos(folder / "train", cat=2, dog=2)
    _photos(folder / "val", cat=2, fox=2)


def _nothing(folder: Path) -> None:
    (folder / "train").mkdir(parents=True)


@pytest.mark.parametrize(
    ("lay", "sentence", "hint"),
    [
        (_classes, "folders of classes, and no train or val", "imnetprep divide FOLDER"),
        (_flat, "3 images in no class folder", "imnetprep divide FOLDER --label-from name"),
        (
            _flat_splits,
            "FOLDER/train holds 3 images in no",
            "divide FOLDER/train --label-from name",
        ),
        (
            _wrapped,
            "4 images 3 folders deep, as in FOLDER/pets-v2",
            "imnetprep adopt FOLDER/pets-v2",
        ),
        (_deep, "4 images 2 folders deep, as in FOLDER/train/animals/cat", "name the folder"),
        (_one_class, "are of one class, 'cat'", "--one-class"),
        (_strange_val, "val/fox is a class of 2 images that train has not", "--skip-bad"),
        (_nothing, "holds no images", "train/CLASS/"),
    ],
)
def test_what_is_no_dataset_is_refused_and_says_what_it_is(
    lay: Callable[[Path], None], sentence: str, hint: str, tmp_path: Path, here: Run
) -> None:
    folder = tmp_path / "given"
    lay(folder)
    before = tree(folder)
    done = here("adopt", folder)
    assert done.returncode == 1, done.stdout
    told = done.stderr.replace(str(folder), "FOLDER")
    assert sentence in told and hint in told
    assert tree(folder) == before


def _as_tiny_imagenet_unpacks(folder: Path) -> None:
    """train/WNID/images/, WNID_boxes.txt, val/images/ and a table of their classes."""
    lines = []
    for at, wnid in enumerate(("n01443537", "n01629819")):
        for number in range(3):
            _image(folder / "train" / wnid / "images" / f"{wnid}_{number}.JPEG", at + number)
            _image(folder / "val" / "images" / f"val_{3 * at + number}.JPEG", at + number)
            lines.append(f"val_{3 * at + number}.JPEG\t{wnid}\t0\t0\t62\t62\n")
        (folder / "train" / wnid / f"{wnid}_boxes.txt").write_text("")
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    (folder / "test" / "images").mkdir(parents=True)
    _image(folder / "test" / "images" / "test_0.JPEG", 9)


def test_a_tree_as_tiny_imagenet_unpacks_becomes_a_root_of_links(tmp_path: Path, here: Run) -> None:
    theirs, root = tmp_path / "tiny-imagenet-200", tmp_path / "root"
    _as_tiny_imagenet_unpacks(theirs)
    before = tree(theirs)
    done = here("adopt", theirs)
    assert done.returncode == 1
    assert f"imnetprep adopt {theirs} --root NEW makes a root of links" in done.stderr
    done = here("adopt", theirs, "--root", root)
    assert done.returncode == 0, done.stderr
    assert _labels(root, "val") == {"n01443537": 3, "n01629819": 3}
    with open_manifest(root / "manifest.db") as manifest:
        assert manifest.synsets()[0].name == "goldfish", "the catalog has words for wnids"
        assert not manifest.dataset().orientation_applied
    assert here("verify", "--root", root, "--digests", "--decode").returncode == 0
    assert tree(theirs) == before


def test_a_choice_of_classes_of_a_published_dataset_is_a_subset_of_it(
    tmp_path: Path, here: Run
) -> None:
    """Two whole classes of CIFAR-10, as somebody chose them."""
    dataset = load_dataset("cifar10-jpeg")
    body = tmp_path / "body"
    Image.new("RGB", (32, 32)).save(body, "JPEG")
    for split in dataset.splits:
        for synset in dataset.synsets[:2]:
            folder = tmp_path / "two" / split / synset.wnid
            folder.mkdir(parents=True)
            for number in range(dataset.counts(split)[synset.label]):
                name = dataset.name_of(split, synset.wnid, number)
                (folder / name).hardlink_to(body)
    done = here("adopt", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    with open_manifest(tmp_path / "two" / "manifest.db") as manifest:
        part = manifest.dataset()
    assert part.part_of is not None and part.part_of.name == "cifar10-jpeg"
    assert [synset.wnid for synset in part.synsets] == ["airplane", "automobile"]
