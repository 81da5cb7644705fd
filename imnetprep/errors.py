"""What can go wrong, each with its exit code and a hint that says what to type next."""

from functools import partial
from typing import Any


class ImnetprepError(Exception):
    """One clear sentence with the value in it, and the mend. Exit code 1: it could not be done."""

    exit_code = 1

    def __init__(self, what: str, *, hint: str) -> None:
        super().__init__(what)
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        """So that it comes out of a worker process as it was raised there."""
        return partial(type(self), hint=self.hint), self.args


class WrongUsage(ImnetprepError):
    """What was asked for makes no sense, whatever the state of the world."""

    exit_code = 2


class SourceFailed(ImnetprepError):
    """A source could not deliver: no peers, no metadata, a server that is gone."""

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

    `why` says what was saved and how to go on.
    """

    def __init__(self, exit_code: int, why: str = "run the same command to go on") -> None:
        super().__init__(why)
        self.exit_code = exit_code
