"""Where each sample's body lies in an archive on this machine, found by one walk of its headers."""

from array import array
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

from imnetprep.archives.file import LocalFile, open_local, read_all
from imnetprep.archives.ranges import Range, open_section, plan_ranges
from imnetprep.archives.tar import PLAIN_FORMS, FileStream
from imnetprep.catalog.datasets import Archive, Dataset
from imnetprep.extracting.samples import listed_samples
from imnetprep.manifest import SampleRecord
from imnetprep.messages import Progress, WrongBytes, count
from imnetprep.proving.archive_at import ArchiveAt
from imnetprep.proving.receipt import NoProof, Proof, choose_proof
from imnetprep.sharding.make import ShardSource
from imnetprep.sharding.order import Placement
from imnetprep.sources.torrent import published_pieces

# Each waits for the disk most of the time.
_WALKERS = 8


def _archived_body(path: Path, identity: str, sample: SampleRecord) -> bytes:
    """The body of `sample` in the archive at `path`, for as long as that is the file it was."""
    assert sample.offset_bytes is not None
    with closing(LocalFile(path)) as file:
        if file.identity != identity:
            raise WrongBytes(
                f"{path} has changed while shards were made of it",
                hint="the same command starts over with the archive as it is now",
            )
        return read_all(file, sample.offset_bytes, sample.offset_bytes + sample.size_bytes)


def proof_before_walk(archives: Sequence[ArchiveAt], dataset: Dataset) -> Proof | None:
    """How the bytes of `archives` are proved before any is read; None: they cannot be walked."""
    (first, *rest), earlier = archives, archives[0].proof
    archive = first.archive
    is_plain = archive.form in PLAIN_FORMS and not archive.members
    if rest or not is_plain or not first.is_local or first.parts:
        return None
    proof = choose_proof(archive, published_pieces(dataset, archive), earlier=earlier)
    return proof if proof == earlier or isinstance(proof, NoProof) else None


def source_in_archive(
    archive: ArchiveAt, placement: Placement, *, proof: Proof, progress: Progress
) -> ShardSource:
    """Find each body in an archive on this machine; each shard then reads its own.

    Raises WrongBytes where the archive's samples are not those of the dataset, each once.
    """
    with closing(open_local(archive.path)) as file:
        places = _BodyPlaces(file, archive.archive, placement)
        places.find(progress)
        return ShardSource(
            samples=len(placement),
            made_of=file.identity,
            records=places.records,
            body_of=partial(_archived_body, archive.path, file.identity),
            facts={"archive": archive.archive.name},
            proof=proof,
        )


class _BodyPlaces:
    """The place of each sample in the archive, by its rank: 12 bytes a sample."""

    def __init__(self, file: LocalFile, archive: Archive, placement: Placement) -> None:
        self._file, self._archive, self._placement = file, archive, placement
        self._dataset, self._split = placement.dataset, placement.split
        self._starts = array("Q", [0]) * len(placement)
        self._sizes = array("I", [0]) * len(placement)

    def find(self, progress: Progress) -> None:
        """Walk the headers, those of several ranges at a time; bodies are not read."""
        self._dataset.preload(self._split)  # once, and not by each walker
        ranges, total = list(self._ranges()), 0
        size_bytes = sum(each.end - each.start for each in ranges)
        with (
            progress.task(f"look through {self._file.name}", total=size_bytes, unit="B") as task,
            ThreadPoolExecutor(_WALKERS) as walkers,
        ):
            for each, samples in zip(ranges, walkers.map(self._walk, ranges), strict=True):
                total += samples
                task.advance(each.end - each.start)
        self._require_all(total)

    def records(self) -> Iterator[SampleRecord]:
        """The samples in the order of their ranks; no digest is known yet."""
        for rank, (start, size_bytes) in enumerate(zip(self._starts, self._sizes, strict=True)):
            label, name = self._placement.sample(rank)
            yield SampleRecord(label, name, size_bytes, b"", offset_bytes=start)

    def _ranges(self) -> Iterator[Range]:
        """The ranges in which samples of the dataset may lie."""
        dataset, size_bytes = self._dataset.published, self._file.size_bytes or 0
        for each in plan_ranges(
            self._archive, dataset, size_bytes=size_bytes, read_at=self._read_at
        ):
            if each.wnid is None or each.wnid in self._dataset.label_of_wnid:
                yield each

    def _walk(self, span: Range) -> int:
        stream, samples = FileStream(self._read_at), 0
        stream.position = span.start
        section = open_section(span, stream, self._archive)
        for label, name, size_bytes in listed_samples(
            section, self._archive, self._dataset, self._split
        ):
            rank = self._placement.rank(label, name)
            self._starts[rank], self._sizes[rank] = stream.position, size_bytes
            samples += 1
        return samples

    def _require_all(self, samples: int) -> None:
        gaps = self._starts.count(0)  # no body starts there: a header does
        if gaps or samples != len(self._starts):
            problem = f"lacks {count(gaps, 'image')}" if gaps else "has an image twice"
            raise WrongBytes(
                f"{self._archive.name} {problem} of {self._dataset.name}",
                hint="imnetprep verify-archives names them; fetch the archive again",
            )

    def _read_at(self, offset: int, length: int) -> bytes:
        return read_all(self._file, offset, offset + length)
