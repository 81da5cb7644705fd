"""What a tree is, with a manifest or without: its dataset, its splits, what should lie in each.

A split lies in the folder of its name, in a folder of another name (`validation/`), or its class
folders and images lie in the root itself. What should lie in it is the manifest's list, else the
dataset's names, else its counts. Names and counts cannot tell images that somebody made smaller
from the published ones: there the sizes are compared with that of the published archive.
"""

import os
import tarfile
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from imnetprep.archives.tar import BLOCK_BYTES, PLAIN_FORMS
from imnetprep.archives.tar_writing import ending
from imnetprep.catalog.datasets import BUILT_IN, Archive, Dataset, Layout, Root, Split, load_dataset
from imnetprep.manifest import Manifest, SampleRecord, dataset_for, open_manifest
from imnetprep.messages import ImnetprepError, adopt_by_links, count, format_bytes, shell_command

# Names looked at to tell what a folder holds; all are looked at later, by the survey.
_SAMPLED_FOLDERS, _SAMPLED_NAMES = 16, 32
# As Tiny-ImageNet's zip unpacks: val/images/ beside val/val_annotations.txt.
_INNER_FOLDER, _ANNOTATIONS = "images", "_annotations.txt"
# Below it a tree is not a damaged copy of the dataset but another one that shares some names:
# ten classes of Tiny-ImageNet have 1 % of the validation names of ILSVRC2012, with other labels.
_LEAST_SHARE = 0.05
_NOT_SPLITS = {"archives", "runs", *(layout.parent for layout in Layout), *Split}
# Both archives of ILSVRC2012 are whole records of 20 blocks, as GNU tar ends them; should the tars
# in them end otherwise, each is up to a record off. Beside that 1 in 20,000 for what nobody knows:
# in all 18 MB of train, where its smallest class (732 images) lacks some 60 MB at 256 px, and
# 350 kB of val, where a class lacks some 5 MB.
_RECORD_BYTES, _SLACK = tarfile.RECORDSIZE, 20_000
# A user's own archive may have a PAX header or a GNU long name before each body.
_LONGER_HEADER_BYTES = 2 * BLOCK_BYTES


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


class UnknownImages(ImnetprepError):
    """Nothing that a built-in dataset fits."""


class Tree(NamedTuple):
    """A root's dataset and the splits that are there, by name."""

    dataset: Dataset
    places: dict[Split, Place]

    def selected(
        self, root: Root, splits: Sequence[Split], *, present: Collection[Split] | None = None
    ) -> Sequence[Split]:
        """`splits`, or all of the dataset. Raises ImnetprepError where one named, or any, is not
        among those that are `present` (those with a place, where nothing else is said).
        """
        present = self.places if present is None else present
        for split in splits if present else self.dataset.splits:
            if split not in present:
                raise ImnetprepError(
                    f"{split} of {self.dataset.name} is not organized in {root.path}",
                    hint="imnetprep organize",
                )
        return splits or self.dataset.splits


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
        _refuse_inner_folders(root, best[0])
        return best[0]
    if any(root.split(split).is_dir() for split in (Split.TRAIN, Split.VAL)):
        raise UnknownImages(
            f"{root.path} has no manifest, and its names and counts are those of no built-in"
            f" dataset ({', '.join(BUILT_IN)})",
            hint=f"{shell_command('imnetprep', 'adopt', root.path)} takes images of your own; or"
            " name its dataset: --dataset FILE.toml (docs/catalog.md)",
        )
    raise UnknownImages(
        f"{root.path} holds no dataset yet: there is no {root.manifest.name}", hint=_hint(root)
    )


def _refuse_inner_folders(root: Root, tree: Tree) -> None:
    """Raise ImnetprepError where images lie in CLASS/images, as Tiny-ImageNet's zip unpacks."""
    for place in tree.places.values():
        for synset in islice(tree.dataset.synsets, _SAMPLED_FOLDERS):
            if (place.folder / synset.wnid / _INNER_FOLDER).is_dir():
                raise ImnetprepError(
                    f"{root.path} is {tree.dataset.name} as its archive unpacks: the images of"
                    f" {place.split} lie in {place.folder.name}/{synset.wnid}/images",
                    hint=f"{adopt_by_links(root.path)} makes a root of links to them",
                )


