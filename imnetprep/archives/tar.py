"""Members of a tar, read as a stream and taken for hostile (POSIX.1-2001, GNU long names).

A tar that is cut between two members looks whole to many readers. This one wants the end marker.
"""

import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from imnetprep.catalog.file_names import is_litter
from imnetprep.messages import WrongBytes

BLOCK_BYTES = tarfile.BLOCKSIZE
PLAIN_FORMS = ("tar", "tar-of-tars")
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE)
_EXTENSIONS = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME)
_LINKS = (tarfile.LNKTYPE, tarfile.SYMTYPE)
_LARGEST_EXTENSION_BYTES = 1 << 20
_END_OF_ARCHIVE = bytes(BLOCK_BYTES)

# The plain header of a file, its fields where POSIX has them: name, size, checksum, type.
_PLAIN = re.compile(
    rb"(?=([^\0]{1,99})\0).{124}([0-7]{11})[\0 ].{12}([0-7]{6})\0 0.{188}\0", re.DOTALL
)
# The checksum counts its own field as eight blanks; a NUL and a blank end its digits.
_BLANK_SUM = 8 * ord(" ") - ord(" ")

# What GNU tar reads as a size too, base 256 or octal: Python's own int() takes 0o17, 1_7 and +17.
_SIZE = re.compile(rb"[\x80\xff].*| *[0-7]+(?:[\0 ].*)?|[\0 ]*", re.DOTALL)
_RECORD = re.compile(rb"([1-9][0-9]{0,6}) ([^=]+)=")
_NO_NAMES = {"", ".", ".."}
# A name that is neither a path nor litter, by its first letter: at a fifth of the cost of a look.
_SAMPLE_NAME = re.compile(r"[A-CF-HJ-SU-Za-cf-hj-su-z0-9][^/\\\0]*").fullmatch

# What a header says: its member's name and size, and the type of that.
_Header = tuple[str, int, bytes]


class Stream(Protocol):
    """Bytes in order. `position` is an offset in the archive as a whole."""

    position: int

    def take(self, length: int) -> memoryview:
        """The next `length` bytes, all of them. Raises WrongBytes where there are fewer."""

    def skip(self, length: int) -> None:
        """Pass over the next `length` bytes."""


class Member(NamedTuple):
    """A regular file in a tar: where its first header starts, and the size of its body."""

    name: str
    start: int
    size_bytes: int


class FileStream:
    """A stream over `read_at(offset, length)`; what is skipped is not read."""

    def __init__(self, read_at: Callable[[int, int], bytes], *, position: int = 0) -> None:
        self.position, self._read_at = position, read_at

    def take(self, length: int) -> memoryview:
        self.position += length
        return memoryview(self._read_at(self.position - length, length))

    def skip(self, length: int) -> None:
        self.position += length


