"""Worker processes: results as they come, errors as they were raised, nobody left behind."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from imnetprep.messages import ImnetprepError, WrongBytes
from imnetprep.processes import in_processes


def _work(task: str | int) -> int:
    if task == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if task == "refuse":
        raise WrongBytes("these are wrong", hint="fetch them again")
    if task == "sleep":
        os.write(1, b"at work\n")
        time.sleep(600)
    return int(task) ** 2


@pytest.mark.parametrize("jobs", [1, 3])
def test_every_task_is_done_and_few_are_taken_ahead(jobs: int) -> None:
    taken = 0

    def tasks() -> Iterator[int]:
        nonlocal taken
        for number in range(20):
            taken += 1
            yield number

    results = in_processes(_work, tasks(), jobs=jobs)
    first = next(results)
    assert taken <= jobs + 1
    assert sorted([first, *results]) == [number**2 for number in range(20)]


def test_an_error_comes_out_as_it_was_raised_and_ends_the_others_at_once() -> None:
    tasks: list[str | int] = ["sleep", "refuse", "sleep", 1]
    start_s = time.monotonic()
    with pytest.raises(WrongBytes, match="these are wrong") as refused:
        list(in_processes(_work, tasks, jobs=2))
    assert refused.value.hint == "fetch them again"
    assert time.monotonic() - start_s < 300
    assert not multiprocessing.active_children()


def test_a_worker_that_was_killed_is_told() -> None:
    tasks: list[str | int] = [1, "die", 2, 3]
    with pytest.raises(ImnetprepError, match="a worker process was killed") as told:
        list(in_processes(_work, tasks, jobs=2))
    assert "--jobs" in told.value.hint


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_workers_end_with_a_killed_parent() -> None:
    code = (
        "from imnetprep.processes import in_processes; from tests.test_processes import _work\n"
        "list(in_processes(_work, ['sleep'] * 9, jobs=2))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    for _ in range(2):
        assert parent.stdout.readline() == "at work\n"
    with open(f"/proc/{parent.pid}/task/{parent.pid}/children") as file:  # noqa: PTH123
        children = file.read().split()
    parent.kill()
    parent.wait()
    assert len(children) >= 2
    assert parent.stdout.read() == "", "which ends when the last of them does"
    while any(_runs(pid) for pid in children):
        time.sleep(0.01)


def _runs(pid: str) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


_KILLED = """
import os, signal
from imnetprep import processes

processes.is_safe_to_fork = lambda: False


def work(number):
    if number == 3:
        os.kill(os.getppid(), signal.SIGKILL)
    return bytes(1 << 20)


if __name__ == "__main__":
    list(processes.in_processes(work, range(40), jobs=2))
"""


def test_workers_say_nothing_of_a_parent_that_was_killed(tmp_path: Path) -> None:
    """They were spawned: what is forked ends with its parent, at once."""
    (tmp_path / "killed.py").write_text(_KILLED)
    for _ in range(3):
        done = subprocess.run(  # until nobody has its stderr open any more
            [sys.executable, tmp_path / "killed.py"], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (-signal.SIGKILL, "")
