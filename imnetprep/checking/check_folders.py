"""A split as it lies against what it should be: every finding, each with where the file belongs."""

import os
import stat
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from imnetprep.catalog.datasets import Root, Split
from imnetprep.checking.read_files import Read, read_findings
from imnetprep.checking.recognise import Place, Roster, Sizes, Tree, opened_roster
from imnetprep.jobs import FILES
from imnetprep.manifest import SampleRecord
from imnetprep.messages import (
    CHANGE_KIND,
    Checks,
    Finding,
    ImnetprepError,
    Progress,
    Task,
    count,
    format_bytes,
)

# Read but not yet judged, at most, so that memory does not grow with the dataset.
_CHUNKS_UNDER_WAY, _CHUNK_READS = 64, 32


def surveyed(
    root: Root, tree: Tree, split: Split, *, checks: Checks, jobs: int | None, progress: Progress
) -> Iterator[Finding]:
    """All that is wrong with `split`; a sample outside any class folder is one of kind `flat` each.

    Raises ImnetprepError where digests are wanted and no manifest has them.
    """
    place = tree.places.get(split)
    if place is None:
        yield Finding("missing-split", split, "is not organized")
        return
    if checks.digests and not place.listed:
        raise ImnetprepError(
            f"no manifest lists {split}, so there are no digests to compare",
            hint="imnetprep verify --adopt writes one",
        )
    with (
        opened_roster(root, tree.dataset, split, listed=place.listed) as roster,
        progress.task(f"verify {split}", total=roster.samples, unit="images") as task,
        ThreadPoolExecutor(FILES.count(jobs)) as workers,
    ):
        yield from _Survey(root, place, roster, checks, workers, task).findings()


@dataclass
class _Arrangement:
    """The folder of each label, and the files outside of any: `flat` ones with a sample's name."""

    folders: dict[int, Path] = field(default_factory=dict)
    flat: set[str] = field(default_factory=set)
    misfits: list[str] = field(default_factory=list)


def _arrange(root: Root, place: Place, roster: Roster) -> Generator[Finding, None, _Arrangement]:
    """Yields what is wrong at the top of a split and returns what lies where.

    A folder of another name is the class that most of its files' names belong to, unless that
    class has a folder already; then each of its files is a misfit.
    """
    arrangement, foreign = _Arrangement(), []
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


