"""What a tree is that no manifest speaks of: which dataset by its names and counts, which splits.

A split lies in the folder of its name, in a folder of another name (`validation/`), or its class
folders and images lie in the root itself.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from imnetprep.catalog.datasets import BUILT_IN, Dataset, Layout, Root, Split, load_dataset
from imnetprep.checking.roster import Roster, Sizes
from imnetprep.manifest import Manifest, dataset_for, open_manifest
from imnetprep.messages import ImnetprepError, count

# Names looked at to tell what a folder holds; all are looked at later, by the survey.
_SAMPLED_FOLDERS, _SAMPLED_NAMES = 16, 32
# Below it a tree is not a damaged copy of the dataset but another one that shares some names:
# ten classes of Tiny-ImageNet have 1 % of the validation names of ILSVRC2012, with other labels.
_LEAST_SHARE = 0.05
_NOT_SPLITS = {"archives", "runs", *(layout.parent for layout in Layout), *Split}


@dataclass(frozen=True)
class Place:
    """Where a split lies. `listed`: the manifest knows its samples.

    `strays` are its class folders and images that lie in the root itself. `images` are counted
    where no manifest lists them.
    """

    split: Split
    folder: Path
    listed: bool
    strays: tuple[Path, ...] = ()
    class_folders: int = 0
    images: int = 0


class Tree(NamedTuple):
    """A root's dataset and the splits that are there, by name."""

    dataset: Dataset
    places: dict[Split, Place]

    def selected(self, root: Root, splits: Sequence[Split]) -> Sequence[Split]:
        """`splits`, or all of the dataset. Raises ImnetprepError where one named is not there."""
        for split in splits if self.places else self.dataset.splits:
            if split not in self.places:
                raise ImnetprepError(
                    f"{split} of {self.dataset.name} is not organized in {root.path}",
                    hint="imnetprep organize",
                )
        return splits or self.dataset.splits

    def roster(self, split: Split, manifest: Manifest | None) -> Roster:
        """What should lie in `split`; `manifest` is None where none lists it."""
        return Roster(self.dataset, split, manifest)

    def sizes(self, split: Split) -> Sizes:
        """An empty sum: add all images of `split`, and it tells if others changed them."""
        return Sizes(self.dataset, split)


def recognise(root: Root, *, dataset: str | None) -> Tree:
    """What lies under `root`: what its manifest says, else what its names and counts tell.

    `dataset` is the one that the user names. Raises ImnetprepError where nothing is there, or
    nothing that a built-in dataset fits.
    """
    listed_splits: set[Split] = set()
    if root.manifest.exists():
        with open_manifest(root.manifest) as manifest:
            keys = manifest.splits()
            listed_splits = {split for split, layout in keys if layout is Layout.IMAGEFOLDER}
    if root.manifest.exists() or dataset is not None:
        definition = dataset_for(root.manifest, dataset)
        return Tree(definition, _places(root, definition, listed_splits))
    trees = [Tree(each, _places(root, each, listed_splits)) for each in map(load_dataset, BUILT_IN)]
    fits = [_fit(root, tree) for tree in trees]
    best = [tree for tree, fit in zip(trees, fits, strict=True) if fit == max(fits)]
    if max(fits) >= _LEAST_SHARE:
        if len(best) > 1:
            names = ", ".join(tree.dataset.name for tree in best)
            raise ImnetprepError(
                f"{root.path} has the names of {names} alike",
                hint="say which it is: --dataset NAME",
            )
        return best[0]
    if any(root.split(split).is_dir() for split in (Split.TRAIN, Split.VAL)):
        raise ImnetprepError(
            f"{root.path} has no manifest, and its names and counts are those of no built-in"
            f" dataset ({', '.join(BUILT_IN)})",
            hint="name its dataset: --dataset FILE.toml (docs/catalog.md)",
        )
    with open_manifest(root.manifest):  # says that there is none, and what to do
        raise AssertionError("there is no manifest")


def require_share(root: Root, tree: Tree, place: Place) -> None:
    """Raise ImnetprepError where `place` is hardly a damaged copy of its dataset's split.

    Nothing may be moved by the names of a dataset that it is not.
    """
    if place.listed or _share(root, tree.dataset, place) >= _LEAST_SHARE:
        return
    raise ImnetprepError(
        f"{place.folder} has {count(place.images, 'image')}, hardly any of the"
        f" {tree.dataset.samples(place.split):,} that {tree.dataset.name} has in {place.split}:"
        " it is another dataset",
        hint="name the right one: --dataset NAME|FILE.toml",
    )


