"""A training in a session, or at the end of an ssh connection: it saves, or works on."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from imnetprep.catalog.datasets import Root
from imnetprep.fs import is_locked
from imnetprep.sessions.multiplexer import NO_WINDOW
from imnetprep.sessions.session import find_session, outcome, require_session, wait_for_end
from imnetprep.training.runs import Run as TrainingRun
from tests.conftest import Run
from tests.sessions.conftest import Sshd, children_of, home, parent_of, sshd, until, window

__all__ = ["home", "sshd", "window"]  # fixtures

pytestmark = pytest.mark.usefixtures("home")
WORDS = ["--arch", "mobilenet_v3_small", "--image-size", 32, "--batch-size", 2, "--workers", 1]
WORDS += ["--device", "cpu", "--run", "a", "--no-amp"]


def _train(root: Root) -> list[object]:
    return ["train", "--root", root.path, *WORDS, "--epochs", 500]


def _is_under_way(root: Root) -> bool:
    return TrainingRun(root.run("a")).last.exists()  # since its first step


def test_a_training_whose_window_is_killed_has_saved(window: str, root: Root, here: Run) -> None:
    assert here(*_train(root), "--screen").returncode == 0
    session = require_session("a")
    until(lambda: _is_under_way(root), "a step is done")
    before = TrainingRun(root.run("a")).last.stat().st_mtime_ns
    if window == NO_WINDOW:
        os.kill(session.pid, signal.SIGHUP)
    else:
        os.kill(parent_of(session.pid), signal.SIGKILL)
    end = wait_for_end(session)
    assert (end.state, end.code) == ("ended", 143), session.log.read_text()
    assert "Stopped: saved at epoch" in session.log.read_text()
    assert TrainingRun(root.run("a")).last.stat().st_mtime_ns != before


def test_a_training_there_outlives_its_connection(
    sshd: Sshd, root: Root, run: Run, tmp_path: Path
) -> None:
    done = run(*_train(root), "--host", sshd.host)
    assert done.returncode == 0, done.stderr
    for pid in children_of(sshd.pid):
        os.kill(pid, signal.SIGKILL)
    session = find_session(tmp_path / "there" / "imnetprep" / "sessions" / "a")
    assert session
    until(lambda: _is_under_way(root), "a step is done")
    assert outcome(session).state == "running"
    done = run("sessions", "a", "--stop", "--host", sshd.host)
    assert "ended 143" in done.stdout, done


def test_a_training_on_a_terminal_there_saves_when_the_connection_is_lost(
    sshd: Sshd, root: Root
) -> None:
    program = sshd.host.partition(":")[2]
    words = " ".join(map(str, [program, *_train(root)]))
    client = subprocess.Popen(
        ["ssh", "-tt", "box", words], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    until(lambda: _is_under_way(root), "a step is done")
    run = TrainingRun(root.run("a"))
    before = run.last.stat().st_mtime_ns
    for pid in children_of(sshd.pid):
        os.kill(pid, signal.SIGKILL)
    client.wait()
    until(lambda: not is_locked(run.folder), "the training has ended")
    assert run.last.stat().st_mtime_ns != before
