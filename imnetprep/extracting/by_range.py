"""Workers that take ranges out of an archive side by side: forked processes where that is safe.

Threads take turns at the interpreter; where images come from a file here, that is what they wait
for most.
"""

import multiprocessing
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

from imnetprep.archives.ranges import Range
from imnetprep.extracting.sink import Written
from imnetprep.processes import end_at_once, worker_pool

Told = Callable[[int], None]
Extract = Callable[[Range, Told], Written]


class Workers:
    """`jobs` of them, each of which calls `extract`; that is told how to tell how far it is.

    They are processes if `apart`, forked ones. Close it; stop it first if all is lost.
    """

    def __init__(self, extract: Extract, *, jobs: int, apart: bool) -> None:
        self._pool: ProcessPoolExecutor | ThreadPoolExecutor
        self._told_bytes = 0
        if apart:
            self._bytes: Any = multiprocessing.Value("q", 0)
            self._pool = worker_pool(jobs, _begin, (extract, self._bytes))
            self._work: Callable[[Range], Written] = _extract
        else:
            self._bytes = _Count()
            self._pool = ThreadPoolExecutor(jobs)
            told = _telling(self._bytes)
            self._work = lambda each: extract(each, told)

    def submit(self, each: Range) -> Future[Written]:
        """What a range holds, once all of its samples are written."""
        return self._pool.submit(self._work, each)

    def told(self) -> int:
        """The bytes that they have used up since the last call."""
        # Not through the lock: a worker that was killed may hold it.
        before, self._told_bytes = self._told_bytes, self._bytes.get_obj().value
        return self._told_bytes - before

    def stop(self) -> None:
        """End processes at once, whatever they are at; threads end by themselves."""
        if isinstance(self._pool, ProcessPoolExecutor):
            end_at_once(self._pool)

    def close(self) -> None:
        """Wait for what they are at."""
        self._pool.shutdown(cancel_futures=True)


class _Count:
    """What threads share as processes do a multiprocessing.Value."""

    def __init__(self) -> None:
        self.value, self._lock = 0, threading.Lock()

    def get_lock(self) -> threading.Lock:
        return self._lock

    def get_obj(self) -> "_Count":
        return self


def _telling(count: Any) -> Told:
    def told(amount: int) -> None:
        with count.get_lock():
            count.value += amount

    return told


# In a worker process only: what it does, set as it is forked.
_at_work: list[Callable[[Range], Written]] = []


def _begin(extract: Extract, count: Any) -> None:
    told = _telling(count)
    _at_work.append(lambda each: extract(each, told))


def _extract(each: Range) -> Written:
    return _at_work[0](each)
