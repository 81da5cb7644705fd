"""Sessions started in a window of screen or tmux, or without one, and windows to look at.

A server of its own for each session, with a socket in a folder of ours: neither the mode of
/run/screen nor another session nor a .screenrc can keep it from starting.
"""

import hashlib
import json
import os
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import imnetprep
from imnetprep.fs import is_locked, locked
from imnetprep.messages import ImnetprepError, Progress, WrongUsage, move_away
from imnetprep.outside_text import quoted
from imnetprep.sessions.session import (
    START_LOCK,
    Session,
    find_session,
    module_command,
    session_folder,
)
from imnetprep.sessions.window import ORDER

_START_S, _LOOK_S = 60.0, 0.02
NO_WINDOW = "none"


class Multiplexer(NamedTuple):
    """How a program starts a window with a name in the folder of its socket, and shows it.

    `keys`: what leaves the window and lets the command work on.
    """

    start: Callable[[Path, str], Sequence[str]]
    attach: Callable[[Path, str], Sequence[str]]
    keys: str


# Without the user's configuration: `autodetach off` or a second window would change what ends when.
MULTIPLEXERS: Mapping[str, Multiplexer] = {
    "screen": Multiplexer(
        lambda _place, name: ("screen", "-c", os.devnull, "-dmS", name),
        lambda _place, name: ("screen", "-c", os.devnull, "-x", name),
        "^A d",
    ),
    "tmux": Multiplexer(
        lambda place, name: (
            *("tmux", "-f", os.devnull, "-S", str(place / "tmux"), "new-session", "-d", "-s", name),
        ),
        lambda place, name: ("tmux", "-S", str(place / "tmux"), "attach-session", "-t", f"={name}"),
        "^B d",
    ),
}


def start_session(name: str, words: Sequence[str], *, progress: Progress) -> Session:
    """Run `words` in a session, here and now; returns once they run.

    Raises ImnetprepError where a session of that name runs already, or none can be started.
    """
    folder = session_folder(name)
    with locked(folder, name=START_LOCK, wait=True):
        if is_locked(folder):
            raise ImnetprepError(
                f"session {name} is running already",
                hint=f"imnetprep sessions {name}; or give another name: --screen NAME",
            )
        for kind in (*filter(shutil.which, MULTIPLEXERS), NO_WINDOW):
            if session := _start(kind, folder, words, progress):
                return session
    raise ImnetprepError(
        f"session {name} did not start within {_START_S:.0f} s",
        hint="the machine may be busy: run the same command again",
    )


def attachment(session: Session) -> tuple[Sequence[str], Mapping[str, str]]:
    """The command that shows the window of a session, and its environment. Raises WrongUsage."""
    multiplexer = MULTIPLEXERS.get(session.window)
    if multiplexer is None:
        raise WrongUsage(
            f"session {session.name} has no window: neither screen nor tmux was there",
            hint=f"imnetprep sessions {session.name} --follow",
        )
    place = socket_folder(str(session.folder))
    return multiplexer.attach(place, session.name), _environment(place)


def socket_folder(owner: str) -> Path:
    """A folder for the sockets of `owner`, which nobody else may enter; its path is short.

    A socket's path has 108 bytes at most (unix(7)), and a home may be a long one.
    """
    home = Path("/tmp") / f"imnetprep-{os.geteuid()}"  # noqa: S108 - its owner is looked at
    place = home / hashlib.sha256(os.fsencode(owner)).hexdigest()[:12]
    for folder in (home, place):
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise ImnetprepError(f"{folder} is another user's", hint=move_away(folder))
        folder.chmod(0o700)
    return place


def _start(kind: str, folder: Path, words: Sequence[str], progress: Progress) -> Session | None:
    """The session in a window of this kind; None: none came up."""
    place = socket_folder(str(folder))
    for socket in place.iterdir():
        socket.unlink()  # of a window that was killed
    (folder / "session.json").unlink(missing_ok=True)
    order = json.dumps({"words": list(words), "window": kind})
    environment = {**_environment(place), ORDER: order}
    start = MULTIPLEXERS[kind].start(place, folder.name) if kind in MULTIPLEXERS else ()
    with tempfile.TemporaryFile() as messages:  # not a pipe, which what lives on would hold open
        process = subprocess.Popen(
            [*start, *_wrapper(folder)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=messages,
            stderr=messages,
            start_new_session=True,
        )
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            failure = process.poll()  # asked first: what ended at once has a session too
            if session := find_session(folder):
                return session
            if failure:
                messages.seek(0)
                progress.note(f"{kind} starts no window: {quoted(messages.read().decode())}")
                return None
            time.sleep(_LOOK_S)
    return None


def _wrapper(folder: Path) -> list[str]:
    return [*module_command("imnetprep.sessions.window"), str(folder)]


def _environment(place: Path) -> dict[str, str]:
    """The environment of a window: the package is found from anywhere, and no window around it."""
    environment = {key: value for key, value in os.environ.items() if key not in ("TMUX", "STY")}
    environment["SCREENDIR"] = str(place)
    environment.setdefault("TERM", "xterm")
    home = Path(imnetprep.__file__).parent.parent
    if home.name not in ("site-packages", "dist-packages"):  # found anyhow, and after Python's own
        paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        environment["PYTHONPATH"] = os.pathsep.join([str(home), *filter(None, paths)])
    return environment
