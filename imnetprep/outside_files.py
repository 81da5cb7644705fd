"""Files that anybody may have put there, opened here alone: never a pipe, a socket or a device.

Opening a pipe waits for a writer that may never come, and reading a device may never end.
"""

import os
import stat
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from imnetprep.messages import ImnetprepError, move_away


def open_handle(path: Path | str) -> int:
    """The handle of the file at `path`, open for reading. Raises ImnetprepError where that is no
    regular file, OSError as `os.open`.
    """
    refuse_special(path)
    return os.open(path, os.O_RDONLY)


def open_file(path: Path | str) -> BinaryIO:
    """The file at `path`, open for reading and unbuffered. Raises as `open_handle`."""
    return os.fdopen(open_handle(path), "rb", buffering=0)


def read_file(path: Path | str) -> bytes:
    """The bytes of the file at `path`. Raises as `open_handle`."""
    refuse_special(path)
    with FileIO(path) as file:
        try:
            return file.read()
        except OSError as error:  # told by name; `named` costs more
            error.filename = str(path)
            raise


def read_text(path: Path | str, *, errors: str = "strict") -> str:
    """The text of the UTF-8 file at `path`, its lines ended by \\n. Raises as `open_handle`, and
    UnicodeDecodeError.
    """
    text = read_file(path).decode("utf-8-sig", errors)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def refuse_special(path: Path | str) -> None:
    """Raise ImnetprepError where `path` leads to a pipe, a socket or a device."""
    mode = os.stat(path).st_mode  # noqa: PTH116 - a Path costs as much as the look
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # opening a folder says itself what it is
        kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        kind = kinds.get(stat.S_IFMT(mode), "a device")
        raise ImnetprepError(
            f"{path} is {kind}, and no file",
            hint=f"{move_away(path)}; then run the same command again",
        )
