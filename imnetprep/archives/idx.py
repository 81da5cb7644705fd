"""MNIST's files (the IDX format of Yann LeCun's page): grey images in one, their labels in another.

Read together they are a tar, made on the way: `LABEL/NUMBER.png` for each image, in their order.
"""

import hashlib
import struct
import zlib
from collections.abc import Callable, Iterator

from imnetprep.archives.file import ArchiveFile, read_all
from imnetprep.archives.tar_writing import ending, header, padding
from imnetprep.catalog.datasets import Archive
from imnetprep.messages import WrongBytes

_LABELS, _IMAGES = 0x0801, 0x0803  # bytes, in one dimension and in three
_MOST_LABELS = 1 << 20
_LARGEST_SIDE_PX = 1 << 10

Encode = Callable[[bytes, int, int], bytes]  # grey pixels, width and height to a PNG


class LabelledFile:
    """The archive of images `file`, with what `labels` says of each: an ArchiveFile."""

    def __init__(self, file: ArchiveFile, labels: bytes) -> None:
        self._file, self.labels = file, labels
        self.name, self.size_bytes = file.name, file.size_bytes
        self.seekable, self.is_far, self.checksum = file.seekable, file.is_far, file.checksum
        self.identity = f"{file.identity} labels {hashlib.sha256(labels).hexdigest()}"
        self.read_at, self.chunks, self.close = file.read_at, file.chunks, file.close


def read_labels(file: ArchiveFile, archive: Archive) -> bytes:
    """The labels in `file`, a byte each; `archive` is what it should be.

    Raises WrongBytes where it is something else.
    """
    body = read_all(file, 0, min(file.size_bytes or 0, _MOST_LABELS))
    for kind, digest in archive.digests.items():
        if kind in hashlib.algorithms_available and hashlib.new(kind, body).hexdigest() != digest:
            raise _wrong(archive.name, f"its {kind} is not {digest}")
    try:
        plain = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        labels = plain.decompress(body, _MOST_LABELS)
        kind_of_data, count = struct.unpack(">II", labels[:8])
    except (zlib.error, struct.error) as error:
        raise _wrong(archive.name, f"it cannot be read: {error}") from error
    if kind_of_data != _LABELS or count != len(labels) - 8 or not plain.eof:
        raise _wrong(archive.name, "it has no labels, or not all of them")
    return labels[8:]


def tar_of_images(
    chunks: Iterator[memoryview], labels: bytes, *, name: str, encode: Encode
) -> Iterator[memoryview]:
    """The tar of the images that `chunks` hold. Raises WrongBytes where they hold anything else."""
    rest, body = chunks, bytearray()

    def take(size_bytes: int) -> bytes:
        while len(body) < size_bytes:
            if (chunk := next(rest, None)) is None:
                raise _wrong(name, "it ends before its last image")
            body.extend(chunk)
        head = bytes(body[:size_bytes])
        del body[:size_bytes]
        return head

    kind, count, height, width = struct.unpack(">IIII", take(16))
    if kind != _IMAGES or not 0 < height <= _LARGEST_SIDE_PX or not 0 < width <= _LARGEST_SIDE_PX:
        raise _wrong(name, "it has no images of bytes")
    if count != len(labels):
        raise _wrong(name, f"it has {count:,} images, and there are {len(labels):,} labels")
    size_bytes = 0
    for number, label in enumerate(labels):
        png = encode(take(width * height), width, height)
        member = header(f"{label}/{number:05}.png", len(png)) + png + padding(len(png))
        size_bytes += len(member)
        yield memoryview(member)
    if body or next(rest, None) is not None:
        raise _wrong(name, "it goes on behind its last image")
    yield memoryview(ending(size_bytes))


def _wrong(name: str, problem: str) -> WrongBytes:
    return WrongBytes(f"{name}: {problem}", hint=f"fetch {name} again from its source")
