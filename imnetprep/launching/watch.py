"""What a machine looks for while its commands run: what ends them early, and who holds the run."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path

from imnetprep.launching.folder import LaunchFolder, Lease
from imnetprep.launching.metadata import MetadataService, Notice
from imnetprep.launching.orders import SAVED_BEFORE_S, Orders
from imnetprep.messages import SourceFailed

Child = subprocess.Popen[bytes]
_LOOK_S = 5.0  # as AWS recommends for a notice
_LOOKS_A_PUSH = 4
_RENEWALS_A_LEASE = 3
_PATIENCE_S = 75.0  # of a notice's 120, for a command to save; the rest is for the push
_LOG_BYTES = 4 << 20


def note(line: str) -> None:
    """Say something in the log of the machine."""
    sys.stderr.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {line}\n")
    sys.stderr.flush()


class Cause(StrEnum):
    """Why the work ends early."""

    NOTICE = "EC2 takes the machine back"
    STOP = "stopped on request"
    DEADLINE = "its time is over, as --max-hours or --max-cost set it"
    SIGNAL = "a signal came"
    LEASE = "another machine has taken the run over"


class Watch:
    """What is seen from a machine. `cause`: the first that ends its work early.

    `is_at_risk`: EC2 may take the machine back before long; whoever pushes for that clears it.
    """

    def __init__(
        self, folder: LaunchFolder, orders: Orders, metadata: MetadataService, logs: Sequence[Path]
    ) -> None:
        self._folder, self._orders, self._metadata, self._logs = folder, orders, metadata, logs
        self._owner = metadata.instance_id()
        self._lease: Lease | None = None
        self._log_at_s = self._lease_at_s = 0.0
        self._was_at_risk = self.is_at_risk = False
        self.look_s = min(_LOOK_S, orders.push_s / _LOOKS_A_PUSH)
        self.cause: Cause | None = None
        self.notice: Notice | None = None

    def interrupt(self, cause: Cause) -> None:
        """Note a cause, unless there is one."""
        self.cause = self.cause or cause

    def look(self) -> None:
        """Look once at everything; a server that does not answer is asked again the next time."""
        looks = (
            self._keep_lease,
            self._look_for_notice,
            self._look_for_stop,
            self._push_log_in_time,
        )
        for look in looks:
            try:
                look()
            except SourceFailed as error:
                note(f"{error}: asked again in {self.look_s:g} s")
        if time.time() > self._orders.deadline - SAVED_BEFORE_S:
            self.interrupt(Cause.DEADLINE)

    def attend(
        self, child: Child, *, between: Callable[[], None] = lambda: None, may_stop: bool = True
    ) -> int:
        """The exit code of a command, looked around from while it runs.

        What ends the work early ends the command too: by SIGTERM, so that it saves, if it
        `may_stop`; at once where another machine has the run.
        """
        stop_s: float | None = None
        try:
            while True:
                try:
                    code = child.wait(self.look_s)
                    return code if code >= 0 else 128 - code
                except subprocess.TimeoutExpired:
                    pass
                self.look()
                between()
                if self.cause is Cause.LEASE:
                    child.kill()
                elif self.cause is not None and may_stop:
                    if stop_s is None:
                        stop_s = time.monotonic()
                        child.send_signal(signal.SIGTERM)
                    elif time.monotonic() - stop_s > _PATIENCE_S:
                        child.kill()
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()

    def take_lease(self) -> bool:
        """Take the run, once no other machine holds it; False: something ends the work before."""
        while self._lease is None and self.cause is None:
            self._lease = self._folder.take_lease(
                self._owner, lease_s=self._orders.lease_s, moment=time.time()
            )
            self._lease_at_s = time.monotonic()
            if self._lease is None:
                self.look()
                time.sleep(self.look_s)
        return self._lease is not None

    def give_up_lease(self) -> None:
        """Let the next machine take the run, if this one has it."""
        if self._lease is not None and self.cause is not Cause.LEASE:
            self._folder.give_up_lease(self._lease)
        self._lease = None

    def push_log(self) -> None:
        """The end of the logs, one behind the other, for whoever cannot look at the machine."""
        texts = [each.read_bytes() for each in self._logs if each.exists()]
        self._folder.write("log.txt", b"".join(texts)[-_LOG_BYTES:])

    def _push_log_in_time(self) -> None:
        if time.monotonic() - self._log_at_s > self._orders.push_s and self._lease is not None:
            self._log_at_s = time.monotonic()
            self.push_log()

    def _keep_lease(self) -> None:
        lease, lease_s = self._lease, self._orders.lease_s
        if lease is None or time.monotonic() - self._lease_at_s < lease_s / _RENEWALS_A_LEASE:
            return
        try:
            self._lease = self._folder.renew_lease(lease, lease_s=lease_s, moment=time.time())
            self._lease_at_s = time.monotonic()
        except SourceFailed:
            if time.time() < lease.end:
                raise
            self._lease = None  # by now another one may have it
        if self._lease is None:
            self.interrupt(Cause.LEASE)

    def _look_for_notice(self) -> None:
        if self.notice is None:
            self.notice = self._metadata.notice()
            if self.notice is not None:
                self.interrupt(Cause.NOTICE)
            elif not self._was_at_risk and self._metadata.is_at_risk():
                self._was_at_risk = self.is_at_risk = True

    def _look_for_stop(self) -> None:
        if self.cause is None and self._folder.is_stop_requested():
            self.interrupt(Cause.STOP)
