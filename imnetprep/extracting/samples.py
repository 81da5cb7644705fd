"""Samples of an archive to a sink, every name checked against the dataset."""

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from imnetprep.archives.ranges import Section
from imnetprep.archives.tar import truncated
from imnetprep.catalog.datasets import Archive, Dataset, Split
from imnetprep.catalog.member_paths import MemberPaths, Place
from imnetprep.digests import xxh128
from imnetprep.errors import WrongBytes
from imnetprep.manifest import SampleRecord

# No image of ILSVRC2012 comes near it, and a sample is held in memory whole.
LARGEST_SAMPLE_BYTES = 128 << 20
_BATCH_BYTES = 1 << 20
# In each of CIFAR-10's pickles.
_BATCH_IMAGES = 10_000


class Cancelled(Exception):
    """Another range failed, or the user stopped: this one is left as it is."""


class Sample(NamedTuple):
    """An encoded image with its label, in memory."""

    label: int
    name: str
    body: bytes | memoryview


class Batch(NamedTuple):
    """Samples of one split."""

    split: Split
    samples: list[Sample]


class Sink(Protocol):
    """Where samples go; used from several threads. `made_as` is what the bytes there depend on
    beside the archive: of other words, what has grown is dropped. `apart`: may several processes
    write there, each with a copy of the sink? `threads_a_job` write best, where they are threads.
    """

    made_as: str
    apart: bool
    threads_a_job: int

    def begin(self, split: Split, records: Iterable[SampleRecord]) -> None:
        """These samples lie there already; what else does was left by a kill."""
        return

    def open_to_threads(self) -> None:
        """This process writes itself, and will have threads from now on."""
        return

    def write(self, batch: Batch) -> list[SampleRecord]:
        """Write the samples, in place of what a killed run left."""

    def records(self, batch: Batch) -> list[SampleRecord]:
        """What `write` would say of them, but for the place; writes nothing."""


def published_records(batch: Batch) -> list[SampleRecord]:
    """The samples as they are."""
    return [
        SampleRecord(label, name, len(body), xxh128(body)) for label, name, body in batch.samples
    ]


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


