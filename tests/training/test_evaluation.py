"""evaluate beyond top-1 and top-5: each number again by a plain count."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from imnetprep.catalog.datasets import Layout, Root, Split, load_dataset
from imnetprep.catalog.real_labels import real_labels
from imnetprep.evaluation.real_score import real_score
from imnetprep.layouts.imagefolder import make_class_folder, write_sample
from imnetprep.loading.samples import SampleList, read_samples
from imnetprep.manifest import SampleRecord, manifest_written, open_manifest
from imnetprep.networks.model import build_model
from tests.conftest import Run

ILSVRC2012 = load_dataset("ilsvrc2012")
# Of the first images in real.json: nobody agreed, 970 and 795, 230 and 231, 809, 516 and 850.
REAL = {1: (), 2: (970, 795), 3: (230, 231), 4: (809,), 5: (516, 850)}


@pytest.fixture(scope="module")
def first_five(drawn: Root, tmp_path_factory: pytest.TempPathFactory) -> Root:
    """A root of ilsvrc2012 with the first five validation images, whose pixels are drawn."""
    root = Root(tmp_path_factory.mktemp("five"))
    body = next(drawn.path.glob("val/*/*")).read_bytes()
    records = []
    for number in REAL:
        name = f"ILSVRC2012_val_{number:08}.JPEG"
        label = ILSVRC2012.label_of(Split.VAL, name)
        assert label is not None
        folder = make_class_folder(root.split(Split.VAL), ILSVRC2012.synsets[label].wnid)
        write_sample(str(folder), name, body)
        records.append(SampleRecord.of_body(label, name, body))
    with manifest_written(root.manifest, ILSVRC2012) as manifest:
        manifest.add_split(Split.VAL, Layout.IMAGEFOLDER, sorted(records))
    return root


@pytest.fixture
def samples(first_five: Root) -> SampleList:
    with open_manifest(first_five.manifest) as manifest:
        return read_samples(manifest, Split.VAL, first_five)


def always(label: int, path: Path, *, classes: int = 1000) -> Path:
    """Weights of a network that takes every image for the class `label`."""
    weights = build_model("cnn-small", classes=classes, image_size=32, seed=0).state_dict()
    weights["head.weight"].zero_()
    weights["head.bias"][label] += 9
    torch.save(weights, path)
    return path


def test_the_real_labels_are_the_published_ones() -> None:
    labels = real_labels(ILSVRC2012)
    body = json.dumps([labels[number] for number in range(1, 50_001)]).encode()
    published = "d83e9bff374c631aae8439eb064c7019acc56e1b3bc3f56b8380c2a710b0220b"  # real.json's
    assert hashlib.sha256(body).hexdigest() == published
    assert sum(map(bool, labels.values())) == 46_837


def test_a_guess_among_the_real_labels_counts(first_five: Root, tmp_path: Path, here: Run) -> None:
    weights = always(795, tmp_path / "w.pth")
    words = ["evaluate", weights, "--arch", "cnn-small", "--root", first_five.path]
    options = ["--device", "cpu", "--workers", 0, "--batch-size", 2]
    done = here(*words, *options)
    first, second = done.stdout.splitlines()
    assert first.startswith("top-1 0/5 0.00 %"), done.stderr  # the label of image 2 is 970
    assert second == "ReaL top-1 1/4 25.00 %"
    table = json.loads(here(*words, *options, "--json").stdout)
    assert table["real"] == {"top1": 1, "images": 4, "top1_percent": 25.0}


def test_images_are_known_by_their_number_not_their_place(samples: SampleList) -> None:
    numbers = [int(samples.name(index)[15:23]) for index in range(5)]
    assert numbers != sorted(numbers)
    for pick in (0, -1):
        guesses = [(REAL[number] or [999])[pick] for number in numbers]
        assert real_score(samples, np.array(guesses)) == (4, 4)
        assert real_score(samples, np.roll(guesses, 1)) == (0, 4)


def test_other_images_have_no_real_labels(samples: SampleList, drawn: Root) -> None:
    guesses = samples.labels.copy()
    assert real_score(samples, guesses) == (4, 4)
    moved = replace(samples, labels=samples.labels[::-1])
    assert real_score(moved, guesses) is None
    renamed = replace(samples, names=samples.names.replace(b"_val_0", b"_val_1"))
    assert real_score(renamed, guesses) is None
    with open_manifest(drawn.manifest) as manifest:
        others = read_samples(manifest, Split.VAL, drawn)
    assert real_score(others, others.labels) is None
