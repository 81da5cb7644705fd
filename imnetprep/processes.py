"""What this process may use of the machine, and the worker processes that it starts."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from imnetprep.errors import ImnetprepError

Task = TypeVar("Task")
Result = TypeVar("Result")


def usable_cores() -> int:
    """The cores this process may run on; macOS keeps no such list and says how many there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_processes(
    work: Callable[[Task], Result], tasks: Iterable[Task], *, jobs: int
) -> Iterator[Result]:
    """`work` of each task by `jobs` processes, each as it is done; few are held at a time.

    Raises what a task raises, at once, and ImnetprepError where a worker was killed.
    """
    if jobs == 1:
        yield from map(work, tasks)
        return
    pool = worker_pool(jobs)
    under_way: set[Future[Result]] = set()
    try:
        for task in tasks:
            under_way.add(pool.submit(work, task))
            if len(under_way) > jobs:
                done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        while under_way:
            done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    except BrokenProcessPool as error:
        raise worker_killed() from error
    except BaseException:
        for worker in multiprocessing.active_children():
            worker.terminate()  # what it is at is nothing worth
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def worker_pool(jobs: int) -> ProcessPoolExecutor:
    """Processes that end when this one does; whoever asked for them shuts them down."""
    # Not forked: a bar has a thread, and a fork of a process with threads may hang.
    return ProcessPoolExecutor(
        jobs, mp_context=multiprocessing.get_context("spawn"), initializer=_begin_worker
    )


def forked_pool(
    jobs: int, begin: Callable[..., None], arguments: tuple[Any, ...]
) -> ProcessPoolExecutor:
    """Processes that share all that this one has now, which must have no thread but one.

    Each calls `begin` with `arguments` first, which need not be values.
    """
    pool = ProcessPoolExecutor(
        jobs,
        mp_context=multiprocessing.get_context("fork"),
        initializer=_begin_forked,
        initargs=(begin, arguments),
    )
    pool.submit(usable_cores)  # starts them, all at once
    return pool


def _begin_forked(begin: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    _begin_worker()
    begin(*arguments)


def worker_killed() -> ImnetprepError:
    """The error for a BrokenProcessPool: the system takes memory back by killing."""
    return ImnetprepError(
        "a worker process was killed",
        hint="fewer --jobs need less memory; the same command goes on from where it was",
    )


def end_with_the_parent() -> None:
    """Called in a worker process: it ends when its parent does, however that ended."""
    threading.Thread(target=_outlive_nobody, daemon=True).start()


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ^C reaches all; the parent ends its workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with_the_parent()


def _outlive_nobody() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(0)
