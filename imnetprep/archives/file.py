"""An open archive: the protocol of its bytes, met by a local file and by a pipe."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from imnetprep.archives.tar import truncated
from imnetprep.digests import Checksum
from imnetprep.fs import read_into, read_range
from imnetprep.machine import named
from imnetprep.messages import ImnetprepError
from imnetprep.outside_files import open_handle

# Of files that may be an archive under another name, or packed in another way.
ARCHIVE_ENDINGS = (".tar", ".gz", ".tgz", ".xz", ".bz2", ".zst", ".zip", ".7z", ".rar", ".parquet")
_EXAMPLES = 3


class ArchiveFile(Protocol):
    """An archive that is open for reading; nothing has proved yet what its reads return.

    `seekable`: may its bytes be read in any order, and side by side? `is_far`: is each read a round
    trip to a server, so that many at once are faster than one? `checksum`: what its server keeps.
    """

    name: str
    size_bytes: int | None
    seekable: bool
    is_far: bool
    checksum: Checksum | None

    @property
    def identity(self) -> str:
        """A text that changes when the bytes do, as far as that shows without reading them."""

    def read_at(self, offset: int, length: int) -> bytes:
        """`length` bytes, fewer only where the archive ends. Safe from several threads."""

    def chunks(self, start: int, end: int, length: int) -> Iterator[memoryview]:
        """The bytes from `start` to `end`, `length` at a time; a chunk holds until the next.

        Raises WrongBytes where the archive ends before. Safe from several threads.
        """

    def close(self) -> None:
        """Close the archive."""


def file_state(file: Path | int) -> dict[str, int]:
    """Size, times and inode of a path, or of an open file's handle.

    Two fetches of a file may share size and mtime, not the rest.
    """
    status = os.fstat(file) if isinstance(file, int) else file.stat()
    return {
        "size_bytes": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "ctime_ns": status.st_ctime_ns,
        "inode": status.st_ino,
    }


class LocalFile:
    """An archive on this machine."""

    seekable, is_far = True, False
    checksum: Checksum | None = None

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.name
        self.identity = f"{path.name} {file_state(path)}"
        self._handle = open_handle(path)
        self.size_bytes: int | None = os.fstat(self._handle).st_size

    def read_at(self, offset: int, length: int) -> bytes:
        with named(self.path):
            body = os.pread(self._handle, length, offset)
            if 0 < len(body) < length:
                body += read_range(self._handle, length - len(body), offset + len(body))
            return body

    def chunks(self, start: int, end: int, length: int) -> Iterator[memoryview]:
        # One buffer: fresh memory for each chunk costs the kernel as much as reading it.
        buffer = memoryview(bytearray(min(length, end - start)))
        for at in range(start, end, length):
            view = buffer[: end - at]
            with named(self.path):
                found = read_into(self._handle, view, at)
            if found != len(view):
                raise truncated(self.name, at + found)
            yield view

    def close(self) -> None:
        os.close(self._handle)


class Pipe:
    """An archive that another program writes into a pipe: read once, from its start to its end."""

    seekable, is_far = False, False
    size_bytes: int | None = None
    checksum: Checksum | None = None

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self.name = name
        self.identity = f"{name} from a pipe"
        self._stream, self._position = stream, 0

    def read_at(self, offset: int, length: int) -> bytes:
        assert offset == self._position, "a pipe is read in order"
        # One system call at a time: Python's own loop sees no signal until it has all the bytes.
        handle, parts, rest = self._stream.fileno(), [], length
        while rest and (part := os.read(handle, rest)):
            parts.append(part)
            rest -= len(part)
        self._position += length - rest
        return b"".join(parts)

    def chunks(self, start: int, end: int, length: int) -> Iterator[memoryview]:
        for at in range(start, end, length):
            yield memoryview(read_all(self, at, min(at + length, end)))

    def close(self) -> None: ...


def read_all(file: ArchiveFile, start: int, end: int) -> bytes:
    """The bytes from `start` to `end`. Raises WrongBytes where the archive ends before."""
    body = file.read_at(start, end - start)
    if len(body) != end - start:
        raise truncated(file.name, start + len(body))
    return body


def open_local(path: Path) -> LocalFile:
    """The archive at `path`. Raises ImnetprepError where it is not there, or not whole yet."""
    try:
        return LocalFile(path)
    except FileNotFoundError:
        part = path.with_name(f"{path.name}.part")
        raise ImnetprepError(
            f"{path} is not whole yet" if part.exists() else missing_archive(path),
            hint="imnetprep download, or name the place where the archives are",
        ) from None


def missing_archive(path: Path) -> str:
    """The sentence about an archive that is not there: which others are."""
    return f"{path} is not there{but_archives(path.parent)}"


def but_archives(folder: Path) -> str:
    """The end of a sentence about what `folder` has not: which files may be archives, if any."""
    try:
        names = sorted(each.name for each in folder.iterdir())
    except OSError:  # not there, no folder, or not to be looked into
        return ""
    archives = [
        name for name in names if name.endswith(ARCHIVE_ENDINGS) and not name.startswith(".")
    ]
    rest = f" and {len(archives) - _EXAMPLES:,} more" if len(archives) > _EXAMPLES else ""
    return f", but {', '.join(archives[:_EXAMPLES])}{rest}" if archives else ""
