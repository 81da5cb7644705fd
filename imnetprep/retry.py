"""Trying again what a network failed to do: a few times, with longer and longer waits."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.2, 10.0


def retried(act: Callable[[], T], *, on: tuple[type[Exception], ...], times: int = 7) -> T:
    """What `act` returns, tried up to `times` times while it raises one of `on`.

    The waits double and are random in their upper half, so that many readers do not return at
    once; seven times are some fifteen seconds. The last exception is raised.
    """
    wait_s = _FIRST_WAIT_S
    for _ in range(times - 1):
        try:
            return act()
        except on:
            time.sleep(wait_s * random.uniform(0.5, 1))  # noqa: S311 - not a secret
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
    return act()
