"""A split from nothing to whole: range after range into `.organizing`, journalled as it goes."""

import shutil
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from imnetprep.archives.file import ArchiveFile, read_all
from imnetprep.catalog.datasets import Dataset, Split
from imnetprep.digests import Checksum, Pieces, xxh128
from imnetprep.errors import WrongBytes
from imnetprep.fs import written_whole
from imnetprep.manifest import SampleRecord
from imnetprep.preparation.extraction import Cancelled, ChunkStream, Extraction, Sample
from imnetprep.preparation.index import format_index, parse_index
from imnetprep.preparation.journal import Done, Journal, Whole, committer
from imnetprep.preparation.proof import (
    PieceReader,
    Reader,
    choose_proof,
    open_reader,
    wants_order,
)
from imnetprep.preparation.ranges import Range, Section, open_section, plan_ranges, sections
from imnetprep.progress import Progress, Task
from imnetprep.units import count

# Batches of samples that wait for their writer, for each of the jobs.
_BATCHES_WAITING = 4

Give = Callable[[Done], None]


class Growth:
    """One split of `dataset` that grows under `folder` from the archive `file`.

    `index` is where its ranges are kept, `ranges` what is known of them already; `released` is
    called with each range once its samples are safe on the disk.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: Split,
        *,
        file: ArchiveFile,
        folder: Path,
        journal: Journal,
        index: Path | None = None,
        ranges: Sequence[Range] | None = None,
        released: Callable[[Range], None] | None = None,
    ) -> None:
        self.dataset, self.split, self.folder = dataset, split, folder
        self.archive = dataset.archive(split)
        self._file, self._journal, self._index, self._ranges = file, journal, index, ranges
        self._released = released
        self._extraction = Extraction(self.archive, split, dataset=dataset, folder=folder)
        self.read_all = False  # has `grow` itself proved every byte of the file?

    def grow(
        self,
        *,
        pieces: Pieces | None,
        before: Mapping[str, Any] | None,
        jobs: int,
        progress: Progress,
    ) -> Whole:
        """Do all that is not done and mark the split as whole.

        `pieces` are those of the archive's torrent; `before` says how the file was proved before.
        Raises WrongBytes where the archive or what is in it is not what the dataset promises.
        """
        self._begin(self._identity(pieces))
        self.dataset.preload(self.split)  # once, and not by each worker
        proof = choose_proof(self.archive, pieces, before, self._file.checksum)
        done = self._journal.done(self.split)
        ranges = None if self._goes_in_order(wants_order(proof, before)) else self._find_ranges()
        to_do = None if ranges is None else [each for each in ranges if each.start not in done]
        self._release(done)  # a kill may have come between the journal and the release
        reader = open_reader(
            self._file,
            proof=proof,
            before=before,
            pieces=pieces,
            ranges=to_do,
            tail=ranges[-1].end if ranges else 0,
            checksums=self._journal.checksums(self.split),
        )
        self.read_all = reader.in_order or not done
        total = ranges[-1].end if ranges else self._size_bytes(pieces)
        done_bytes = 0 if to_do is None else total - sum(each.end - each.start for each in to_do)
        with (
            closing(reader),
            progress.task(f"organize {self.split}", total=total, unit="B", done=done_bytes) as task,
        ):
            if to_do is None:
                self._in_order(reader, done, jobs=jobs, task=task)
            else:
                self._side_by_side(reader, to_do, jobs=jobs, task=task)
            self._finish(reader)
        self._check_counts()
        return self._journal.mark_whole(self.split, proof, self.folder)

    def _goes_in_order(self, wanted: bool) -> bool:
        """By its proof; in a pipe; or where a server would be asked for each header of many."""
        known = self._ranges is not None or (self._index is not None and self._index.exists())
        one_by_one = self._file.far and self.archive.form == "tar" and not known
        return wanted or not self._file.seekable or one_by_one

    def _find_ranges(self) -> Sequence[Range]:
        """From the index that is kept, or by walking the archive's headers; then they are kept."""
        if self._ranges is None and self._index is not None and self._index.exists():
            self._ranges = parse_index(
                self._index.read_bytes(), self.archive, self.dataset, of=self._file
            )
        if self._ranges is None:
            self._ranges = self._plan()
        if self._index is not None and not self._index.exists():
            with written_whole(self._index) as file:
                file.write(format_index(self._ranges, of=self._file))
        return self._ranges

    def _begin(self, archive: str) -> None:
        """Go on, or drop what grew from other bytes; a kill in between drops it once more."""
        dataset = self.dataset.fingerprint
        if not self._journal.has_begun(self.split, dataset=dataset, archive=archive):
            self._discard()
            self._journal.begin(self.split, dataset=dataset, archive=archive)
        self.folder.mkdir(parents=True, exist_ok=True)

    def _discard(self) -> None:
        self._journal.forget(self.split)
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def _identity(self, pieces: Pieces | None) -> str:
        """Which bytes these are: the torrent's, or else this very file as it is now."""
        return self._file.identity if pieces is None else f"torrent {pieces.info_hash}"

    def _size_bytes(self, pieces: Pieces | None) -> int:
        """How long the archive is, as far as anybody knows."""
        known = self._file.size_bytes or self.archive.size_bytes
        return known or (pieces.size_bytes if pieces else 0)

    def _plan(self) -> list[Range]:
        assert self._file.size_bytes is not None
        return plan_ranges(
            self.archive,
            self.dataset,
            size_bytes=self._file.size_bytes,
            read_at=lambda offset, length: read_all(self._file, offset, offset + length),
        )

    def _finish(self, reader: Reader) -> None:
        try:
            reader.finish()
        except WrongBytes:
            if not isinstance(reader, PieceReader):  # nobody knows which of the bytes were wrong
                self._discard()
            raise

    def _side_by_side(
        self, reader: Reader, to_do: Sequence[Range], *, jobs: int, task: Task
    ) -> None:
        """Each job reads and writes a range of its own."""
        told = self._telling(task)

        def extract(each: Range) -> list[SampleRecord]:
            chunks = reader.chunks(each.start, each.end)
            stream = ChunkStream(chunks, each.start, name=self.archive.name, told=told)
            section = open_section(each, stream, self.archive)
            records: list[SampleRecord] = []
            self._extraction.extract(
                section, stream, lambda batch: records.extend(self._extraction.write(batch))
            )
            stream.drain()  # so that what lies behind is proved too
            return records

        under_way: dict[Future[list[SampleRecord]], Range] = {}

        def collect(*, until: int) -> None:
            while len(under_way) > until:
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    each = under_way.pop(future)
                    self._give(give, each, future.result(), reader.checksums.get(each.start))

        with self._writing(jobs) as (workers, give):
            for each in to_do:
                collect(until=jobs - 1)
                under_way[workers.submit(extract, each)] = each
            collect(until=0)

    def _in_order(self, reader: Reader, done: set[int], *, jobs: int, task: Task) -> None:
        """One reader goes from the start to the end; the jobs write what it finds.

        What was done before is read again for the proof, and must be the same; it is not written.
        """
        end = self._file.size_bytes or sys.maxsize
        chunks = reader.chunks(0, None)
        stream = ChunkStream(chunks, 0, name=self.archive.name, told=self._telling(task))
        waiting = threading.BoundedSemaphore(_BATCHES_WAITING * jobs)
        under_way: deque[tuple[Section, list[Future[list[SampleRecord]]]]] = deque()

        def write(batch: list[Sample]) -> list[SampleRecord]:
            try:
                return self._extraction.write(batch)
            finally:
                waiting.release()

        def submit(batch: list[Sample]) -> None:
            waiting.acquire()
            under_way[-1][1].append(workers.submit(write, batch))

        def collect(*, until: int) -> None:
            while len(under_way) > until:
                section, futures = under_way.popleft()
                records = [record for future in futures for record in future.result()]
                self._give(give, section, records)

        with self._writing(jobs) as (workers, give):
            for section in sections(stream, self.archive, self.dataset, end=end):
                if section.start in done:
                    self._check_same(section, stream)
                    continue
                futures: list[Future[list[SampleRecord]]] = []
                under_way.append((section, futures))
                self._extraction.extract(section, stream, submit)
                collect(until=1)
            stream.drain()
            collect(until=0)
        wanted = self.archive.size_bytes or stream.position
        if stream.position != wanted or self._file.read_at(wanted, 1):
            raise WrongBytes(
                f"{self.archive.name} has not the {wanted:,} bytes that it should have",
                hint="fetch it again from its source",
            )

    @contextmanager
    def _writing(self, jobs: int) -> Iterator[tuple[ThreadPoolExecutor, Give]]:
        with (
            committer(
                self._journal,
                self.split,
                self.folder,
                committed=self._release,
                waiting_at_most=0 if self._released is None else 1,  # else the disk holds more
            ) as give,
            ThreadPoolExecutor(jobs) as workers,
        ):
            try:
                yield workers, give
            finally:
                self._extraction.cancelled.set()

    def _release(self, starts: Iterable[int]) -> None:
        if self._released is not None and self._ranges is not None:
            ranges = {each.start: each for each in self._ranges}
            for start in starts:
                self._released(ranges[start])

    def _telling(self, task: Task) -> Callable[[int], None]:
        """Tell the task from any thread, and stop the thread that tells when others have failed."""
        lock = threading.Lock()

        def told(amount: int) -> None:
            if self._extraction.cancelled.is_set():
                raise Cancelled
            with lock:
                task.advance(amount)

        return told

    def _give(
        self,
        give: Give,
        each: Section | Range,
        records: list[SampleRecord],
        checksum: Checksum | None = None,
    ) -> None:
        """Hand what is written to the committer, if its counts fit."""
        if each.wnid is not None:
            label = self.dataset.label_of_wnid[each.wnid]
            self._check_count(label, [record.name for record in records])
        give(Done(each.start, records, checksum))

    def _check_same(self, section: Section, stream: ChunkStream) -> None:
        records = set(self._journal.range_samples(self.split, section.start))

        def check(batch: list[Sample]) -> None:
            for label, name, body in batch:
                if SampleRecord(label, name, len(body), xxh128(body)) not in records:
                    raise WrongBytes(
                        f"{self.archive.name}: {name} is not what it was when this was begun",
                        hint=f"if it is another archive, rm -r {self.folder.parent} to start over",
                    )

        self._extraction.extract(section, stream, check)

    def _check_counts(self) -> None:
        """Every class has its images, and each of them once."""
        found: dict[int, list[str]] = {}
        for label, name, *_ in self._journal.samples(self.split):
            found.setdefault(label, []).append(name)
        for label in range(len(self.dataset.synsets)):
            names = found.pop(label, [])
            if len(set(names)) != len(names):
                raise WrongBytes(
                    f"a name of {self.dataset.synsets[label].wnid} stands in the archive twice",
                    hint="this is not the published archive; fetch it again from its source",
                )
            self._check_count(label, names)

    def _check_count(self, label: int, names: Sequence[str]) -> None:
        wanted = self.dataset.counts(self.split)[label]
        if len(names) == wanted:
            return
        known = set(names)
        missing = [
            name for name in self.dataset.names(self.split, label) or () if name not in known
        ]
        named = f"; missing: {', '.join(missing[:3])}" if missing else ""
        named += f" and {len(missing) - 3:,} more" if len(missing) > 3 else ""
        wnid = self.dataset.synsets[label].wnid
        raise WrongBytes(
            f"{self.archive.name}: {wnid} has {count(len(names), 'image')}, not {wanted:,}{named}",
            hint=f"this is not the whole {self.dataset.name}; fetch the archive again",
        )
