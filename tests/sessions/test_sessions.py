"""A session lives and ends by its wrapper, whatever becomes of the window that shows it."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from imnetprep.messages import ImnetprepError, Silent, WrongUsage
from imnetprep.sessions.multiplexer import NO_WINDOW, attachment, start_session
from imnetprep.sessions.session import (
    find_session,
    outcome,
    public_command,
    require_session,
    session_folder,
    wait_for_end,
)
from imnetprep.sessions.window import ORDER
from tests.conftest import Run, command
from tests.sessions.conftest import SAVES, children_of, is_alive, parent_of, says, started, until

SECRET = "pl4nted-passw0rd"


def test_a_session_runs_and_ends_with_the_code_of_its_command(window: str) -> None:
    session = started("a", "import sys; print('hello', sys.stdin.read()); sys.exit(7)")
    assert session.window == window
    end = wait_for_end(session)
    assert (end.state, end.code) == ("ended", 7)
    assert session.log.read_text() == "hello \n"


def test_a_name_runs_once_at_a_time(window: str) -> None:
    session = started("a", SAVES)
    with pytest.raises(ImnetprepError, match="session a is running already"):
        started("a", SAVES)
    assert find_session(session.folder) == session
    assert outcome(session).state == "running"


def test_of_two_starts_at_once_one_is_refused(window: str) -> None:
    start = "import sys; from imnetprep.messages import Silent; from imnetprep.sessions.multiplexer"
    start += " import start_session; start_session('a', sys.argv[1:], progress=Silent())"
    words = [sys.executable, "-c", start, sys.executable, "-c", SAVES]
    starts = [subprocess.Popen(words, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [start.communicate()[1] for start in starts]
    assert sorted(start.returncode for start in starts) == [0, 1]
    assert "session a is running already" in "".join(said)


def test_a_window_that_is_killed_lets_the_command_save(window: str) -> None:
    session = started("a", SAVES)
    says(session, "at work")
    if window == NO_WINDOW:
        os.kill(session.pid, signal.SIGHUP)  # what a window would send
    else:
        os.kill(parent_of(session.pid), signal.SIGKILL)
    end = wait_for_end(session)
    assert (end.state, end.code) == ("ended", 143)
    assert session.log.read_text() == "at work\nsaved\n"
    again = started("a", SAVES)  # the socket of the one that was killed is not in the way
    assert outcome(again).state == "running"


@pytest.mark.parametrize("window", ["screen", "tmux"], indirect=True)
def test_a_window_that_is_told_to_quit_lets_the_command_save(window: str) -> None:
    session = started("a", SAVES)
    says(session, "at work")
    attach, environment = attachment(session)
    quit_words = {
        "screen": [*attach[:3], "-S", session.name, "-X", "quit"],
        "tmux": [*attach[:3], "kill-server"],
    }[window]
    subprocess.run(quit_words, env=environment, check=True)
    end = wait_for_end(session)
    assert (end.state, end.code) == ("ended", 143)
    assert session.log.read_text() == "at work\nsaved\n"


def test_a_wrapper_that_is_killed_is_lost_and_its_command_saves(window: str) -> None:
    session = started("a", SAVES)
    says(session, "at work")
    (child,) = children_of(session.pid)
    os.kill(session.pid, signal.SIGKILL)
    end = wait_for_end(session)
    assert (end.state, end.code) == ("lost", None)
    until(lambda: not is_alive(child), "the command has ended")
    assert outcome(started("a", "pass")).state in ("running", "ended")


def test_the_log_of_the_session_before_is_kept() -> None:
    wait_for_end(started("a", "print('first')"))
    session = started("a", "print('second')")
    wait_for_end(session)
    assert session.log.read_text() == "second\n"
    assert session.log.with_name("log.1").read_text() == "first\n"


def test_long_names_and_a_long_home_have_sockets(
    window: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / ("long" * 40)))
    name = "n" * 63
    assert outcome(started(name, SAVES)).state == "running"
    for wrong in ("n" * 64, "a b", "-a", "a.b", "s3://bucket", "../a", ""):
        with pytest.raises(WrongUsage, match="is no name of a session"):
            session_folder(wrong)


def test_a_program_that_starts_no_window_is_done_without(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from imnetprep.commands.terminal import stderr_progress
    from tests.sessions.conftest import script

    script(tmp_path / "bin" / "screen", "echo no more ptys >&2; exit 1")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    words = [sys.executable, "-c", SAVES]
    session = start_session("a", words, progress=stderr_progress(quiet=False))
    assert session.window == NO_WINDOW
    assert "screen starts no window: no more ptys" in capsys.readouterr().err


def test_a_command_that_is_not_there_ends_as_in_a_shell(window: str) -> None:
    session = start_session("a", ["/nowhere/at all"], progress=Silent())
    assert wait_for_end(session).code == 127
    assert "No such file" in session.log.read_text()


def test_a_window_that_takes_no_text_stops_nothing(tmp_path: Path) -> None:
    """Nobody reads the terminal, as after ^S or in a copy mode."""
    says_much = "import sys; [print('x' * 999) for _ in range(1000)]; sys.exit(3)"
    order = json.dumps({"words": [sys.executable, "-c", says_much], "window": "screen"})
    folder = session_folder("a")
    pid, terminal = pty.fork()
    if pid == 0:
        words = [sys.executable, "-m", "imnetprep.sessions.window", str(folder)]
        os.execve(sys.executable, words, {**os.environ, ORDER: order})
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
    assert (folder / "log").stat().st_size == 1_000_000
    os.close(terminal)


def test_keys_in_the_window_reach_the_command(window: str) -> None:
    """^C is its SIGINT; ^Z and ^\\ neither stop nor kill the wrapper."""
    session = started("a", "import signal; print('at work', flush=True); signal.pause()")
    says(session, "at work")
    for number in (signal.SIGTSTP, signal.SIGINT):
        os.kill(session.pid, number)
    assert wait_for_end(session).code == 128 + signal.SIGINT
    session = started("a", SAVES)
    says(session, "at work")
    os.kill(session.pid, signal.SIGQUIT)
    assert wait_for_end(session).code == 143


def test_a_command_is_kept_without_its_secrets(home: Path) -> None:
    address = f"https://me:{SECRET}@host/a.tar?X-Amz-Signature={SECRET}"
    script = "import sys; print(len(sys.argv[1]))"
    session = started("a", script, address, f"--archives={address}", f"--token={SECRET}")
    wait_for_end(session)
    assert session.log.read_text() == f"{len(address)}\n"  # the command has what was typed
    assert "https://host/a.tar" in session.command
    for path in home.rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path


def test_our_own_command_is_kept_as_it_is_typed() -> None:
    words = [sys.executable, "-P", "-m", "imnetprep", "train", "--root", "my tin", "a\nb"]
    assert public_command(words) == "imnetprep train --root 'my tin' $'a\\012b'"


def _terminal(words: list[str]) -> tuple[int, int]:
    """Start a command on a terminal: its pid, and the other end."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(words[0], words, {**os.environ, "TERM": "xterm"})
    return pid, terminal


