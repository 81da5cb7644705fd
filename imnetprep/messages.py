"""What the library tells people: errors with exit codes, findings, progress, and numbers."""

import os
import re
import shlex
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol


def shell_command(*words: object) -> str:
    """A command for a hint, quoted as a shell needs it."""
    return " ".join(shell_word(_no_option(word)) for word in words)


def _no_option(word: object) -> str:
    """`word`, and not an option if it is a path that begins with a dash."""
    text = str(word)
    return f"./{text}" if isinstance(word, Path) and text.startswith("-") else text


def shell_word(word: str) -> str:
    """`word` as a shell needs it, all of it printable: `$'a\\nb'` where it is not."""
    if word.isprintable():
        return shlex.quote(word)
    letters = (each if each.isprintable() and each not in "'\\" else _octal(each) for each in word)
    return f"$'{''.join(letters)}'"


def _octal(letter: str) -> str:
    is_byte = "\udc80" <= letter <= "\udcff"  # as Python has one of a name that is no UTF-8
    body = os.fsencode(letter) if is_byte else letter.encode(errors="replace")
    return "".join(f"\\{byte:03o}" for byte in body)


def adopt_by_links(folder: Path) -> str:
    """The command that makes a root of links to `folder`, beside the user."""
    return shell_command("imnetprep", "adopt", folder, "--root", f"{folder.resolve().name}-root")


def move_away(path: object) -> str:
    """The command that keeps what lies at `path` under another name."""
    return shell_command("mv", path, Path(f"{path}.old"))


def removal(folder: object) -> str:
    """The command that removes `folder` and all that it holds."""
    return shell_command("rm", "-r", folder)


class ImnetprepError(Exception):
    """One clear sentence with the value in it, and a hint. Exit code 1: it could not be done."""

    exit_code = 1

    def __init__(self, sentence: str, *, hint: str) -> None:
        super().__init__(sentence)
        self.hint = hint

    @property
    def __notes__(self) -> list[str]:  # type: ignore[override]
        """What a traceback shows below the sentence, as in a notebook: the hint."""
        return [f"Hint: {self.hint}"]

    def __reduce__(self) -> tuple[Any, ...]:
        """Let pickle keep the hint, so that an error leaves a worker process as it was raised."""
        return partial(type(self), hint=self.hint), self.args


class WrongUsage(ImnetprepError):
    """The command makes no sense, whatever lies on the disk or in the network."""

    exit_code = 2


class SourceFailed(ImnetprepError):
    """A source did not deliver: no peers, no metadata, a server that is gone."""

    exit_code = 3


class WrongBytes(ImnetprepError):
    """Bytes are not what was promised: a digest, a size, a name or a count differs."""

    exit_code = 4


class ChangedFile(WrongBytes):
    """The file at an address is another one than it was when it was opened."""


class Lack(UserWarning):
    """The command goes on without something that the machine lacks; the text says what is lost."""


FINDINGS_EXIT_CODE = 5
OUR_BUG_EXIT_CODE = 70
INTERRUPTED_EXIT_CODE = 130
UNREAD_EXIT_CODE = 141  # as of a program that SIGPIPE ends
TERMINATED_EXIT_CODE = 143


class Interruption(BaseException):
    """SIGINT, SIGTERM or SIGHUP arrived and the state is saved.

    Not an Exception: nothing may swallow it. `message` says what was saved and how to resume.
    """

    def __init__(self, exit_code: int, message: str = "run the same command to resume") -> None:
        super().__init__(message)
        self.exit_code = exit_code


# The kind that does not keep a tree from being adopted: its manifest says it.
CHANGE_KIND = "changed"


class Finding(NamedTuple):
    """One thing that is not as it should be. Paths are relative to the root.

    `belongs` is where the file or folder at `path` should lie; of a damaged file in its place,
    or of a missing one, it is `path` itself. None where nothing has a place for it.
    """

    kind: str
    path: str
    message: str
    belongs: str | None = None


@dataclass(frozen=True)
class Checks:
    """What to look at beyond counts, names and sizes: every byte, and every image decoded."""

    digests: bool = False
    decode: bool = False

    @property
    def read_every_file(self) -> bool:
        """Is any byte of a file needed whose size is right?"""
        return self.digests or self.decode


class Task(Protocol):
    """One piece of work under way."""

    def advance(self, amount: int) -> None:
        """`amount` more of the task's unit is done."""

    def tell(self, detail: str) -> None:
        """A few words beside the bar, such as `3 peers`."""


class Progress(Protocol):
    """Where tasks and remarks are shown."""

    def task(
        self, title: str, *, total: int, unit: str, initial: int = 0
    ) -> AbstractContextManager[Task]:
        """Open a task of `total` units (`"B"` for bytes) of which `initial` are done already."""

    def note(self, line: str) -> None:
        """One line that stays, such as `no peers yet`."""


class Silent:
    """Shows nothing, as a `Progress` and as its own `Task`."""

    @contextmanager
    def task(self, title: str, *, total: int, unit: str, initial: int = 0) -> Iterator[Task]:
        yield self

    def note(self, line: str) -> None: ...

    def advance(self, amount: int) -> None: ...

    def tell(self, detail: str) -> None: ...


_BYTE_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12,
               "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}  # fmt: skip
_SECONDS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def parse_bytes(text: str) -> int:
    """`"10MB"`, `"1.5GiB"`, `"512k"` or `"800000"` as bytes. Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?(?:/s)?", text.strip().lower())
    if not match or match[2] not in _BYTE_UNITS:
        raise ValueError(f"{text!r} is not a number of bytes such as 800k, 10MB or 1.5GiB")
    return int(float(match[1]) * _BYTE_UNITS[match[2]])


def parse_duration(text: str) -> float:
    """`"90"`, `"90s"`, `"15m"`, `"2h"` or `"1d"` as seconds. Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    if not match or match[2] not in _SECONDS:
        raise ValueError(f"{text!r} is not a duration such as 90s, 15m or 2h")
    return float(match[1]) * _SECONDS[match[2]]


def format_bytes(size_bytes: float) -> str:
    """1 234 567 as `1.23 MB`: three figures, decimal units as disks are sold."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 999.5:
            return f"{size_bytes:.0f} B" if unit == "B" else f"{size_bytes:.3g} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.3g} TB"


def format_duration(seconds: float) -> str:
    """75 as `1:15`, 4,000 as `1:06:40`."""
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"


def format_rate(rate: float) -> str:
    """`1,394`, and below ten `0.6`."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"


def count(number: int, noun: str) -> str:
    """`1 image`, `1,281,167 images`, `10 classes`."""
    if number != 1:
        noun += "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}"
