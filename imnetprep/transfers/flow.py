"""Work of many small units, side by side, drawn one after the other."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, TypeVar

from imnetprep.messages import Task

T = TypeVar("T")
_END = object()
_PATIENCE_S = 2.0  # with threads that are to end


class Cancellation(BaseException):
    """Raised where work ends early: another unit has failed, or the user has had enough."""


class Flow:
    """Hears of every byte that goes over the network, from any thread.

    Keeps the rate, moves the bar, and ends what is under way once `stop` is set.
    """

    def __init__(
        self, task: Task, max_rate: float | None = None, stop: threading.Event | None = None
    ) -> None:
        self._task, self._max_rate = task, max_rate
        self._lock = threading.Lock()
        self._free_at = 0.0
        self._parts = Counter[str]()
        self.stop = stop or threading.Event()
        self.moved_bytes = 0

    def moved(self, size_bytes: int) -> None:
        """Count bytes that moved; below zero, where they are to go again. Raises Cancellation."""
        self.go_on()
        wait_s = 0.0
        with self._lock:
            self._task.advance(size_bytes)
            self.moved_bytes += size_bytes
            if self._max_rate and size_bytes > 0:
                clock_s = time.monotonic()
                wait_s = max(0.0, self._free_at - clock_s)
                self._free_at = max(clock_s, self._free_at) + size_bytes / self._max_rate
        if wait_s and self.stop.wait(wait_s):
            raise Cancellation

    def go_on(self) -> None:
        """Raise Cancellation where nothing more is to be begun."""
        if self.stop.is_set():
            raise Cancellation

    def skipped(self, size_bytes: int) -> None:
        """Count bytes that need not move."""
        with self._lock:
            self._task.advance(size_bytes)

    @contextmanager
    def part_of(self, path: str) -> Iterator[None]:
        """A part of `path` is under way meanwhile."""
        self._count(path, 1)
        try:
            yield
        finally:
            self._count(path, -1)

    def _count(self, path: str, change: int) -> None:
        with self._lock:
            self._parts[path] += change
            self._parts = +self._parts  # without those of none
            parts, files = self._parts.total(), len(self._parts)
            self._task.tell(f"{parts} parts of {files} files in flight")


def side_by_side(
    units: Iterable[Callable[[], T]], *, jobs: int, stop: threading.Event
) -> Iterator[T]:
    """What the units return, as they end. `jobs` threads draw them from `units`, one at a time.

    The first that raises ends all; `stop` is set then, and where nobody wants more. Raises
    Cancellation where somebody else has set it: units may be left.
    """
    queue, lock = iter(units), threading.Lock()
    results, failures = SimpleQueue[Any](), list[BaseException]()

    def work() -> None:
        try:
            while not stop.is_set():
                with lock:
                    unit = None if stop.is_set() else next(queue, None)
                if unit is None:
                    return
                results.put(unit())
        except BaseException as error:
            stop.set()
            failures.append(error)
        finally:
            results.put(_END)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(jobs)]
    try:
        for thread in threads:
            thread.start()
        for _ in threads:
            yield from iter(results.get, _END)
        for thread in threads:
            thread.join()
    except BaseException:
        # One that waits for a server ends by itself, and writes nothing any more: `Flow.moved`.
        stop.set()
        end_s = time.monotonic() + _PATIENCE_S
        for thread in threads:
            if thread.is_alive():
                thread.join(max(0.0, end_s - time.monotonic()))
        raise
    for error in sorted(failures, key=lambda error: isinstance(error, Cancellation)):
        raise error
    if stop.is_set():
        raise Cancellation