class Extraction:
    """Hands the samples of `splits` in `archive` to `sink`; used from several threads."""

    def __init__(
        self, archive: Archive, splits: Sequence[Split], *, dataset: Dataset, sink: Sink
    ) -> None:
        self._archive, self._splits, self._dataset = archive, splits, dataset
        self._member_paths = MemberPaths(archive, dataset) if archive.members else None
        self.sink = sink
        self.cancelled = threading.Event()

    def extract(
        self, section: Section, stream: ChunkStream, hand_over: Callable[[Batch], None]
    ) -> None:
        """Hand over the samples of a section, those of a chunk at a time, in views of the chunk.

        Of part of a dataset the rest is passed over. Raises WrongBytes on a name that the dataset
        does not have there, or that comes twice, and on all that the readers of archives refuse.
        """
        if self._member_paths is not None:
            self._extract_placed(section, stream, hand_over)
            return
        (split,) = self._splits
        batch: list[Sample] = []

        def hand_over_batch() -> None:
            nonlocal batch
            if batch:
                full, batch = batch, []
                hand_over(Batch(split, full))

        stream.before_turn = hand_over_batch
        for label, name, size_bytes in listed_samples(section, self._archive, self._dataset, split):
            body = stream.take(size_bytes)  # which may hand the batch over
            batch.append(Sample(label, name, body))
        hand_over_batch()

    def write(self, batch: Batch) -> list[SampleRecord]:
        """Write the samples, unless another thread has failed."""
        if self.cancelled.is_set():
            raise Cancelled
        return self.sink.write(batch)

    def _extract_placed(
        self, section: Section, stream: ChunkStream, hand_over: Callable[[Batch], None]
    ) -> None:
        """The same from an archive whose members have paths; other splits are left out."""
        batch: list[Sample] = []
        split, size_bytes = self._splits[0], 0

        def hand_over_batch() -> None:
            nonlocal batch, size_bytes
            if batch:
                full, batch, size_bytes = batch, [], 0
                hand_over(Batch(split, full))

        stream.before_turn = hand_over_batch
        for split_of_sample, sample in self._placed(section):
            if size_bytes >= _BATCH_BYTES or split_of_sample is not split:
                hand_over_batch()
                split = split_of_sample
            batch.append(sample)
            size_bytes += len(sample.body)
        hand_over_batch()

    def _placed(self, section: Section) -> Iterator[tuple[Split, Sample]]:
        assert self._member_paths is not None
        paths = self._member_paths
        of_batches = self._archive.content == "cifar-batches"
        for member in section.members:
            try:
                found = paths.match(member.name) if of_batches else paths.place(member.name)
            except ValueError as error:
                raise refused(self._archive, member.name, str(error)) from error
            if found is None or found[0] not in self._splits:
                continue
            if member.size_bytes > LARGEST_SAMPLE_BYTES:
                raise refused(self._archive, member.name, f"of {member.size_bytes:,} bytes")
            body = section.bodies.take(member.size_bytes)
            if isinstance(found, Place):
                yield found.split, Sample(found.label, found.name, body)
                continue
            yield from self._of_batch(*found, body, name=f"{self._archive.name}: {member.name}")

    def _of_batch(
        self, split: Split, match: re.Match[str], body: memoryview, *, name: str
    ) -> Iterator[tuple[Split, Sample]]:
        """The images of one of CIFAR-10's pickles, as PNG; their numbers count through all."""
        from imnetprep.archives.pickles import SIDE_PX, cifar_images
        from imnetprep.images import encode_png

        published = self._dataset.published
        first = _BATCH_IMAGES * (int(match.groupdict().get("number", 1)) - 1)
        for number, (label, planes) in enumerate(cifar_images(body, name=name), start=first):
            wnid = published.synsets[label].wnid
            named = published.name_of(split, wnid, number)
            chosen = label if published is self._dataset else self._dataset.label_of(split, named)
            if chosen is not None:
                yield split, Sample(chosen, named, encode_png(planes, SIDE_PX))


def listed_samples(
    section: Section, archive: Archive, dataset: Dataset, split: Split
) -> Iterator[tuple[int, str, int]]:
    """The label, name and size of each sample of a section, whose body is what comes next in it.

    Passes over and raises as `Extraction.extract`.
    """
    label_of = _labels(dataset.published, split, section.wnid)
    in_part = dataset is not dataset.published
    seen: set[str] = set()
    for name, _, size_bytes in section.members:
        if name in seen:
            raise refused(archive, name, "a second time")
        seen.add(name)
        label = label_of(name)
        if label is None:
            raise refused(archive, name, f"which {dataset.published.name} does not have there")
        if in_part and (label := dataset.label_of(split, name)) is None:
            continue
        if size_bytes > LARGEST_SAMPLE_BYTES:
            raise refused(archive, name, f"of {size_bytes:,} bytes")
        yield label, name, size_bytes


def _labels(dataset: Dataset, split: Split, wnid: str | None) -> Callable[[str], int | None]:
    """What gives the label of a name, or None for one that does not belong there."""
    if wnid is None:
        return lambda name: dataset.label_of(split, name)
    label = dataset.label_of_wnid[wnid]
    if (names := dataset.names(split, label)) is not None:
        return dict.fromkeys(names, label).get  # a tenth of the cost of asking for each
    return lambda name: label if dataset.label_of(split, name) == label else None


def refused(archive: Archive, member: str, why: str) -> WrongBytes:
    """The error for a member of `archive` that does not belong there."""
    return WrongBytes(
        f"{archive.name}: member {member!r}, {why}",
        hint="name the dataset it belongs to: --dataset NAME|FILE.toml",
    )
