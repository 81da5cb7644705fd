"""Work of many small units, side by side, drawn one after the other."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from typing import TypeVar

from imnetprep.messages import Task

T = TypeVar("T")


class Cancellation(BaseException):
    """Raised where work ends early: another unit has failed, or the user has had enough."""


class Flow:
    """Hears of every byte that goes over the network, from any thread.

    Keeps the rate, moves the bar, and ends what is under way once `stop` is set.
    """

    def __init__(self, task: Task, max_rate: float | None) -> None:
        self._task, self._max_rate = task, max_rate
        self._lock = threading.Lock()
        self._free_at = 0.0
        self._under_way: dict[str, int] = {}
        self.stop = threading.Event()
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

    def read(self, size_bytes: int) -> None:
        """Count bytes of a file that were read. Raises Cancellation."""
        self.go_on()
        self.skipped(size_bytes)

    def skipped(self, size_bytes: int) -> None:
        """Count bytes that need not move."""
        with self._lock:
            self._task.advance(size_bytes)

    def began(self, path: str) -> None:
        """A part of `path` is under way."""
        self._count(path, 1)

    def ended(self, path: str) -> None:
        """A part of `path` is no longer under way."""
        self._count(path, -1)

    def _count(self, path: str, change: int) -> None:
        with self._lock:
            self._under_way[path] = self._under_way.get(path, 0) + change
            if not self._under_way[path]:
                del self._under_way[path]
            parts = sum(self._under_way.values())
            self._task.tell(f"{parts} parts of {len(self._under_way)} files in flight")


def side_by_side(
    units: Iterable[Callable[[], T]], *, jobs: int, stop: threading.Event
) -> Iterator[T]:
    """What the units return, as they end. `jobs` threads draw them from `units`, one at a time.

    The first that raises ends all; `stop` is set then, and where nobody wants more. Raises
    Cancellation where somebody else has set it: units may be left.
    """
    queue, lock = iter(units), threading.Lock()
    results: SimpleQueue[tuple[list[T], BaseException | None] | None] = SimpleQueue()

    def work() -> None:
        try:
            while not stop.is_set():
                with lock:
                    unit = None if stop.is_set() else next(queue, None)
                if unit is None:
                    return
                results.put(([unit()], None))
        except BaseException as error:
            stop.set()
            results.put(([], error))
        finally:
            results.put(None)

    threads = [threading.Thread(target=work) for _ in range(jobs)]
    alive_threads = []
    try:
        for thread in threads:
            thread.start()
            alive_threads.append(thread)
        alive, failure = jobs, None
        while alive:
            item = results.get()
            if item is None:
                alive -= 1
                continue
            found, error = item
            if error is not None and (failure is None or isinstance(failure, Cancellation)):
                failure = error
            yield from found
        if failure is not None:
            raise failure
        if stop.is_set():
            raise Cancellation
    except BaseException:
        stop.set()
        raise
    finally:
        for thread in alive_threads:
            thread.join()
