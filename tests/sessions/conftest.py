"""Sessions in real windows of screen and tmux, and without; and a real sshd on loopback."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from imnetprep.messages import Silent
from imnetprep.sessions.multiplexer import NO_WINDOW, socket_folder, start_session
from imnetprep.sessions.session import Session, find_session, outcome, sessions_folder, wait_for_end

# Says that it works, and on SIGTERM that it saves; then it ends as a training does.
SAVES = """
import signal, sys
def save(*_):
    print("saved", flush=True)
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
print("at work", flush=True)
while True:
    signal.pause()
"""
_INSTALL = {"screen": "screen", "tmux": "tmux", "sshd": "openssh-server", "ssh": "openssh-client"}
_PATIENCE_S = 300  # on a busy machine


def require_program(name: str) -> str:
    """The path of a program; the test is skipped where it is not installed."""
    path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if path is None:
        pytest.skip(f"{name} is not installed: apt-get install {_INSTALL[name]}")
    return path


def until(what: Callable[[], object], said: str) -> None:
    """Wait for what must happen."""
    deadline = time.monotonic() + _PATIENCE_S
    while not what():
        assert time.monotonic() < deadline, f"still not: {said}"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Is there such a process, which has not ended?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def parent_of(pid: int) -> int:
    """Its parent: of a wrapper the server of its window."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def children_of(pid: int) -> list[int]:
    """The processes that a process has started."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(each) for each in text.split()]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place of its own for sessions; none of them outlives its test."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    yield tmp_path
    for record in sessions_folder().glob("*/session.json"):
        session = find_session(record.parent)
        if session and outcome(session).state == "running":
            os.kill(session.pid, signal.SIGTERM)
            wait_for_end(session)
        shutil.rmtree(socket_folder(str(record.parent)))


@pytest.fixture(params=["screen", "tmux", NO_WINDOW])
def window(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The only program for windows that PATH has: screen, tmux, or neither."""
    kind = str(request.param)
    only_path(monkeypatch, tmp_path / "bin", kind)
    return kind


def only_path(monkeypatch: pytest.MonkeyPatch, folder: Path, kind: str) -> None:
    """Let PATH have one program for windows, or none."""
    folder.mkdir()
    if kind != NO_WINDOW:
        (folder / kind).symlink_to(require_program(kind))
    monkeypatch.setenv("PATH", str(folder))


def started(name: str, script: str, *words: str) -> Session:
    """A session that runs a script of Python."""
    return start_session(name, [sys.executable, "-c", script, *words], progress=Silent())


def says(session: Session, text: str) -> None:
    """Wait until the log of a session has this text."""
    until(lambda: session.log.exists() and text in session.log.read_text(), f"the log has {text!r}")


class Sshd(NamedTuple):
    """A server of ssh: its address for `--host`, and what starts the client for it."""

    host: str
    config: Path
    pid: int


@pytest.fixture
def sshd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sshd]:
    """A real sshd on loopback; `ssh` in PATH knows it as `box`, where sessions are others."""
    program, client = require_program("sshd"), require_program("ssh")
    keygen = require_program("ssh-keygen")
    place = tmp_path / "ssh"
    place.mkdir(mode=0o700)
    for name in ("host", "user"):
        subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", place / name], check=True)
    shutil.copy(place / "user.pub", place / "authorized")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (place / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {place}/host\nPidFile none\nUsePAM no\n"
        f"AuthorizedKeysFile {place}/authorized\nStrictModes no\nPermitRootLogin yes\n"
        f"PasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        f"SetEnv XDG_STATE_HOME={tmp_path}/there PATH=/usr/bin:/bin OMP_NUM_THREADS=1\n"
    )
    key = (place / "host.pub").read_text()
    (place / "known").write_text(f"[127.0.0.1]:{port} {key}")
    (place / "config").write_text(
        f"Host box\n HostName 127.0.0.1\n Port {port}\n User {getpass.getuser()}\n"
        f" IdentityFile {place}/user\n IdentitiesOnly yes\n UserKnownHostsFile {place}/known\n"
        f" GlobalKnownHostsFile /dev/null\n StrictHostKeyChecking yes\n"
    )
    script(place / "bin" / "ssh", f'exec {client} -F {place}/config "$@"')
    monkeypatch.setenv("PATH", f"{place}/bin:{os.environ['PATH']}")
    home = Path(__file__).parents[2]
    script(place / "imnetprep", f'PYTHONPATH={home} exec {sys.executable} -P -m imnetprep "$@"')
    with (place / "sshd.log").open("wb") as log:
        server = subprocess.Popen([program, "-D", "-e", "-f", place / "sshd_config"], stderr=log)
    try:
        until(lambda: "listening" in (place / "sshd.log").read_text(), "sshd listens")
        yield Sshd(f"box:{place}/imnetprep", place / "config", server.pid)
    finally:
        leave = ["ssh", "-O", "exit", "-o", f"ControlPath={socket_folder('ssh')}/%C", "box"]
        subprocess.run(leave, capture_output=True, check=False)
        server.terminate()
        server.wait()
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "there"))


def script(path: Path, line: str) -> None:
    """A shell script of one line."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
