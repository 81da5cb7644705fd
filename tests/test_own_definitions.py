"""Datasets of one's own: labels as lines of file and class, classes under any name, strict keys."""

import json
from pathlib import Path

import pytest

from imnetprep.catalog.datasets import Dataset, Layout, Root, Split, load_dataset
from imnetprep.catalog.listing import listed_dataset
from imnetprep.layouts.webdataset import frame
from imnetprep.manifest import SampleRecord, manifest_written, open_manifest
from imnetprep.messages import ImnetprepError
from tests.conftest import Run, tree
from tests.packings import openable

CLASSES = ("Corn_(maize)", "golden retriever", "猫")


def _defined(folder: Path, toml: str, **files: str) -> Dataset:
    folder.mkdir(exist_ok=True)
    for name, text in {"dataset": toml, **files}.items():
        suffix = "toml" if name == "dataset" else "tsv"
        (folder / f"{name}.{suffix}").write_bytes(text.encode())
    return load_dataset(str(folder / "dataset.toml"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three classes with the same names in each."""
    for wnid in CLASSES:
        (tmp_path / "photos" / wnid).mkdir(parents=True)
        for at in range(6):
            (tmp_path / "photos" / wnid / f"{at:04}.jpg").write_bytes(openable(f"{wnid} {at}"))
    return tmp_path / "photos"


def test_labels_are_lines_of_file_and_class(tmp_path: Path) -> None:
    """In any order, with any end of line; a name may be in several classes."""
    dataset = _defined(
        tmp_path / "own",
        'name = "own"\n[train]\nlabels = "train.tsv"\n[val]\nlabels = "val.tsv"\n',
        train="\ufeffb.jpg\t猫\r\n1.jpg\ta dog\r\n1.jpg\t猫\r\n",
        val="1.jpg\ta dog",
    )
    assert [synset.wnid for synset in dataset.synsets] == ["a dog", "猫"]
    assert dataset.counts(Split.TRAIN) == (1, 2) and dataset.counts(Split.VAL) == (1, 0)
    assert list(dataset.names(Split.TRAIN, 1) or ()) == ["1.jpg", "b.jpg"]
    assert dataset.label_of(Split.TRAIN, "b.jpg") == 1
    assert dataset.label_of(Split.TRAIN, "1.jpg") is None, "two classes have it"
    assert dataset.label_of(Split.TRAIN, "1.jpg", "猫") == 1
    assert dataset.label_of(Split.TRAIN, "2.jpg", "猫") is None
    assert not dataset.orientation_applied


@pytest.mark.parametrize(
    ("toml", "train", "problem"),
    [
        ('labels = "train.tsv"\nsamples = 3', "1.jpg\tcat\n", "line 4: train has samples = 3"),
        (
            'labels = "train.tsv"',
            "1.jpg\tcat\n2.jpg\tcat\n1.jpg\tcat\n",
            "train.tsv cannot be read (ValueError: lines 1 and 3: 1.jpg of cat is listed twice",
        ),
        ('labels = "train.tsv"', "1.jpg cat\n", "line 1: '1.jpg cat' is no file name, tab"),
        ('labels = "train.tsv"', "../1.jpg\tcat\n", "is no file name, tab and class"),
        ('labels = "train.tsv"', "1.jpg\t..\n", "is no file name, tab and class"),
        ('labels = "train.tsv"', f"1.jpg\t{'猫' * 86}\n", "is no file name, tab and class"),
        ('labels = "train.tsv"\n[validation]\nx = 1', "1.jpg\tcat\n", "line 4: validation is no"),
        ('labels = "train.tsv"\nlabel = 1', "1.jpg\tcat\n", "line 4: train.label is no key"),
        ('labels = "train.tsv"\n[[archives]]\nname = "a"\nmd5 = "ABC"', "1.jpg\tcat\n", "line 6: "),
        ("labels = 5", "1.jpg\tcat\n", "labels = 5"),
        (
            "labels = train.tsv",
            "1.jpg\tcat\n",
            "dataset.toml: it is no TOML: Invalid value (at line 3",
        ),
        (f"labels = {'[' * 5000}", "", "dataset.toml: it is no TOML: "),
        ("names = 5", "1.jpg\tcat\n", "dataset.toml does not hold: "),
    ],
)
def test_what_a_definition_contradicts_is_told_with_its_line(
    toml: str, train: str, problem: str, tmp_path: Path
) -> None:
    with pytest.raises(ImnetprepError) as caught:
        _defined(tmp_path / "own", f'name = "own"\n[train]\n{toml}\n', train=train)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("synsets", "problem"),
    [
        ("cat\ndog\ndog\n", "synsets.tsv, line 4: 'dog' is there twice"),
        ("dog\ncat\n", "synsets.tsv, line 3: 'cat' is not in order"),
        ("..\ncat\n", "synsets.tsv, line 2: '..' is no name of a class"),
    ],
)
def test_a_list_of_classes_is_refused_at_its_line(
    synsets: str, problem: str, tmp_path: Path
) -> None:
    toml = 'name = "own"\nsynsets = "synsets.tsv"\n[train]\nlabels = "train.tsv"\n'
    with pytest.raises(ImnetprepError) as caught:
        _defined(tmp_path / "own", toml, synsets=f"wnid\n{synsets}", train="1.jpg\tcat\n")
    assert problem in str(caught.value)


def test_classes_of_any_name_go_through_every_verb(photos: Path, tmp_path: Path, here: Run) -> None:
    root = tmp_path / "root"
    done = here("divide", photos, "--root", root, "--val-fraction", "0.4")
    assert done.returncode == 0, done.stderr
    assert here("verify", "--root", root, "--digests").returncode == 0
    done = here("organize", "--root", root, "--layout", "webdataset", "--shard-size", "2")
    assert done.returncode == 0, done.stderr
    done = here("verify", "--root", root, "--digests", "--layout", "webdataset")
    assert done.returncode == 0, done.stderr
    with open_manifest(root / "manifest.db") as manifest:
        (record, *_) = manifest.splits().values()
        names = {label: [each.name for each in manifest.samples(record, label)] for label in (0, 1)}
        assert manifest.dataset().orientation_applied
    (tmp_path / "list.txt").write_text("".join(f"{CLASSES[0]}/{name}\n" for name in names[0]))
    part = tmp_path / "part"
    done = here("subset", tmp_path / "list.txt", "--root", root, "--to", part)
    assert done.returncode == 0, done.stderr
    assert here("verify", "--root", part, "--digests").returncode == 0
    assert {Path(name).parts[0] for name in tree(part / "train")} == {CLASSES[0]}


def test_forty_thousand_classes_keep_their_labels(tmp_path: Path) -> None:
    names = {f"class {number:05}": ["0.jpg"] for number in range(40_000)}
    dataset = listed_dataset("many", "Many", {Split.TRAIN: names})
    root = Root(tmp_path)
    with manifest_written(root.manifest, dataset) as manifest:
        samples = (SampleRecord.of_body(label, "0.jpg", b"%d" % label) for label in range(40_000))
        manifest.add_split(Split.TRAIN, Layout.IMAGEFOLDER, samples)
    with open_manifest(root.manifest) as manifest:
        (record,) = manifest.splits().values()
        (last,) = manifest.samples(record, 39_999)
        assert last.is_right(b"39999")
        assert manifest.dataset().label_of(Split.TRAIN, "0.jpg", "class 39999") == 39_999
    assert b"39999" in frame(last, key=0, wnid="class 39999")[1]


def test_datasets_are_listed_shown_and_checked(tmp_path: Path, here: Run) -> None:
    done = here("datasets")
    assert done.returncode == 0 and "ilsvrc2012: 1,000 classes, train 1,281,167" in done.stdout
    done = here("datasets", "cifar10", "--json")
    (dataset, archive) = map(json.loads, done.stdout.splitlines())
    assert dataset["samples"] == {"train": 50_000, "val": 10_000}
    assert archive["archive"] == "cifar-10-python.tar.gz"
    _defined(tmp_path / "own", 'name = "own"\n[train]\nlabels = "train.tsv"\n', train="1.jpg\ta\n")
    (tmp_path / "own" / "dataset.toml").write_text('name = "own"\nnmae = 1\n')
    done = here("datasets", "check", tmp_path / "own" / "dataset.toml")
    assert done.returncode == 1 and "line 2: nmae is no key of a definition" in done.stderr
    assert here("datasets", "check").returncode == 2
