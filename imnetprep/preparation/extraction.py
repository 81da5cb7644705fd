"""Samples of an archive to files, every name checked against the dataset."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from imnetprep.archives.tar import truncated
from imnetprep.catalog.datasets import Archive, Dataset, Split
from imnetprep.digests import xxh128
from imnetprep.errors import WrongBytes
from imnetprep.layouts.imagefolder import make_class_folder, write_sample
from imnetprep.manifest import SampleRecord
from imnetprep.preparation.ranges import Section

# No image of ILSVRC2012 comes near it, and a sample is held in memory whole.
_LARGEST_SAMPLE_BYTES = 128 << 20


class Cancelled(Exception):
    """Another range failed, or the user stopped: this one is left as it is."""


class Sample(NamedTuple):
    """An encoded image with its label, in memory."""

    label: int
    name: str
    body: memoryview


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
        self._used_bytes = 0
        self.before_turn: Callable[[], None] = lambda: None

    def take(self, length: int) -> memoryview:
        if length > len(self._chunk):
            body = bytearray()
            for part in self._parts(length):
                body += part
            return memoryview(body)
        part, self._chunk = self._chunk[:length], self._chunk[length:]
        self.position += length
        return part

    def skip(self, length: int) -> None:
        if length <= len(self._chunk):
            self._chunk = self._chunk[length:]
            self.position += length
            return
        for _ in self._parts(length):
            pass

    def drain(self) -> None:
        """Read on to where the chunks end."""
        while (length := len(self._chunk)) or self._next():
            self.skip(length)

    def _parts(self, length: int) -> Iterator[memoryview]:
        while length:
            if not self._chunk and not self._next():
                raise truncated(self._name, self.position)
            part, self._chunk = self._chunk[:length], self._chunk[length:]
            self.position += len(part)
            length -= len(part)
            yield part

    def _next(self) -> bool:
        self.before_turn()
        self._told(self._used_bytes)
        self._chunk = next(self._chunks, memoryview(b""))
        self._used_bytes = len(self._chunk)
        return self._used_bytes > 0


class Extraction:
    """Writes the samples of `archive` under `folder`; used from several threads."""

    def __init__(self, archive: Archive, split: Split, *, dataset: Dataset, folder: Path) -> None:
        self._archive, self._split, self._dataset = archive, split, dataset
        self._folder = folder
        self._class_folders: dict[int, str] = {}
        self.cancelled = threading.Event()

    def extract(
        self, section: Section, stream: ChunkStream, hand_over: Callable[[list[Sample]], None]
    ) -> None:
        """Hand over the samples of a section, those of a chunk at a time, in views of the chunk.

        Raises WrongBytes on a name that the dataset does not have there, or that comes twice, and
        on all that `archives.tar.members` refuses.
        """
        label_of = self._labels(section.wnid)
        seen: set[str] = set()
        batch: list[Sample] = []

        def hand_over_batch() -> None:
            nonlocal batch
            if batch:
                full, batch = batch, []
                hand_over(full)

        stream.before_turn = hand_over_batch
        for name, _, size_bytes in section.members:
            if name in seen:
                raise self._refused(name, "a second time")
            seen.add(name)
            label = label_of(name)
            if label is None:
                raise self._refused(name, f"which {self._dataset.name} does not have there")
            if size_bytes > _LARGEST_SAMPLE_BYTES:
                raise self._refused(name, f"of {size_bytes:,} bytes")
            body = stream.take(size_bytes)  # which may hand the batch over
            batch.append(Sample(label, name, body))
        hand_over_batch()

    def write(self, batch: list[Sample]) -> list[SampleRecord]:
        """Write the samples as files; what a killed run left under their names is overwritten."""
        if self.cancelled.is_set():
            raise Cancelled
        records = []
        for label, name, body in batch:
            write_sample(self._class_folder(label), name, body)
            records.append(SampleRecord(label, name, len(body), xxh128(body)))
        return records

    def _class_folder(self, label: int) -> str:
        if label not in self._class_folders:
            wnid = self._dataset.synsets[label].wnid
            self._class_folders[label] = str(make_class_folder(self._folder, wnid))
        return self._class_folders[label]

    def _labels(self, wnid: str | None) -> Callable[[str], int | None]:
        """What gives the label of a name, or None for one that does not belong there."""
        if wnid is None:
            return lambda name: self._dataset.label_of(self._split, name)
        label = self._dataset.label_of_wnid[wnid]
        if (names := self._dataset.names(self._split, label)) is not None:
            return dict.fromkeys(names, label).get  # a tenth of the cost of asking for each
        of = self._dataset.label_of
        return lambda name: label if of(self._split, name) == label else None

    def _refused(self, member: str, why: str) -> WrongBytes:
        return WrongBytes(
            f"{self._archive.name}: member {member!r}, {why}",
            hint="name the dataset it belongs to: --dataset NAME|FILE.toml",
        )
