"""One range of an archive to samples on the disk, every name checked against the dataset."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from imnetprep.archives.tar import Member, members
from imnetprep.catalog.datasets import Archive, Dataset, Split
from imnetprep.digests import xxh128
from imnetprep.errors import WrongBytes
from imnetprep.layouts.imagefolder import make_class_folder, write_sample
from imnetprep.manifest import SampleRecord
from imnetprep.preparation.proof import Reader
from imnetprep.preparation.ranges import Range

# No image of ILSVRC2012 comes near it, and a sample is held in memory whole.
_LARGEST_SAMPLE_BYTES = 128 << 20


class Cancelled(Exception):
    """Another range failed, or the user stopped: this one is left as it is."""


class ChunkStream:
    """A stream over the chunks of a reader; `told` gets the length of each once it is used."""

    def __init__(self, reader: Reader, each: Range, told: Callable[[int], None]) -> None:
        self.position = each.start
        self._chunks = _telling(reader.chunks(each.start, each.end), told)
        self._chunk = memoryview(b"")

    def take(self, length: int) -> bytes:
        return b"".join(self._parts(length))

    def skip(self, length: int) -> None:
        for _ in self._parts(length):
            pass

    def _parts(self, length: int) -> Iterator[memoryview]:
        self.position += length
        while length:
            if not self._chunk:
                self._chunk = next(self._chunks)
            part, self._chunk = self._chunk[:length], self._chunk[length:]
            length -= len(part)
            yield part


def _telling(chunks: Iterator[memoryview], told: Callable[[int], None]) -> Iterator[memoryview]:
    for chunk in chunks:
        yield chunk
        told(len(chunk))


class Extraction:
    """Writes the samples of ranges of `archive` under `folder`; used from several threads."""

    def __init__(
        self, archive: Archive, split: Split, *, dataset: Dataset, folder: Path, reader: Reader
    ) -> None:
        self._archive, self._split, self._dataset = archive, split, dataset
        self._folder, self._reader = folder, reader
        self.cancelled = threading.Event()

    def extract(self, each: Range, told: Callable[[int], None]) -> list[SampleRecord]:
        """Write every sample of a range; `told` gets the bytes read as they are.

        Raises WrongBytes on a name that the dataset does not have there, and on all that
        `archives.tar.members` refuses.
        """

        def tell(amount: int) -> None:
            if self.cancelled.is_set():
                raise Cancelled
            told(amount)

        stream = ChunkStream(self._reader, each, tell)
        name, end = self._archive.name, each.end
        if each.wnid is not None:
            outer = next(members(stream, name=name, end=end), None)
            if outer is None or outer.name != f"{each.wnid}.tar":
                raise self._refused(f"{each.wnid}.tar", "which changed while it was read")
            name, end = f"{name}: {outer.name}", stream.position + outer.size_bytes
        records: dict[str, SampleRecord] = {}
        for member in members(stream, name=name, end=end, marked=each.wnid is not None):
            if member.name in records:
                raise self._refused(member.name, "a second time")
            label = self._label(member, each.wnid)
            body = stream.take(member.size_bytes)
            wnid = self._dataset.synsets[label].wnid
            write_sample(make_class_folder(self._folder, wnid), member.name, body)
            record = SampleRecord(label, member.name, len(body), xxh128(body))
            records[member.name] = record
        stream.skip(each.end - stream.position)  # so that what lies behind is proved too
        tell(0)
        return list(records.values())

    def _label(self, member: Member, wnid: str | None) -> int:
        label = self._dataset.label_of(self._split, member.name)
        if label is None or wnid not in (None, self._dataset.synsets[label].wnid):
            raise self._refused(member.name, f"which {self._dataset.name} does not have there")
        if member.size_bytes > _LARGEST_SAMPLE_BYTES:
            raise self._refused(member.name, f"of {member.size_bytes:,} bytes")
        return label

    def _refused(self, member: str, why: str) -> WrongBytes:
        return WrongBytes(
            f"{self._archive.name}: member {member!r}, {why}",
            hint="name the dataset it belongs to: --dataset NAME|FILE.toml",
        )
