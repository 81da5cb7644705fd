"""What we organize opens in the libraries that others train with: same names, labels and bytes."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from imnetprep.catalog.datasets import Layout, Split
from imnetprep.digests import xxh128
from imnetprep.manifest import open_manifest
from imnetprep.synthetic import draw_dataset
from tests.conftest import Run
from tests.opened import open_in

pytestmark = pytest.mark.training

Samples = dict[str, tuple[int, bytes]]  # wnid/name: label, digest
SPLITS = pytest.mark.parametrize("split", [Split.TRAIN, Split.VAL])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """An organized root of drawn images, one a PNG and one CMYK, with its archives and meta.bin."""
    folder = tmp_path_factory.mktemp("consumers")
    drawn = draw_dataset(folder / "drawn", classes=3, train_per_class=4, val_per_class=2)
    root = folder / "root"
    (root / "archives").mkdir(parents=True)
    for archive in drawn.parent.glob("*.tar"):
        shutil.copy(archive, root / "archives")
    done = run("organize", "--root", root, "--dataset", drawn, "--meta-bin")
    assert done.returncode == 0, done.stderr
    return root


def _wnids(root: Path) -> list[str]:
    """The wnids in the order of their labels."""
    with open_manifest(root / "manifest.db") as manifest:
        return [synset.wnid for synset in manifest.synsets()]


def _listed(root: Path, split: Split) -> Samples:
    """What the manifest says."""
    with open_manifest(root / "manifest.db") as manifest:
        return {
            f"{synset.wnid}/{sample.name}": (synset.label, sample.xxh128)
            for synset in manifest.synsets()
            for sample in manifest.samples(
                manifest.splits()[split, Layout.IMAGEFOLDER], synset.label
            )
        }


def _read(samples: Iterable[tuple[str, int]]) -> Samples:
    """What another library has, from its paths and labels."""
    return {
        str(Path(path).relative_to(Path(path).parents[1])): (label, xxh128(Path(path).read_bytes()))
        for path, label in samples
    }


@SPLITS
def test_torchvision_image_folder(root: Path, split: Split) -> None:
    opened = open_in("torchvision", root, train=split)
    assert _read(opened.samples) == _listed(root, split)
    assert all(image.mode == "RGB" for image, _ in opened)


@SPLITS
def test_torchvision_imagenet_without_devkit_and_scipy(root: Path, split: Split) -> None:
    from torchvision.datasets import ImageNet

    opened = ImageNet(str(root), split=split)
    assert _read(opened.samples) == _listed(root, split)
    with open_manifest(root / "manifest.db") as manifest:
        synsets = manifest.synsets()
    assert opened.wnids == [synset.wnid for synset in synsets]
    assert opened.classes == [tuple(synset.words.split(", ")) for synset in synsets]
    assert opened.class_to_idx[synsets[1].name] == 1


def test_the_validation_wnids_of_meta_bin_are_in_the_order_of_the_names(root: Path) -> None:
    from torchvision.datasets.imagenet import load_meta_file

    names = {Path(path).name: Path(path).parts[0] for path in _listed(root, Split.VAL)}
    assert load_meta_file(str(root))[1] == [names[name] for name in sorted(names)]


@SPLITS
def test_timm(root: Path, split: Split) -> None:
    opened = open_in("timm", root, train=split)
    assert _read(opened.reader.samples) == _listed(root, split)
    assert all(image.mode == "RGB" for image, _ in opened)


def test_hugging_face_datasets(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    opened = open_in("Hugging Face datasets", root)
    assert set(opened) == {"train", "validation"}
    for theirs, split in (("train", Split.TRAIN), ("validation", Split.VAL)):
        assert all(row["image"].getbbox() for row in opened[theirs])
        rows = opened[theirs].cast_column("image", datasets.Image(decode=False))
        assert _read((row["image"]["path"], row["label"]) for row in rows) == _listed(root, split)
        assert rows.features["label"].names == _wnids(root)


def test_fastai(root: Path) -> None:
    opened = open_in("fastai", root)
    assert list(opened.vocab) == _wnids(root)
    for theirs, split in ((opened.train_ds, Split.TRAIN), (opened.valid_ds, Split.VAL)):
        labels = [int(label) for _, label in theirs]
        assert _read(zip(theirs.items, labels, strict=True)) == _listed(root, split)
    images, labels = opened.valid.one_batch()
    assert (images.shape, len(labels)) == ((6, 3, 224, 224), 6)


@SPLITS
def test_keras(root: Path, split: Split) -> None:
    opened = open_in("Keras 3", root, val=split)
    assert opened.class_names == _wnids(root)
    batches = list(opened)
    labels = [int(label) for _, batch in batches for label in batch]
    assert _read(zip(opened.file_paths, labels, strict=True)) == _listed(root, split)
    assert all(images.shape[1:] == (256, 256, 3) for images, _ in batches)
