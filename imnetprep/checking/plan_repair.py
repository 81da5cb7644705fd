"""From findings to what mends them: which files move, which are taken anew, which are too many."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from imnetprep.catalog.datasets import Root, Split
from imnetprep.checking.check_folders import surveyed
from imnetprep.checking.recognise import Roster, Tree
from imnetprep.messages import Checks, Finding, Progress

_DAMAGES = ("size", "digest", "decode", "unreadable", "not-a-file")


class Move(NamedTuple):
    """A file or folder gets another name under the root. `replaces`: in place of a damaged file."""

    path: str
    to: str
    replaces: bool = False


@dataclass
class Remedy:
    """What mends one split. Paths are relative to the root.

    `renames` are of folders, in this order; all other paths are those after them. `takes` are the
    places of missing and damaged samples, by label and name; of `short` labels all that is not
    there is taken. `leftovers` are findings that nothing mends.
    """

    split: Split
    listed: bool
    renames: list[Move] = field(default_factory=list)
    moves: list[Move] = field(default_factory=list)
    takes: dict[tuple[int, str], Finding] = field(default_factory=dict)
    short: dict[int, Finding] = field(default_factory=dict)
    extra: dict[str, Finding] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)  # removed if nothing is left in them
    leftovers: list[Finding] = field(default_factory=list)


def plan_remedy(
    root: Root,
    tree: Tree,
    roster: Roster,
    *,
    archive: bool,
    checks: Checks,
    jobs: int | None,
    progress: Progress,
) -> Remedy:
    """Survey the split of `roster` and decide what mends it; touches nothing.

    `archive`: is there one to take samples from? What needs it is left where there is none.
    """
    findings = surveyed(root, tree, roster.split, checks=checks, jobs=jobs, progress=progress)
    return _Mender(root.path, roster, archive=archive).remedy(findings)


class _Mender:
    def __init__(self, root: Path, roster: Roster, *, archive: bool) -> None:
        self._root, self._roster, self._archive = root, roster, archive
        self._remedy = Remedy(roster.split, roster.listed)
        self._holders: dict[str, list[str]] = {}  # a place -> the files that want it, outside it
        self._empty: set[str] = set()  # places that nothing holds
        self._extra_folders: list[Finding] = []

    def remedy(self, findings: Iterable[Finding]) -> Remedy:
        for finding in findings:
            self._sort(finding)
        for place, paths in self._holders.items():
            self._settle(place, paths)
        for finding in self._extra_folders:
            self._too_many(self._after(finding.path), finding, self._root / finding.path)
        self._count_short()
        if not self._archive:
            self._leave_takes()
        return self._remedy

    def _count_short(self) -> None:
        """Some short classes are not, once what lies elsewhere has moved in."""
        for label, finding in list(self._remedy.short.items()):
            home = f"{self._roster.split}/{self._roster.dataset.synsets[label].wnid}"
            folder = self._root / self._before(home)
            names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
            images = sum(self._roster.label_of(name) == label for name in names)
            images += sum(move.to.startswith(f"{home}/") for move in self._remedy.moves)
            if images >= self._roster.count(label):
                del self._remedy.short[label]
            if images > self._roster.count(label):  # nothing tells which of them are too many
                self._remedy.leftovers.append(finding)

    def _leave_takes(self) -> None:
        remedy = self._remedy
        open_places = {finding.path for finding in remedy.takes.values()}
        for path, finding in list(remedy.extra.items()):
            if finding.belongs in open_places:
                remedy.leftovers.append(remedy.extra.pop(path))
        remedy.leftovers += [*remedy.takes.values(), *remedy.short.values()]
        remedy.takes.clear()
        remedy.short.clear()

    def _sort(self, finding: Finding) -> None:
        kind, path, _, belongs = finding
        if kind == "misplaced" and belongs is not None and belongs.count("/") < 2:
            self._remedy.renames.append(Move(self._after(path), belongs))
        elif kind in ("misplaced", "flat") and belongs is not None:
            self._holders.setdefault(belongs, []).insert(0, self._after(path))
            self._empty.add(belongs)
        elif kind == "extra" and belongs is not None:
            self._holders.setdefault(belongs, []).append(self._after(path))
        elif kind == "extra":
            self._too_many(self._after(path), finding, self._root / path)
        elif kind == "extra-folder":
            self._extra_folders.append(finding)
        elif belongs is not None and kind in (*_DAMAGES, "missing"):
            self._take(finding._replace(path=belongs))
        elif kind == "missing-class" or (kind == "count" and belongs is not None):
            self._class(finding)
        elif kind not in ("numeric", "positional"):
            self._remedy.leftovers.append(finding)

    def _take(self, finding: Finding) -> None:
        self._remedy.takes[self._key(finding.path)] = finding

    def _class(self, finding: Finding) -> None:
        label = self._label(finding.path if finding.belongs is None else finding.belongs)
        records = self._roster.records(label)
        if records is None:
            self._remedy.short[label] = finding
            return
        for name in records:
            place = f"{finding.belongs}/{name}"
            self._take(Finding("missing", place, "is not there", place))

    def _settle(self, place: str, rivals: list[str]) -> None:
        """Which of the files that want one place is the right one? The others are too many."""
        key, takes, is_empty = self._key(place), self._remedy.takes, place in self._empty
        candidates = rivals if is_empty else [place, *rivals]
        if is_empty and key in takes and takes[key].kind == "missing":
            del takes[key]  # one of a missing class, which lies elsewhere
        winner: str | None = candidates[0]
        if len(candidates) > 1:
            winner = self._right_one(place, candidates)
        if winner is None:
            message = f"{len(candidates)} different files belong in this place"
            takes[key] = Finding("conflict", place, message, place)
            if self._archive and is_empty:
                winner = candidates[0]  # it is overwritten at once by what the archive has
        elif len(candidates) > 1 and self._roster.listed:
            takes.pop(key, None)  # its digest is right
        for path in candidates:
            if path == winner and path != place:
                self._remedy.moves.append(Move(path, place, replaces=not is_empty))
            elif path != place:
                message = f"is there a second time: {place}"
                finding = Finding("extra", path, message, place)
                self._too_many(path, finding, self._root / self._before(path))

    def _right_one(self, place: str, candidates: list[str]) -> str | None:
        """By the manifest's digest; without it only if all are the same to the byte."""
        label, name = self._key(place)
        record = (self._roster.records(label) or {}).get(name)
        bodies = [self._read(path) for path in candidates]
        if record is not None:
            for path, body in zip(candidates, bodies, strict=True):
                if body is not None and record.is_right(body):
                    return path
            return None
        if (label, name) in self._remedy.takes and candidates[0] == place:
            return None  # it is damaged, and nothing tells whether another one is right
        return candidates[0] if len(set(bodies)) == 1 else None

    def _read(self, path: str) -> bytes | None:
        present = self._root / self._before(path)
        try:
            return present.read_bytes() if not present.is_symlink() else None
        except OSError:
            return None

    def _too_many(self, path: str, finding: Finding, present: Path) -> None:
        """What lies at `present` now, and at `path` after the renames, is extra with all in it."""
        if present.is_symlink() or not present.is_dir():
            self._remedy.extra[path] = finding._replace(path=path)
            return
        sources = {move.path for move in self._remedy.moves}
        self._remedy.folders.append(path)
        for name in _files_below(present):
            file = f"{path}/{name}"
            if file not in sources:
                stranger = Finding("extra", file, "is not of the dataset")
                self._remedy.extra.setdefault(file, stranger)

    def _key(self, place: str) -> tuple[int, str]:
        return self._label(place.rpartition("/")[0]), place.rpartition("/")[2]

    def _label(self, home: str) -> int:
        return self._roster.dataset.label_of_wnid[home.rpartition("/")[2]]

    def _after(self, path: str) -> str:
        """Where what lies at `path` lies once the folders are renamed."""
        for move in self._remedy.renames:
            if path == move.path or path.startswith(f"{move.path}/"):
                path = move.to + path[len(move.path) :]
        return path

    def _before(self, path: str) -> str:
        for move in reversed(self._remedy.renames):
            if path == move.to or path.startswith(f"{move.to}/"):
                path = move.path + path[len(move.to) :]
        return path


def _files_below(folder: Path) -> Iterator[str]:
    """All that is no folder, by its path in `folder`; links are not followed."""
    for path, folders, files in os.walk(folder):
        for name in [*files, *(each for each in folders if Path(path, each).is_symlink())]:
            yield str(Path(path, name).relative_to(folder))
