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
    from torchvision.datasets import ImageFolder

    opened = ImageFolder(str(root / split))
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
    from timm.data.dataset_factory import create_dataset

    opened = create_dataset("folder", root=str(root), split=split)
    assert _read(opened.reader.samples) == _listed(root, split)
    assert all(image.mode == "RGB" for image, _ in opened)


def test_hugging_face_datasets(root: Path, tmp_path: Path) -> None:
    from datasets import Image, load_dataset

    opened = load_dataset("imagefolder", data_dir=str(root), cache_dir=str(tmp_path))
    assert set(opened) == {"train", "validation"}
    for theirs, split in (("train", Split.TRAIN), ("validation", Split.VAL)):
        assert all(row["image"].getbbox() for row in opened[theirs])
        rows = opened[theirs].cast_column("image", Image(decode=False))
        assert _read((row["image"]["path"], row["label"]) for row in rows) == _listed(root, split)
        with open_manifest(root / "manifest.db") as manifest:
            wnids = [synset.wnid for synset in manifest.synsets()]
        assert rows.features["label"].names == wnids