def _fit(root: Root, tree: Tree) -> float:
    shares = [_share(root, tree.dataset, place) for place in tree.places.values()]
    return max(shares, default=0)


def _share(root: Root, dataset: Dataset, place: Place) -> float:
    """How much of the split is there, at most: its share of fitting names times its count."""
    samples = dataset.samples(place.split)
    size_ratio = min(place.images, samples) / max(place.images, samples, 1)
    folders = [place.folder] if place.folder != root.path else []
    folders += [stray for stray in place.strays if stray.is_dir()][:_SAMPLED_FOLDERS]
    names = [stray.name for stray in place.strays if stray.is_file()][:_SAMPLED_NAMES]
    names += [name for folder in folders if folder.is_dir() for name in _sampled_names(folder)]
    return size_ratio * _fitting(dataset, place.split, names)


def _fitting(dataset: Dataset, split: Split, names: Sequence[str]) -> float:
    samples = sum(dataset.label_of(split, name) is not None for name in names)
    return samples / max(len(names), 1)


def _places(root: Root, dataset: Dataset, listed_splits: set[Split]) -> dict[Split, Place]:
    places = {}
    for split in dataset.splits:
        if split in listed_splits:
            places[split] = Place(split, root.split(split), listed=True)
        elif (place := _unlisted_place(root, dataset, split)) is not None:
            places[split] = place
    return places


def _unlisted_place(root: Root, dataset: Dataset, split: Split) -> Place | None:
    if not root.path.is_dir():
        return None
    strays = tuple(_strays(root, dataset, split))
    folder = root.split(split)
    if not folder.is_dir():
        holders = [each for each in _other_folders(root, dataset) if _holds(each, dataset, split)]
        if len(holders) == 1:
            folder = holders[0]
        elif not strays:
            return None
    folders = [stray for stray in strays if stray.is_dir()]
    images = len(strays) - len(folders)
    if folder.is_dir():
        images += sum(1 for entry in os.scandir(folder) if not entry.is_dir())
        folders += [Path(entry) for entry in os.scandir(folder) if entry.is_dir()]
    images += sum(len(os.listdir(each)) for each in folders)  # noqa: PTH208 - a million names
    return Place(split, folder, False, strays, len(folders), images)


def _strays(root: Root, dataset: Dataset, split: Split) -> Iterator[Path]:
    """What of `split` lies in the root itself."""
    with os.scandir(root.path) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            path = root.path / entry.name
            if entry.is_dir(follow_symlinks=False):
                if entry.name in dataset.label_of_wnid and _holds(path, dataset, split):
                    yield path
            elif (
                entry.is_file(follow_symlinks=False)
                and dataset.label_of(split, entry.name) is not None
            ):
                yield path


def _other_folders(root: Root, dataset: Dataset) -> Iterator[Path]:
    with os.scandir(root.path) as entries:
        for entry in entries:
            plain = entry.name not in _NOT_SPLITS and not entry.name.startswith(".")
            if plain and entry.is_dir() and entry.name not in dataset.label_of_wnid:
                yield root.path / entry.name


def _holds(folder: Path, dataset: Dataset, split: Split) -> bool:
    names = _sampled_names(folder)
    return bool(names) and _fitting(dataset, split, names) > 0.5


def _sampled_names(folder: Path) -> list[str]:
    """Some names of files in `folder` and in some of its folders."""
    files: list[str] = []
    folders: list[str] = []
    with os.scandir(folder) as entries:
        for entry in islice(entries, _SAMPLED_FOLDERS * _SAMPLED_NAMES):
            (folders if entry.is_dir() else files).append(entry.name)
    names = files[: _SAMPLED_FOLDERS * _SAMPLED_NAMES]
    for name in _spread(folders):
        with os.scandir(folder / name) as entries:
            names += [entry.name for entry in islice(entries, _SAMPLED_NAMES)]
    return names


def _spread(folders: Iterable[str]) -> list[str]:
    names = sorted(folders)
    return names[:: max(1, len(names) // _SAMPLED_FOLDERS)]
