"""Training from shards: the numbers are those of training from class folders."""

import json
from pathlib import Path

import pytest

from imnetprep.catalog.datasets import Layout, Root, Split
from imnetprep.manifest import open_manifest
from imnetprep.messages import Silent, WrongBytes, WrongUsage
from imnetprep.organize_shards import plan_organize_shards
from imnetprep.samples.sample_list import read_samples
from imnetprep.sharding.make import Sharding
from imnetprep.training.loop import train
from imnetprep.training.plan import plan_training
from tests.conftest import Run
from tests.drawn import draw_root
from tests.training.test_loading import loader_of, same


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Root:
    """Three classes in class folders and in shards of 25."""
    root = draw_root(tmp_path_factory.mktemp("both"))
    plan = plan_organize_shards(root, Sharding(25, 4), dataset=None, splits=(), jobs=1)
    assert len(list(plan.carry_out(Silent()))) == 2
    return root


def test_our_reader_reads_the_same_in_the_same_order(both: Root) -> None:
    with open_manifest(both.manifest) as manifest:
        files, shards = (
            read_samples(manifest, Split.TRAIN, both, layout=layout) for layout in Layout
        )
    assert files.names == shards.names
    assert files.labels.tolist() == shards.labels.tolist()
    assert all(files.read(at) == shards.read(at) for at in range(60))


def test_with_two_layouts_the_reader_asks_for_one(both: Root) -> None:
    with (
        open_manifest(both.manifest) as manifest,
        pytest.raises(WrongUsage, match="holds val as imagefolder and as webdataset"),
    ):
        read_samples(manifest, Split.VAL, both)


def test_an_epoch_is_the_same_from_either_layout(both: Root) -> None:
    with open_manifest(both.manifest) as manifest:
        files, shards = (
            read_samples(manifest, Split.TRAIN, both, layout=layout) for layout in Layout
        )
    expected = list(loader_of(files, workers=0).batches(2))
    for workers in (0, 2):
        assert same(list(loader_of(shards, workers=workers).batches(2)), expected)


def test_training_gives_the_same_numbers_from_either_layout(both: Root, run: Run) -> None:
    given = {"arch": "squeezenet1_1", "image_size": 32, "epochs": 1, "batch_size": 16, "lr": 0.01}
    words = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    words += ["--root", str(both.path), "--layout", "webdataset", "--device", "cpu"]
    done = run("train", *words, "--workers", 1, "--no-amp", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    plan = plan_training(
        both,
        options=given,
        run="files",
        device="cpu",
        workers=0,
        layout=Layout.IMAGEFOLDER,
        progress=Silent(),
    )
    (report,) = train(plan, progress=Silent())
    assert said["train"]["loss"] == report.as_json()["train"]["loss"]
    assert said["val"] == report.as_json()["val"]


def test_an_image_in_a_shard_that_does_not_decode_is_named(tmp_path: Path) -> None:
    root = draw_root(tmp_path, train=4, val=1)
    plan = plan_organize_shards(root, Sharding(5), dataset=None, splits=(), jobs=1)
    list(plan.carry_out(Silent()))
    with open_manifest(root.manifest) as manifest:
        samples = read_samples(manifest, Split.TRAIN, root, layout=Layout.WEBDATASET)
    assert samples.places is not None
    with samples.path(5).open("r+b") as shard:
        shard.seek(int(samples.places.offsets[5]))
        shard.write(b"not an image")
    with pytest.raises(WrongBytes, match=f"train-00000.*tar: {samples.name(5)}: is not an image"):
        list(loader_of(samples, workers=0).batches(0))
