"""How long work tells where it is. The library never prints: it is handed one of these."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Task(Protocol):
    """One piece of work under way."""

    def advance(self, amount: int) -> None:
        """`amount` more of the task's unit is done."""

    def tell(self, detail: str) -> None:
        """A few words beside the bar, such as `3 peers`."""


class Progress(Protocol):
    """Where tasks and remarks are shown."""

    def task(
        self, what: str, *, total: int, unit: str, done: int = 0
    ) -> AbstractContextManager[Task]:
        """Open a task of `total` units (`"B"` for bytes) of which `done` were done before."""

    def note(self, line: str) -> None:
        """One line that stays, such as `no peers yet`."""


class _SilentTask:
    def advance(self, amount: int) -> None: ...

    def tell(self, detail: str) -> None: ...


class Silent:
    """Shows nothing."""

    @contextmanager
    def task(self, what: str, *, total: int, unit: str, done: int = 0) -> Iterator[Task]:
        yield _SilentTask()

    def note(self, line: str) -> None: ...
