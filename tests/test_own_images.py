"""Any usual tree of one's own becomes a root by one command, and what is no dataset never does."""

import json
import os
import shutil
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
    assert "left out" not in again.stderr, "what val leads to now"
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
        assert name in done.stdout, done.stdout
    assert "mine has 3 files that cannot be taken" in done.stderr
    (folder / "dog" / "notes.txt").write_bytes(b"x")
    done = here("adopt", tmp_path / "mine")
    assert done.returncode == 1 and "dog/notes.txt is no image by its name" in done.stdout
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
        (
            _classes,
            "folders of classes, and no train or val",
            "imnetprep divide FOLDER --root given-root",
        ),
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
    told = (done.stdout + done.stderr).replace(str(folder), "FOLDER")
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
    assert (
        f"imnetprep adopt {theirs} --root tiny-imagenet-200-root makes a root of links"
        in done.stderr
    )
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


def _sum(*roots_and_splits: tuple[Path, str]) -> dict[str, int]:
    total: dict[str, int] = {}
    for root, split in roots_and_splits:
        for wnid, images in _labels(root, split).items():
            total[wnid] = total.get(wnid, 0) + images
    return total


@pytest.mark.parametrize(
    ("names", "rule", "classes"),
    [
        ("cat.{n}.jpg dog.{n}.jpg", "name", {"cat": 6, "dog": 6}),
        ("cat_{n}.jpg dog-{n}.jpg", "name", {"cat": 6, "dog": 6}),
        ("golden_retriever_{n}.jpg 狗_{n}.jpg", r"(.+)_\d+", {"golden_retriever": 6, "狗": 6}),
    ],
)
def test_a_flat_folder_has_its_classes_in_its_names(
    names: str, rule: str, classes: dict[str, int], tmp_path: Path, here: Run
) -> None:
    for number in range(6):
        for at, name in enumerate(names.split()):
            _image(tmp_path / "flat" / name.format(n=number), at + number)
    root = tmp_path / "root"
    done = here("divide", tmp_path / "flat", "--label-from", rule, "--root", root)
    assert done.returncode == 0, done.stderr
    listing = ", ".join(f"{wnid} {images}" for wnid, images in sorted(classes.items()))
    assert f"2 classes: {listing}" in done.stdout
    assert _sum((root, "train"), (root, "val")) == classes
    assert here("verify", "--root", root, "--digests").returncode == 0


_ROWS = [("a/0.jpg", "hot dog"), ("a/1.jpg", "狗"), ("b/0.jpg", "hot dog"), ("b/2.jpg", "狗")]


def _csv(header: str, name: Callable[[str], str], row: str = "{name},{label}") -> str:
    lines = [row.format(name=name(path), label=label) for path, label in _ROWS]
    return "\n".join([header, *lines, ""])


