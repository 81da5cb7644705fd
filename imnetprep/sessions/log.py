"""What a session said: the end of its log, how far its command is, and what is added to it."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO

from imnetprep.fs import is_locked
from imnetprep.sessions.session import Session

_TAIL_BYTES = 1 << 13
_PROGRESS = re.compile(r"^[^\n%]{1,100}: (\d{1,3})%, .*$", re.MULTILINE)


def tail(session: Session) -> str:
    """The end of its log, from the start of a line."""
    with suppress(FileNotFoundError), session.log.open("rb") as log:
        _seek_tail(log)
        return log.read().decode(errors="replace").replace("\r", "\n")
    return ""


def _seek_tail(log: BinaryIO) -> None:
    start = log.seek(0, os.SEEK_END) - _TAIL_BYTES
    log.seek(max(start, 0))
    if start > 0:
        log.readline()


def last_lines(session: Session) -> list[str]:
    """The last line of its log that says anything; of an error told with a hint, both lines."""
    lines = [line for text in tail(session).split("\n") if (line := text.strip())]
    return lines[-2:] if lines and lines[-1].startswith("Hint: ") else lines[-1:]


def progress(session: Session) -> str:
    """The last line of its log that says how much is done; "" where none does."""
    lines = list(_PROGRESS.finditer(tail(session)))
    return lines[-1][0] if lines else ""


def log_chunks(session: Session) -> Iterator[bytes]:
    """The end of its log, and what is added to it until the session is over.

    Yields b"" where there is nothing new, and waits no time: whoever prints may.
    """
    with session.log.open("rb") as log:
        _seek_tail(log)
        while True:
            is_running = is_locked(session.folder)  # asked first, so that what came last is read
            while body := log.read(1 << 16):
                yield body
            if not is_running:
                return
            yield b""
