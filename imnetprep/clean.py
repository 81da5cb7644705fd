"""What a root can do without: listed with its size and why, and removed when that is asked for."""

import os
import re
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from imnetprep.catalog.datasets import Archive, Dataset, Layout, Root, Split
from imnetprep.fs import allocated_bytes, is_locked, locked
from imnetprep.manifest import open_manifest
from imnetprep.messages import ImnetprepError
from imnetprep.organizing.journal import Stage, UnfinishedSplit, open_journal, read_unfinished
from imnetprep.proving.archive_at import consumed_path, index_path, other_consumer
from imnetprep.proving.receipt import is_proved
from imnetprep.remote_shards.cache_folder import PART, SHARD, files_of, is_read, remove_shards
from imnetprep.transfers.range_download import name_of_part

KINDS = ("temporary", "part", "leftover", "cache", "archive", "unfinished")
DEFAULT_KINDS = KINDS[:-1]  # what is unfinished can be resumed, and is taken by its name only

_OF_AN_EARLY_RUN = {".lock", "recipe.json", "last.pt", "bad-images.txt"}
_REMNANT_SUFFIX = consumed_path(Path("_")).name[1:]
_TEMPORARY = re.compile(r"\..+\.([0-9]{1,19})\.tmp")
_RECORD = re.compile(r"\.[0-9a-f]{40,64}(\.resume|-[0-9]+\.unwanted)")


class Removable(NamedTuple):
    """A file or folder under the root, what it takes on the disk, and why nobody needs it.

    `source`: where an archive can be had again, or the command that fetches it.
    """

    kind: str
    path: Path
    size_bytes: int
    reason: str
    source: str | None


@dataclass(frozen=True)
class CleanPlan:
    """What `clean` can remove, and the folders where another process is at work.

    `busy_cache`: that of shards, where it was to be removed and a process reads it. It alone is
    left out then.
    """

    removable: tuple[Removable, ...]
    busy: tuple[Path, ...]
    busy_cache: Path | None

    @property
    def size_bytes(self) -> int:
        """How much of the disk removing it frees."""
        return sum(each.size_bytes for each in self.removable)


def plan_clean(root: Root, *, kinds: Sequence[str] = ()) -> CleanPlan:
    """Find what is of `kinds`, or what can be had again where none is named; touches nothing.

    Links are not followed: what lies behind one is not of this root. What is in a folder where
    another process is at work is left out. Raises ImnetprepError where the manifest or the receipt
    cannot be read.
    """
    busy = tuple(filter(is_locked, (root.archives, root.organizing)))
    is_busy = "cache" in (kinds or DEFAULT_KINDS) and is_read(root.shard_cache)
    busy_cache = root.shard_cache if is_busy else None
    return CleanPlan(tuple(_removable(root, kinds, busy)), busy, busy_cache)


def carry_out_clean(root: Root, *, kinds: Sequence[str] = ()) -> Iterator[Removable]:
    """Look again, as the only process at work there, and remove; yields each as it is gone.

    Raises ImnetprepError where another process is at work in the archives or the splits.
    """
    plan = plan_clean(root, kinds=kinds)
    if not plan.removable and not plan.busy:
        return
    with ExitStack() as locks:
        for folder in (root.archives, root.organizing):
            if not folder.is_symlink():  # of which nothing is removed
                locks.enter_context(locked(folder))
        for each in _removable(root, kinds, ()):
            _remove(root, each.path)
            yield each


def _removable(root: Root, kinds: Sequence[str], busy: Sequence[Path]) -> list[Removable]:
    """In the order of KINDS. Asks about no lock that `carry_out_clean` holds: that would end it."""
    dataset: Dataset | None = None
    split_folders: set[tuple[Split, Layout]] = set()
    as_published: set[Split] = set()
    if root.manifest.exists():
        with open_manifest(root.manifest) as manifest:
            dataset = manifest.dataset()
            splits = manifest.splits()
            split_folders = {key for key in splits if _is_folder(root.split(*key))}
            as_published = {key[0] for key in split_folders if splits[key].change is None}
    found = list(_temporary(root, busy))
    if root.archives not in busy:
        found += _parts(root, dataset, any_source="part" in kinds)
    if root.organizing not in busy:
        may_go = "leftover" in kinds or not _lacks_archive(root, dataset, as_published)
        found += _growth(root, dataset, split_folders, may_go=may_go)
    found += _runs(root)
    found += _cache(root)
    if dataset is not None and not busy:
        found += _archives(root, dataset, as_published, any_source="archive" in kinds)
    kinds = kinds or DEFAULT_KINDS
    return [each for kind in KINDS if kind in kinds for each in found if each.kind == kind]


