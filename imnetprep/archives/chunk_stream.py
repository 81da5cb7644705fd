"""A stream over the chunks of an archive: no byte of a sample is copied within a chunk."""

from collections.abc import Callable, Iterator

from imnetprep.archives.tar import truncated


class ChunkStream:
    """A stream over the chunks of an archive from `start` on; nothing is copied within a chunk.

    `told` gets the length of each chunk once it is used up, and `before_turn` is called before
    that: then the views of it must have been used.
    """

    def __init__(
        self, chunks: Iterator[memoryview], start: int, *, name: str, told: Callable[[int], None]
    ) -> None:
        self.position = start
        self._chunks, self._name, self._told = chunks, name, told
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

    def drain(self) -> None:
        """Read on to where the chunks end."""
        while self.skip_chunk():
            pass

    def skip_chunk(self) -> bool:
        """Pass over what is left of the chunk at hand; is there another?"""
        self.skip(self._size - self._at)
        return self._next()

    def _parts(self, length: int) -> Iterator[memoryview]:
        while length:
            if self._at == self._size and not self._next():
                raise truncated(self._name, self.position)
            part = self._chunk[self._at : self._at + length]
            self._at += len(part)
            self.position += len(part)
            length -= len(part)
            yield part

    def _next(self) -> bool:
        self.before_turn()
        self._told(self._size)
        self._chunk = next(self._chunks, memoryview(b""))
        self._at, self._size = 0, len(self._chunk)
        return self._size > 0