class _Survey:
    """The survey of one split: its folders first, then class by class."""

    def __init__(
        self,
        root: Root,
        place: Place,
        roster: Roster,
        checks: Checks,
        workers: ThreadPoolExecutor,
        task: Task,
    ) -> None:
        self._root, self._place, self._roster = root, place, roster
        self._checks, self._workers, self._task = checks, workers, task
        self._split = place.split
        self._prefix = len(str(root.path / "x")) - 1
        self._gaps: dict[str, int] = {}  # name -> its label
        self._misfits: list[str] = []
        self._chunks: deque[Future[list[Finding]]] = deque()
        self._reads: list[Read] = []
        self._sizes, self._has_damage = Sizes(roster.dataset, place.split), False

    def findings(self) -> Iterator[Finding]:
        if not (self._place.folder.is_dir() or self._place.strays):
            yield Finding("missing-split", self._split, "the folder is gone")
            return
        if self._place.folder != self._root.split(self._split) and self._place.folder.is_dir():
            message = f"holds the {self._split} split of {self._roster.dataset.name}"
            yield Finding("misplaced", self._in_root(str(self._place.folder)), message, self._split)
        arrangement = yield from _arrange(self._root, self._place, self._roster)
        for synset in self._roster.dataset.synsets:
            yield from self._class(synset.label, synset.wnid, arrangement)
        yield from self._judged(backlog=0)
        self._misfits += arrangement.misfits
        yield from self._out_of_place(arrangement)
        yield from self._judged(backlog=0)
        is_whole = self._sizes.images == self._roster.samples and not self._has_damage
        if is_whole and not self._listed and (change := self._sizes.change):
            size = format_bytes(self._sizes.size_bytes)
            message = f"{count(self._sizes.images, 'image')}, {size}: {change}"
            yield Finding(CHANGE_KIND, self._split, message)

    def _class(self, label: int, wnid: str, arrangement: _Arrangement) -> Iterator[Finding]:
        home = f"{self._split}/{wnid}"
        records = self._roster.records(label)
        images = self._roster.count(label)
        if self._roster.listed and records is not None and len(records) != images:
            message = f"the manifest lists {count(len(records), 'image')}, not {images:,}"
            yield Finding("count", home, message)
        folder = arrangement.folders.get(label)
        number = images if records is None else len(records)
        if folder is not None:
            yield from self._contents(folder, label, records)
        elif number:
            message = f"the class folder is missing, with its {count(number, 'image')}"
            yield Finding("missing-class", home, message, home)
            self._gaps |= dict.fromkeys(records or (), label)
        self._task.advance(number)

    def _contents(
        self, folder: Path, label: int, records: Mapping[str, SampleRecord | None] | None
    ) -> Iterator[Finding]:
        home = self._home(label)
        sizes: dict[str, int | None] = {}  # None: not a regular file
        with os.scandir(folder) as entries:
            for entry in entries:
                is_regular = entry.is_file(follow_symlinks=False)
                sizes[entry.name] = entry.stat().st_size if is_regular else None
        if records is None:
            names = (name for name in sizes if self._roster.label_of(name) == label)
            records = dict.fromkeys(names)
            if len(records) != self._roster.count(label):
                message = f"has {count(len(records), 'image')}, not {self._roster.count(label):,}"
                yield Finding("count", self._in_root(str(folder)), message, home)
        for name, record in records.items():
            size_bytes = sizes.pop(name, -1)
            if size_bytes == -1:
                self._gaps[name] = label
            else:
                yield from self._sample(f"{folder}/{name}", label, size_bytes, record)
        self._misfits += (f"{folder}/{name}" for name in sizes)

    def _sample(
        self, path: str, label: int, size_bytes: int | None, record: SampleRecord | None
    ) -> Iterator[Finding]:
        """What is wrong with a file that is in its place, or has one."""
        path_in_root, belongs = self._in_root(path), self._home(label, path.rpartition("/")[2])
        if size_bytes is None:
            yield Finding("not-a-file", path_in_root, "is not a regular file", belongs)
            return
        if record is not None and size_bytes != record.size_bytes:
            message = f"has {size_bytes:,} bytes, not {record.size_bytes:,}"
            yield Finding("size", path_in_root, message, belongs)
        elif size_bytes == 0:
            yield Finding("size", path_in_root, "is empty", belongs)
            return
        self._sizes.add(label, size_bytes)
        if self._checks.read_every_file or record is None:
            self._reads.append(Read(path, path_in_root, belongs, record))
            if len(self._reads) == _CHUNK_READS:
                yield from self._judged(backlog=_CHUNKS_UNDER_WAY)

    def _judged(self, *, backlog: int) -> Iterator[Finding]:
        if self._reads:
            self._chunks.append(self._workers.submit(read_findings, self._reads, self._checks))
            self._reads = []
        while len(self._chunks) > backlog:
            found = self._chunks.popleft().result()
            self._has_damage |= bool(found)
            yield from found

    def _out_of_place(self, arrangement: _Arrangement) -> Iterator[Finding]:
        """Names that are missing in their class and lie elsewhere; then what is nowhere."""
        homes: dict[str, str] = {}  # of names that lie elsewhere
        for path in [*sorted(arrangement.flat), *sorted(self._misfits)]:
            name, path_in_root = path.rpartition("/")[2], self._in_root(path)
            label = self._gaps.pop(name, None)
            if label is None and not self._names_known and name not in homes:
                label = self._roster.label_of(name)
                if label is not None and (folder := arrangement.folders.get(label)) is not None:
                    label = None if (folder / name).exists() else label
            status = os.lstat(path)
            if label is not None and stat.S_ISREG(status.st_mode):
                home = self._home(label)
                homes[name] = f"{home}/{name}"
                kind = "flat" if path in arrangement.flat else "misplaced"
                yield Finding(kind, path_in_root, f"belongs in {home}/", homes[name])
                record = (self._roster.records(label) or {}).get(name) if self._listed else None
                yield from self._sample(path, label, status.st_size, record)
            elif (place := homes.get(name) or self._home_of(name)) is not None:
                yield Finding("extra", path_in_root, f"is there a second time: {place}", place)
            else:
                yield Finding("extra", path_in_root, "is not of the dataset")
        for name, label in sorted(self._gaps.items()):
            if label in arrangement.folders:
                home = self._home(label, name)
                yield Finding("missing", home, "is not there", home)

    @property
    def _listed(self) -> bool:
        return self._roster.listed

    @property
    def _names_known(self) -> bool:
        return self._listed or self._roster.dataset.numbers(self._split) is not None

    def _home_of(self, name: str) -> str | None:
        """Where the sample called `name` belongs, if the split has it."""
        label = self._roster.label_of(name)
        if label is None or (self._listed and name not in (self._roster.records(label) or ())):
            return None
        return self._home(label, name)

    def _home(self, label: int, name: str = "") -> str:
        home = f"{self._split}/{self._roster.dataset.synsets[label].wnid}"
        return f"{home}/{name}" if name else home

    def _in_root(self, path: str) -> str:
        """`path` without the root; strings, because a million Paths take half a minute."""
        return path[self._prefix :]