def read_until(terminal: int, text: bytes) -> bytes:
    """What a terminal shows, until it shows `text`."""
    shown = b""
    while text not in shown:
        assert select.select([terminal], [], [], 60)[0], shown
        shown += os.read(terminal, 1 << 16)
    return shown


@pytest.mark.parametrize("window", ["screen", "tmux"], indirect=True)
def test_attach_shows_the_window_and_leaves_it(window: str) -> None:
    session = started("a", SAVES)
    says(session, "at work")
    pid, terminal = _terminal(command("sessions", "a", "--attach"))
    read_until(terminal, b"at work")
    os.write(terminal, {"screen": b"\x01", "tmux": b"\x02"}[window])
    if window == "tmux":  # which takes keys that come at once for pasted text
        attach, environment = attachment(session)
        asks = [*attach[:3], "list-clients", "-F", "#{client_prefix}"]
        until(lambda: subprocess.check_output(asks, env=environment) == b"1\n", "a key is read")
    os.write(terminal, b"d")
    read_until(terminal, b"running, begun")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(terminal)
    assert outcome(session).state == "running"


def test_the_verb_lists_follows_and_stops(window: str, here: Run) -> None:
    assert "there are no sessions" in here("sessions").stderr
    session = started("b", SAVES)
    wait_for_end(started("a", "print('train: 34%, 5 of 15 images, 2/s'); print('last'); 1 / 0"))
    says(session, "at work")
    rows = {
        row["name"]: row for row in map(json.loads, here("sessions", "--json").stdout.splitlines())
    }
    assert [rows["a"][key] for key in ("state", "exit_code", "progress")] == [
        "ended", 1, "train: 34%, 5 of 15 images, 2/s"
    ]  # fmt: skip
    assert rows["a"]["last_line"] == "ZeroDivisionError: division by zero"
    assert [rows["b"][key] for key in ("state", "exit_code", "last_line", "window")] == [
        "running", None, "at work", window
    ]  # fmt: skip
    assert here("sessions", "a", "--follow").returncode == 1
    follower = subprocess.Popen(
        command("sessions", "b", "--follow"), stdout=subprocess.PIPE, text=True
    )
    assert follower.stdout is not None
    assert follower.stdout.readline() == "at work\n"
    done = here("sessions", "b", "--stop")
    assert done.returncode == 0 and "ended 143" in done.stdout, done
    assert follower.communicate()[0] == "saved\n"
    assert follower.returncode == 143
    done = here("sessions", "c", "--stop")
    assert done.returncode == 2 and "there is no session c" in done.stderr


