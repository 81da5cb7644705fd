"""Samples in memory, the sinks that write them, and what is done of an archive."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from imnetprep.catalog.datasets import Archive, Split
from imnetprep.columns import ClassColumns
from imnetprep.digests import Checksum, xxh128
from imnetprep.manifest import SampleRecord
from imnetprep.messages import WrongBytes

# No image of ILSVRC2012 comes near it, and a sample is held in memory whole.
LARGEST_SAMPLE_BYTES = 128 << 20
# The samples of a range, by split and label.
Written = Mapping[Split, ClassColumns]


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
    on beside the archive: of others, what has grown is dropped. `apart`: may several processes
    write there, each with a copy of the sink? `threads_a_job` write best, where they are threads.
    """

    options: Mapping[str, Any]
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


class Done(NamedTuple):
    """A range that is written: where it starts, its samples by split, its checksum if needed."""

    start: int
    samples: Written
    checksum: Checksum | None


def refused(archive: Archive, member: str, why: str) -> WrongBytes:
    """The error for a member of `archive` that does not belong there."""
    return WrongBytes(
        f"{archive.name}: member {member!r}, {why}",
        hint="name the dataset it belongs to: --dataset NAME|FILE.toml",
    )
