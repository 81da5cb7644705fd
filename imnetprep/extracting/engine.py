"""An open archive: which ranges it has, which engine extracts them, and through which reader."""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from imnetprep.archives.compression import COMPRESSED_FORMS
from imnetprep.archives.file import ArchiveFile, read_all
from imnetprep.archives.prefetch import PrefetchedFile
from imnetprep.archives.range_index import format_index, parse_index
from imnetprep.archives.ranges import Range, Section, open_section, plan_ranges, walked_ranges
from imnetprep.archives.tar import Stream
from imnetprep.catalog.datasets import Archive, Dataset, Split
from imnetprep.digests import Checksum, Pieces
from imnetprep.extracting.by_range import extract_by_range, open_workers
from imnetprep.extracting.in_order import Check, extract_in_order
from imnetprep.extracting.samples import Extraction
from imnetprep.extracting.sink import RangeRecord, Sink
from imnetprep.extracting.zip_ranges import Zip
from imnetprep.fs import written_whole
from imnetprep.messages import Progress, Task
from imnetprep.proving.readers import Reader, open_reader, wants_order
from imnetprep.proving.receipt import NoProof, Proof, choose_proof, proof_of_part

Engine = Generator[RangeRecord, None, None]


@dataclass(frozen=True)
class Source:
    """An archive that is open as `file`.

    `pieces` are those of its torrent; `earlier` is what proved it already. `index` is where its
    ranges are kept, `ranges` what is known of them already; `on_committed` gets each range
    once its samples are safe on the disk.
    """

    archive: Archive
    file: ArchiveFile
    pieces: Pieces | None = None
    earlier: Proof | None = None
    index: Path | None = None
    ranges: Sequence[Range] | None = None
    on_committed: Callable[[Range], None] | None = None

    @property
    def identity(self) -> str:
        """Which bytes these are: the torrent's, or else this very file as it is now."""
        return self.file.identity if self.pieces is None else f"torrent {self.pieces.info_hash}"


class Ranges:
    """The ranges of `source` where samples of `dataset` may lie; that may be part of what it holds.

    `spans` are those that it has, once they are found.
    """

    def __init__(self, source: Source, dataset: Dataset) -> None:
        self.source, self.dataset = source, dataset
        self._archive, self._file = source.archive, source.file
        self._zip: Zip | None = None
        self.spans = source.ranges

    @property
    def size_bytes(self) -> int:
        """How long the archive is, as far as anybody knows."""
        pieces = self.source.pieces
        size_bytes = self._file.size_bytes or self._archive.size_bytes
        return size_bytes or (pieces.size_bytes if pieces else 0)

    def want_order(self) -> bool:
        """By its form; in a pipe; or where a server would be asked for many headers."""
        one_by_one = self._file.is_far and self._archive.form == "tar" and not self._are_known
        return self._archive.form in COMPRESSED_FORMS or not self._file.seekable or one_by_one

    def find(self) -> Sequence[Range]:
        """From the index that is kept, or by walking the archive's headers; then they are kept."""
        index = self.source.index
        if (directory := self.open_zip()) is not None:
            self.spans = directory.ranges
            return self.spans
        if self.spans is None and index is not None and index.exists():
            body, whole = index.read_bytes(), self.dataset.published
            self.spans = parse_index(body, self._archive, whole, of=self._file)
        if self.spans is None:
            self.spans = self._plan()
        if index is not None and not index.exists():
            with written_whole(index) as file:
                file.write(format_index(self.spans, of=self._file))
        return self.spans

    def may_walk_ahead(self) -> bool:
        """Is it far, are its classes not known, and does no proof want to know them first?"""
        by_class = self._file.is_far and self._archive.form == "tar-of-tars"
        return by_class and self.source.pieces is None and not self._are_known

    def walk(self, file: PrefetchedFile) -> Iterator[Range]:
        """The ranges, each as soon as it is known; they are kept once all are."""
        found = []
        for each in walked_ranges(
            self._archive,
            self.dataset.published,
            size_bytes=self._seekable_bytes,
            read_at=lambda offset, length: read_all(file, offset, offset + length),
        ):
            found.append(each)
            yield each
        self.spans = found
        self.find()  # which keeps them

    def leave_out(self) -> bool:
        """Are there ranges that need not be read, for nothing of the dataset lies in them?"""
        if self.dataset is self.dataset.published or not self._file.seekable:
            return False
        by_class = self._archive.form in ("tar-of-tars", "zip")
        return by_class and not all(map(self.may_hold, self.find()))

    def may_hold(self, span: Range | Section) -> bool:
        """May samples of the dataset lie there?"""
        if self.dataset is self.dataset.published:
            return True
        if span.wnid is not None:
            return span.wnid in self.dataset.label_of_wnid
        return not isinstance(span, Range) or self._zip is None or self._zip.holds_samples(span)

    def open(self, span: Range, stream: Stream) -> Section:
        """The section of one range, from a stream that stands at its start."""
        if self._zip is not None:
            return self._zip.section(span, stream)
        return open_section(span, stream, self._archive)

    def open_zip(self) -> Zip | None:
        """The directory of a zip, read once; None for other forms."""
        if self._zip is None and self._archive.form == "zip":
            self._zip = Zip(
                self._archive, self.dataset, size_bytes=self._seekable_bytes, read_at=self._read_at
            )
        return self._zip

    @property
    def _are_known(self) -> bool:
        index = self.source.index
        return self.spans is not None or (index is not None and index.exists())

    def _plan(self) -> list[Range]:
        whole, size_bytes = self.dataset.published, self._seekable_bytes
        return plan_ranges(self._archive, whole, size_bytes=size_bytes, read_at=self._read_at)

    @property
    def _seekable_bytes(self) -> int:
        assert self._file.size_bytes is not None, "no pipe"
        return self._file.size_bytes

    def _read_at(self, offset: int, length: int) -> bytes:
        return read_all(self._file, offset, offset + length)