@pytest.mark.parametrize(
    ("file", "text", "columns"),
    [
        ("labels.csv", _csv("file,label", str), None),
        ("labels.csv", "\ufeff" + _csv("Image_Path,Breed", lambda path: f"data/{path}"), None),
        ("train.csv", _csv("id,breed", lambda path: path.removesuffix(".jpg")), None),
        ("t.tsv", _csv("name\tclass", str, "{name}\t{label}"), None),
        ("t.csv", _csv("x,file,y", str, "1,{name},{label}"), "file,y"),
        ("bare.csv", _csv("x", str).removeprefix("x\n"), None),
        ("bare.csv", _csv("x", lambda path: f"data/{path}").removeprefix("x\n"), None),
        ("bare.tsv", _csv("x", str, "{label}\t{name}").removeprefix("x\n"), None),
        ("bare.csv", _csv("x", str, "7,{label},{name}").removeprefix("x\n"), "3,2"),
        ("metadata.jsonl", "".join(json.dumps({"file_name": path, "label": label}) + "\n"
                                   for path, label in _ROWS), None),
        ("LOC.csv", _csv("ImageId,PredictionString", lambda path: path.removesuffix(".jpg"),
                         "{name},{label}").replace("hot dog", "dog 1 2 3 4"), None),
    ],
)  # fmt: skip
def test_a_table_has_the_classes(
    file: str, text: str, columns: str | None, tmp_path: Path, here: Run
) -> None:
    for at, (path, _) in enumerate(_ROWS):
        _image(tmp_path / "photos" / path, at)
    (tmp_path / file).write_text(text)
    words = ["--labels", tmp_path / file, *(["--columns", columns] if columns else [])]
    done = here("divide", tmp_path / "photos", *words, "--root", tmp_path / "root")
    assert done.returncode == 0, done.stderr
    classes = _sum((tmp_path / "root", "train"), (tmp_path / "root", "val"))
    assert classes == {"dog" if "LOC" in file else "hot dog": 2, "狗": 2}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("file,label\n0.jpg,a\n1.jpg,b\n", "2.jpg is not in labels.csv"),
        ("file,label\n0.jpg,a\n1.jpg,b\n2.jpg,a\n9.jpg,b\n", "line 5, names 9.jpg, which is not"),
        (
            "file,label\n0.jpg,a\n1.jpg,b\n2.jpg,a\n2.jpg,b\n",
            "2.jpg is b in line 5 of labels.csv, and a in line 4",
        ),
        ("file,label\n0.jpg,../a\n1.jpg,b\n2.jpg,b\n", "0.jpg is of '../a', which is no name"),
        ("what,kind\n0.jpg,a\n", "it has what, kind"),
        ("file,label\n0.jpg,\n", "line 2: no file or no label"),
        ("0.jpg,a,5\n1.jpg,b,6\n", "--columns 1,2 counts them, without a header"),
        ("2,0\n1,1\n", "it has 2, 0"),
        ("file,label\n0.jpg,a\n1.jpg,b, big\n2.jpg,a\n", "line 3: it has 1 more cell"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(
    text: str, problem: str, tmp_path: Path, here: Run
) -> None:
    for at in range(3):
        _image(tmp_path / "photos" / f"{at}.jpg", at)
    (tmp_path / "labels.csv").write_text(text)
    words = ["--labels", tmp_path / "labels.csv", "--root", tmp_path / "root"]
    done = here("divide", tmp_path / "photos", *words)
    assert done.returncode in (1, 2) and problem in done.stdout + done.stderr, done.stderr
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    ("lay", "words", "sentence"),
    [
        (_flat_splits, [], "holds test1, train, called as splits are, and not as classes"),
        (_flat_splits, ["--label-from", "name"], "FOLDER holds 6 images 1 folder deep"),
        (_one_class, [], "is divided already: it holds train"),
        (_flat, [], "holds 3 images in no class folder"),
        (_flat, ["--label-from", "name"], "are of one class, 'cat'"),
        (_flat, ["--label-from", "("], "is no regular expression"),
        (_flat, ["--label-from", "cat"], "has no group for the class"),
        (_flat, ["--label-from", "x(.)"], "says no class in its name"),
        (_flat, ["--columns", "a,b"], "--columns cannot be used"),
    ],
)
def test_divide_refuses_what_it_cannot_divide(
    lay: Callable[[Path], None], words: list[str], sentence: str, tmp_path: Path, here: Run
) -> None:
    lay(tmp_path / "given")
    done = here("divide", tmp_path / "given", *words, "--root", tmp_path / "root")
    assert done.returncode in (1, 2)
    told = (done.stdout + done.stderr).replace(str(tmp_path / "given"), "FOLDER")
    assert sentence in told, told
    assert not (tmp_path / "root").exists()


def test_images_that_are_links_are_divided_by_where_they_lead(tmp_path: Path, here: Run) -> None:
    photos = _photos(tmp_path / "photos", cat=4, dog=4)
    for wnid in ("cat", "dog"):
        (tmp_path / "links" / wnid).mkdir(parents=True)
        for path in (photos / wnid).iterdir():
            (tmp_path / "links" / wnid / path.name).symlink_to(f"../../photos/{wnid}/{path.name}")
        (tmp_path / "folders").mkdir(exist_ok=True)
        (tmp_path / "folders" / wnid).symlink_to(photos / wnid)
    for name, words in (("links", []), ("folders", []), ("links", ["--copy"])):
        root = tmp_path / f"root-{name}{len(words)}"
        done = here("divide", tmp_path / name, *words, "--root", root)
        assert done.returncode == 0, done.stderr
        assert _sum((root, "train"), (root, "val")) == {"cat": 4, "dog": 4}
        assert not any(path.is_symlink() for path in root.rglob("*.jpg"))
        assert here("verify", "--root", root, "--digests").returncode == 0
    (tmp_path / "links" / "cat" / "gone.jpg").symlink_to("nowhere")
    done = here("divide", tmp_path / "links", "--root", tmp_path / "other")
    assert done.returncode == 1 and "cat/gone.jpg is a link that leads nowhere" in done.stdout


