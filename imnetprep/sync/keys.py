"""Which files of a root have their like in a bucket, and under which key.

Keys mirror the root: PREFIX/archives/NAME, PREFIX/shards/train/NAME. What a bucket lists is as
strange as any input: a key that is not of this form names no file.
"""

import os
from collections.abc import Collection, Iterator
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from imnetprep.archives.range_index import SUFFIX
from imnetprep.catalog.datasets import Root, Split
from imnetprep.fs import is_locked
from imnetprep.messages import Progress
from imnetprep.proving.archive_at import consumed_path
from imnetprep.sync.open_files import OpenFiles

MANIFEST, RECEIPT = "manifest.db", "receipt.json"
_LAST = "last.pt"
_LONGEST_NAME = 255 - len("..fetching")
_LOCAL_SUFFIXES = (".part", ".consumed", ".resume")


class Content(StrEnum):
    """A part of a root that is sent and fetched."""

    ARCHIVES = "archives"
    SHARDS = "shards"
    RUNS = "runs"
    MANIFEST = "manifest"


class LocalFile(NamedTuple):
    """A file under the root; `path` is relative to it, with slashes."""

    path: str
    size_bytes: int
    mtime_ns: int


def content_of(path: str) -> Content | None:
    """What the file at this relative path belongs to; None: it is not sent or fetched."""
    names = path.split("/")
    if path == MANIFEST:
        return Content.MANIFEST
    if not all(map(_is_safe, names)):
        return None
    match names:
        case ["archives", name] if not name.endswith(_LOCAL_SUFFIXES):
            return Content.ARCHIVES
        case ["shards", split, _] if split in set(Split):
            return Content.SHARDS
        case ["runs", _, _, *_]:
            return Content.RUNS
    return None


def comes_last(path: str) -> bool:
    """Is a file sent behind the others? An index behind its shards; and a run's checkpoint behind
    the log and the best weights that it counts on, so that a push may be interrupted anywhere.
    """
    return path.endswith(("index.json", f"/{_LAST}"))


def local_files(
    root: Root,
    contents: Collection[Content],
    progress: Progress,
    *,
    run: str | None = None,
    open_files: OpenFiles | None = None,
) -> Iterator[LocalFile]:
    """The files of `root` that hold these `contents`; of runs, only of `run` if one is named.

    A run that is being trained is opened into `open_files`, or left out where there are none; the
    manifest is always left out.
    """
    folders = [each.value for each in (Content.ARCHIVES, Content.SHARDS) if each in contents]
    if Content.RUNS in contents and root.runs.is_dir():
        for name in sorted(each.name for each in root.runs.iterdir() if each.is_dir()):
            folder = f"{Content.RUNS}/{name}"
            if run is not None and name != run:
                continue
            if not is_busy(root, f"{folder}/"):
                folders.append(folder)
            elif open_files is not None:
                yield from _opened_files(root, folder, open_files)
            else:
                progress.note(f"{folder} is being trained: left out")
    for folder in folders:
        for path in _files_below(root, folder):
            if content_of(path) in contents and not _is_given_up(root.place(path)):
                status = root.place(path).stat()
                yield LocalFile(path, status.st_size, status.st_mtime_ns)


def is_busy(root: Root, path: str) -> bool:
    """Is it part of a run that is trained now? Neither side of it is touched."""
    names = path.split("/")
    return names[0] == Content.RUNS and is_locked(root.run(names[1]))


def _opened_files(root: Root, folder: str, open_files: OpenFiles) -> Iterator[LocalFile]:
    """The files of a run that is being trained, each open.

    Its checkpoint is opened first: what that counts on was there before it, and is never older.
    """
    last = f"{folder}/{_LAST}"
    file = open_files.open(last, root.place(last))
    if file is not None:
        yield LocalFile(last, file.state["size_bytes"], file.state["mtime_ns"])
    for path in _files_below(root, folder):
        if path != last and content_of(path) is Content.RUNS:
            file = open_files.open(path, root.place(path))
            if file is not None:  # else it was removed meanwhile
                yield LocalFile(path, file.state["size_bytes"], file.state["mtime_ns"])


def _files_below(root: Root, folder: str) -> Iterator[str]:
    """Plain files in the order of their names; a linked folder only where it is the first."""
    top = root.place(folder)
    for place, folders, names in os.walk(top):
        folders[:] = sorted(name for name in folders if _is_safe(name))
        for name in sorted(names):
            path = Path(place, name)
            if _is_safe(name) and path.is_file():
                yield f"{folder}/{path.relative_to(top)}"


def _is_given_up(path: Path) -> bool:
    """Is it the index of an archive that is being consumed? It says which root for."""
    archive = path.with_name(path.name.removesuffix(SUFFIX))
    return path.name.endswith(SUFFIX) and consumed_path(archive).exists()


def _is_safe(name: str) -> bool:
    return (
        not name.startswith(".")
        and name.isprintable()
        and "\\" not in name
        and 0 < len(os.fsencode(name)) <= _LONGEST_NAME
    )
