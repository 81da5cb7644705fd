"""The errors that reach the user, each with its exit code and a hint: what to type next."""

from functools import partial
from typing import Any


class ImnetprepError(Exception):
    """One clear sentence with the value in it, and the mend. Exit code 1: it could not be done."""

    exit_code = 1

    def __init__(self, sentence: str, *, hint: str) -> None:
        super().__init__(sentence)
        self.hint = hint

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


FINDINGS_EXIT_CODE = 5
OUR_BUG_EXIT_CODE = 70
INTERRUPTED_EXIT_CODE = 130
TERMINATED_EXIT_CODE = 143


class Stopped(BaseException):
    """SIGINT or SIGTERM arrived and the state is saved. Not an Exception: nothing may swallow it.

    `message` says what was saved and how to resume.
    """

    def __init__(self, exit_code: int, message: str = "run the same command to resume") -> None:
        super().__init__(message)
        self.exit_code = exit_code
