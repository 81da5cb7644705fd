"""One archive to samples on the disk, its ranges journalled as an engine yields them."""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from pathlib import Path

from imnetprep.archives.file import ArchiveFile
from imnetprep.archives.prefetch import PrefetchedFile
from imnetprep.archives.ranges import Range
from imnetprep.catalog.datasets import Dataset, Split
from imnetprep.digests import Checksum
from imnetprep.extracting.by_range import extract_by_range, open_workers
from imnetprep.extracting.find_ranges import Ranges, Source
from imnetprep.extracting.in_order import Check, extract_in_order
from imnetprep.extracting.samples import Extraction
from imnetprep.extracting.sink import Batch, RangeRecord, Sink
from imnetprep.messages import Progress, Task, WrongBytes, removal
from imnetprep.organizing.committer import committer
from imnetprep.organizing.journal import Journal
from imnetprep.proving.readers import (
    PieceReader,
    Reader,
    open_reader,
    wants_order,
)
from imnetprep.proving.receipt import NoProof, choose_proof, proof_of_part

# No archive is longer: the ranges of each are journalled this far from those of the next.
MOST_BYTES = 1 << 44

Engine = Generator[RangeRecord, None, None]


class Intake:
    """The samples of `splits` in one archive, written to `sink`, which lies under `folder`.

    Its ranges are journalled from `first` on. `discard` drops all that was made, where nobody
    knows which of the bytes were wrong.
    """

    def __init__(
        self,
        dataset: Dataset,
        splits: Sequence[Split],
        *,
        source: Source,
        sink: Sink,
        folder: Path,
        journal: Journal,
        first: int,
        discard: Callable[[], None],
    ) -> None:
        self._splits = [split for split in splits if split in source.archive.splits]
        self._source, self.archive, self._file = source, source.archive, source.file
        self._folder, self._journal, self._first = folder, journal, first
        self._discard = discard
        self._ranges = Ranges(source, dataset)
        self._extraction = Extraction(self.archive, self._splits, dataset=dataset, sink=sink)
        self.proof = choose_proof(
            self.archive, source.pieces, earlier=source.earlier, checksum=self._file.checksum
        )
        self.read_all = False  # has `take` itself proved every byte of the file?

    def take(self, *, jobs: int, progress: Progress) -> None:
        """Do all that is not done. Raises WrongBytes on what is not the dataset's."""
        if self._ranges.leave_out():
            self.proof = proof_of_part(self.proof, earlier=self._source.earlier)
            if isinstance(self.proof, NoProof) and self.archive.digests:
                progress.note(f"{self.archive.name} is not verified: {self.proof.reason}")
        starts = self._journalled()
        if MOST_BYTES - 1 in starts:
            return  # in a run before this one
        in_order = (
            wants_order(self.proof, earlier=self._source.earlier) or self._ranges.want_order()
        )
        open_engine = self._open_in_order if in_order else self._open_by_range
        with ExitStack() as stack:
            reader, engine = open_engine(stack, starts, jobs=jobs, progress=progress)
            with self._committing() as commit, closing(engine):
                for record in engine:
                    commit(record._replace(start=self._first + record.start))
            self._finish(reader)

    def _open_in_order(
        self, stack: ExitStack, starts: set[int], *, jobs: int, progress: Progress
    ) -> tuple[Reader, Engine]:
        self._release(starts)  # a kill may have come between the journal and the release
        reader = stack.enter_context(closing(self._open_reader(self._file, None)))
        self.read_all = True
        sink = self._extraction.sink
        sink.open_to_threads()
        task = stack.enter_context(self._task(progress, self._ranges.size_bytes))
        return reader, extract_in_order(
            self._extraction,
            self._ranges,
            reader,
            jobs=jobs * sink.threads_per_job,
            check_of=lambda start: self._check_of(start) if start in starts else None,
            on_bytes=task.advance,
        )

    def _open_by_range(
        self, stack: ExitStack, starts: set[int], *, jobs: int, progress: Progress
    ) -> tuple[Reader, Engine]:
        spans: Iterable[Range]
        if not starts and self._ranges.may_walk_ahead():
            file = stack.enter_context(closing(PrefetchedFile(self._file)))
            spans, reader = self._ranges.walk(file), self._open_reader(file, ())
            task = self._task(progress, self._ranges.size_bytes)
            self.read_all = True
        else:
            ranges = self._ranges.find()
            possible = [each for each in ranges if self._ranges.may_hold(each)]
            spans = to_read = [each for each in possible if each.start not in starts]
            self._release(starts)  # as above
            tail = ranges[-1].end if ranges else 0
            reader = self._open_reader(self._file, to_read, tail=tail)
            total, rest = (
                sum(each.end - each.start for each in group) for group in (possible, to_read)
            )
            task = self._task(progress, total, initial=total - rest)
            self.read_all = not starts and len(possible) == len(ranges)
        stack.enter_context(closing(reader))
        # Before the task, which may have a thread.
        workers = stack.enter_context(
            open_workers(self._extraction, self._ranges, reader, jobs=jobs)
        )
        on_bytes = stack.enter_context(task).advance
        # What is done is to make room first, if it is released.
        queue_size = workers.jobs if self._source.on_committed is None else 0
        return reader, extract_by_range(
            workers, reader, spans, queue_size=queue_size, on_bytes=on_bytes
        )

    def _open_reader(
        self, file: ArchiveFile, ranges: Sequence[Range] | None, *, tail: int = 0
    ) -> Reader:
        return open_reader(
            file,
            proof=self.proof,
            earlier=self._source.earlier,
            pieces=self._source.pieces,
            ranges=ranges,
            tail=tail,
            checksums=self._checksums(),
        )

    def _task(
        self, progress: Progress, total: int, *, initial: int = 0
    ) -> AbstractContextManager[Task]:
        title = f"organize {' and '.join(self._splits)}"
        return progress.task(title, total=total, unit="B", initial=initial)

    def mark_taken(self) -> None:
        """Journal that all of it is done: a later run does not read it again."""
        samples = self._extraction.packed(self._extraction.no_records())
        self._journal.add([RangeRecord(self._first + MOST_BYTES - 1, samples, None)])

    def _journalled(self) -> set[int]:
        """Where the ranges start that are done for all of the splits."""
        starts = set.intersection(*map(self._journal.done, self._splits))
        return {start - self._first for start in starts if 0 <= start - self._first < MOST_BYTES}

    def _checksums(self) -> dict[int, Checksum]:
        checksums = self._journal.checksums(self._splits[0])
        return {
            start - self._first: checksum
            for start, checksum in checksums.items()
            if 0 <= start - self._first < MOST_BYTES
        }

    def _finish(self, reader: Reader) -> None:
        try:
            reader.finish()
        except WrongBytes:
            if not isinstance(reader, PieceReader):  # nobody knows which of the bytes were wrong
                self._discard()
            raise

    def _committing(self) -> AbstractContextManager[Callable[[RangeRecord], None]]:
        return committer(
            self._journal,
            self._folder,
            on_committed=self._release_journalled,
            queue_size=0 if self._source.on_committed is None else 1,  # else the disk holds more
        )

    def _release_journalled(self, starts: Iterable[int]) -> None:
        self._release(start - self._first for start in starts)

    def _release(self, starts: Iterable[int]) -> None:
        if self._source.on_committed is not None and self._ranges.spans is not None:
            ranges = {each.start: each for each in self._ranges.spans}
            for start in starts:
                self._source.on_committed(ranges[start])

    def _check_of(self, start: int) -> Check:
        """What holds the batches of a range that is read again against what was written of it."""
        records = {
            split: {
                record._replace(shard=None, offset_bytes=None)
                for record in self._journal.range_samples(split, self._first + start)
            }
            for split in self._splits
        }

        def check(batch: Batch) -> None:
            for record in self._extraction.sink.records(batch):
                if record not in records[batch.split]:
                    raise WrongBytes(
                        f"{self.archive.name}: {record.name} is not what it was when this began",
                        hint=f"if it is another archive, {removal(self._folder)} to start over",
                    )

        return check