def test_a_name_that_is_no_utf8_is_kept_as_text(tmp_path: Path, here: Run) -> None:
    photos = _photos(tmp_path / "photos", cat=4, dog=4)
    path = os.fsencode(photos / "cat") + b"/caf\xe9.jpg"
    (photos / "cat" / "0001.jpg").rename(os.fsdecode(path))
    done = here("divide", photos, "--root", tmp_path / "root")
    assert done.returncode == 0, done.stderr
    assert "cat/caf%e9.jpg" in {
        **tree(tmp_path / "root" / "train"),
        **tree(tmp_path / "root" / "val"),
    }


def test_a_definition_of_labels_is_adopted_by_its_names(tmp_path: Path, here: Run) -> None:
    _photos(tmp_path / "mine" / "train", cat=3, dog=3)
    lines = [f"{number:04}.jpg\t{wnid}" for wnid in ("dog", "cat") for number in range(3)]
    (tmp_path / "train.tsv").write_text("\n".join(lines))
    toml = tmp_path / "pets.toml"
    toml.write_text('name = "pets"\n[train]\nlabels = "train.tsv"\n')
    done = here("adopt", tmp_path / "mine", "--dataset", toml)
    assert done.returncode == 0, done.stderr
    assert _labels(tmp_path / "mine", "train") == {"cat": 3, "dog": 3}
    assert here("adopt", tmp_path / "mine").returncode == 0, "it is adopted, whatever its name"
    (tmp_path / "train.tsv").write_text("\n".join(lines[1:]))
    done = here("adopt", tmp_path / "mine", "--dataset", toml)
    assert done.returncode == 1 and "1 train image fewer (dog/0000.jpg)" in done.stderr
    (tmp_path / "mine" / "train" / "cat" / "0001.jpg").rename(tmp_path / "moved.jpg")
    (tmp_path / "mine" / "train" / "dog" / "0001.jpg").rename(tmp_path / "other.jpg")
    found = here("verify", "--root", tmp_path / "mine").stdout
    assert "missing: train/cat/0001.jpg" in found and "missing: train/dog/0001.jpg" in found


def test_a_root_in_the_folder_that_it_is_made_of_is_refused(tmp_path: Path, here: Run) -> None:
    _photos(tmp_path / "photos", cat=4, dog=4)
    for root in ("photos", "photos/root"):
        done = here("divide", tmp_path / "photos", "--root", tmp_path / root)
        assert done.returncode == 2 and "would lie in" in done.stderr


