"""Members of a zip over `read_at`, taken for hostile (PKWARE's APPNOTE 6.3.10).

Its directory, at its end, says where each member is and how large; a member's own header, its size
and its CRC must agree with that. A million members are kept in arrays, not as objects.
"""

import itertools
import operator
import stat
import struct
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from imnetprep.archives.ranges import RUN_BYTES, Range, Section
from imnetprep.archives.tar import Member, Stream, member_path, refused, truncated
from imnetprep.messages import WrongBytes

NO_COMPRESSION, DEFLATE = 0, 8
_ENCRYPTION_BITS = 0x2041  # bits 0, 6 and 13: the body, strongly; the directory
_UTF8 = 0x800
_END, _END64 = struct.Struct("<4s4H2LH"), struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_ENTRY, _LOCAL = struct.Struct("<4s6H3L5H2L"), struct.Struct("<4s5H3L2H")
_COUNT_LIMIT = 1 << 16
_MOST_COMMENT_BYTES = 0xFFFF
_CHUNK_BYTES = 4 << 20
_MADE_BY_UNIX, _ZIP64, _FULL = 3, 1, 0xFFFFFFFF


class Entry(NamedTuple):
    """What the directory says of a file."""

    name: str
    start: int
    packed_bytes: int
    size_bytes: int
    crc32: int
    method: int


class Directory:
    """The files of a zip that `is_sample(name, size)` asks for, in the order in which they lie."""

    def __init__(
        self,
        read_at: Callable[[int, int], bytes],
        size_bytes: int,
        *,
        name: str,
        is_sample: Callable[[str, int], bool],
    ) -> None:
        self.name = name
        self.end, entries = _directory(read_at, size_bytes, name)
        starts = array("Q")  # of all members: each must have ended where the next one starts
        self._columns = [array(kind) for kind in "QQQIBI"]
        for entry in entries:
            starts.append(entry.start)
            if entry.name.endswith(("/", "\\")):
                continue
            path = member_path(entry.name, name)
            if entry.start >= self.end:
                raise refused(name, f"the member at byte {entry.start:,} lies past its end")
            if path is not None and is_sample(path, entry.size_bytes):
                row = (*entry[1:], _crc_of(entry.name))
                for column, value in zip(self._columns, row, strict=True):
                    column.append(value)
        (self._starts,) = _in_order([starts])
        self._columns = _in_order(self._columns)

    @property
    def ranges(self) -> list[Range]:
        """End to end from 0 to the directory, so that a checksum of the whole can be made."""
        starts = [0]
        for start in self._starts:
            if start - starts[-1] >= RUN_BYTES:
                starts.append(start)
        ends = [*starts[1:], self.end]
        return [Range(*span, None) for span in zip(starts, ends, strict=True) if span[0] < span[1]]

    def holds_samples(self, span: Range) -> bool:
        """Does a sample start in that range?"""
        first, last = self._rows_of(span)
        return first < last

    def section(self, span: Range, stream: Stream) -> Section:
        """The section of one range, from a stream that stands at its start."""
        columns = self._columns
        rows = (tuple(column[at] for column in columns) for at in range(*self._rows_of(span)))
        members = _Members(rows, stream, self)
        return Section(span.start, None, iter(members), members.take)

    def sections(self, stream: Stream) -> Iterator[Section]:
        """All of them, from a stream that is read from its start to its end."""
        for each in self.ranges:
            stream.skip(each.start - stream.position)
            yield self.section(each, stream)

    def end_of(self, start: int) -> int:
        """Where the member that starts there must have ended."""
        at = bisect_left(self._starts, start) + 1
        return self._starts[at] if at < len(self._starts) else self.end

    def refused(self, problem: str) -> WrongBytes:
        """The error about this zip."""
        return refused(self.name, problem)

    def _rows_of(self, span: Range) -> tuple[int, int]:
        starts = self._columns[0]
        return bisect_left(starts, span.start), bisect_left(starts, span.end)


class _Members:
    """Members that are being read: iterate, and `take` the body of each before the next."""

    def __init__(
        self, rows: Iterator[tuple[int, ...]], stream: Stream, directory: Directory
    ) -> None:
        self._rows, self._stream, self._directory = rows, stream, directory
        self._row: tuple[int, ...] = ()

    def __iter__(self) -> Iterator[Member]:
        for row in self._rows:
            self._row = row
            start, _, size_bytes, _, method, crc_of_name = row
            if start < self._stream.position:
                raise self._directory.refused(f"the member at byte {start:,} overlaps another")
            self._stream.skip(start - self._stream.position)
            header = _LOCAL.unpack(self._stream.take(_LOCAL.size))
            signature, _, flags, own_method, *_, name_bytes, extra_bytes = header
            name = _text(bytes(self._stream.take(name_bytes)), flags)
            fits = signature == b"PK\3\4" and own_method == method
            if not fits or _crc_of(name) != crc_of_name or flags & _ENCRYPTION_BITS:
                raise self._directory.refused(f"the header at byte {start:,} is not as listed")
            self._stream.skip(extra_bytes)
            yield Member(member_path(name, self._directory.name) or name, start, size_bytes)

    def take(self, length: int) -> memoryview:
        """The body of the member at hand, of `length` bytes."""
        start, packed_bytes, size_bytes, crc32, method, _ = self._row
        assert length == size_bytes, "a body is taken whole"
        if self._stream.position + packed_bytes > self._directory.end_of(start):
            raise self._directory.refused(f"the member at byte {start:,} overlaps the next")
        body = self._stream.take(packed_bytes)
        if method == DEFLATE:
            body = memoryview(self._inflated(body, size_bytes))
        if len(body) != size_bytes or zlib.crc32(body) != crc32:
            raise self._directory.refused(f"the member at byte {start:,} has a wrong CRC or size")
        return body

    def _inflated(self, body: memoryview, size_bytes: int) -> bytes:
        inflate = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
        try:
            return inflate.decompress(body, size_bytes + 1)  # one more than it may have
        except zlib.error as error:
            raise self._directory.refused(f"a member does not decompress: {error}") from error


