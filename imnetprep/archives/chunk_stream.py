"""A stream over the chunks of an archive: no byte of a sample is copied within a chunk."""

import sys
from collections.abc import Callable, Iterator

from imnetprep.archives.tar import truncated


class ChunkStream:
    """The stream from offset `start` of the archive on.

    `on_bytes` gets the length of each chunk once it is used up, and `before_turn` is called before
    that: then the views of it must have been used.
    """

    def __init__(
        self,
        chunks: Iterator[memoryview],
        start: int,
        *,
        name: str,
        on_bytes: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.position = start
        self._chunks, self._name, self._on_bytes = chunks, name, on_bytes
        self._chunk = memoryview(b"")
        self._at = self._size = 0  # in the chunk: how far it is used, and how long it is
        self.before_turn: Callable[[], None] = lambda: None

    def take(self, length: int) -> memoryview:
        start, self._at = self._at, self._at + length
        if self._at <= self._size:
            self.position += length
            return self._chunk[start : self._at]
        self._at = start
        body, at = memoryview(bytearray(length)), 0
        for part in self._parts(length):
            body[at : at + len(part)] = part
            at += len(part)
        return body

    def skip(self, length: int) -> None:
        if self._at + length <= self._size:
            self._at += length
            self.position += length
            return
        for _ in self._parts(length):
            pass

    def drain(self, limit_bytes: int = sys.maxsize) -> bool:
        """Pass over what is left; False where that is more than `limit_bytes`."""
        for _ in self._parts(limit_bytes + 1, may_end=True):
            pass
        return self._size == 0

    def _parts(self, length: int, *, may_end: bool = False) -> Iterator[memoryview]:
        while length:
            if self._at == self._size:
                self.before_turn()
                self._on_bytes(self._size)
                self._chunk = next(self._chunks, memoryview(b""))
                self._at, self._size = 0, len(self._chunk)
                if not self._size:
                    if may_end:
                        return
                    raise truncated(self._name, self.position)
            part = self._chunk[self._at : self._at + length]
            self._at += len(part)
            self.position += len(part)
            length -= len(part)
            yield part