def test_a_folder_that_is_not_to_be_written_to_says_how_to_go_on(
    tmp_path: Path, here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    _photos(tmp_path / "theirs" / "train", cat=3, dog=3)
    monkeypatch.setattr(os, "access", lambda _path, mode: mode != os.W_OK)  # as on a read-only disk
    done = here("adopt", tmp_path / "theirs")
    assert done.returncode == 1
    assert f"imnetprep adopt {tmp_path / 'theirs'} --root theirs-root makes a root" in done.stderr
    assert here("adopt", tmp_path / "theirs", "--root", tmp_path / "mine").returncode == 0


def test_verbs_of_archives_say_that_there_are_none(tmp_path: Path, here: Run) -> None:
    _photos(tmp_path / "mine" / "train", cat=3, dog=3)
    assert here("adopt", tmp_path / "mine").returncode == 0
    again = here("organize", "--root", tmp_path / "mine")
    assert again.returncode == 0 and "train: 6 images" in again.stdout
    assert here("repair", "--root", tmp_path / "mine").returncode == 0
    for verb in ("download", "verify-archives", "repair-archives"):
        done = here(verb, "--root", tmp_path / "mine")
        assert done.returncode == 1 and "has no archives" in done.stderr, done.stderr
    done = here("adopt", tmp_path / "mine", "--split", "val")
    assert done.returncode == 1 and "has no val split" in done.stderr


def test_a_class_of_one_image_is_of_train(tmp_path: Path, here: Run) -> None:
    _photos(tmp_path / "photos", cat=4, dog=4, owl=1)
    done = here("divide", tmp_path / "photos", "--root", tmp_path / "root")
    assert done.returncode == 0, done.stderr
    assert _labels(tmp_path / "root", "train")["owl"] == 1
    assert "owl" not in _labels(tmp_path / "root", "val")
    assert here("verify", "--root", tmp_path / "root", "--digests").returncode == 0


def test_classes_may_be_called_as_folders_of_a_root(tmp_path: Path, here: Run) -> None:
    _photos(tmp_path / "photos", cat=4, runs=4, archives=4)
    done = here("divide", tmp_path / "photos", "--root", tmp_path / "root")
    assert "3 classes: archives 4, cat 4, runs 4" in done.stdout, done.stderr


def _two_vals(folder: Path) -> None:
    for name in ("train", "val", "valid"):
        _photos(folder / name, cat=2, dog=2)


def _val_to_nowhere(folder: Path) -> None:
    _photos(folder / "train", cat=2, dog=2)
    (folder / "val").symlink_to("gone")


def _one_folder_for_two(folder: Path) -> None:
    _photos(folder / "train", cat=2, dog=2)
    _photos(folder / "val", cat=2)
    (folder / "val" / "dog").symlink_to(folder / "train" / "dog")


def _beside_the_splits(folder: Path) -> None:
    _photos(folder / "train", cat=2, dog=2)
    _image(folder / "loose.jpg", 1)


def _beside_inner_folders(folder: Path) -> None:
    _as_tiny_imagenet_unpacks(folder)
    _image(folder / "train" / "n01443537" / "loose.jpg", 1)


def _no_utf8(folder: Path) -> None:
    _photos(folder / "train", cat=2, dog=2)
    name = os.fsencode(folder / "train" / "cat") + b"/caf\xe9.jpg"
    (folder / "train" / "cat" / "0001.jpg").rename(os.fsdecode(name))


@pytest.mark.parametrize(
    ("lay", "sentence"),
    [
        (_two_vals, "holds val and valid, which may both be val"),
        (_val_to_nowhere, "val is called as a split is, and is no folder"),
        (_one_folder_for_two, "val/dog is the same folder as another class"),
        (_beside_the_splits, "loose.jpg is in no split"),
        (_beside_inner_folders, "loose.jpg lies beside the folder of images"),
        (_no_utf8, "has a name that cannot be kept"),
    ],
)
def test_nothing_of_a_tree_is_left_out_without_a_word(
    lay: Callable[[Path], None], sentence: str, tmp_path: Path, here: Run
) -> None:
    lay(tmp_path / "given")
    done = here("adopt", tmp_path / "given", "--root", tmp_path / "root")
    assert done.returncode == 1 and sentence in done.stdout + done.stderr, done.stdout + done.stderr
    assert not (tmp_path / "root" / "manifest.db").exists()


def test_a_class_that_lost_its_train_images_is_left_out_of_val(tmp_path: Path, here: Run) -> None:
    for split in ("train", "val"):
        _photos(tmp_path / "mine" / split, ant=2, bee=2, cow=2)
    for path in (tmp_path / "mine" / "train" / "bee").iterdir():
        path.write_bytes(b"")
    done = here("adopt", tmp_path / "mine", "--skip-bad")
    assert done.returncode == 0, done.stderr
    assert _labels(tmp_path / "mine", "val") == {"ant": 2, "cow": 2}
    shutil.rmtree(tmp_path / "mine" / "train" / "cow")
    (tmp_path / "mine" / "manifest.db").unlink()
    done = here("adopt", tmp_path / "mine", "--skip-bad")
    assert done.returncode == 1 and "all train images" in done.stderr


def test_links_of_an_earlier_adoption_do_not_stay(tmp_path: Path, here: Run) -> None:
    for name in ("one", "two"):
        _as_tiny_imagenet_unpacks(tmp_path / name)
    bad = tmp_path / "one" / "train" / "n01443537" / "images" / "n01443537_0.JPEG"
    bad.write_bytes(b"")
    root = tmp_path / "root"
    assert here("adopt", tmp_path / "one", "--root", root).returncode == 1
    assert here("adopt", tmp_path / "one", "--root", root, "--skip-bad").returncode == 0
    assert here("verify", "--root", root, "--digests").returncode == 0
    shutil.rmtree(root)
    assert here("adopt", tmp_path / "one", "--root", root).returncode == 1
    assert here("adopt", tmp_path / "two", "--root", root).returncode == 1
    (root / "train").rename(root / "train.old")
    assert here("adopt", tmp_path / "two", "--root", root).returncode == 1, "and those of val"
    (root / "val").rename(root / "val.old")
    assert here("adopt", tmp_path / "two", "--root", root).returncode == 0
    links = {path.resolve() for path in root.glob("[tv]*[nl]/*/*.JPEG")}
    assert links and all(path.is_relative_to(tmp_path / "two") for path in links)


def test_a_table_labels_what_its_paths_say_and_no_other(tmp_path: Path, here: Run) -> None:
    for at, path in enumerate(("1.jpg", "1.png", "a/1.jpg", "b/2.jpg")):
        _image(tmp_path / "photos" / path, at)
    (tmp_path / "away").mkdir()
    shutil.move(tmp_path / "photos" / "b", tmp_path / "away" / "b")
    (tmp_path / "photos" / "b").symlink_to(tmp_path / "away" / "b")
    rows = "1.jpg, x\n1.png,x\na/1.jpg,y\nb/2.jpg,y\n"
    (tmp_path / "labels.csv").write_text(f"file, label\n{rows}")
    words = ["divide", tmp_path / "photos", "--labels", tmp_path / "labels.csv"]
    done = here(*words, "--root", tmp_path / "root")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 classes: x 2, y 2" in done.stdout
    for row, reason in (("zz/2.jpg,y", "which is not there"), ("1,y", "which may be several")):
        (tmp_path / "labels.csv").write_text(f"file,label\n{rows}{row}\n")
        done = here(*words, "--root", tmp_path / "other")
        assert done.returncode == 1 and f"line 6, names {row[:-2]}, {reason}" in done.stdout


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("t.csv", 'file,PredictionString\n0.jpg," "\n', ["--labels", "t.csv"]),
        ("t.csv", f"file,label\n0.jpg,{'x' * 140_000}\n", ["--labels", "t.csv"]),
        ("t.csv", "file,label,label\n0.jpg,a,b\n", ["--labels", "t.csv"]),
        ("t.jsonl", "[" * 200_000, ["--labels", "t.jsonl"]),
        ("t.jsonl", '{"file": "0.jpg", "label": [1]}', ["--labels", "t.jsonl"]),
        ("t.csv", "", ["--label-from", "(.{0,99999999999999999999})_"]),
        ("t.csv", "", ["--label-from", f"{'(' * 3000}a{')' * 3000}"]),
        ("t.csv", "", ["--label-from", "(.)", "--seed", "1" * 70]),
        ("t.csv", "", ["--label-from", "(.)", "--val-fraction", "nan"]),
    ],
)  # fmt: skip
def test_odd_words_and_tables_are_refused(
    file: str, text: str, words: list[str], tmp_path: Path, here: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for at in range(3):
        _image(tmp_path / "photos" / f"{at}.jpg", at)
    (tmp_path / file).write_text(text)
    done = here("divide", "photos", *words, "--root", "root")
    assert done.returncode in (1, 2), done.stderr


def test_what_is_no_file_is_named_and_not_read(tmp_path: Path, here: Run) -> None:
    for at in range(4):
        _image(tmp_path / "flat" / f"{'ab'[at % 2]}_{at}.jpg", at)
    os.mkfifo(tmp_path / "flat" / "a_pipe.jpg")
    (tmp_path / "flat" / "b_zero.jpg").symlink_to("/dev/zero")
    (tmp_path / "flat" / "b_gone.jpg").symlink_to("nowhere")
    words = ["divide", tmp_path / "flat", "--label-from", "name", "--root", tmp_path / "root"]
    done = here(*words)
    assert done.returncode == 1
    assert done.stdout.count("is no regular file") == 2 and "leads nowhere" in done.stdout
    assert here(*words, "--skip-bad").returncode == 0


def test_a_killed_division_of_images_that_changed_starts_over(tmp_path: Path, here: Run) -> None:
    _photos(tmp_path / "photos", cat=6, dog=6)
    words = ["divide", tmp_path / "photos", "--root", tmp_path / "root", "--copy"]
    assert here(*words).returncode == 0
    (tmp_path / "root" / "manifest.db").unlink()
    (tmp_path / "root" / ".organizing").mkdir(exist_ok=True)
    (tmp_path / "root" / "train").rename(tmp_path / "root" / ".organizing" / "train")
    shutil.rmtree(tmp_path / "root" / "val")
    for path in (tmp_path / "photos").rglob("*.jpg"):
        _image(path, 5)
    assert here(*words).returncode == 0
    for path in (tmp_path / "root" / "train").rglob("*.jpg"):
        source = tmp_path / "photos" / path.parent.name / path.name
        assert path.read_bytes() == source.read_bytes()


def test_a_table_of_another_separator_or_columns_is_told(tmp_path: Path, here: Run) -> None:
    for at in range(4):
        _image(tmp_path / "scans" / f"S{at}.png", at)
    rows = [f"S{at};{'ab'[at % 2]}" for at in range(4)]
    (tmp_path / "t.csv").write_text("\n".join(["Bild;Art, Klasse", *rows]))
    words = ["divide", tmp_path / "scans", "--labels", tmp_path / "t.csv"]
    (tmp_path / "t.csv").write_text("\n".join(["Bild;Klasse", *rows]))
    done = here(*words, "--columns", "Bild,Klasse", "--root", tmp_path / "root")
    assert done.returncode == 0, done.stderr
    done = here(*words, "--columns", "Klasse,Bild", "--root", tmp_path / "other")
    assert done.returncode == 1 and "none of the 4 lines of" in done.stderr
    done = here(*words[:2], "--label-from", "(.*)[.]png", "--root", tmp_path / "other")
    assert done.returncode == 1 and "has a class of its own by --label-from" in done.stderr


def test_a_dry_run_and_verify_say_what_was_added(tmp_path: Path, here: Run) -> None:
    _photos(tmp_path / "mine" / "train", cat=3, dog=3)
    told = here("verify", "--root", tmp_path / "mine" / "train").stderr
    assert f"imnetprep adopt {tmp_path / 'mine' / 'train'} takes images of your own" in told
    assert here("adopt", tmp_path / "mine").returncode == 0
    _image(tmp_path / "mine" / "train" / "dog" / "new.jpg", 3)
    told = here("verify", "--root", tmp_path / "mine").stderr
    assert f"then imnetprep adopt {tmp_path / 'mine'} takes images that were added" in told
    assert "imnetprep repair" not in told
    done = here("adopt", tmp_path / "mine", "--dry-run")
    assert done.returncode == 1 and "1 train image more" in done.stderr


def test_a_refused_adoption_leaves_the_links_of_a_root_as_they_are(
    tmp_path: Path, here: Run
) -> None:
    for name in ("one", "two"):
        _as_tiny_imagenet_unpacks(tmp_path / name)
    _image(tmp_path / "two" / "train" / "n01443537" / "images" / "n01443537_9.JPEG", 1)
    root = tmp_path / "root"
    assert here("adopt", tmp_path / "one", "--root", root).returncode == 0
    before = {path: path.readlink() for path in root.rglob("*") if path.is_symlink()}
    done = here("adopt", tmp_path / "two", "--root", root)
    assert done.returncode == 1 and "holds one, not two" in done.stderr
    assert {path: path.readlink() for path in root.rglob("*") if path.is_symlink()} == before
    assert here("verify", "--root", root, "--digests").returncode == 0


def test_links_that_somebody_else_made_are_not_removed(tmp_path: Path, here: Run) -> None:
    """To an image elsewhere, and to a disk that is not mounted now."""
    _as_tiny_imagenet_unpacks(tmp_path / "theirs")
    folder = tmp_path / "root" / "train" / "n01443537"
    _image(tmp_path / "mine.jpg", 1)
    for target in (tmp_path / "mine.jpg", tmp_path / "gone.jpg"):
        folder.mkdir(parents=True)
        (folder / "mine.jpg").symlink_to(target)
        done = here("adopt", tmp_path / "theirs", "--root", tmp_path / "root")
        assert done.returncode == 1 and f"mine.jpg leads to {target}" in done.stderr, done.stderr
        assert (folder / "mine.jpg").readlink() == target
        assert [path.name for path in folder.iterdir()] == ["mine.jpg"]
        shutil.rmtree(tmp_path / "root")


def test_a_name_with_a_comma_is_taken_where_an_image_is_called_so(
    tmp_path: Path, here: Run
) -> None:
    for at, name in enumerate(("a, 1.jpg", "b,2.jpg", "c.jpg", "d.jpg")):
        _image(tmp_path / "photos" / name, at)
    rows = 'a, 1.jpg,x\n"b,2.jpg",y\nc.jpg,x,\nd.jpg,y\n'
    words = ["divide", tmp_path / "photos", "--labels", tmp_path / "labels.csv"]
    for at, header in enumerate(("file,label\n", "")):
        (tmp_path / "labels.csv").write_text(header + rows)
        done = here(*words, "--root", tmp_path / f"root{at}")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "2 classes: x 2, y 2" in done.stdout


def test_an_expression_that_never_ends_is_refused(tmp_path: Path, here: Run) -> None:
    for at in range(2):
        _image(tmp_path / "photos" / f"{'a' * 50}{at}.jpg", at)
    words = ["divide", tmp_path / "photos", "--root", tmp_path / "root"]
    done = here(*words, "--label-from", "(a+)+[.]")
    assert done.returncode == 2 and "--label-from (a+)+[.] does not end on aaaa" in done.stderr


def test_images_called_as_tiny_imagenets_are_their_owners(tmp_path: Path, here: Run) -> None:
    """Of 10,000 in its validation split; 600 of them are more than names of it by accident."""
    for split, images in (("train", 4), ("val", 600)):
        for number in range(images):
            _image(tmp_path / "mine" / split / "cd"[number % 2] / f"val_{number}.JPEG", number)
    done = here("adopt", tmp_path / "mine")
    assert done.returncode == 0, done.stdout + done.stderr
    assert _labels(tmp_path / "mine", "val") == {"c": 300, "d": 300}


def test_another_dataset_is_told_by_its_classes_and_images(tmp_path: Path, here: Run) -> None:
    root = tmp_path / "root"
    _photos(tmp_path / "one", cat=6, dog=6)
    _photos(tmp_path / "two", cat=6, dog=6, fox=5)
    assert here("divide", tmp_path / "one", "--root", root).returncode == 0
    done = here("divide", tmp_path / "two", "--root", root)
    assert done.returncode == 1
    assert "holds one, not two: 1 class more (fox), " in done.stderr
    assert f"or mv {root} {root}.old; then run the same command again" in done.stderr


def test_shards_of_an_earlier_manifest_are_told(tmp_path: Path, here: Run) -> None:
    root = tmp_path / "mine"
    _photos(root / "train", cat=3, dog=3)
    assert here("adopt", root).returncode == 0
    assert here("organize", "--root", root, "--layout", "webdataset").returncode == 0
    assert "shards" not in here("adopt", root).stderr
    (root / "manifest.db").rename(root / "manifest.db.old")
    done = here("adopt", root)
    assert done.returncode == 0, done.stderr
    shards = root / "shards" / "train"
    assert f"{shards} has shards that {root / 'manifest.db'} does not list" in done.stderr
    shards.rename(root / "shards" / "train.old")
    assert here("organize", "--root", root, "--layout", "webdataset").returncode == 0


def test_links_are_led_to_no_other_images_of_the_same_names(tmp_path: Path, here: Run) -> None:
    theirs, root = tmp_path / "theirs", tmp_path / "root"
    _photos(theirs / "train", cat=3, dog=3)
    assert here("adopt", theirs, "--root", root).returncode == 0
    moved = theirs.rename(tmp_path / "moved")
    whole = (moved / "train" / "dog" / "0001.jpg").read_bytes()
    _image(moved / "train" / "dog" / "0001.jpg", 77)
    done = here("adopt", moved, "--root", root)
    assert done.returncode == 4
    assert f"moved does not have the images of {root}: train/dog/0001.jpg is another" in done.stderr
    assert (root / "train").readlink() == theirs / "train"
    (moved / "train" / "dog" / "0001.jpg").write_bytes(whole)
    assert here("adopt", moved, "--root", root).returncode == 0
    assert here("verify", "--root", root, "--digests").returncode == 0
