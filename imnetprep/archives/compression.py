"""Gzip (RFC 1952) and xz streams decompressed in pieces of a bounded size."""

import lzma
import zlib
from collections.abc import Iterator
from typing import Any

from imnetprep.archives.tar import truncated
from imnetprep.messages import WrongBytes

COMPRESSED_FORMS = ("tar.gz", "tar.xz")
_CHUNK_BYTES = 512 << 10
_XZ_MEMORY_BYTES = 128 << 20  # `xz -9` wants 65 MiB


def decompressed(chunks: Iterator[memoryview], *, form: str, name: str) -> Iterator[memoryview]:
    """What `chunks` of the archive `name` decompress to, in pieces of a bounded size.

    Several streams may follow each other, and zeros may follow the last. The streams' own
    checksums are checked. Raises WrongBytes where one is damaged, ends too early, or is followed by
    something else.
    """
    open_stream = _Gzip if form == "tar.gz" else _Xz
    stream: _Gzip | _Xz | None = open_stream()
    at_end, read_bytes = False, 0
    for chunk in chunks:
        read_bytes += len(chunk)
        data = bytes(chunk)
        while data:
            if stream is None:
                data = data.lstrip(b"\0")
                if not data:
                    break
                stream = open_stream()
            try:
                yield from (memoryview(piece) for piece in stream.pieces(data))
            except (zlib.error, lzma.LZMAError) as error:
                raise WrongBytes(
                    f"{name} is no {form.removeprefix('tar.')} file, or damaged: {error}",
                    hint=f"fetch {name} again from its source",
                ) from error
            data, at_end = stream.rest, stream.ended
            if at_end:
                stream = None
    if not at_end:
        raise truncated(name, read_bytes)


class _Stream:
    _stream: Any

    @property
    def ended(self) -> bool:
        return bool(self._stream.eof)

    @property
    def rest(self) -> bytes:
        """What follows the end of the stream."""
        return bytes(self._stream.unused_data)


class _Gzip(_Stream):
    def __init__(self) -> None:
        self._stream = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)

    def pieces(self, data: bytes) -> Iterator[bytes]:
        while (piece := self._stream.decompress(data, _CHUNK_BYTES)) or data:
            yield piece
            data = self._stream.unconsumed_tail


class _Xz(_Stream):
    def __init__(self) -> None:
        self._stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES)

    def pieces(self, data: bytes) -> Iterator[bytes]:
        yield self._stream.decompress(data, _CHUNK_BYTES)
        while not (self._stream.eof or self._stream.needs_input):
            yield self._stream.decompress(b"", _CHUNK_BYTES)
