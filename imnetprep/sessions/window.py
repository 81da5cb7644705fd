"""The wrapper in a window: a command from its start to its exit code, whoever closes the window.

    python -m imnetprep.sessions.window FOLDER

What to run comes by the environment, where other users see no secret of its command line. The
command has no terminal and a session of its own (setsid), so nothing that happens to the window
reaches it but by this wrapper: a window that is closed (SIGHUP) lets it save and end, as SIGTERM
does, and a window that takes no more text is not waited for.
"""

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import BinaryIO

from imnetprep.fs import locked
from imnetprep.outside_text import shown
from imnetprep.sessions.session import Session, make_room, public_command, write_exit, write_session

ORDER = "IMNETPREP_SESSION"  # of the environment: JSON with the words and the kind of window
_PR_SET_PDEATHSIG = 1  # prctl(2)
_SIGNALS = {
    signal.SIGINT: signal.SIGINT,
    signal.SIGTERM: signal.SIGTERM,
    signal.SIGHUP: signal.SIGTERM,
    signal.SIGQUIT: signal.SIGTERM,  # ^\ in the window
}
_UNHEARD = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)  # ^Z would stop the log
_PATIENCE_S = 0.2  # with a window that takes no text
_LAST_WORDS_S = 5.0  # for what the command's own children still say


def run_command(folder: Path, words: list[str], *, window: str) -> int:
    """Run `words` as the session of `folder`; its exit code, which is recorded.

    Raises ImnetprepError where the session runs already.
    """
    child: list[subprocess.Popen[bytes]] = []
    requests: list[signal.Signals] = []

    def forward(number: int, _frame: FrameType | None) -> None:
        requests.append(_SIGNALS[signal.Signals(number)])
        if child:
            child[0].send_signal(requests[-1])

    # Functions, and not SIG_IGN: the command would inherit that.
    for number in _SIGNALS:
        signal.signal(number, forward)
    for number in _UNHEARD:
        signal.signal(number, lambda *_: None)
    with locked(folder), make_room(folder).open("ab", buffering=0) as log:
        try:
            process = _start(words)
        except OSError as error:
            log.write(f"{words[0]}: {error.strerror}\n".encode(errors="replace"))
            process = None
        write_session(
            Session(
                folder,
                command=public_command(words),
                cwd=shown(Path.cwd()),
                began=time.time(),
                window=window,
                machine=os.uname().nodename,
                pid=os.getpid(),
            )
        )
        if process is None:
            code = 127
        else:
            child.append(process)
            for request in requests:
                process.send_signal(request)
            code = _end_of(process, log)
        write_exit(folder, code)
        return code


def _start(words: list[str]) -> "subprocess.Popen[bytes]":
    def end_with_the_wrapper() -> None:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    return subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        preexec_fn=end_with_the_wrapper,  # there is one thread
    )


def _end_of(process: "subprocess.Popen[bytes]", log: BinaryIO) -> int:
    """Copy what a process says to the log and the window; its exit code as a shell tells it."""
    copier = threading.Thread(target=_copy, args=(process, log), daemon=True)
    copier.start()
    code = process.wait()
    copier.join(_LAST_WORDS_S)
    return code if code >= 0 else 128 - code


def _copy(process: "subprocess.Popen[bytes]", log: BinaryIO) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # they are the main thread's
    assert process.stdout is not None
    window = _Window()
    while body := os.read(process.stdout.fileno(), 1 << 16):
        with suppress(OSError):  # on a full disk the command itself decides what follows
            log.write(body)
        window.show(body)


class _Window:
    """The terminal on stdout: what it does not take soon (^S, a copy mode) is left out."""

    def __init__(self) -> None:
        self._is_open, self._patience_s = True, _PATIENCE_S
        os.set_blocking(1, False)

    def show(self, body: bytes) -> None:
        """Write what the window takes."""
        view = memoryview(body)
        while view and self._is_open:
            try:
                view = view[os.write(1, view) :]
                self._patience_s = _PATIENCE_S
            except BlockingIOError:
                if not select.select([], [1], [], self._patience_s)[1]:
                    self._patience_s = 0.0  # until it takes text again
                    return
            except OSError:
                self._is_open = False


def main(folder: Path) -> int:
    """Run what the environment says."""
    order = json.loads(os.environ.pop(ORDER))
    return run_command(folder, order["words"], window=order["window"])


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
