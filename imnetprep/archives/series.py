"""Files on this machine as the one archive that they are parts of, such as class tars taken out."""

import hashlib
import itertools
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path

from imnetprep.archives.file import file_state
from imnetprep.archives.tar import truncated
from imnetprep.archives.tar_writing import ending, header, padding
from imnetprep.digests import Checksum
from imnetprep.outside_files import open_handle


class FileSeries:
    """Bytes and files end to end as the archive called `name`: an ArchiveFile. `starts` of each."""

    seekable, is_far = True, False
    checksum: Checksum | None = None

    def __init__(self, name: str, segments: Sequence[bytes | Path]) -> None:
        self.name, self._segments = name, segments
        files = [(each.name, file_state(each)) for each in segments if isinstance(each, Path)]
        sizes = (len(each) if isinstance(each, bytes) else each.stat().st_size for each in segments)
        self.starts = [0, *itertools.accumulate(sizes)]
        self.size_bytes: int | None = self.starts[-1]
        self.identity = f"{name} {hashlib.sha256(repr(files).encode()).hexdigest()}"

    def read_at(self, offset: int, length: int) -> bytes:
        body = bytearray(length)
        return bytes(body[: self._fill(memoryview(body), offset)])

    def chunks(self, start: int, end: int, length: int) -> Iterator[memoryview]:
        buffer = memoryview(bytearray(min(length, end - start)))
        for at in range(start, end, length):
            view = buffer[: end - at]
            if (found := self._fill(view, at)) != len(view):
                raise truncated(self.name, at + found)
            yield view

    def close(self) -> None: ...

    def _fill(self, view: memoryview, offset: int) -> int:
        """Read what lies at `offset` into `view`; how many bytes that were."""
        at = 0
        for number in range(bisect_right(self.starts, offset) - 1, len(self._segments)):
            skip = offset + at - self.starts[number]
            part = view[at : at + self.starts[number + 1] - offset - at]
            found = _read(self._segments[number], part, skip)
            at += found
            if found != len(part) or at == len(view):
                break
        return at


def series_of_class_tars(name: str, class_tars: Sequence[Path]) -> FileSeries:
    """The tar of these class tars, with headers of its own: what GNU tar would make of them."""
    segments: list[bytes | Path] = []
    size_bytes = 0
    for path in class_tars:
        body_bytes = path.stat().st_size
        first, last = header(path.name, body_bytes), padding(body_bytes)
        segments += [first, path, last]
        size_bytes += len(first) + body_bytes + len(last)
    return FileSeries(name, [*segments, ending(size_bytes)])


def _read(segment: bytes | Path, view: memoryview, offset: int) -> int:
    if isinstance(segment, bytes):
        view[:] = segment[offset : offset + len(view)]
        return len(view)
    handle = open_handle(segment)  # a thousand of them are not kept open
    try:
        return os.preadv(handle, [view], offset)
    except OSError as error:
        error.filename = str(segment)
        raise
    finally:
        os.close(handle)
