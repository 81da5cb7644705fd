"""Sessions on another machine: a real sshd on loopback, reached by the program `ssh`."""

import json
import os
import pty
import re
import signal
import subprocess
from pathlib import Path

import pytest

from imnetprep.sessions.session import Session, find_session, outcome, wait_for_end
from imnetprep.sessions.ssh import Host
from tests.conftest import Run, command
from tests.sessions.conftest import Sshd, children_of, require_program, script, until
from tests.sessions.test_sessions import SECRET, read_until


@pytest.fixture
def working(sshd: Sshd, tmp_path: Path, run: Run) -> Session:
    """A session there that works until it is stopped: a download that waits for peers."""
    require_program("screen")
    words = ["--no-dht", "--listen", "127.0.0.1:0", "--wait", "1h", "--split", "val"]
    words += ["--magnet", f"magnet:?xt=urn:btih:{'a' * 40}", "--root", str(tmp_path / "my root")]
    done = run("download", *words, "--host", sshd.host, "--screen=b")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("session b runs in screen: imnetprep download --no-dht")
    assert f"from here: imnetprep sessions --host {sshd.host}" in done.stderr
    session = find_session(tmp_path / "there" / "imnetprep" / "sessions" / "b")
    assert session
    until(lambda: (tmp_path / "my root").exists(), "the download is at work")
    return session


def test_sessions_there_are_listed_and_stopped(sshd: Sshd, working: Session, run: Run) -> None:
    done = run("sessions", "--host", sshd.host, "--json")
    (row,) = map(json.loads, done.stdout.splitlines())
    assert (row["name"], row["state"]) == ("b", "running")
    assert "my root'" in row["command"]  # quoted once, for the eyes
    assert run("sessions").stdout == ""  # there are none here
    follower = subprocess.Popen(
        command("sessions", "--host", sshd.host, "b", "--follow"), stderr=subprocess.PIPE, text=True
    )
    done = run("sessions", "b", "--stop", "--host", sshd.host)
    assert done.returncode == 0 and "ended 143" in done.stdout, done
    assert "ended 143" in follower.communicate()[1]
    assert follower.returncode == 143


def test_a_window_there_is_shown(sshd: Sshd, working: Session) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        words = command("sessions", "--host", sshd.host, "b", "--attach")
        os.execve(words[0], words, {**os.environ, "TERM": "xterm"})
    read_until(terminal, b"\x1b[")  # screen has the terminal
    os.write(terminal, b"\x01d")
    read_until(terminal, b"running, begun")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(terminal)


def test_a_lost_connection_leaves_the_session_at_work(
    sshd: Sshd, working: Session, run: Run
) -> None:
    follower = subprocess.Popen(
        command("sessions", "--host", sshd.host, "b", "--follow"), stderr=subprocess.PIPE, text=True
    )
    until(lambda: any(map(children_of, children_of(sshd.pid))), "a follower is there")
    for pid in children_of(sshd.pid):
        os.kill(pid, signal.SIGKILL)
    told = follower.communicate()[1]
    assert follower.returncode == 3
    error, hint = told.splitlines()
    assert error.startswith("Error: ssh to box: ")
    assert hint == "Hint: a session there is not touched: run the same command again"
    assert outcome(working).state == "running"
    assert "running" in run("sessions", "--host", sshd.host).stdout


def test_words_arrive_there_as_they_were_typed(sshd: Sshd, tmp_path: Path, run: Run) -> None:
    script(tmp_path / "tell", "printf '<%s>' \"$@\"")
    odd = ["two  words", "it's", '"$HOME"', "*", "a;b", "\\n", "#", "--root=~/x", ""]
    done = run("verify", "--host", f"box:{tmp_path}/tell", *odd)
    assert done.stdout == "".join(f"<{word}>" for word in ["verify", "--screen=", *odd])


def test_no_secret_is_kept_there(sshd: Sshd, tmp_path: Path, run: Run) -> None:
    address = f"https://me:{SECRET}@127.0.0.1:9/a?X-Amz-Signature={SECRET}"
    words = ["organize", "--archives", address, "--root", tmp_path / "root"]
    done = run(*words, "--host", sshd.host)
    assert done.returncode == 0 and SECRET not in done.stdout + done.stderr, done
    session = find_session(tmp_path / "there" / "imnetprep" / "sessions" / "organize")
    assert session is not None
    assert wait_for_end(session).state == "ended"
    for path in (tmp_path / "there").rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("case", ["another key", "no key", "unknown", "refused", "no such name"])
def test_what_ssh_refuses_is_told_in_two_lines(case: str, sshd: Sshd, run: Run) -> None:
    config, known = sshd.config, sshd.config.with_name("known")
    text = config.read_text()
    told, advised = {
        "another key": ("Host key verification failed", f"ssh-keygen -f {known} -R '[127.0.0.1]:"),
        "no key": ("Permission denied", "ssh-copy-id box"),
        "unknown": ("Host key verification failed", "ssh box"),
        "refused": ("Connection refused", "~/.ssh/config"),
        "no such name": ("Could not resolve hostname", "ssh -G box"),
    }[case]
    match case:
        case "another key":
            known.write_text(f"{known.read_text().split()[0]} {_public(sshd)}")
        case "no key":
            config.with_name("authorized").write_text("")
        case "unknown":
            known.write_text("")
        case "refused":
            config.write_text(re.sub(r"Port \d+", "Port 9", text))
        case "no such name":
            config.write_text(text.replace("HostName 127.0.0.1", "HostName nowhere.invalid"))
    done = run("sessions", "--host", sshd.host)
    assert done.returncode == 3, done
    error, hint = done.stderr.splitlines()
    assert error.startswith("Error: ssh to box: ") and told in error
    assert hint.startswith("Hint: ") and advised in hint


def _public(sshd: Sshd) -> str:
    return sshd.config.with_name("user.pub").read_text()


def test_a_program_that_is_not_there_is_named(sshd: Sshd, run: Run) -> None:
    for host, program in (("box", "imnetprep"), ("box:~/no/imnetprep", "no/imnetprep")):
        done = run("sessions", "--host", host)
        assert done.returncode == 1
        assert f"Error: box has no command {program}" in done.stderr
        hint = done.stderr.splitlines()[-1]
        assert hint == "Hint: name it as it lies there: --host box:venv/bin/imnetprep"


def test_without_ssh_it_says_what_to_install(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = run("sessions", "--host", "box")
    assert (done.returncode, done.stderr.splitlines()[0]) == (1, "Error: ssh is not installed")


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("box", Host("box", "imnetprep")),
        ("me@box:venv/bin/imnetprep", Host("me@box", "venv/bin/imnetprep")),
        ("box:~/venv/bin/imnetprep", Host("box", "venv/bin/imnetprep")),
        ("ssh://me@box:2222", Host("ssh://me@box:2222", "imnetprep")),
        ("::1", Host("::1", "imnetprep")),
        ("me@::1:/opt/imnetprep", Host("me@::1", "/opt/imnetprep")),
    ],
)
def test_a_host_is_as_ssh_names_it(text: str, host: Host) -> None:
    assert Host.parse(text) == host
