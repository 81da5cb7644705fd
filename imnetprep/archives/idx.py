"""MNIST's files (the IDX format of Yann LeCun's page): grey images in one, their labels in another.

Read together they are a tar, made on the way: `LABEL/NUMBER.png` for each image, in their order.
"""

import hashlib
import struct
from collections.abc import Callable, Iterator

import xxhash

from imnetprep.archives.compression import decompressed
from imnetprep.archives.file import ArchiveFile
from imnetprep.archives.tar_writing import ending, header, padding
from imnetprep.catalog.datasets import Archive
from imnetprep.messages import WrongBytes

_LABELS, _IMAGES = 0x0801, 0x0803  # bytes, in one dimension and in three
_LARGEST_LABELS_BYTES = 16 << 20
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
    """The labels in `file`, a byte each; `archive` says what it must be.

    Raises WrongBytes where it is anything else.
    """
    body = file.read_at(0, _LARGEST_LABELS_BYTES)
    if archive.size_bytes not in (None, len(body)):
        raise _wrong(archive.name, f"it has {len(body):,} bytes, not {archive.size_bytes:,}")
    kind = next(iter(archive.digests))
    if _digest(kind, body) != archive.digests[kind]:
        raise _wrong(archive.name, f"its {kind} is not {archive.digests[kind]}")
    labels = bytearray()
    for chunk in decompressed(iter([memoryview(body)]), form="idx.gz", name=archive.name):
        labels += chunk
        if len(labels) > _LARGEST_LABELS_BYTES:
            raise _wrong(archive.name, "it has too many labels")
    if labels[:8] != struct.pack(">II", _LABELS, len(labels) - 8):
        raise _wrong(archive.name, "it has no labels, or not all of them")
    return bytes(labels[8:])


def _digest(kind: str, body: bytes) -> str:
    digest = xxhash.xxh64() if kind == "xxh64" else hashlib.new(kind)
    digest.update(body)
    return str(digest.hexdigest())


def tar_of_images(
    chunks: Iterator[memoryview], labels: bytes, *, name: str, encode: Encode
) -> Iterator[memoryview]:
    """The tar of the images that `chunks` hold. Raises WrongBytes where they hold anything else."""
    body = bytearray()

    def take(size_bytes: int) -> bytes:
        while len(body) < size_bytes:
            if (chunk := next(chunks, None)) is None:
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
    if body or next(chunks, None) is not None:
        raise _wrong(name, "it goes on behind its last image")
    yield memoryview(ending(size_bytes))


def _wrong(name: str, problem: str) -> WrongBytes:
    return WrongBytes(f"{name}: {problem}", hint=f"fetch {name} again from its source")
