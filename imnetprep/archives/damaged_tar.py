"""Members found in a span of a tar that may be damaged: headers are searched, not relied on."""

import tarfile
from collections.abc import Callable, Iterator
from typing import NamedTuple

from imnetprep.archives.tar import BLOCK_BYTES

ReadAt = Callable[[int, int], bytes]
IsMember = Callable[[str], bool]

_CHUNK_BYTES = 1 << 20
# No image of ILSVRC2012 comes near it; farther back no header can reach into the bytes.
_FARTHEST_BYTES = 128 << 20
# An inner and an outer tar may end here, each padded to a record of twenty blocks.
_MOST_PADDING_BYTES = 40 * BLOCK_BYTES


class Stretch(NamedTuple):
    """A member: its header starts at `start`, its padded body ends before `end`.

    One without a name is a stretch that no header explains.
    """

    name: str
    start: int
    end: int


def members_between(
    read_at: ReadAt, start: int, end: int, *, is_member: IsMember
) -> Iterator[Stretch]:
    """The members, at any depth, of which a part lies in bytes `start` to `end`.

    Only a header with a right checksum and a name that `is_member` counts; where there is none the
    next is looked for block by block. `read_at` may give fewer bytes at the end of the file.
    """
    at = _last_header_before(read_at, start, is_member)
    while at < end:
        member = _next_header(read_at, at, end, is_member)
        found = end if member is None else member.start
        if not _is_padding(read_at, max(at, start), found):
            yield Stretch("", max(at, start), found)
        if member is None:
            return
        if member.end > start and not member.name.endswith(".tar"):
            yield member
        at = member.start + BLOCK_BYTES if member.name.endswith(".tar") else member.end


def _is_padding(read_at: ReadAt, start: int, end: int) -> bool:
    """Can these bytes be the end of one tar, or of two, and nothing else?"""
    if end - start > _MOST_PADDING_BYTES:
        return False
    return end <= start or not any(read_at(start, end - start))


def _last_header_before(read_at: ReadAt, start: int, is_member: IsMember) -> int:
    """Where the last header before `start` lies; `start` itself, in whole blocks, without one."""
    first = start - start % BLOCK_BYTES
    for chunk_end in range(first, max(0, first - _FARTHEST_BYTES), -_CHUNK_BYTES):
        chunk_start = max(0, chunk_end - _CHUNK_BYTES)
        for member in reversed(list(_headers(read_at, chunk_start, chunk_end, is_member))):
            return member.start
    return first


def _next_header(read_at: ReadAt, at: int, end: int, is_member: IsMember) -> Stretch | None:
    for chunk_start in range(at, end, _CHUNK_BYTES):
        chunk_end = min(end, chunk_start + _CHUNK_BYTES)
        for member in _headers(read_at, chunk_start, chunk_end, is_member):
            return member
    return None


def _headers(read_at: ReadAt, start: int, end: int, is_member: IsMember) -> Iterator[Stretch]:
    """Every block from `start` up to `end` that is a header, body or not."""
    for at, block in _blocks(read_at, start, end):
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError:
            continue
        name = info.name.removeprefix("./")
        if info.isreg() and info.size >= 0 and is_member(name):
            body_bytes = -(-info.size // BLOCK_BYTES) * BLOCK_BYTES
            yield Stretch(name, at, at + BLOCK_BYTES + body_bytes)


def _blocks(read_at: ReadAt, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """The blocks that start from `start` up to `end`. The first is read alone: mostly it is one."""
    first = read_at(start, BLOCK_BYTES)
    if len(first) == BLOCK_BYTES:
        yield start, first
    start += BLOCK_BYTES
    rest = read_at(start, end - start) if end > start else b""
    if rest.count(0) == len(rest):
        return  # a hole
    for offset in range(0, len(rest) - BLOCK_BYTES + 1, BLOCK_BYTES):
        yield start + offset, rest[offset : offset + BLOCK_BYTES]