def _directory(
    read_at: Callable[[int, int], bytes], size_bytes: int, name: str
) -> tuple[int, Iterator[Entry]]:
    """Where the directory starts, and what it lists, read some megabytes at a time."""
    tail_start = max(0, size_bytes - _END.size - _MOST_COMMENT_BYTES)
    tail = read_at(tail_start, size_bytes - tail_start)
    at = tail.rfind(b"PK\5\6")
    if at < 0 or at + _END.size > len(tail):
        raise truncated(name, size_bytes)
    _, disk, first_disk, _, count, length, start, _ = _END.unpack_from(tail, at)
    if tail_start + at >= _LOCATOR.size:
        raw = read_at(tail_start + at - _LOCATOR.size, _LOCATOR.size)
        signature, _, end64, _ = _LOCATOR.unpack(raw)
        if signature == b"PK\6\7":
            if end64 + _END64.size > size_bytes:
                raise truncated(name, size_bytes)
            _, _, _, _, disk, first_disk, _, count, length, start = _END64.unpack(
                read_at(end64, _END64.size)
            )
    if disk or first_disk:
        raise refused(name, "it is one of several volumes")
    if start + length > tail_start + at:
        raise truncated(name, size_bytes)
    return start, _entries(read_at, start, start + length, count=count, name=name)


def _entries(
    read_at: Callable[[int, int], bytes], start: int, end: int, *, count: int, name: str
) -> Iterator[Entry]:
    body, at, read_to, entries = b"", 0, start, 0
    while read_to < end or at < len(body):
        if len(body) - at < _ENTRY.size + 3 * 0xFFFF and read_to < end:
            chunk = read_at(read_to, min(_CHUNK_BYTES, end - read_to))
            body, at, read_to = body[at:] + chunk, 0, read_to + len(chunk)
        if len(body) - at < _ENTRY.size:
            raise truncated(name, end)
        fields = _ENTRY.unpack_from(body, at)
        name_bytes, extra_bytes, comment_bytes = fields[10:13]
        names_at = at + _ENTRY.size
        raw_name = body[names_at : names_at + name_bytes]
        extra = body[names_at + name_bytes : names_at + name_bytes + extra_bytes]
        at = names_at + name_bytes + extra_bytes + comment_bytes
        if fields[0] != b"PK\1\2" or at > len(body):
            raise refused(name, "its directory is damaged")
        yield _parse_entry(fields, raw_name, extra, name)
        entries += 1
    if (entries - count) % _COUNT_LIMIT:  # some programs keep no more than its lowest 16 bits
        raise refused(name, f"it lists {entries:,} members and counts {count:,}")


def _parse_entry(fields: tuple[int, ...], raw_name: bytes, extra: bytes, name: str) -> Entry:
    _, made_by, _, flags, method, _, _, crc32, packed_bytes, size_bytes, *_, mode, start = fields
    member = _text(raw_name, flags)
    if flags & _ENCRYPTION_BITS:
        raise refused(name, f"member {member!r} is encrypted")
    if method not in (NO_COMPRESSION, DEFLATE):
        raise refused(name, f"member {member!r} is compressed by method {method}")
    kind = stat.S_IFMT(mode >> 16) if made_by >> 8 == _MADE_BY_UNIX else 0
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        kind_name = "a link" if kind == stat.S_IFLNK else "not a regular file"
        raise refused(name, f"member {member!r} is {kind_name}")
    if _FULL in (size_bytes, packed_bytes, start):
        large = iter(_zip64_numbers(extra, name))
        size_bytes, packed_bytes, start = (
            next(large, _FULL) if number == _FULL else number
            for number in (size_bytes, packed_bytes, start)
        )
    return Entry(member, start, packed_bytes, size_bytes, crc32, method)


def _zip64_numbers(extra: bytes, name: str) -> tuple[int, ...]:
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<2H", extra)
        if kind == _ZIP64 and len(extra) >= 4 + length:
            return struct.unpack_from(f"<{length // 8}Q", extra, 4)
        extra = extra[4 + length :]
    raise refused(name, "its directory is damaged")


def _in_order(columns: "Sequence[array[int]]") -> "list[array[int]]":
    """The columns by the values of the first; most zips have them in order."""
    if all(map(operator.le, columns[0], itertools.islice(columns[0], 1, None))):
        return list(columns)
    order = sorted(range(len(columns[0])), key=columns[0].__getitem__)
    return [array(column.typecode, (column[at] for at in order)) for column in columns]


def _crc_of(name: str) -> int:
    return zlib.crc32(name.encode("utf-8", "surrogateescape"))


def _text(raw: bytes, flags: int) -> str:
    """A name: UTF-8 where it says so, else the letters of a PC in 1981."""
    return raw.decode("utf-8", "surrogateescape") if flags & _UTF8 else raw.decode("cp437")