class Earlier(NamedTuple):
    """What runs before have written of an archive: where its ranges start, their checksums, and
    what holds the batches of a range against them."""

    starts: Set[int]
    checksums: Mapping[int, Checksum]
    check_of: Callable[[int], Check]


class Extractor:
    """Extracts the samples of `splits` from `source` to `sink`."""

    def __init__(
        self, source: Source, splits: Sequence[Split], *, dataset: Dataset, sink: Sink
    ) -> None:
        self.source, self._splits = source, splits
        self._archive, self._file = source.archive, source.file
        self._ranges = Ranges(source, dataset)
        self._extraction = Extraction(self._archive, splits, dataset=dataset, sink=sink)
        self.proof = choose_proof(
            self._archive, source.pieces, earlier=source.earlier, checksum=self._file.checksum
        )
        self.read_all = False  # has it itself proved every byte of the file?

    def narrow_proof(self, progress: Progress) -> None:
        """Settle for what proves part of the archive, where no more of it need be read."""
        if self._ranges.leave_out():
            self.proof = proof_of_part(self.proof, earlier=self.source.earlier)
            if isinstance(self.proof, NoProof) and self._archive.digests:
                progress.note(f"{self._archive.name} is not verified: {self.proof.reason}")

    def open(
        self, stack: ExitStack, earlier: Earlier, *, jobs: int, progress: Progress
    ) -> tuple[Reader, Engine]:
        """The engine that yields all but the `earlier` ranges, and its reader, to be finished.

        Both are open for as long as `stack` is.
        """
        proof_wants_order = wants_order(self.proof, earlier=self.source.earlier)
        if proof_wants_order or self._ranges.want_order():
            return self._open_in_order(stack, earlier, jobs=jobs, progress=progress)
        return self._open_by_range(stack, earlier, jobs=jobs, progress=progress)

    def release(self, starts: Iterable[int]) -> None:
        """The ranges that start there are safe on the disk."""
        if self.source.on_committed is not None and self._ranges.spans is not None:
            ranges = {each.start: each for each in self._ranges.spans}
            for start in starts:
                self.source.on_committed(ranges[start])

    def _open_in_order(
        self, stack: ExitStack, earlier: Earlier, *, jobs: int, progress: Progress
    ) -> tuple[Reader, Engine]:
        self.release(earlier.starts)  # a kill may have come between the journal and the release
        reader = stack.enter_context(closing(self._open_reader(self._file, None, earlier)))
        self.read_all = True
        sink = self._extraction.sink
        sink.open_to_threads()
        task = stack.enter_context(self._task(progress, self._ranges.size_bytes))
        return reader, extract_in_order(
            self._extraction,
            self._file,
            reader,
            directory=self._ranges.open_zip(),
            may_hold=self._ranges.may_hold,
            jobs=jobs * sink.threads_per_job,
            check_of=lambda start: earlier.check_of(start) if start in earlier.starts else None,
            on_bytes=task.advance,
        )

    def _open_by_range(
        self, stack: ExitStack, earlier: Earlier, *, jobs: int, progress: Progress
    ) -> tuple[Reader, Engine]:
        spans: Iterable[Range]
        if not earlier.starts and self._ranges.may_walk_ahead():
            file = stack.enter_context(closing(PrefetchedFile(self._file)))
            spans, reader = self._ranges.walk(file), self._open_reader(file, (), earlier)
            task = self._task(progress, self._ranges.size_bytes)
            self.read_all = True
        else:
            ranges = self._ranges.find()
            possible = [each for each in ranges if self._ranges.may_hold(each)]
            spans = to_read = [each for each in possible if each.start not in earlier.starts]
            self.release(earlier.starts)  # as above
            tail = ranges[-1].end if ranges else 0
            reader = self._open_reader(self._file, to_read, earlier, tail=tail)
            total, rest = (
                sum(each.end - each.start for each in group) for group in (possible, to_read)
            )
            task = self._task(progress, total, initial=total - rest)
            self.read_all = not earlier.starts and len(possible) == len(ranges)
        stack.enter_context(closing(reader))
        # Before the task, which may have a thread.
        workers = stack.enter_context(
            open_workers(self._extraction, reader, self._ranges.open, jobs=jobs)
        )
        on_bytes = stack.enter_context(task).advance
        # What is done is to make room first, if it is released.
        queue_size = workers.jobs if self.source.on_committed is None else 0
        return reader, extract_by_range(
            workers, reader, spans, queue_size=queue_size, on_bytes=on_bytes
        )

    def _open_reader(
        self, file: ArchiveFile, ranges: Sequence[Range] | None, earlier: Earlier, *, tail: int = 0
    ) -> Reader:
        return open_reader(
            file,
            proof=self.proof,
            earlier=self.source.earlier,
            pieces=self.source.pieces,
            ranges=ranges,
            tail=tail,
            checksums=earlier.checksums,
        )

    def _task(
        self, progress: Progress, total: int, *, initial: int = 0
    ) -> AbstractContextManager[Task]:
        title = f"organize {' and '.join(self._splits)}"
        return progress.task(title, total=total, unit="B", initial=initial)
