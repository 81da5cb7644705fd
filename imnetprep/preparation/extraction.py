"""One range of an archive to samples on the disk, every name checked against the dataset."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from imnetprep.archives.tar import members
from imnetprep.catalog.datasets import Archive, Dataset, Split
from imnetprep.digests import xxh128
from imnetprep.errors import WrongBytes
from imnetprep.layouts.imagefolder import make_class_folder, write_sample
from imnetprep.manifest import SampleRecord
from imnetprep.preparation.proof import Reader
from imnetprep.preparation.ranges import Range


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
            outer = next(members(stream, name=name, end=end))
            if outer.name != f"{each.wnid}.tar":
                raise self._refused(outer.name, f"where {each.wnid}.tar was")
            name, end = f"{name}: {outer.name}", stream.position + outer.size_bytes
        records: dict[str, SampleRecord] = {}
        for member in members(stream, name=name, end=end, marked=each.wnid is not None):
            record = self._write(member.name, stream.take(member.size_bytes), each.wnid)
            if records.setdefault(member.name, record) is not record:
                raise self._refused(member.name, "a second time")
        stream.skip(each.end - stream.position)  # so that what lies behind is proved too
        tell(0)
        return list(records.values())

    def _write(self, name: str, body: bytes, wnid: str | None) -> SampleRecord:
        label = self._dataset.label_of(self._split, name)
        if label is None or wnid not in (None, self._dataset.synsets[label].wnid):
            raise self._refused(name, f"which {self._dataset.name} does not have there")
        class_folder = make_class_folder(self._folder, self._dataset.synsets[label].wnid)
        write_sample(class_folder, name, body)
        return SampleRecord(label, name, len(body), xxh128(body))

    def _refused(self, member: str, why: str) -> WrongBytes:
        return WrongBytes(
            f"{self._archive.name}: member {member!r}, {why}",
            hint="name the dataset it belongs to: --dataset NAME|FILE.toml",
        )
