"""Network calls and reads retried a few times, with longer and longer waits."""

import random
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

_TIMES = 7
_FIRST_WAIT_S, _LONGEST_WAIT_S, _LONGEST_PATIENCE_S = 0.2, 10.0, 60.0


def retried(act: Callable[[], T], *, on: tuple[type[Exception], ...], times: int = _TIMES) -> T:
    """What `act` returns, tried up to `times` times while it raises one of `on`.

    The waits double and are random in their upper half, so that many readers do not return at
    once; seven times are some fifteen seconds. The last exception is raised.
    """
    for failures in range(1, times):
        try:
            return act()
        except on as error:
            time.sleep(wait_s(failures, error))
    return act()


def resumed(
    open_at: Callable[[int], Any],
    start: int,
    end: int,
    *,
    length: int,
    on: tuple[type[Exception], ...],
    times: int = _TIMES,
) -> Iterator[memoryview]:
    """The bytes from `start` to `end` in chunks of `length`, from a body that may break.

    `open_at(offset)` gives one that reads on to `end`; it is asked again, from where the last one
    broke, while that raises one of `on` or ends early. After `times` failures in a row the last
    exception is raised; EOFError where the body just ends.
    """
    may_pass: tuple[type[Exception], ...] = (EOFError, *on)
    at, failures = start, 0
    while at < end:
        body = None
        try:
            body = open_at(at)
            while at < end:
                chunk = _filled(body, min(length, end - at))
                yield memoryview(chunk)
                at, failures = at + len(chunk), 0
        except may_pass as error:
            failures += 1
            if failures == times:
                raise
            time.sleep(wait_s(failures, error))
        finally:
            if body is not None:
                body.close()


def _filled(body: Any, length: int) -> bytes:
    chunk: bytes = body.read(length)
    while len(chunk) < length:
        piece = body.read(length - len(chunk))
        if not piece:
            raise EOFError(f"{length - len(chunk):,} bytes are missing")
        chunk += piece
    return chunk


def wait_s(failures: int, error: Exception | None = None) -> float:
    """How long to wait after so many failures in a row; as long as `error.after_s` says, if it
    does, and that is no more than a minute.
    """
    longest_s: float = min(_FIRST_WAIT_S * 2 ** (failures - 1), _LONGEST_WAIT_S)
    patience_s: float = min(getattr(error, "after_s", 0.0), _LONGEST_PATIENCE_S)
    return max(longest_s * random.uniform(0.5, 1), patience_s)  # noqa: S311 - not a secret
