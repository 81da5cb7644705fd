"""The worker processes that this one starts, forked where that is safe."""

import ctypes
import io
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from imnetprep.machine import NO_THREAD
from imnetprep.messages import ImnetprepError

_PR_SET_PDEATHSIG = 1  # prctl(2)
# It says which semaphores were left by a process that was killed, once it has removed them.
_NO_TRACKER = "ignore:resource_tracker:UserWarning"
_PARENT_DIES_S = 0.2
_STOPS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
_LOOKS, _SECONDS_BETWEEN_LOOKS = 10, 0.005

Task = TypeVar("Task")
Result = TypeVar("Result")


def in_processes(
    work: Callable[[Task], Result], tasks: Iterable[Task], *, jobs: int
) -> Iterator[Result]:
    """`work` of each task by `jobs` processes, each as it is done; few wait at a time.

    Raises what a task raises, at once, and ImnetprepError where a worker was killed.
    """
    if jobs == 1:
        yield from map(work, tasks)
        return
    pool = worker_pool(jobs)
    futures: set[Future[Result]] = set()
    try:
        for task in tasks:
            futures.add(pool.submit(work, task))
            if len(futures) > jobs:
                ready, futures = wait(futures, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in ready)
        while futures:
            ready, futures = wait(futures, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in ready)
    except BrokenProcessPool as error:
        raise worker_killed() from error
    except BaseException:
        end_at_once(pool)
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def worker_pool(
    jobs: int, begin: Callable[..., None] | None = None, arguments: tuple[Any, ...] = ()
) -> ProcessPoolExecutor:
    """Processes that end when this one does; whoever asked for them shuts them down.

    Forked where that is safe: then they start at once, and share all that this one has read. Each
    calls `begin` with `arguments` first; those of a forked one need not be values.
    """
    forks = is_safe_to_fork()
    if not forks and _NO_TRACKER not in sys.warnoptions:
        sys.warnoptions.append(_NO_TRACKER)
    pool = ProcessPoolExecutor(
        jobs,
        mp_context=multiprocessing.get_context("fork" if forks else "spawn"),
        initializer=_begin_worker,
        initargs=(os.getpid() if forks else None, begin, arguments),
    )
    try:
        with _stops_held():  # in a fork Python drops what a signal's handler raises
            first = pool.submit(os.getpid)  # starts those that are forked; then there are threads
        _require_work(pool, first)
    except BaseException:
        end_at_once(pool)
        raise
    return pool


@contextmanager
def _stops_held() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP wait until the block ends."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def end_at_once(pool: ProcessPoolExecutor) -> None:
    """End its workers, whatever they are at."""
    for worker in multiprocessing.active_children():
        worker.terminate()  # what it is at is nothing worth
    with suppress(RuntimeError):  # its thread could not start
        pool.shutdown(cancel_futures=True)


def _require_work(pool: ProcessPoolExecutor, first: Future[int]) -> None:
    """Wait for the `first` task: without a thread that could not start, none would ever end."""
    manager: threading.Thread = getattr(pool, "_executor_manager_thread")  # noqa: B009 - private
    while not wait([first], timeout=_SECONDS_BETWEEN_LOOKS).done:
        if not manager.is_alive():
            raise RuntimeError(NO_THREAD)


def is_safe_to_fork() -> bool:
    """Has this process one thread? A lock that another one holds stays locked in a fork."""
    if sys.platform != "linux":
        return False
    for _ in range(_LOOKS):
        if len(list(Path("/proc/self/task").iterdir())) == 1:
            return True
        time.sleep(_SECONDS_BETWEEN_LOOKS)  # one that was joined is there for a moment yet
    return False


def worker_killed() -> ImnetprepError:
    """The error for a BrokenProcessPool, most often the work of the out-of-memory killer."""
    return ImnetprepError(
        "a worker process was killed",
        hint="fewer --jobs need less memory; the same command resumes",
    )


def end_with_the_parent() -> None:
    """Called in a worker process: it ends when its parent does, however that ended."""
    threading.Thread(target=_outlive_nobody, daemon=True).start()


def _begin_worker(
    forked_by: int | None, begin: Callable[..., None] | None, arguments: tuple[Any, ...]
) -> None:
    for number in (signal.SIGINT, signal.SIGHUP):  # reach all; the parent ends its workers
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
    if forked_by is None:
        end_with_the_parent()
        sys.stderr = _SaidToTheParent()
    else:  # which holds open itself what would tell it that the parent is gone
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != forked_by:
            os._exit(0)
    if begin is not None:
        begin(*arguments)


class _SaidToTheParent(io.TextIOBase):
    """The stderr of a worker: once the parent is gone, what fails for that is nothing to say."""

    def write(self, text: str) -> int:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join(_PARENT_DIES_S)  # its pipes break a moment before
            if parent.is_alive() and sys.__stderr__ is not None:
                sys.__stderr__.write(text)
        return len(text)


def _outlive_nobody() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(0)
