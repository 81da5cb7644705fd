"""Gzip (RFC 1952) and xz streams decompressed in pieces of a bounded size."""

import lzma
import zlib
from collections.abc import Iterator
from typing import Any

from imnetprep.archives.tar import truncated
from imnetprep.messages import WrongBytes

COMPRESSED_FORMS = ("tar.gz", "tar.xz", "idx.gz")
_CHUNK_BYTES = 512 << 10
_XZ_MEMORY_BYTES = 128 << 20  # `xz -9` wants 65 MiB


def decompressed(chunks: Iterator[memoryview], *, form: str, name: str) -> Iterator[memoryview]:
    """What `chunks` of the archive `name` decompress to, in pieces of a bounded size.

    Several streams may follow each other, and zeros may follow the last. The streams' own
    checksums are checked. Raises WrongBytes where one is damaged, ends too early, or is followed by
    something else.
    """
    stream, read_bytes = _open_stream(form), 0
    for chunk in chunks:
        read_bytes += len(chunk)
        data = bytes(chunk)
        while data:
            if stream.eof:
                data = data.lstrip(b"\0")
                if not data:
                    break
                stream = _open_stream(form)
            try:
                # Of a header or a trailer nothing comes; an empty chunk is taken for the end.
                yield from (memoryview(piece) for piece in _pieces(stream, data) if piece)
            except (zlib.error, lzma.LZMAError) as error:
                raise WrongBytes(
                    f"{name} is no {form.rpartition('.')[2]} file, or damaged: {error}",
                    hint=f"fetch {name} again from its source",
                ) from error
            data = stream.unused_data
    if not stream.eof:
        raise truncated(name, read_bytes)


def _open_stream(form: str) -> Any:
    if form != "tar.xz":
        return zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES)


def _pieces(stream: Any, data: bytes) -> Iterator[bytes]:
    if isinstance(stream, lzma.LZMADecompressor):
        yield stream.decompress(data, _CHUNK_BYTES)
        while not (stream.eof or stream.needs_input):
            yield stream.decompress(b"", _CHUNK_BYTES)
    else:
        while (piece := stream.decompress(data, _CHUNK_BYTES)) or data:
            yield piece
            data = stream.unconsumed_tail
