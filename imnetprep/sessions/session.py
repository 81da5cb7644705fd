"""A session as its folder tells it: running while its lock is held, ended with a code, or lost.

    NAME/.lock         held by the wrapper in the window for as long as it lives
    NAME/session.json  what was started, where and when
    NAME/log           what the command said; `log.1` is that of the session before
    NAME/exit.json     the exit code, once there is one

Nothing else is asked: neither pids nor sockets nor screen can say whether a command is at work.
"""

import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from imnetprep.fs import is_locked, locked, written_whole
from imnetprep.messages import WrongBytes, WrongUsage, removal, shell_command
from imnetprep.outside_text import public_address, quoted, without_credentials
from imnetprep.plain_values import plain_text, real_number, table, whole_number

# What a window, a folder, a run, a group of machines and a key of S3 may all be called.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
State = Literal["running", "ended", "lost"]
_RECORD, _EXIT, _LOG, _OLD_LOG = "session.json", "exit.json", "log", "log.1"
START_LOCK = ".start.lock"  # held while a session of that name starts
_LOOK_S = 0.1


@dataclass(frozen=True)
class Session:
    """What was started: its name, the command as it may be shown, and where and when (Unix time).

    `window`: screen, tmux or none. `machine`: whose home it was; a home may be shared. `pid`: of
    the wrapper in the window.
    """

    folder: Path
    command: str
    cwd: str
    began: float
    window: str
    machine: str
    pid: int

    @property
    def name(self) -> str:
        """How the user calls it."""
        return self.folder.name

    @property
    def log(self) -> Path:
        """The file of all that the command said."""
        return self.folder / _LOG

    @property
    def is_here(self) -> bool:
        """Was it started on this machine?"""
        return self.machine == os.uname().nodename


@dataclass(frozen=True)
class Outcome:
    """What became of a session; the exit code and its time (Unix) are those of one that ended."""

    state: State
    code: int | None = None
    at: float | None = None


def sessions_folder() -> Path:
    """The folder of all sessions of this user."""
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    home = state if state.is_absolute() else Path.home() / ".local" / "state"
    return home / "imnetprep" / "sessions"


def session_folder(name: str) -> Path:
    """The folder of one session. Raises WrongUsage where it can have no such name."""
    if not NAME.fullmatch(name):
        raise WrongUsage(
            f"{name!r} is no name of a session: letters, digits, - and _, 63 at most",
            hint="name it with an equals sign, --screen=NAME, or put --screen last",
        )
    return sessions_folder() / name


def all_sessions() -> Iterator[Session]:
    """Every session of this user, by name."""
    for record in sorted(sessions_folder().glob(f"[!.]*/{_RECORD}")):
        session = find_session(record.parent)
        if session is not None:
            yield session


def find_session(folder: Path) -> Session | None:
    """The session of a folder; None where none was started. Raises WrongBytes."""
    values = _read(folder / _RECORD)
    if values is None:
        return None
    with _told_as_wrong(folder):
        return Session(
            folder,
            command=plain_text(values["command"]),
            cwd=plain_text(values["cwd"]),
            began=real_number(values["began"]),
            window=plain_text(values["window"]),
            machine=plain_text(values["machine"]),
            pid=whole_number(values["pid"], least=1),
        )


def require_session(name: str) -> Session:
    """The session that the user names. Raises WrongUsage where there is none."""
    session = find_session(session_folder(name)) if NAME.fullmatch(name) else None
    if session is None:
        raise WrongUsage(f"there is no session {name}", hint="imnetprep sessions")
    return session


def outcome(session: Session) -> Outcome:
    """What became of it. Raises WrongBytes."""
    if is_locked(session.folder):
        return Outcome("running")
    values = _read(session.folder / _EXIT)
    if values is None:
        return Outcome("lost")
    with _told_as_wrong(session.folder):
        return Outcome("ended", whole_number(values["code"]), real_number(values["at"]))


def wait_for_end(session: Session) -> Outcome:
    """Wait until it is over, however long that takes."""
    while is_locked(session.folder):
        time.sleep(_LOOK_S)
    return outcome(session)


def request_stop(session: Session) -> None:
    """Let its command save and end, as SIGTERM does."""
    with suppress(ProcessLookupError):
        os.kill(session.pid, signal.SIGTERM)


def forget(session: Session) -> bool:
    """Remove the record and the logs of a session that is over; False: it is not.

    The folder and its locks stay: another process may be about to start a session of that name.
    """
    with locked(session.folder, name=START_LOCK, wait=True):
        if is_locked(session.folder):
            return False
        for name in (_RECORD, _EXIT, _LOG, _OLD_LOG):
            (session.folder / name).unlink(missing_ok=True)
        return True


def write_session(session: Session) -> None:
    """Record what was started. Only who holds the lock of the folder does so."""
    values = {key: value for key, value in asdict(session).items() if key != "folder"}
    _write(session.folder / _RECORD, values)


def write_exit(folder: Path, code: int) -> None:
    """Record the exit code, now. Only who holds the lock of the folder does so."""
    _write(folder / _EXIT, {"code": code, "at": time.time()})


def make_room(folder: Path) -> Path:
    """Put what an earlier session of that name left out of the way; the file of the new log."""
    for name in (_RECORD, _EXIT):
        (folder / name).unlink(missing_ok=True)
    log = folder / _LOG
    with suppress(FileNotFoundError):
        log.replace(folder / _OLD_LOG)
    return log


def module_command(module: str) -> list[str]:
    """How a module of program is run in any folder, whatever files of that name lie there."""
    return [sys.executable, "-P", "-m", module]


def public_command(words: Sequence[str]) -> str:
    """A command line as it may be shown and kept: addresses without passwords and signatures."""
    program = module_command("imnetprep")
    if list(words[: len(program)]) == program:
        words = ("imnetprep", *words[len(program) :])
    return without_credentials(shell_command(*map(_public_word, words)))


def _public_word(word: str) -> str:
    option, separator, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return option + separator + public_address(value, mark="…")


def _read(path: Path) -> Mapping[str, Any] | None:
    """The table of a file of program; None: there is no such file."""
    try:
        body = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    with _told_as_wrong(path.parent):
        return table(json.loads(body))


def _write(path: Path, values: Mapping[str, Any]) -> None:
    with written_whole(path) as file:
        file.write(json.dumps(values).encode())


@contextmanager
def _told_as_wrong(folder: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, RecursionError) as error:
        raise WrongBytes(
            f"{folder} is no session: {quoted(str(error))}", hint=removal(folder)
        ) from error
