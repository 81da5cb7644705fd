"""Samples in memory, the sinks that write them, and what is done of an archive."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from imnetprep.catalog.datasets import Split
from imnetprep.columns import ClassColumns
from imnetprep.digests import Checksum
from imnetprep.manifest import SampleRecord

# No image of ILSVRC2012 comes near it, and a sample is held in memory whole.
LARGEST_SAMPLE_BYTES = 128 << 20
# The samples of a range, by split and label.
RangeSamples = Mapping[Split, ClassColumns]


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
    """Where samples go; used from several threads. `options` (JSON) is what the bytes there depend
    on beside the archive: of others, what was made is dropped. `is_forkable`: may several
    processes write there, each with a copy of it? Else `threads_per_job` threads write best.
    """

    options: Mapping[str, Any]
    is_forkable: bool
    threads_per_job: int

    def begin(self, split: Split, records: Iterable[SampleRecord]) -> None:
        """Begin `split`: `records` lie there already; all else was left by a kill."""
        return

    def open_to_threads(self) -> None:
        """Begin to write in this process, which will have threads from now on."""
        return

    def write(self, batch: Batch) -> list[SampleRecord]:
        """Write the samples, in place of what a killed run left."""

    def records(self, batch: Batch) -> list[SampleRecord]:
        """What `write` would say of them, but for the place; writes nothing."""


def published_records(batch: Batch) -> list[SampleRecord]:
    """The samples as they are."""
    return [SampleRecord.of_body(*sample) for sample in batch.samples]


class RangeRecord(NamedTuple):
    """A range that is written: where it starts, its samples by split, its checksum if needed."""

    start: int
    samples: RangeSamples
    checksum: Checksum | None