def members(
    stream: Stream, *, name: str, end: int, marked: bool = True, folders: bool = False
) -> Iterator[Member]:
    """The regular files of the tar from the stream's position to `end` or its end marker.

    Whoever takes a member may read its body, or a part, from the stream before the next. `name`
    is the archive's, for errors. A run of members without an end marker is not `marked`. With
    `folders` a member's name is its path; else the folders that it may lie in are passed over.
    Raises WrongBytes on a truncated tar, on what is no tar, and on a link, a device or a name
    that leaves its folder.
    """
    while marked or stream.position < end:
        start = stream.position
        if start + BLOCK_BYTES > end:
            raise truncated(name, end)
        header = bytes(stream.take(BLOCK_BYTES))
        if header == _END_OF_ARCHIVE:
            return
        path, size_bytes, kind = _parse_header(header, name, start)
        if kind in _EXTENSIONS:
            path, size_bytes, kind = _extended(stream, (path, size_bytes, kind), start, end, name)
        padded_end = stream.position + -(-size_bytes // BLOCK_BYTES) * BLOCK_BYTES
        if padded_end > end:
            raise truncated(name, end)
        if kind in _REGULAR:
            if (own := member_path(path, name, folders=folders)) is not None:
                yield Member(own, start, size_bytes)
        elif kind != tarfile.DIRTYPE:
            kind_name = "a link" if kind in _LINKS else "not a regular file"
            raise refused(name, f"member {path!r} is {kind_name}")
        elif size_bytes:
            raise refused(name, f"folder {path!r} has a body of {size_bytes:,} bytes")
        elif path.startswith("/") or ".." in path.split("/"):
            raise refused(name, f"folder {path!r} would leave its folder")
        stream.skip(padded_end - stream.position)


def _extended(stream: Stream, header: _Header, start: int, end: int, name: str) -> _Header:
    """The header behind all extensions from `header` on, as they want it read."""
    extensions: dict[str, str] = {}
    kinds: set[bytes] = set()
    while header[2] in _EXTENSIONS:
        _, size, kind = header
        found = _read_extension(stream, size, kind, end, name)
        # Of two PAX headers GNU tar takes the second, tarfile both.
        if kind in kinds or found.keys() & extensions.keys():
            raise refused(name, f"the member at byte {start:,} has two names or two sizes")
        kinds.add(kind)
        extensions |= found
        header = _parse_header(_take(stream, BLOCK_BYTES, end, name), name, start)
    path, size, kind = header
    return extensions.get("path", path), int(extensions.get("size", size)), kind


# Whatever read it: a folder's archive is mended where it lies, a bucket's is not.
FETCH_AGAIN = (
    "if it lies on this machine, imnetprep repair-archives fetches what is wrong of it;"
    " else imnetprep download"
)


def truncated(name: str, at: int) -> WrongBytes:
    """The error for an archive that ends too early."""
    return WrongBytes(
        f"{name} is truncated: it ends at byte {at:,} in the middle of its contents",
        hint=FETCH_AGAIN,
    )


def _parse_header(header: bytes, name: str, at: int) -> _Header:
    """The plain header of a file is read here; tarfile reads the rest, at six times the cost."""
    if (plain := _PLAIN.match(header)) and header.isascii():
        member, size, total = plain.groups()
        # The low half of Adler-32 is the sum of the bytes and one, at a thirtieth of the cost; its
        # modulus is more than 512 bytes of ASCII can add up to.
        if zlib.adler32(header) & 0xFFFF == int(total, 8) + sum(total) - _BLANK_SUM + 1:
            return member.decode("ascii"), int(size, 8), tarfile.REGTYPE
    try:
        info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise refused(name, f"there is no tar header at byte {at:,} ({error})") from error
    if not _SIZE.fullmatch(header[124:136]):
        raise refused(name, f"the member at byte {at:,} has a size that is no number")
    if info.size < 0:
        raise refused(name, f"the member at byte {at:,} has {info.size:,} bytes")
    return info.name, info.size, info.type


def _take(stream: Stream, length: int, end: int, name: str) -> bytes:
    if stream.position + length > end:
        raise truncated(name, end)
    return bytes(stream.take(length))


def _read_extension(stream: Stream, size: int, kind: bytes, end: int, name: str) -> dict[str, str]:
    """The keywords that a header of type x, g or L gives the next member: `path` and `size`."""
    if size > _LARGEST_EXTENSION_BYTES:
        raise refused(name, f"a header extension has {size:,} bytes")
    body = _take(stream, -(-size // BLOCK_BYTES) * BLOCK_BYTES, end, name)[:size]
    if kind == tarfile.GNUTYPE_LONGNAME:
        return {"path": body.rstrip(b"\0").decode(errors="surrogateescape")}
    records = _parse_records(body, name)
    if any(key.startswith("GNU.sparse.") for key in records):
        raise refused(name, "a member is sparse")
    if not re.fullmatch(r"[0-9]{1,18}", records.get("size", "0")):
        raise refused(name, f"a member has the size {records['size'][:40]!r}")
    found = {key: value for key, value in records.items() if key in ("path", "size")}
    if found and kind == tarfile.XGLTYPE:
        raise refused(name, f"a header gives one {min(found)} to all members")
    return found


def _parse_records(body: bytes, name: str) -> dict[str, str]:
    """The records of a PAX header, each of them `LENGTH KEY=VALUE` and a newline."""
    records: dict[str, str] = {}
    at = 0
    while at < len(body):
        head = _RECORD.match(body, at)
        end = at + int(head[1]) if head else 0
        if head is None or not head.end() < end <= len(body) or body[end - 1 : end] != b"\n":
            raise refused(name, "a header extension is malformed")
        value = body[head.end() : end - 1]
        records[head[2].decode(errors="surrogateescape")] = value.decode(errors="surrogateescape")
        at = end
    return records


def member_path(member: str, name: str, *, folders: bool = True) -> str | None:
    """The path of a member of the archive `name`, of which only the last name counts without
    `folders`; None for what systems leave beside files, as a Mac's `._NAME`.

    A backslash is between folders, as old programs for Windows write it. Raises WrongBytes where
    the path leads elsewhere.
    """
    if _SAMPLE_NAME(member):
        return member
    path = member.replace("\\", "/").removeprefix("./")
    names = path.split("/")
    if not _NO_NAMES.isdisjoint(names) or "\0" in path:
        raise refused(name, f"member {member!r} would leave its folder")
    if any(map(is_litter, names)):
        return None
    return path if folders else names[-1]


def refused(name: str, problem: str) -> WrongBytes:
    """The error for an archive `name` that is not what was published."""
    return WrongBytes(
        f"{name}: {problem}",
        hint="this is not the published archive; fetch it again from its source",
    )
