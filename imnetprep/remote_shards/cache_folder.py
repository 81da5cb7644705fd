"""The folder of a cache: which of its files are shards, whether they are read, and their removal.

Names that are not of this form belong to somebody else, and stay.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from imnetprep.fs import claim, exclusive, shared

SHARD = re.compile(r"[a-z]+-[0-9]{6,10}-[0-9a-f]{32}\.tar")
PART = re.compile(rf"\.{SHARD.pattern}\.fetching")
_READERS = ".readers"


def files_of(folder: Path, pattern: re.Pattern[str]) -> list[tuple[Path, os.stat_result]]:
    """The files in `folder` whose names match; none where there is no such folder."""
    files = list[tuple[Path, os.stat_result]]()
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if pattern.fullmatch(entry.name):
                with suppress(FileNotFoundError):
                    files.append((Path(entry.path), entry.stat(follow_symlinks=False)))
    return files


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Keep the shards in `folder` from `remove_shards`, as others may do at the same time."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _READERS).open("ab") as file, shared(file.fileno()):
        yield


def is_read(folder: Path) -> bool:
    """Does a process read by way of the cache in `folder`? Changes nothing there."""
    with (
        suppress(OSError),  # nobody ever did
        (folder / _READERS).open("rb") as file,
        exclusive(file.fileno(), wait=False) as is_ours,
    ):
        return not is_ours
    return False


def remove_shards(folder: Path) -> None:
    """Remove all shards in `folder`, and what interrupted processes left of some.

    Raises ImnetprepError where a process reads them.
    """
    with (folder / _READERS).open("ab") as file:
        claim(file.fileno(), folder)
        for path, _ in files_of(folder, SHARD):
            path.unlink(missing_ok=True)
        for path, _ in files_of(folder, PART):
            remove_unlocked(path)


def remove_unlocked(part: Path) -> bool:
    """Remove a part that nobody fetches. Was it one?"""
    with (
        suppress(FileNotFoundError),
        part.open("rb") as file,
        exclusive(file.fileno(), wait=False) as is_ours,
    ):
        if is_ours and is_at(file.fileno(), part):
            part.unlink()
        return is_ours
    return True


def is_at(handle: int, path: Path) -> bool:
    """Is the open file the one at `path`?"""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
