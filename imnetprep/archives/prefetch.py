"""A far archive that is walked while it is read: a header costs no request of its own."""

from collections.abc import Iterator
from itertools import chain

from imnetprep.archives.file import ArchiveFile

# Of the first class nothing is known yet. The others are taken to be a little longer than the one
# before: too short a guess costs a request, too long a one only what is read in vain.
_FIRST_GUESS_BYTES, _LEAST_GUESS_BYTES, _LONGER = 4 << 20, 64 << 10, 17 / 16
_CHUNK_BYTES = 2 << 20  # what the walk waits for
# So much is read in vain rather than that a connection is closed.
_MOST_IN_VAIN_BYTES = 4 << 20


class PrefetchedFile:
    """An archive whose headers are read in order, each with what lies behind it begun.

    The chunks of a range that starts with a header go on from there. One thread walks; close it.
    """

    seekable, is_far = True, True

    def __init__(self, file: ArchiveFile) -> None:
        self._file, self.name, self.identity = file, file.name, file.identity
        self.size_bytes, self.checksum = file.size_bytes, file.checksum
        # The chunks of a range, by its start, and where they end: the guess. A generator that
        # nobody holds any more lets go of its connection.
        self._prefetches: dict[int, tuple[Iterator[memoryview], int]] = {}
        self._position, self._guess_bytes = 0, _FIRST_GUESS_BYTES
        self._start, self._first = 0, memoryview(b"")

    def read_at(self, offset: int, length: int) -> bytes:
        """As `ArchiveFile.read_at`; at a new place, the beginning of a range."""
        if offset > self._position:
            guess_bytes = int((offset - self._position) * _LONGER)
            self._position, self._guess_bytes = offset, max(_LEAST_GUESS_BYTES, guess_bytes)
        start = offset - self._start
        if not 0 <= start <= start + length <= len(self._first):
            start, end = 0, min(offset + self._guess_bytes, self.size_bytes or 0)
            chunks = self._file.chunks(offset, end, _CHUNK_BYTES)
            self._start, self._first = offset, memoryview(bytes(next(chunks, b"")))
            self._prefetches[offset] = chain([self._first], chunks), end
        return bytes(self._first[start : start + length])

    def chunks(self, start: int, end: int, length: int) -> Iterator[memoryview]:
        prefetch, prefetch_end = self._prefetches.pop(start, (iter(()), start))
        at = start
        for chunk in prefetch:
            if at < end:
                yield chunk[: end - at]
            at += len(chunk)
            if at >= end and prefetch_end - end > _MOST_IN_VAIN_BYTES:
                break
        yield from self._file.chunks(min(at, end), end, length)

    def close(self) -> None:
        """Let go of what was begun and not asked for; the archive itself stays open."""
        self._prefetches.clear()