def _published(dataset: Dataset | None, name: str) -> Archive | None:
    """The archive called `name`, if a known place has it: a swarm or an address."""
    for archive in dataset.published.archives if dataset else ():
        if archive.name == name and (archive.torrent or archive.magnet or archive.url):
            return archive
    return None


def _temporary(root: Root, busy: Sequence[Path]) -> Iterator[Removable]:
    """What `written_whole` leaves when the process is killed, in the places where it writes."""
    runs = [run for run in _entries(root.runs) if not is_locked(run)]
    for place in (root.path, root.archives, root.organizing, *runs):
        for path in _entries(place) if place not in busy else ():
            match = _TEMPORARY.fullmatch(path.name)
            if match and _is_file(path) and not _is_alive(int(match[1])):
                yield _found("temporary", path, f"process {match[1]}, which wrote it, is gone")


def _parts(root: Root, dataset: Dataset | None, *, any_source: bool) -> Iterator[Removable]:
    """Unfinished archives, and the records of their pieces, which stay for as long as any of them.

    Without `any_source` only those of archives that the dataset says where to have again.
    """
    records, stays = list[Removable](), False
    for path in filter(_is_file, _entries(root.archives)):
        part_name = name_of_part(path)
        if path.suffix == ".part" or part_name is not None:
            if any_source or _published(dataset, part_name or path.stem):
                is_pulled = path.suffix == ".fetching"
                verb = "sync-s3 s3://… --pull" if is_pulled else "download"
                yield _found("part", path, f"not whole; imnetprep {verb} would resume it")
            else:
                stays = True
        elif _RECORD.fullmatch(path.name) or path.name.startswith(root.download_journal.name):
            records.append(_found("part", path, "what is known of the parts"))
    if not stays:
        yield from records


def _growth(
    root: Root, dataset: Dataset | None, split_folders: set[tuple[Split, Layout]], *, may_go: bool
) -> Iterator[Removable]:
    """Unfinished splits and what they left: class folders, shards and spools.

    Where it is left open of what they are, they are left out unless they `may_go`.
    """
    is_readable = _is_folder(root.organizing) and not root.journal.is_symlink()
    splits = _unfinished_splits(root) if is_readable else []
    growths = {(each.stage, each.split): each for each in splits or ()}
    for path in _entries(root.organizing) if splits is None and may_go else ():
        if path.name.startswith(root.journal.name) and _is_file(path):
            yield _found("leftover", path, "the journal is damaged")
    if _is_folder(root.organizing / "sync"):
        reason = "imnetprep sync-s3 s3://… --pull would resume it"
        yield _found("unfinished", root.organizing / "sync", reason)
    for stage, folder in _unfinished_folders(root):
        growth = growths.get((stage, folder.name))
        if growth is None and may_go:
            reason = f"the journal {'is damaged' if splits is None else 'knows nothing of it'}"
            yield _found("leftover", folder, reason)
        elif growth is None:
            continue
        elif dataset is not None and growth.dataset != dataset.fingerprint:
            if may_go:
                yield _found("leftover", folder, "it is of another dataset")
        elif (growth.split, stage.layout) in split_folders and not (
            growth.is_whole and stage is Stage.FOLDERS
        ):
            yield _found("leftover", folder, "the split is organized")
        else:
            words = "" if stage is Stage.FOLDERS else f" --layout {stage.layout}"
            yield _found("unfinished", folder, f"imnetprep organize{words} would resume it")


def _lacks_archive(root: Root, dataset: Dataset | None, as_published: set[Split]) -> bool:
    """May what lies in `.organizing` be all there is of an archive that was consumed for it?"""
    names = {
        archive.name
        for archive in (dataset.published.archives if dataset else ())
        if archive.split in as_published
    }
    entries = (path.name for path in _entries(root.archives))
    remnants = {
        name.removesuffix(_REMNANT_SUFFIX) for name in entries if name.endswith(_REMNANT_SUFFIX)
    }
    return any(_published(dataset, name) is None for name in remnants - names)