def _hint(root: Root) -> str:
    """What makes a dataset of a root that holds none: of folders of the user's, or of nothing."""
    paths = root.path.iterdir() if root.path.is_dir() else ()
    names = (path.name for path in paths if path.is_dir())
    if any(name not in _NOT_SPLITS and not name.startswith(".") for name in names):
        adopt = shell_command("imnetprep", "adopt", root.path)
        return f"{adopt} takes images of your own; imnetprep organize --archives DIR takes archives"
    return "imnetprep download, or imnetprep organize --archives DIR; --root names the root"


def tree_of(root: Root, dataset: Dataset) -> Tree:
    """What lies under a root without a manifest, taken as `dataset`."""
    return Tree(dataset, _places(root, dataset, set()))


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
    shares = {place: _share(root, tree.dataset, place) for place in tree.places.values()}
    if any(share == 0 and _has_other_classes(tree.dataset, each) for each, share in shares.items()):
        return 0  # of a flat val beside them the names alone would speak
    return max(shares.values(), default=0)


def _has_other_classes(dataset: Dataset, place: Place) -> bool:
    """Are there class folders in `place`, and none that a class of `dataset` is called by?"""
    paths = place.folder.iterdir() if place.folder.is_dir() else ()
    names = {path.name for path in paths if path.is_dir()}
    return bool(names) and names.isdisjoint({*dataset.label_of_wnid, _INNER_FOLDER})


def _share(root: Root, dataset: Dataset, place: Place) -> float:
    """How much of the split is there, at most: its share of fitting names times its count."""
    samples = dataset.samples(place.split)
    size_ratio = min(place.images, samples) / max(place.images, samples, 1)
    folders = [place.folder] if place.folder != root.path else []
    folders += [stray for stray in place.strays if stray.is_dir()][:_SAMPLED_FOLDERS]
    names = [("", stray.name) for stray in place.strays if stray.is_file()][:_SAMPLED_NAMES]
    names += [name for folder in folders if folder.is_dir() for name in _sampled_names(folder)]
    return size_ratio * _fitting(dataset, place.split, names)


def _fitting(dataset: Dataset, split: Split, names: Sequence[tuple[str, str]]) -> float:
    """The share of `names`, each behind that of its class folder, that are of the split.

    A name alone is no proof, as anybody may call an image `val_0.JPEG`: in a folder that no class
    is called by, those of one class fit.
    """
    labels = defaultdict[str, Counter[int]](Counter)
    for folder, name in names:
        if (label := dataset.label_of(split, name)) is not None:
            labels[folder][label] += 1
    fits = 0
    for folder, of_folder in labels.items():
        if folder in ("", *dataset.label_of_wnid):
            fits += of_folder.total()
        else:
            fits += max(of_folder.values()) if len(of_folder) < of_folder.total() else 0
    return fits / max(len(names), 1)


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


