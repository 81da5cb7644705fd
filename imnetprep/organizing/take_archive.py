"""One archive to samples on the disk: its ranges side by side, or all of it in order."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from pathlib import Path

from imnetprep.archives.chunk_stream import ChunkStream
from imnetprep.archives.file import ArchiveFile
from imnetprep.archives.prefetch import Ahead
from imnetprep.archives.ranges import Range, Section
from imnetprep.catalog.datasets import Dataset, Split
from imnetprep.digests import Checksum
from imnetprep.extracting.by_range import Told, Workers
from imnetprep.extracting.find_ranges import Ranges, Source
from imnetprep.extracting.in_order import Flow
from imnetprep.extracting.samples import Cancelled, Extraction
from imnetprep.extracting.sink import Batch, Done, Sink, Written
from imnetprep.manifest import SampleRecord, packed
from imnetprep.messages import Progress, Task, WrongBytes
from imnetprep.organizing.committer import committer
from imnetprep.organizing.counts import check_count, name_twice
from imnetprep.organizing.journal import Journal
from imnetprep.processes import is_safe_to_fork, worker_killed
from imnetprep.proving.proof import Unproved, choose_proof, proof_of_part
from imnetprep.proving.readers import (
    PieceReader,
    Reader,
    open_reader,
    wants_order,
)

# No archive is longer: the ranges of each are journalled this far from those of the next.
MOST_BYTES = 1 << 44
# Batches of samples that wait for their writer: for each of the jobs, and in all. Each holds a
# chunk of the archive, of up to 4 MB.
_BATCHES_WAITING, _BATCHES_AT_MOST = 2, 24

# How often the progress of the ranges under way is told.
_SECONDS_UNTOLD = 0.2

Give = Callable[[Done], None]


class Taking:
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
        self._dataset = dataset
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
            if isinstance(self.proof, Unproved) and self.archive.digests:
                progress.note(f"{self.archive.name} is not verified: {self.proof.why}")
        done = self._done()
        if MOST_BYTES - 1 in done:
            return  # in a run before this one
        if wants_order(self.proof, earlier=self._source.earlier) or self._ranges.want_order():
            self._take_in_order(done, jobs=jobs, progress=progress)
        elif not done and self._ranges.may_walk_ahead():
            with closing(Ahead(self._file)) as ahead:
                to_do = self._ranges.walk(ahead)
                reader, total = self._open_reader(ahead, ()), self._ranges.size_bytes
                self._take_ranges(reader, to_do, jobs=jobs, task=self._task(progress, total))
            self.read_all = True
        else:
            self._take_known(done, jobs=jobs, progress=progress)

    def _take_in_order(self, done: set[int], *, jobs: int, progress: Progress) -> None:
        self._release(done)  # a kill may have come between the journal and the release
        sink, reader = self._extraction.sink, self._open_reader(self._file, None)
        self.read_all = True
        sink.open_to_threads()
        with closing(reader), self._task(progress, self._ranges.size_bytes) as task:
            self._in_order(reader, done, jobs=jobs * sink.threads_a_job, task=task)
            self._finish(reader)

    def _take_known(self, done: set[int], *, jobs: int, progress: Progress) -> None:
        ranges = self._ranges.find()
        wanted = [each for each in ranges if self._ranges.may_hold(each)]
        to_do = [each for each in wanted if each.start not in done]
        self._release(done)  # as above
        tail = ranges[-1].end if ranges else 0
        reader = self._open_reader(self._file, to_do, tail=tail)
        self.read_all = not done and len(wanted) == len(ranges)
        total, left = (sum(each.end - each.start for each in some) for some in (wanted, to_do))
        task = self._task(progress, total, done=total - left)
        self._take_ranges(reader, to_do, jobs=jobs, task=task)

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
        self, progress: Progress, total: int, *, done: int = 0
    ) -> AbstractContextManager[Task]:
        what = f"organize {' and '.join(self._splits)}"
        return progress.task(what, total=total, unit="B", initial=done)

    def _take_ranges(
        self,
        reader: Reader,
        to_do: Iterable[Range],
        *,
        jobs: int,
        task: AbstractContextManager[Task],
    ) -> None:
        sink = self._extraction.sink
        apart = sink.apart and reader.apart and bool(to_do) and is_safe_to_fork()
        if not apart:
            sink.open_to_threads()
            jobs *= sink.threads_a_job
        with closing(reader), ExitStack() as workers:
            if to_do:  # before the task, which may have a thread
                side_by_side = workers.enter_context(self._workers(reader, jobs, apart=apart))
            with task as shown:
                if to_do:
                    self._side_by_side(side_by_side, reader, to_do, jobs=jobs, task=shown)
                self._finish(reader)

    def mark_taken(self) -> None:
        """Journal that all of it is done: a later run does not read it again."""
        nothing = self._packed(self._no_records())
        self._journal.add([Done(self._first + MOST_BYTES - 1, nothing, None)])

    def _done(self) -> set[int]:
        """Where the ranges start that are done for all of the splits."""
        done = set.intersection(*map(self._journal.done, self._splits))
        return {start - self._first for start in done if 0 <= start - self._first < MOST_BYTES}

    def _checksums(self) -> dict[int, Checksum]:
        known = self._journal.checksums(self._splits[0])
        return {
            start - self._first: checksum
            for start, checksum in known.items()
            if 0 <= start - self._first < MOST_BYTES
        }

    def _finish(self, reader: Reader) -> None:
        try:
            reader.finish()
        except WrongBytes:
            if not isinstance(reader, PieceReader):  # nobody knows which of the bytes were wrong
                self._discard()
            raise

    @contextmanager
    def _workers(self, reader: Reader, jobs: int, *, apart: bool) -> Iterator[Workers]:
        """Each reads and writes a range of its own."""

        def extract(each: Range, told: Told) -> Written:
            chunks, told = reader.chunks(each.start, each.end), self._unless_cancelled(told)
            stream = ChunkStream(chunks, each.start, name=self.archive.name, told=told)
            section = self._ranges.open(each, stream)
            records = self._no_records()

            def write(batch: Batch) -> None:
                records[batch.split] += self._extraction.write(batch)

            self._extraction.extract(section, stream, write)
            stream.drain()  # so that what lies behind is proved too
            return self._packed(records)

        with closing(Workers(extract, jobs=jobs, apart=apart)) as workers:
            try:
                yield workers
            except BaseException as error:
                self._extraction.cancelled.set()
                workers.stop()
                if isinstance(error, BrokenProcessPool):
                    raise worker_killed() from error
                raise

    def _side_by_side(
        self, workers: Workers, reader: Reader, to_do: Iterable[Range], *, jobs: int, task: Task
    ) -> None:
        under_way: dict[Future[Written], Range] = {}
        # One more for each waits for it, unless what is done is to make room first.
        most = 2 * jobs if self._source.released is None else jobs

        def collect(*, until: int) -> None:
            while len(under_way) > until:
                ended = wait(under_way, timeout=_SECONDS_UNTOLD, return_when=FIRST_COMPLETED).done
                task.advance(workers.told())
                for future in ended:
                    each = under_way.pop(future)
                    self._give(give, each, future.result(), reader.checksums.get(each.start))

        with self._committing() as give:
            for each in to_do:
                collect(until=most - 1)
                under_way[workers.submit(each)] = each
            collect(until=0)

    def _in_order(self, reader: Reader, done: set[int], *, jobs: int, task: Task) -> None:
        """One reader goes from the start to the end; the jobs write what it finds.

        What was done before is read again for the proof, and must be the same; it is not written.
        """
        told = self._unless_cancelled(task.advance)
        flow = Flow(self._file, self.archive, reader=reader, told=told)
        opened = self._ranges.open_zip()
        most = min(_BATCHES_WAITING * jobs, _BATCHES_AT_MOST)
        waiting = threading.BoundedSemaphore(most)
        under_way: deque[tuple[Section, list[tuple[Split, Future[list[SampleRecord]]]]]] = deque()

        def write(batch: Batch) -> list[SampleRecord]:
            try:
                return self._extraction.write(batch)
            finally:
                waiting.release()

        def submit(batch: Batch) -> None:
            waiting.acquire()
            futures.append((batch.split, workers.submit(write, batch)))

        def collect(*, until: int) -> None:
            while len(under_way) > until:
                section, futures = under_way.popleft()
                records = self._no_records()
                for split, future in futures:
                    records[split] += future.result()
                self._give(give, section, self._packed(records))

        with self._committing() as give, self._writers(jobs) as workers:
            try:
                for section in flow.sections(self._dataset.published, opened):
                    if section.start in done:
                        self._check_same(section, flow.stream)
                        continue
                    futures: list[tuple[Split, Future[list[SampleRecord]]]] = []
                    self._extraction.extract(section, flow.stream, submit)
                    under_way.append((section, futures))
                    collect(until=most)
                flow.finish()
            except Exception:
                with suppress(Exception):  # the sections before are whole all the same
                    collect(until=0)
                raise
            collect(until=0)

    def _committing(self) -> AbstractContextManager[Give]:
        return committer(
            self._journal,
            self._folder,
            on_committed=self._release_journalled,
            queue_size=0 if self._source.released is None else 1,  # else the disk holds more
        )

    @contextmanager
    def _writers(self, jobs: int) -> Iterator[ThreadPoolExecutor]:
        with ThreadPoolExecutor(jobs) as workers:
            try:
                yield workers
            finally:
                self._extraction.cancelled.set()

    def _release_journalled(self, starts: Iterable[int]) -> None:
        self._release(start - self._first for start in starts)

    def _release(self, starts: Iterable[int]) -> None:
        if self._source.released is not None and self._ranges.known is not None:
            ranges = {each.start: each for each in self._ranges.known}
            for start in starts:
                self._source.released(ranges[start])

    def _unless_cancelled(self, told: Told) -> Told:
        """`told`, but what tells is stopped when others have failed."""

        def tell(amount: int) -> None:
            if self._extraction.cancelled.is_set():
                raise Cancelled
            told(amount)

        return tell

    def _give(
        self,
        give: Give,
        each: Section | Range,
        written: Written,
        checksum: Checksum | None = None,
    ) -> None:
        """Hand what is written to the committer, if its counts fit."""
        if not self._ranges.may_hold(each):
            return  # its names were looked at, on the way
        if each.wnid is not None:
            label = self._dataset.label_of_wnid[each.wnid]
            for split, of_split in written.items():
                found = of_split.get(label)
                check_count(self._dataset, split, label, found, where=self.archive.name)
        give(Done(self._first + each.start, written, checksum))

    def _no_records(self) -> dict[Split, list[SampleRecord]]:
        return {split: [] for split in self._splits}

    def _packed(self, records: Mapping[Split, Iterable[SampleRecord]]) -> Written:
        try:
            return {split: packed(of_split) for split, of_split in records.items()}
        except ValueError as error:
            raise name_twice(self.archive.name) from error

    def _check_same(self, section: Section, stream: ChunkStream) -> None:
        start = self._first + section.start
        known = {
            split: {
                record._replace(shard=None, offset_bytes=None)
                for record in self._journal.range_samples(split, start)
            }
            for split in self._splits
        }

        def check(batch: Batch) -> None:
            for record in self._extraction.sink.records(batch):
                if record not in known[batch.split]:
                    raise WrongBytes(
                        f"{self.archive.name}: {record.name} is not what it was when this began",
                        hint=f"if it is another archive, rm -r {self._folder} to start over",
                    )

        self._extraction.extract(section, stream, check)
