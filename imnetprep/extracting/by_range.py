"""Ranges of an archive side by side: a worker reads, proves and writes one at a time.

Workers are forked processes where that is safe. Threads take turns at the interpreter; where images
come from a local file, that is what they wait for most.
"""

import ctypes
import multiprocessing
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import (
    FIRST_COMPLETED,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from multiprocessing.sharedctypes import synchronized
from typing import Any

from imnetprep.archives.chunk_stream import ChunkStream
from imnetprep.archives.ranges import Range, Section
from imnetprep.extracting.samples import Extraction
from imnetprep.extracting.sink import Batch, RangeRecord, RangeSamples
from imnetprep.processes import end_at_once, is_safe_to_fork, worker_killed, worker_pool
from imnetprep.proving.readers import Reader

# How often the progress of the ranges under way is told.
_SECONDS_BETWEEN_REPORTS = 0.2

OnBytes = Callable[[int], None]
Extract = Callable[[Range, OnBytes], RangeSamples]


class Workers:
    """`jobs` processes if `forked`, else threads: each calls `extract` with a range at a time.

    `extract` gets what to call with the bytes that it has used up. Close the workers; stop them
    first if all is lost.
    """

    def __init__(self, extract: Extract, *, jobs: int, forked: bool) -> None:
        self.jobs = jobs
        self._pool: ProcessPoolExecutor | ThreadPoolExecutor
        self._reported_bytes = 0
        if forked:
            self._bytes: Any = multiprocessing.Value("q", 0)
            self._pool = worker_pool(jobs, _begin, (extract, self._bytes))
            self._work: Callable[[Range], RangeSamples] = _extract
        else:
            lock: Any = threading.RLock()
            self._bytes = synchronized(ctypes.c_int64(), lock)
            self._pool = ThreadPoolExecutor(jobs)
            self._work = _counted(extract, self._bytes)

    def submit(self, span: Range) -> Future[RangeSamples]:
        """What a range holds, once all of its samples are written."""
        return self._pool.submit(self._work, span)

    def used_bytes(self) -> int:
        """The bytes that they have used up since the last call."""
        # Not through the lock: a worker that was killed may hold it.
        last_bytes, self._reported_bytes = self._reported_bytes, self._bytes.get_obj().value
        return self._reported_bytes - last_bytes

    def stop(self) -> None:
        """End processes at once, whatever they are at; threads end by themselves."""
        if isinstance(self._pool, ProcessPoolExecutor):
            end_at_once(self._pool)

    def close(self) -> None:
        """Wait for what they are at."""
        self._pool.shutdown(cancel_futures=True)


@contextmanager
def open_workers(
    extraction: Extraction,
    reader: Reader,
    section_of: Callable[[Range, ChunkStream], Section],
    *,
    jobs: int,
) -> Iterator[Workers]:
    """Workers for `extract_by_range`, to be started before this process has another thread.

    `section_of` gets a range, and a stream that stands at its start.
    """
    sink = extraction.sink
    forks = sink.is_forkable and reader.is_forkable and is_safe_to_fork()
    if not forks:
        sink.open_to_threads()
        jobs *= sink.threads_per_job

    def extract(span: Range, on_bytes: OnBytes) -> RangeSamples:
        stream = ChunkStream(
            reader.chunks(span.start, span.end),
            span.start,
            name=extraction.archive.name,
            on_bytes=extraction.unless_cancelled(on_bytes),
        )
        records = extraction.no_records()

        def write(batch: Batch) -> None:
            records[batch.split] += extraction.write(batch)

        extraction.extract(section_of(span, stream), stream, write)
        stream.drain()  # so that what lies behind is proved too
        return extraction.packed(records, span.wnid)

    with closing(Workers(extract, jobs=jobs, forked=forks)) as workers:
        try:
            yield workers
        except BaseException as error:
            extraction.cancellation.set()
            workers.stop()
            if isinstance(error, BrokenProcessPool):
                raise worker_killed() from error
            raise


def extract_by_range(
    workers: Workers, reader: Reader, spans: Iterable[Range], *, queue_size: int, on_bytes: OnBytes
) -> Generator[RangeRecord, None, None]:
    """Each of the ranges `spans` once it is written, in whatever order; `queue_size` wait for it.

    Raises WrongBytes on what is not the dataset's.
    """
    futures: dict[Future[RangeSamples], Range] = {}

    def collected(*, limit: int) -> Iterator[RangeRecord]:
        while len(futures) > limit:
            results = wait(futures, _SECONDS_BETWEEN_REPORTS, return_when=FIRST_COMPLETED).done
            on_bytes(workers.used_bytes())
            for future in results:
                start = futures.pop(future).start
                yield RangeRecord(start, future.result(), reader.checksums.get(start))

    for span in spans:
        yield from collected(limit=workers.jobs + queue_size - 1)
        futures[workers.submit(span)] = span
    yield from collected(limit=0)


def _counted(extract: Extract, total: Any) -> Callable[[Range], RangeSamples]:
    """`extract`, with the bytes that it uses up added to a `total` that workers share."""

    def on_bytes(amount: int) -> None:
        with total.get_lock():
            total.value += amount

    return lambda span: extract(span, on_bytes)


# In a worker process only: what it does, set as it is forked.
_extracts: list[Callable[[Range], RangeSamples]] = []


def _begin(extract: Extract, total: Any) -> None:
    _extracts.append(_counted(extract, total))


def _extract(span: Range) -> RangeSamples:
    return _extracts[0](span)
