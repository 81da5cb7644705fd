"""Work of many small units, side by side, drawn one after the other."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from typing import TypeVar

from imnetprep.messages import Task

T = TypeVar("T")


class Cancelled(BaseException):
    """Another unit has failed, or the user has had enough."""


class Flow:
    """Every byte that goes over the network is told here, from any thread.

    It keeps the rate, moves the bar, and ends what is under way once it is `stopped`.
    """

    def __init__(self, task: Task, max_rate: float | None) -> None:
        self._task, self._max_rate = task, max_rate
        self._lock = threading.Lock()
        self._free_at = 0.0
        self._under_way: dict[str, int] = {}
        self.stopped = threading.Event()
        self.moved_bytes = 0

    def moved(self, size_bytes: int) -> None:
        """So many bytes more; less, where they are to go again. Raises Cancelled."""
        self.go_on()
        wait_s = 0.0
        with self._lock:
            self._task.advance(size_bytes)
            self.moved_bytes += size_bytes
            if self._max_rate and size_bytes > 0:
                now = time.monotonic()
                wait_s = max(0.0, self._free_at - now)
                self._free_at = max(now, self._free_at) + size_bytes / self._max_rate
        if wait_s and self.stopped.wait(wait_s):
            raise Cancelled

    def go_on(self) -> None:
        """Raise Cancelled where nothing more is to be begun."""
        if self.stopped.is_set():
            raise Cancelled

    def read(self, size_bytes: int) -> None:
        """So many bytes were read here. Raises Cancelled."""
        self.go_on()
        self.skipped(size_bytes)

    def skipped(self, size_bytes: int) -> None:
        """So many bytes are there already."""
        with self._lock:
            self._task.advance(size_bytes)

    def began(self, path: str) -> None:
        """A part of `path` is under way."""
        self._count(path, 1)

    def ended(self, path: str) -> None:
        """It no longer is."""
        self._count(path, -1)

    def _count(self, path: str, more: int) -> None:
        with self._lock:
            self._under_way[path] = self._under_way.get(path, 0) + more
            if not self._under_way[path]:
                del self._under_way[path]
            parts = sum(self._under_way.values())
            self._task.tell(f"{parts} parts of {len(self._under_way)} files in flight")


def side_by_side(
    units: Iterable[Callable[[], T]], *, jobs: int, stopped: threading.Event
) -> Iterator[T]:
    """What the units return, as they end. `jobs` threads draw them from `units`, one at a time.

    The first that raises ends all; `stopped` is set then, and where nobody wants more. Raises
    Cancelled where somebody else has set it: units may be left.
    """
    drawn, lock = iter(units), threading.Lock()
    ended: SimpleQueue[tuple[list[T], BaseException | None] | None] = SimpleQueue()

    def work() -> None:
        try:
            while not stopped.is_set():
                with lock:
                    unit = None if stopped.is_set() else next(drawn, None)
                if unit is None:
                    return
                ended.put(([unit()], None))
        except BaseException as error:
            stopped.set()
            ended.put(([], error))
        finally:
            ended.put(None)

    threads = [threading.Thread(target=work) for _ in range(jobs)]
    started = []
    try:
        for thread in threads:
            thread.start()
            started.append(thread)
        left, failure = jobs, None
        while left:
            item = ended.get()
            if item is None:
                left -= 1
                continue
            found, error = item
            if error is not None and (failure is None or isinstance(failure, Cancelled)):
                failure = error
            yield from found
        if failure is not None:
            raise failure
        if stopped.is_set():
            raise Cancelled
    except BaseException:
        stopped.set()
        raise
    finally:
        for thread in started:
            thread.join()
