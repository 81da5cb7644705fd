"""Tars written as the real archives are: nested, streamed, the same bytes every time."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from imnetprep.archives.tar import BLOCK_BYTES
from imnetprep.archives.tar_writing import ending, header, padding
from imnetprep.fs import written_whole

_MTIME_S = 1_339_632_000  # 14 June 2012


class Member(NamedTuple):
    """A file in a tar. `body` is asked for when its turn comes, and gives `size_bytes` bytes."""

    name: str
    size_bytes: int
    body: Callable[[], Iterable[bytes]]


class TarFile(NamedTuple):
    """A tar on the disk, with its size and MD5."""

    path: Path
    size_bytes: int
    md5: str


def write_tar(path: Path, members: Iterable[Member]) -> TarFile:
    """Write a tar of `members`, one at a time, and its digest on the way."""
    md5, size_bytes = hashlib.md5(), 0
    with written_whole(path) as file:
        for chunk in _tar_chunks(members):
            file.write(chunk)
            md5.update(chunk)
            size_bytes += len(chunk)
    return TarFile(path, size_bytes, md5.hexdigest())


def tar_as_member(name: str, members: Sequence[Member]) -> Member:
    """A tar of `members` as a file of another tar: a class inside the train archive."""
    end = sum(BLOCK_BYTES + _padded_bytes(each.size_bytes) for each in members)
    return Member(name, end + len(ending(end)), lambda: _tar_chunks(members))


def _tar_chunks(members: Iterable[Member]) -> Iterator[bytes]:
    end = 0
    for member in members:
        yield header(member.name, member.size_bytes, mtime_s=_MTIME_S)
        size_bytes = 0
        for chunk in member.body():
            yield chunk
            size_bytes += len(chunk)
        assert size_bytes == member.size_bytes, member.name
        yield padding(size_bytes)
        end += BLOCK_BYTES + _padded_bytes(size_bytes)
    yield ending(end)


def _padded_bytes(size_bytes: int) -> int:
    return size_bytes + len(padding(size_bytes))