def test_who_leaves_the_log_leaves_the_session_at_work() -> None:
    session = started("a", SAVES)
    says(session, "at work")
    follower = subprocess.Popen(
        command("sessions", "a", "--follow"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert follower.stdout is not None
    follower.stdout.readline()
    follower.send_signal(signal.SIGINT)
    told = follower.communicate()[1].decode().strip()
    assert follower.returncode == 130
    assert told == "Stopped: session a works on; imnetprep sessions a --stop ends it"
    assert outcome(session).state == "running"


def test_what_is_over_is_listed_and_forgotten(home: Path, here: Run) -> None:
    error = "print('Error: no\\nHint: look'); raise SystemExit(1)"
    for name, script in (("a", "pass"), ("b", error)):
        wait_for_end(started(name, script))
    assert here("sessions", "b").stdout.endswith("    Error: no\n    Hint: look\n")
    running = started("c", SAVES)
    says(running, "at work")
    before = sorted(each.name for each in home.rglob("*"))
    shown = here("sessions", "--clean").stdout.splitlines()
    assert [line.split()[0] for line in shown[:-1]] == ["a", "b"]
    assert shown[-1] == "2 sessions over: nothing is removed yet; --clean --yes does it"
    assert sorted(each.name for each in home.rglob("*")) == before
    assert here("sessions", "a", "--clean", "--yes").stdout.endswith("1 session removed\n")
    assert here("sessions", "c", "--clean", "--yes").stdout == "nothing to remove\n"
    assert here("sessions", "--clean", "--yes").stdout.endswith("1 session removed\n")
    assert here("sessions").stdout.split()[:2] == ["c", "running,"]
    assert here("sessions", "a").returncode == 2
    wait_for_end(started("a", "pass"))  # the name is free
    assert "there is nothing to stop" in here("sessions", "a", "--stop").stderr


def test_a_follower_ends_with_its_reader() -> None:
    session = started("a", SAVES)
    says(session, "at work")
    follower = subprocess.Popen(command("sessions", "a", "--follow"), stdout=subprocess.PIPE)
    assert follower.stdout is not None
    follower.stdout.readline()
    follower.stdout.close()
    assert follower.wait(60) == 0
    assert outcome(session).state == "running"


def test_a_session_of_another_machine_is_left_alone(here: Run) -> None:
    """A home may be shared, and pids are those of one machine."""
    session = started("a", SAVES)
    record = session.folder / "session.json"
    record.write_text(record.read_text().replace(os.uname().nodename, "gpu7"))
    for act in ("--stop", "--attach"):
        done = here("sessions", "a", act)
        assert done.returncode == 1 and "session a is on gpu7" in done.stderr
        assert "Hint: imnetprep sessions a --host gpu7" in done.stderr
    assert outcome(require_session("a")).state == "running"


def test_what_cannot_be_done_is_told_in_two_lines(here: Run) -> None:
    wait_for_end(started("a", "pass"))
    for words, told in (
        (["sessions", "--stop"], "--stop needs a name"),
        (["sessions", "a", "--stop", "--follow"], "cannot be done at once"),
        (["sessions", "--yes"], "it is for --clean"),
        (["sessions", "a b"], "there is no session a b"),
        (["sessions", "a", "--attach"], "session a is over"),
        (["sessions", "a", "--follow", "--json"], "no result in JSON"),
        (["organize", "--screen", "s3://bucket"], "'s3://bucket' is no name of a session"),
        (["organize", "--archives", "-", "--screen"], "- cannot be used with a session"),
        (["verify", "--host", "two words"], "'two words' is no [USER@]HOST"),
        (["verify", "--host", "-oProxyCommand=x"], "is no [USER@]HOST"),
        (["verify", "--host"], "'' is no [USER@]HOST"),
    ):
        done = here(*words)
        assert done.returncode in (1, 2), (words, done)
        error, hint = done.stderr.splitlines()
        assert error.startswith("Error: ") and told in error, (words, done)
        assert hint.startswith("Hint: ")


def test_a_record_that_is_no_session_is_told(here: Run) -> None:
    session = started("a", "pass")
    wait_for_end(session)
    (session.folder / "session.json").write_text('{"command": 7}')
    done = here("sessions")
    assert done.returncode == 4
    assert f"Hint: rm -r {session.folder}" in done.stderr
    (session.folder / "session.json").unlink()


def test_a_verb_runs_in_a_session(
    window: str, organized: Path, here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its own words, in the same folder, under the name of the verb."""
    monkeypatch.chdir(organized.parent)
    (organized.parent / "json.py").write_text("raise SystemExit('not the json of Python')")
    done = here("verify", "--digests", "--screen", "--root", organized.name)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        f"session verify runs {'without a window' if window == NO_WINDOW else f'in {window}'}:"
        f" imnetprep verify --digests --root {organized.name}\n"
    )
    session = require_session("verify")
    assert wait_for_end(session).code == 0, session.log.read_text()
    assert session.log.read_text().startswith("0 findings in all splits")


def test_the_words_of_screen_and_host_are_not_those_of_the_command() -> None:
    from imnetprep.commands.session_options import _split_off

    for words, value, rest in (
        (["--screen"], "", []),
        (["--screen", "a", "b"], "a", ["b"]),
        (["--screen", "--root", "a"], "", ["--root", "a"]),
        (["--screen=a", "b"], "a", ["b"]),
        (["--root", "a", "--", "--screen"], None, ["--root", "a", "--", "--screen"]),
    ):
        assert _split_off("--screen", words) == (value, rest)
