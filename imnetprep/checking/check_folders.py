"""A split as it lies against what it should be: every finding, each with where the file belongs."""

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path

from imnetprep.catalog.datasets import Root, Split
from imnetprep.catalog.file_names import is_litter
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
    shell_command,
)
from imnetprep.proving.receipt import bad_images

_CHUNK_READS = 32
# From this share on, images in a wrong class folder are no accidents but labels given by position.
_SHARE_BY_POSITION = 0.1


def folder_findings(
    root: Root, tree: Tree, split: Split, *, checks: Checks, jobs: int | None, progress: Progress
) -> Iterator[Finding]:
    """What `surveyed` finds, but flat images as one; labels given by position are one more."""
    first_flat, flat, mislabels = "", 0, 0
    for finding in surveyed(root, tree, split, checks=checks, jobs=jobs, progress=progress):
        if finding.kind == "flat":
            first_flat, flat = first_flat or finding.path, flat + 1
            continue
        is_image = finding.kind == "misplaced" and (finding.belongs or "").count("/") == 2
        mislabels += is_image
        yield finding
    if flat:
        message = f"{count(flat, 'image')} flat in {split}/, outside any class folder"
        yield Finding("flat", first_flat, message)
    if mislabels >= max(2, _SHARE_BY_POSITION * tree.dataset.samples(split)):
        message = (
            f"{mislabels:,} of {count(tree.dataset.samples(split), 'image')} lie in a wrong"
            " class folder, as if labels had been given by position"
        )
        yield Finding("positional", split, message)


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
            hint=f"{shell_command('imnetprep', 'adopt', root.path)} writes one",
        )
    if not (place.folder.is_dir() or place.strays):
        yield Finding("missing-split", split, "the folder is gone")
        return
    with (
        opened_roster(root, tree.dataset, split, listed=place.listed) as roster,
        progress.task(f"verify {split}", total=roster.samples, unit="images") as task,
    ):
        survey = _Survey(root, place, roster, checks=checks, task=task)
        chunks, is_whole = _chunks(survey.results()), True
        for found in FILES.in_threads(partial(read_findings, checks=checks), chunks, jobs=jobs):
            is_whole &= all(each.kind not in ("decode", "unreadable") for each in found)
            yield from found
        sizes = survey.sizes
        if is_whole and not place.listed and sizes.images == roster.samples and sizes.change:
            content = f"{count(sizes.images, 'image')}, {format_bytes(sizes.size_bytes)}"
            yield Finding(CHANGE_KIND, split, f"{content}: {sizes.change}")


def _chunks(results: Iterator[Finding | Read]) -> Iterator[list[Finding | Read]]:
    while chunk := list(islice(results, _CHUNK_READS)):
        yield chunk


