"""A Progress that sends this process a signal at a chosen moment of a training."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from imnetprep.messages import Silent, Task


class SignalAt(Silent):
    """Sends `number` once `batches` batches of tasks whose name begins with `what` are done."""

    def __init__(self, number: int, *, batches: int, what: str = "epoch") -> None:
        self._number, self.left, self._what = number, batches, what

    @contextmanager
    def task(self, title: str, *, total: int, unit: str, initial: int = 0) -> Iterator[Task]:
        yield _Counted(self if title.startswith(self._what) else None)

    def batch_is_done(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self._number)


class _Counted:
    def __init__(self, owner: SignalAt | None) -> None:
        self._owner = owner

    def advance(self, amount: int) -> None:
        if self._owner:
            self._owner.batch_is_done()

    def tell(self, detail: str) -> None: ...
