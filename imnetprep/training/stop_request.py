"""SIGTERM and ^C as a request to stop, honoured by the training once its state is saved."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from imnetprep.messages import INTERRUPTED_EXIT_CODE, TERMINATED_EXIT_CODE, Interruption

_EXIT_CODES = {signal.SIGINT: INTERRUPTED_EXIT_CODE, signal.SIGTERM: TERMINATED_EXIT_CODE}


class StopRequest:
    """Whether the user or the machine wants the training to stop."""

    def __init__(self) -> None:
        self._signal: signal.Signals | None = None

    def __bool__(self) -> bool:
        return self._signal is not None

    def stopped(self, message: str) -> Interruption:
        """What to raise once the state is saved."""
        assert self._signal is not None
        return Interruption(_EXIT_CODES[self._signal], message)

    def on_signal(self, number: int, _frame: FrameType | None) -> None:
        """Note the request; a second ^C ends the training at once, with what was saved earlier."""
        if self and number == signal.SIGINT:
            raise Interruption(INTERRUPTED_EXIT_CODE, "at once; the last checkpoint stays")
        self._signal = signal.Signals(number)


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Catch SIGTERM and ^C for as long as the block runs.

    Python hands signals to the main thread only: in another one the request is never made.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    handlers = {number: signal.signal(number, request.on_signal) for number in _EXIT_CODES}
    try:
        yield request
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