def _runs(root: Root) -> Iterator[Removable]:
    """Runs without an epoch, unless they are trained now; what has a best.pt stays."""
    for folder in filter(_is_folder, _entries(root.runs)):
        names = {path.name for path in folder.iterdir()}
        if is_locked(folder) or not names or not names <= _OF_AN_EARLY_RUN:
            continue
        if "last.pt" in names:
            reason = (
                f"no epoch of it is over; imnetprep train --resume --run {folder.name} resumes it"
            )
            yield _found("unfinished", folder, reason)
        else:
            yield _found("leftover", folder, "a run that ended before its first step")


def _cache(root: Root) -> Iterator[Removable]:
    """Shards of other places, unless they are read now."""
    folder = root.shard_cache
    if _is_folder(folder) and not is_read(folder):
        files = [*files_of(folder, SHARD), *files_of(folder, PART)]
        if files:
            size_bytes = sum(status.st_blocks * 512 for _, status in files)
            reason = "shards of another place; --shards would fetch them again"
            yield Removable("cache", folder, size_bytes, reason, None)


def _unfinished_folders(root: Root) -> Iterator[tuple[Stage, Path]]:
    """Folders that may be unfinished splits, each with its stage."""
    for folder in filter(_is_folder, _entries(root.organizing)):
        if folder.name in (Stage.SPOOL, Stage.SHARDS):
            stage = Stage(folder.name)
            yield from ((stage, each) for each in filter(_is_folder, _entries(folder)))
        elif folder.name != "sync":
            yield Stage.FOLDERS, folder


def _unfinished_splits(root: Root) -> list[UnfinishedSplit] | None:
    """What the journal has of splits in any stage; None: it is damaged."""
    try:
        return read_unfinished(root.journal)
    except sqlite3.DatabaseError:
        return None


def _archives(
    root: Root, dataset: Dataset, as_published: set[Split], *, any_source: bool
) -> Iterator[Removable]:
    """The archives whose images are organized as published, nothing unfinished made of them.

    Without `any_source` only whole ones that the dataset says where to have again.
    """
    splits = as_published - {each.split for each in _unfinished_splits(root) or ()}
    for archive in dataset.archives:
        path = root.archives / archive.name
        holes = consumed_path(path)
        if archive.split not in splits or not _is_folder(root.archives):
            continue
        may_go = any_source or _published(dataset, archive.name) is not None
        if _is_file(path) and may_go and is_proved(root, path):
            reason = f"verified, and {archive.split} is organized"
            yield _found("archive", path, reason, source=_source(archive))
        root_name = other_consumer(path, root.path)
        if _is_file(holes) and (may_go or root_name is None):  # another root may want the rest
            consumer = f" in part, by {root_name}" if root_name else ""
            reason = f"consumed{consumer}, and {archive.split} is organized"
            # The index first: without its archive nothing would lead to it after a kill.
            for each in filter(_is_file, (index_path(path), holes)):
                yield _found("archive", each, reason, source=_source(archive))


def _source(archive: Archive) -> str:
    if archive.torrent or archive.magnet:
        return f"imnetprep download --split {archive.split}"
    return archive.url or f"the dataset names no place that has {archive.name}"


def _remove(root: Root, path: Path) -> None:
    if not _is_folder(path):
        path.unlink()
        return
    if path == root.shard_cache:
        remove_shards(path)
        return
    if path.parent == root.runs:
        with locked(path):
            shutil.rmtree(path)
        return
    stage = Stage.FOLDERS if path.parent == root.organizing else Stage(path.parent.name)
    if _is_file(root.journal) and path.name in set(Split):
        with suppress(ImnetprepError), open_journal(root.journal, stage) as journal:
            journal.forget(Split(path.name))  # where it is damaged, it goes too
    shutil.rmtree(path)


def _found(kind: str, path: Path, reason: str, *, source: str | None = None) -> Removable:
    size_bytes = allocated_bytes(path)
    if _is_folder(path):
        for folder, folders, names in os.walk(path):
            entries = (Path(folder, name) for name in (*folders, *names))
            size_bytes += sum(each.lstat().st_blocks * 512 for each in entries)
    return Removable(kind, path, size_bytes, reason, source)


def _entries(folder: Path) -> list[Path]:
    """What lies in `folder`, by name; nothing where it is a link, no folder, or not there."""
    return sorted(folder.iterdir()) if _is_folder(folder) else []


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True
