"""The folders of a split: which class each holds, whatever it is called, and what lies beside."""

import os
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from imnetprep.catalog.datasets import Root
from imnetprep.checking.recognise import Place
from imnetprep.checking.roster import Roster
from imnetprep.messages import Finding, count


@dataclass
class Arrangement:
    """The folder of each label, and the files outside of any: `flat` ones with a sample's name."""

    folders: dict[int, Path] = field(default_factory=dict)
    flat: set[str] = field(default_factory=set)
    misfits: list[str] = field(default_factory=list)


def arrange(root: Root, place: Place, roster: Roster) -> Generator[Finding, None, Arrangement]:
    """Yields what is wrong at the top of a split and returns what lies where.

    A folder of another name is the class that most of its files' names belong to, unless that
    class has a folder already; then each of its files is a misfit.
    """
    arrangement, foreign = Arrangement(), []
    prefix = len(str(root.path / "x")) - 1
    for entry in _entries(place):
        label = roster.dataset.label_of_wnid.get(entry.name)
        if entry.is_folder and label is not None and not entry.is_stray:
            arrangement.folders[label] = Path(entry.path)
        elif entry.is_folder:
            foreign.append(Path(entry.path))
        elif entry.is_file and roster.label_of(entry.name) is not None:
            arrangement.flat.add(entry.path)
        elif entry.is_file:
            yield Finding("extra", entry.path[prefix:], "is not of the dataset")
        else:
            message = "is neither a folder nor a file"
            yield Finding("extra-folder", entry.path[prefix:], message)
    classes: dict[Path, int] = {}
    for path in sorted(foreign, key=lambda path: (len(path.name), path.name)):
        names = [entry.name for entry in os.scandir(path) if entry.is_file(follow_symlinks=False)]
        label = _class_of(names, roster)
        if label is not None and label not in arrangement.folders:
            arrangement.folders[label] = path
            classes[path] = label
        else:
            arrangement.misfits += (
                f"{path}/{name}" for name in names if roster.label_of(name) is not None
            )
            message = f"is not a class of the dataset, and has {count(len(names), 'file')}"
            yield Finding("extra-folder", str(path.relative_to(root.path)), message)
    yield from _renamed(root, classes, roster)
    return arrangement


class _Entry(NamedTuple):
    path: str
    name: str
    is_folder: bool
    is_file: bool
    is_stray: bool


def _entries(place: Place) -> Iterator[_Entry]:
    """What lies at the top of the split's folder, then outside of it; no link is followed."""
    if place.folder.is_dir():
        with os.scandir(place.folder) as entries:
            for entry in entries:
                is_folder = entry.is_dir(follow_symlinks=False)
                is_file = entry.is_file(follow_symlinks=False)
                yield _Entry(entry.path, entry.name, is_folder, is_file, False)
    for path in place.strays:
        yield _Entry(str(path), path.name, path.is_dir(), path.is_file(), True)


def _class_of(names: Iterable[str], roster: Roster) -> int | None:
    """The label that more than half of `names` have."""
    labels = [roster.label_of(name) for name in names]
    for label, number in Counter(labels).most_common(1):
        return label if 2 * number > len(labels) else None
    return None


def _renamed(root: Root, classes: dict[Path, int], roster: Roster) -> Iterator[Finding]:
    """The folders that hold a class under another name, and what their numbers are, if they are."""
    numbers = {int(path.name): label for path, label in classes.items() if path.name.isdecimal()}
    if numbers:
        folders = count(len(numbers), "class folder")
        message = f"{folders} called by numbers: {_numbering(numbers, roster)}"
        yield Finding("numeric", roster.split, message)
    for path, label in classes.items():
        wnid = roster.dataset.synsets[label].wnid
        home = f"{roster.split}/{wnid}"
        path_in_root = str(path.relative_to(root.path))
        yield Finding("misplaced", path_in_root, f"holds the images of {wnid}", home)


def _numbering(numbers: dict[int, int], roster: Roster) -> str:
    """Which number of a class they are, as the names in them tell."""
    synsets = roster.dataset.synsets
    if all(number == label for number, label in numbers.items()):
        return "the label, from 0"
    if all(number == synsets[label].ilsvrc_id for number, label in numbers.items()):
        return "the ilsvrc_id"
    if all(number == label + 1 for number, label in numbers.items()):
        return "the label, from 1"
    return "neither the label nor the ilsvrc_id"
