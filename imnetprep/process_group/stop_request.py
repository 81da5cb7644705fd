"""SIGTERM, SIGHUP and ^C as a request to stop, honoured by the training once its state is saved."""

import os
import select
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from imnetprep.messages import INTERRUPTED_EXIT_CODE, TERMINATED_EXIT_CODE, Interruption, Progress

_EXIT_CODES = {
    signal.SIGINT: INTERRUPTED_EXIT_CODE,
    signal.SIGTERM: TERMINATED_EXIT_CODE,
    signal.SIGHUP: TERMINATED_EXIT_CODE,
}
_AT_ONCE = "at once; the last checkpoint stays"
_PATIENCE_S = 5
_OVER = 0  # no signal has this number


class StopNow(BaseException):
    """The training is to stop, and is where it can. Not an Exception: nothing may swallow it."""


class StopRequest:
    """Whether the user or the machine wants the training to stop."""

    def __init__(self) -> None:
        self._signal: signal.Signals | None = None
        self._may_stop = False

    @property
    def is_made(self) -> bool:
        """Has the user or the machine asked?"""
        return self._signal is not None

    @contextmanager
    def honoured(self) -> Iterator[None]:
        """Raise StopNow as soon as there is a request, from anywhere in the block, or before."""
        self._may_stop = True
        try:
            if self._signal is not None:
                raise StopNow
            yield
        finally:
            self._may_stop = False

    def stopped(self, message: str) -> Interruption:
        """What to raise once the state is saved; also where another process was asked."""
        return Interruption(_EXIT_CODES[self._signal or signal.SIGTERM], message)

    def on_signal(self, number: int, _frame: FrameType | None) -> None:
        """Note the request; a second ^C ends the training at once, with what was saved earlier."""
        if self._signal is None:
            self._signal = signal.Signals(number)
            if self._may_stop:
                raise StopNow
        elif number == signal.SIGINT:
            raise Interruption(INTERRUPTED_EXIT_CODE, _AT_ONCE)


@contextmanager
def stop_requests(progress: Progress) -> Iterator[StopRequest]:
    """Catch SIGTERM, ^C and, unless it is ignored as `nohup` has it, SIGHUP while the block runs.

    Python hands signals to the main thread only: in another one the request is never made.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    handlers = {
        number: signal.signal(number, request.on_signal)
        for number in _EXIT_CODES
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        with _acknowledged(progress):
            yield request
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def _acknowledged(progress: Progress) -> Iterator[None]:
    """Say at once that a signal has come: Python hands it over only after the call into torch."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    earlier = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    listener = threading.Thread(target=_listen, args=(reader, progress), daemon=True)
    listener.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(earlier)
        os.write(writer, bytes([_OVER]))
        listener.join()
        os.close(writer)
        os.close(reader)


def _listen(reader: int, progress: Progress) -> None:
    stops = 0
    while (number := os.read(reader, 1)[0]) != _OVER:
        if number in _EXIT_CODES:
            stops += 1
            if stops == 1:
                progress.note("stopping after this step, once it is saved; ^C again: at once")
            elif number == signal.SIGINT and not select.select([reader], [], [], _PATIENCE_S)[0]:
                os.write(2, f"Stopped: {_AT_ONCE}\n".encode())
                os._exit(INTERRUPTED_EXIT_CODE)
