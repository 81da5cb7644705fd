"""Workers that take ranges: processes where that is safe, and none outlives its run."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from imnetprep.archives.ranges import Range
from imnetprep.catalog.datasets import Split
from imnetprep.extracting.by_range import OnBytes, Workers
from imnetprep.extracting.sink import RangeSamples
from imnetprep.fs import locked
from imnetprep.manifest import SampleRecord, packed
from imnetprep.messages import WrongBytes
from imnetprep.processes import is_safe_to_fork

linux = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")
RANGES = [Range(start, start + 10, None) for start in range(0, 100, 10)]


def _extract(span: Range, on_bytes: OnBytes) -> RangeSamples:
    if span.start == 1000:
        raise WrongBytes("these are wrong", hint="fetch them again")
    on_bytes(span.end - span.start)
    return {Split.TRAIN: packed([SampleRecord(0, str(os.getpid()), span.start, bytes(16))])}


def pids(*, forked: bool) -> set[int]:
    with closing(Workers(_extract, jobs=2, forked=forked)) as workers:
        futures = [workers.submit(each) for each in RANGES]
        rows = [next(future.result()[Split.TRAIN][0].rows()) for future in futures]
        assert [size_bytes for _, size_bytes, *_ in rows] == [each.start for each in RANGES]
        assert (workers.used_bytes(), workers.used_bytes()) == (100, 0)
    return {int(name) for name, *_ in rows}


@linux
def test_a_process_with_threads_is_not_forked() -> None:
    assert threading.active_count() == 1 or not is_safe_to_fork()
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait)
    thread.start()
    assert not is_safe_to_fork()
    ended.set()
    thread.join()


def refused_as_raised(*, forked: bool) -> None:
    """What a worker raises comes out as it was."""
    with closing(Workers(_extract, jobs=2, forked=forked)) as workers:
        with pytest.raises(WrongBytes, match="these are wrong") as refused:
            workers.submit(Range(1000, 1010, None)).result()
        assert refused.value.hint == "fetch them again"


def test_an_error_of_a_thread_comes_out_as_it_was_raised() -> None:
    refused_as_raised(forked=False)


@linux
def test_they_are_processes_if_they_are_to_be() -> None:
    """In a process of its own: pytest's may have threads, of libraries that some tests load."""
    code = """
import os
from imnetprep.processes import is_safe_to_fork
from tests.test_workers import pids, refused_as_raised
assert is_safe_to_fork()
assert pids(forked=False) == {os.getpid()}
assert is_safe_to_fork()
assert os.getpid() not in pids(forked=True)
assert is_safe_to_fork(), "nothing of it is left"
refused_as_raised(forked=True)
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


_FORKS = """
import os, sys, time
from pathlib import Path
from imnetprep.fs import locked
with locked(Path(sys.argv[1]), forks=True):
    if not os.fork():
        Path(sys.argv[1], "pid").write_text(str(os.getpid()))
    time.sleep(60)
"""


@linux
def test_the_workers_of_a_killed_run_are_waited_for(tmp_path: Path) -> None:
    """One that does not end with its parent stands for one that the disk does not let end yet."""
    parent = subprocess.Popen([sys.executable, "-c", _FORKS, str(tmp_path)])
    _wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "")
    parent.kill()
    parent.wait()
    taken = threading.Event()

    def take() -> None:
        with locked(tmp_path, forks=True):
            taken.set()

    thread = threading.Thread(target=take)
    thread.start()
    assert not taken.wait(0.5)
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    assert taken.wait(30)
    thread.join()


def _wait_until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