def _sampled_names(folder: Path) -> list[tuple[str, str]]:
    """Some names of files in `folder`, and in some of its folders: behind the name of that."""
    files: list[str] = []
    folders: list[str] = []
    with os.scandir(folder) as entries:
        for entry in islice(entries, _SAMPLED_FOLDERS * _SAMPLED_NAMES):
            (folders if entry.is_dir() else files).append(entry.name)
    names = [("", name) for name in files[: _SAMPLED_FOLDERS * _SAMPLED_NAMES]]
    folders.sort()
    is_annotated = any(name.endswith(_ANNOTATIONS) for name in files)
    for name in folders[:: max(1, len(folders) // _SAMPLED_FOLDERS)]:  # spread over all
        class_name = "" if is_annotated and name == _INNER_FOLDER else name
        with os.scandir(folder / name) as entries:
            names += [(class_name, entry.name) for entry in islice(entries, _SAMPLED_NAMES)]
    return names


class Roster:
    """The samples that `split` should have. `manifest` is None where none lists the split."""

    def __init__(self, dataset: Dataset, split: Split, manifest: Manifest | None) -> None:
        self.dataset, self.split = dataset, split
        self._manifest = manifest
        self._record = manifest.splits()[split, Layout.IMAGEFOLDER] if manifest else None
        self.listed: bool = manifest is not None
        self._last: tuple[int, Mapping[str, SampleRecord | None] | None] = (-1, None)

    @property
    def change(self) -> str | None:
        """What was done to the images; None: nothing, as far as anybody knows."""
        return self._record.change if self._record else None

    @property
    def samples(self) -> int:
        """How many there should be in all."""
        return self.dataset.samples(self.split)

    def records(self, label: int) -> Mapping[str, SampleRecord | None] | None:
        """The names of a class with what the manifest knows of each; None: only the count is known.

        A class at a time, because a million records are too many to hold; the last one is kept.
        """
        if label != self._last[0]:
            self._last = (label, self._read(label))
        return self._last[1]

    def _read(self, label: int) -> Mapping[str, SampleRecord | None] | None:
        if self._manifest and self._record:
            return {each.name: each for each in self._manifest.samples(self._record, label)}
        names = self.dataset.names(self.split, label)
        return None if names is None else dict.fromkeys(names)

    def count(self, label: int) -> int:
        """How many samples a class should have."""
        return self.dataset.counts(self.split)[label]

    def label_of(self, name: str, wnid: str | None = None) -> int | None:
        """The label of the sample called `name`, as the dataset names its samples."""
        return self.dataset.label_of(self.split, name, wnid)


@contextmanager
def opened_roster(root: Root, dataset: Dataset, split: Split, *, listed: bool) -> Iterator[Roster]:
    """What should lie in `split`, with the manifest open where it is `listed` there."""
    with open_manifest(root.manifest) if listed else nullcontext() as manifest:
        yield Roster(dataset, split, manifest)


class Sizes:
    """The sizes of the images of a split, added one by one. `size_bytes` is what they hold."""

    def __init__(self, dataset: Dataset, split: Split) -> None:
        archive = _published_tar(dataset, split)
        self._published_bytes = archive.size_bytes if archive else None
        self._nested: bool = archive is not None and archive.form == "tar-of-tars"
        self._longer_header_bytes = 0 if dataset.built_in else _LONGER_HEADER_BYTES
        self._members = Counter[int]()  # label -> bytes of its headers and padded bodies
        self.images = self.size_bytes = 0

    @property
    def known(self) -> bool:
        """Is it known how much the published images take?"""
        return self._published_bytes is not None

    def add(self, label: int, size_bytes: int) -> None:
        """One more image of `label`."""
        self.images += 1
        self.size_bytes += size_bytes
        self._members[label] += (1 + -(-size_bytes // BLOCK_BYTES)) * BLOCK_BYTES

    @property
    def archive_bytes(self) -> int:
        """What the archive would have if it were packed of these images."""
        of_labels = self._members.values()
        if self._nested:
            return _tar_bytes(sum(BLOCK_BYTES + _tar_bytes(each) for each in of_labels))
        return _tar_bytes(sum(of_labels))

    @property
    def change(self) -> str | None:
        """What others did to the images, all of which are added; None: nothing that shows."""
        if self._published_bytes is None:
            return None
        tars = 1 + self._nested * len(self._members)
        slack_bytes = tars * _RECORD_BYTES + self._published_bytes // _SLACK
        slack_bytes += self.images * self._longer_header_bytes
        more_bytes = self.archive_bytes - self._published_bytes
        if abs(more_bytes) <= slack_bytes:
            return None
        cause, sign = ("", "more") if more_bytes > 0 else ("made smaller or ", "less")
        difference = format_bytes(abs(more_bytes))
        return f"{cause}encoded anew by others, {difference} {sign} than published"


def _published_tar(dataset: Dataset, split: Split) -> Archive | None:
    """The tar that has the images of `split` and nothing else, if there is one."""
    if dataset.part_of is not None:
        return None  # its archives hold more
    archives = [archive for archive in dataset.packed(None) if split in archive.splits]
    if len(archives) != 1 or archives[0].form not in PLAIN_FORMS:
        return None
    return None if archives[0].members or archives[0].other_members else archives[0]


def _tar_bytes(members_bytes: int) -> int:
    return members_bytes + len(ending(members_bytes))
