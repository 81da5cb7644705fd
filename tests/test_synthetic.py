"""Synthetic datasets: packed as the real archives are, the same bytes every time, learnable."""

import hashlib
import io
import tarfile
import tomllib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imnetprep.catalog.datasets import Dataset, Split, load_dataset
from imnetprep.digests import ARCHIVE_DIGESTS
from imnetprep.images import decode_rgb, decoding_problem
from imnetprep.synthetic import draw_dataset, pack_dataset
from imnetprep.synthetic.drawing import draw_photograph
from imnetprep.synthetic.figures import FIGURES

from .conftest import tree


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small drawn dataset: the path of its definition."""
    folder = tmp_path_factory.mktemp("drawn")
    return draw_dataset(folder, train_per_class=6, val_per_class=4, seed=7)


def body_of(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None
    return file.read()


def train_files(archive: Path) -> dict[str, dict[str, bytes]]:
    """The files of each class tar, by Python's own reader."""
    classes = {}
    with tarfile.open(archive) as outer:
        for class_tar in outer:
            with tarfile.open(fileobj=io.BytesIO(body_of(outer, class_tar))) as inner:
                classes[class_tar.name] = {member.name: body_of(inner, member) for member in inner}
    return classes


def val_files(archive: Path) -> dict[str, bytes]:
    """The files of the flat tar, in its order."""
    with tarfile.open(archive) as flat:
        return {member.name: body_of(flat, member) for member in flat}


def archive_of(dataset: Dataset, definition: Path, split: Split) -> Path:
    return definition.parent / dataset.archive(split).name


@pytest.mark.parametrize("make", [draw_dataset, pack_dataset])
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(
    make: Callable[..., Path], tmp_path: Path
) -> None:
    for folder, seed in (("one", 1), ("again", 1), ("other", 2)):
        make(tmp_path / folder, classes=3, train_per_class=3, val_per_class=2, seed=seed)
    assert tree(tmp_path / "one") == tree(tmp_path / "again")
    one, other = tree(tmp_path / "one"), tree(tmp_path / "other")
    assert one.keys() == other.keys()
    assert all(one[name] != other[name] for name in one if name.endswith(".tar"))


@pytest.mark.parametrize("name", ["drawn", "packed"])
def test_the_archives_hold_just_the_files_of_the_definition(
    name: str, request: pytest.FixtureRequest
) -> None:
    definition: Path = request.getfixturevalue(name)
    dataset = load_dataset(str(definition))
    classes = train_files(archive_of(dataset, definition, Split.TRAIN))
    assert list(classes) == [f"{synset.wnid}.tar" for synset in dataset.synsets]
    for synset in dataset.synsets:
        names = dataset.names(Split.TRAIN, synset.label)
        assert names is not None and set(classes[f"{synset.wnid}.tar"]) == set(names)
    flat = val_files(archive_of(dataset, definition, Split.VAL))
    counts = Counter(dataset.label_of(Split.VAL, file) for file in flat)
    labels = range(len(dataset.synsets))
    assert set(counts) == set(labels)
    assert tuple(counts[label] for label in labels) == dataset.counts(Split.VAL)


@pytest.mark.parametrize("name", ["drawn", "packed"])
def test_the_definition_has_the_size_and_digest_of_each_archive(
    name: str, request: pytest.FixtureRequest
) -> None:
    definition: Path = request.getfixturevalue(name)
    for archive in load_dataset(str(definition)).archives:
        path = definition.parent / archive.name
        assert archive.size_bytes == path.stat().st_size
        assert set(archive.digests) <= set(ARCHIVE_DIGESTS)
        assert archive.digests["md5"] == hashlib.md5(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["drawn", "packed"])
def test_neither_order_nor_position_gives_a_validation_label(
    name: str, request: pytest.FixtureRequest
) -> None:
    definition: Path = request.getfixturevalue(name)
    dataset = load_dataset(str(definition))
    files = list(val_files(archive_of(dataset, definition, Split.VAL)))
    assert files != sorted(files)
    by_number = [dataset.label_of(Split.VAL, file) for file in sorted(files)]
    labels = [label for label in by_number if label is not None]
    assert len(labels) == len(files) and labels != sorted(labels)
    assert by_number != [dataset.label_of(Split.VAL, file) for file in files]


def test_train_numbers_are_sparse_and_labels_are_not_ilsvrc_ids(drawn: Path) -> None:
    dataset = load_dataset(str(drawn))
    numbers = dataset.numbers(Split.TRAIN)
    assert numbers is not None and all(of_label[-1] > len(of_label) for of_label in numbers)
    real = {synset.wnid: synset for synset in load_dataset("ilsvrc2012").synsets}
    for synset in dataset.synsets:
        assert (synset.ilsvrc_id, synset.words) == (
            real[synset.wnid].ilsvrc_id,
            real[synset.wnid].words,
        )
        assert synset.label != synset.ilsvrc_id


def test_drawn_images_decode_and_their_odd_files_are_odd(drawn: Path) -> None:
    dataset = load_dataset(str(drawn))
    bodies = val_files(archive_of(dataset, drawn, Split.VAL))
    for files in train_files(archive_of(dataset, drawn, Split.TRAIN)).values():
        bodies |= files
    assert {name: decoding_problem(body) for name, body in bodies.items()} == dict.fromkeys(bodies)
    kinds: dict[tuple[str | None, str], list[str]] = {}
    for name, body in bodies.items():
        with Image.open(io.BytesIO(body)) as image:
            kinds.setdefault((image.format, image.mode), []).append(name)
    assert set(kinds) == {("JPEG", "RGB"), ("JPEG", "CMYK"), ("PNG", "RGB")}
    odd = tomllib.loads(drawn.read_text())["odd_files"]
    assert odd == {"png": kinds["PNG", "RGB"], "cmyk": kinds["JPEG", "CMYK"]}
    assert len({decode_rgb(body).size for body in bodies.values()}) > len(bodies) / 2


def test_colour_alone_does_not_tell_the_class() -> None:
    means, labels = [], []
    for label, wnid in enumerate(FIGURES):
        for number in range(24):
            image = draw_photograph(wnid, np.random.default_rng([label, number]), side_px=40)
            means.append(np.asarray(image, float).mean(axis=(0, 1)))
            labels.append(label)
    colours = np.array(means)
    apart = np.linalg.norm(colours[:, None] - colours, axis=-1)
    np.fill_diagonal(apart, np.inf)
    same = np.array(labels)[apart.argmin(axis=1)] == np.array(labels)
    assert same.mean() < 0.25  # one in ten by chance


def test_packed_bodies_are_unique_and_of_about_the_asked_size(tmp_path: Path) -> None:
    definition = pack_dataset(
        tmp_path, classes=2, train_per_class=100, val_per_class=0, image_bytes=5_000
    )
    dataset = load_dataset(str(definition))
    assert dataset.splits == (Split.TRAIN,)
    classes = train_files(archive_of(dataset, definition, Split.TRAIN))
    bodies = [body for files in classes.values() for body in files.values()]
    assert len(set(bodies)) == len(bodies) == 200
    assert 4_500 < sum(map(len, bodies)) / len(bodies) < 5_500