class _Survey:
    """The survey of one split: its folders first, then class by class.

    Results are findings, and files of which the bytes are to be looked at.
    """

    def __init__(
        self, root: Root, place: Place, roster: Roster, *, checks: Checks, task: Task
    ) -> None:
        self._root, self._place, self._roster = root, place, roster
        self._checks, self._task = checks, task
        self._split = place.split
        self._prefix = len(str(root.path / "x")) - 1
        self._folders: dict[int, Path] = {}  # label -> its class folder, whatever its name
        self._flat: list[str] = []  # samples outside any folder
        self._misfits: list[str] = []  # what is in a folder and does not belong there
        self._gaps: set[tuple[int, str]] = set()  # samples that are missing, by label and name
        self._bad_images = bad_images(root, place.split)
        self.sizes = Sizes(roster.dataset, place.split)

    def results(self) -> Iterator[Finding | Read]:
        """All that is wrong, with each file to read."""
        if self._place.folder != self._root.split(self._split) and self._place.folder.is_dir():
            message = f"holds the {self._split} split of {self._roster.dataset.name}"
            yield Finding("misplaced", self._in_root(str(self._place.folder)), message, self._split)
        yield from self._top()
        for synset in self._roster.dataset.synsets:
            yield from self._class(synset.label)
        yield from self._out_of_place()

    def _top(self) -> Iterator[Finding]:
        """What lies at the top of the split, and class folders outside."""
        strays = self._place.strays
        foreign = [path for path in strays if path.is_dir()]
        self._flat += (str(path) for path in strays if path.is_file())
        for entry in os.scandir(self._place.folder) if self._place.folder.is_dir() else ():
            label = self._roster.dataset.label_of_wnid.get(entry.name)
            if is_litter(entry.name) or entry.name in self._bad_images:
                continue
            if entry.is_dir(follow_symlinks=label is not None):
                if label is None:
                    foreign.append(Path(entry.path))
                else:
                    self._folders[label] = Path(entry.path)
            elif not entry.is_file(follow_symlinks=False):
                message = "is neither a folder nor a file"
                yield Finding("extra-folder", self._in_root(entry.path), message)
            elif self._roster.label_of(entry.name) is None:
                kind, message = "extra", "is not of the dataset"
                if entry.name.removesuffix(".tar") in self._roster.dataset.label_of_wnid:
                    kind, message = "class-tar", "is a class tar: organize --archives unpacks those"
                yield Finding(kind, self._in_root(entry.path), message)
            else:
                self._flat.append(entry.path)
        yield from self._foreign(foreign)

    def _foreign(self, folders: list[Path]) -> Iterator[Finding]:
        """Folders of other names. Each is the class that most of its files' names belong to, unless
        that class has a folder already; then each of its files is a misfit.
        """
        classes: dict[Path, int] = {}
        for path in sorted(folders, key=lambda path: (len(path.name), path.name)):
            entries = os.scandir(path)
            names = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
            label = _class_of(names, self._roster)
            if label is not None and label not in self._folders:
                self._folders[label] = path
                classes[path] = label
            else:
                samples = (name for name in names if self._roster.label_of(name) is not None)
                self._misfits += (f"{path}/{name}" for name in samples)
                message = f"is not a class of the dataset, and has {count(len(names), 'file')}"
                yield Finding("extra-folder", self._in_root(str(path)), message)
        numbers = {
            int(each.name): label for each, label in classes.items() if each.name.isdecimal()
        }
        if numbers:
            meaning = _meaning(numbers, self._roster)
            message = f"{count(len(numbers), 'class folder')} called by numbers: {meaning}"
            yield Finding("numeric", self._split, message)
        for path, label in classes.items():
            message = f"holds the images of {self._roster.dataset.synsets[label].wnid}"
            yield Finding("misplaced", self._in_root(str(path)), message, self._home(label))

    def _class(self, label: int) -> Iterator[Finding | Read]:
        home, folder = self._home(label), self._folders.get(label)
        records = self._roster.records(label)
        images = self._roster.count(label)
        if self._roster.listed and records is not None and len(records) != images:
            message = f"the manifest lists {count(len(records), 'image')}, not {images:,}"
            yield Finding("count", home, message)
        number = images if records is None else len(records)
        if folder is not None:
            yield from self._contents(folder, label, records)
        elif number:
            message = f"the class folder is missing, with its {count(number, 'image')}"
            yield Finding("missing-class", home, message, home)
            self._gaps |= {(label, name) for name in records or ()}
        self._task.advance(number)

    def _contents(
        self, folder: Path, label: int, records: Mapping[str, SampleRecord | None] | None
    ) -> Iterator[Finding | Read]:
        home, wnid = self._home(label), self._roster.dataset.synsets[label].wnid
        sizes: dict[str, int | None] = {}  # None: not a regular file, nor a link to one
        with os.scandir(folder) as entries:
            for entry in entries:
                if not is_litter(entry.name) and f"{wnid}/{entry.name}" not in self._bad_images:
                    sizes[entry.name] = entry.stat().st_size if entry.is_file() else None
        if records is None:
            names = (name for name in sizes if self._roster.label_of(name) == label)
            records = dict.fromkeys(names)
            if len(records) != self._roster.count(label):
                message = f"has {count(len(records), 'image')}, not {self._roster.count(label):,}"
                yield Finding("count", self._in_root(str(folder)), message, home)
        for name, record in records.items():
            size_bytes = sizes.pop(name, -1)
            if size_bytes == -1:
                self._gaps.add((label, name))
            else:
                yield from self._sample(f"{folder}/{name}", label, size_bytes, record)
        self._misfits += (f"{folder}/{name}" for name in sizes)

    def _sample(
        self, path: str, label: int, size_bytes: int | None, record: SampleRecord | None
    ) -> Iterator[Finding | Read]:
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
        self.sizes.add(label, size_bytes)
        if self._checks.read_every_file or record is None:
            yield Read(path, path_in_root, belongs, record)

    def _out_of_place(self) -> Iterator[Finding | Read]:
        """Names that are missing in their class and lie elsewhere; then what is nowhere."""
        homes: dict[str, str] = {}  # of names that lie elsewhere
        paths = [("flat", path) for path in sorted(self._flat)]
        paths += [("misplaced", path) for path in sorted(self._misfits)]
        for kind, path in paths:
            name, path_in_root = path.rpartition("/")[2], self._in_root(path)
            label = self._roster.label_of(name)
            if label is not None and (label, name) in self._gaps:
                self._gaps.remove((label, name))
            else:
                label = None
            if label is None and not self._names_known and name not in homes:
                label = self._roster.label_of(name)
                if label is not None and (folder := self._folders.get(label)) is not None:
                    label = None if (folder / name).exists() else label
            status = os.lstat(path)
            if label is not None and stat.S_ISREG(status.st_mode):
                home = self._home(label)
                homes[name] = f"{home}/{name}"
                yield Finding(kind, path_in_root, f"belongs in {home}/", homes[name])
                records = self._roster.records(label) if self._roster.listed else None
                yield from self._sample(path, label, status.st_size, (records or {}).get(name))
            elif (place := homes.get(name) or self._home_of(name)) is not None:
                yield Finding("extra", path_in_root, f"is there a second time: {place}", place)
            else:
                yield Finding("extra", path_in_root, "is not of the dataset")
        for label, name in sorted(self._gaps):
            if label in self._folders:
                home = self._home(label, name)
                yield Finding("missing", home, "is not there", home)

    @property
    def _names_known(self) -> bool:
        return self._roster.listed or self._roster.dataset.numbers(self._split) is not None

    def _home_of(self, name: str) -> str | None:
        """Where the sample called `name` belongs, if the split has it."""
        label = self._roster.label_of(name)
        if label is None:
            return None
        records = self._roster.records(label) if self._roster.listed else None
        return self._home(label, name) if records is None or name in records else None

    def _home(self, label: int, name: str = "") -> str:
        home = f"{self._split}/{self._roster.dataset.synsets[label].wnid}"
        return f"{home}/{name}" if name else home

    def _in_root(self, path: str) -> str:
        """`path` without the root; strings, because a million Paths take half a minute."""
        return path[self._prefix :]


def _class_of(names: Iterable[str], roster: Roster) -> int | None:
    """The label that more than half of `names` have."""
    labels = [roster.label_of(name) for name in names]
    for label, number in Counter(labels).most_common(1):
        return label if 2 * number > len(labels) else None
    return None


def _meaning(numbers: Mapping[int, int], roster: Roster) -> str:
    """Which number of a class they are, as the names in them tell."""
    synsets = roster.dataset.synsets
    if all(number == label for number, label in numbers.items()):
        return "the label, from 0"
    if all(number == synsets[label].ilsvrc_id for number, label in numbers.items()):
        return "the ilsvrc_id"
    if all(number == label + 1 for number, label in numbers.items()):
        return "the label, from 1"
    return "neither the label nor the ilsvrc_id"
