"""Samples to batches: the same bytes whoever reads them, and a million samples in little memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from imnetprep.catalog.datasets import Layout, Root, Split, load_dataset
from imnetprep.loading.batches import Batch
from imnetprep.loading.loader import Loader
from imnetprep.loading.order import in_turn, shuffled
from imnetprep.manifest import SampleRecord, create_manifest, open_manifest
from imnetprep.messages import ImnetprepError, WrongBytes
from imnetprep.pixels.augmentation import Sizes, TrainTransform
from imnetprep.samples.sample_list import SampleList, read_samples
from tests.drawn import draw_root


def samples_of(root: Root, split: Split = Split.TRAIN) -> SampleList:
    with open_manifest(root.manifest) as manifest:
        return read_samples(manifest, split, root)


def loader_of(samples: SampleList, *, workers: int, seed: int = 5) -> Loader:
    return Loader(
        samples,
        TrainTransform(Sizes(32, 32), 0.2, seed),
        order=shuffled(len(samples), batch_size=8, seed=seed),
        batch_size=8,
        workers=workers,
        pin_memory=False,
    )


def same(ours: list[Batch], theirs: list[Batch]) -> bool:
    return all(
        torch.equal(one.pixels, other.pixels) and torch.equal(one.labels, other.labels)
        for one, other in zip(ours, theirs, strict=True)
    )


def test_every_sample_has_its_path_and_label(drawn: Root) -> None:
    samples = samples_of(drawn)
    paths = [samples.path(index) for index in range(len(samples))]
    assert len(set(paths)) == 60
    assert all(path.is_file() for path in paths)
    assert [samples.wnids[label] for label in samples.labels] == [
        path.parent.name for path in paths
    ]


def test_any_number_of_workers_gives_the_same_bytes(drawn: Root) -> None:
    samples = samples_of(drawn)
    alone, *others = (loader_of(samples, workers=workers) for workers in (0, 1, 4))
    for epoch in (0, 1):
        expected = list(alone.batches(epoch))
        assert [len(batch.labels) for batch in expected] == [8] * 7
        assert all(same(list(other.batches(epoch)), expected) for other in others)


def test_an_epoch_can_be_taken_up_at_any_step(drawn: Root) -> None:
    samples = samples_of(drawn)
    whole = list(loader_of(samples, workers=0).batches(3))
    for step in (0, 1, 6, 7):
        assert same(list(loader_of(samples, workers=2).batches(3, first_step=step)), whole[step:])


def test_epochs_and_seeds_differ(drawn: Root) -> None:
    samples = samples_of(drawn)
    first = list(loader_of(samples, workers=0).batches(0))
    assert not same(list(loader_of(samples, workers=0).batches(1)), first)
    assert not same(list(loader_of(samples, workers=0, seed=6).batches(0)), first)


@pytest.mark.parametrize(("samples", "expected"), [(20, 16), (16, 16), (7, 7)])
def test_only_whole_batches_train_if_there_is_one(samples: int, expected: int) -> None:
    order = shuffled(samples, batch_size=8, seed=0)(0).tolist()
    assert len(set(order)) == len(order) == expected
    assert in_turn(samples)(4).tolist() == list(range(samples))


@pytest.mark.parametrize("workers", [0, 2])
def test_names_an_image_that_cannot_be_read(tmp_path: Path, workers: int) -> None:
    root = draw_root(tmp_path, train=4, val=1)
    samples = samples_of(root)
    samples.path(5).write_bytes(b"not an image")
    with pytest.raises(WrongBytes, match=samples.path(5).name) as refused:
        list(loader_of(samples, workers=workers).batches(0))
    assert "verify --decode" in refused.value.hint


def test_a_split_that_is_not_there_is_said(tmp_path: Path) -> None:
    root = draw_root(tmp_path, train=1, val=1)
    with pytest.raises(ImnetprepError, match="no test split"):
        samples_of(root, Split.TEST)


_MEASURE = """
import json, sys
from pathlib import Path
from imnetprep.catalog.datasets import Root
from imnetprep.catalog.datasets import Split
from imnetprep.manifest import open_manifest
from imnetprep.samples.sample_list import read_samples

def peak_kib():
    return int(next(line for line in open("/proc/self/status") if "VmHWM" in line).split()[1])

root = Root(Path(sys.argv[1]))
before = peak_kib()
with open_manifest(root.manifest) as manifest:
    samples = read_samples(manifest, Split.TRAIN, root)
grown = peak_kib() - before
last = len(samples) - 1
place = [int(column[last]) for column in samples.places or ()]
print(json.dumps([len(samples), grown * 1024, samples.name(0), str(samples.path(last)), place]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("layout", Layout)
def test_all_of_imagenet_adds_under_150_megabytes(layout: Layout, tmp_path: Path) -> None:
    dataset = load_dataset("ilsvrc2012")
    root = Root(tmp_path)
    create_manifest(root.manifest, dataset)
    with open_manifest(root.manifest, write=True) as manifest:
        manifest.add_split(
            Split.TRAIN,
            layout,
            (
                SampleRecord(synset.label, name, number, bytes(16), None, *place)
                for synset in dataset.synsets
                for number, name in enumerate(dataset.names(Split.TRAIN, synset.label) or ())
                for place in [(synset.label, 9 * number)[: 2 * (layout == Layout.WEBDATASET)]]
            ),
        )
    told = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(tmp_path)],
        check=True,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    samples, grown_bytes, first, last, place = json.loads(told.stdout)
    assert samples == 1_281_167
    assert grown_bytes < 150e6
    assert first == "n01440764_10026.JPEG"
    if layout == Layout.IMAGEFOLDER:
        assert (last, place) == (str(tmp_path / "train/n15075141/n15075141_9993.JPEG"), [])
    else:
        assert last == str(tmp_path / "shards/train/train-000999.tar")
        number = place[2]
        assert place == [999, 9 * number, number] and number > 0
