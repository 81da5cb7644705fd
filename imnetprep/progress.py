"""The protocol by which long work reports its progress: the library itself never prints."""

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
        self, title: str, *, total: int, unit: str, initial: int = 0
    ) -> AbstractContextManager[Task]:
        """Open a task of `total` units (`"B"` for bytes) of which `initial` are done already."""

    def note(self, line: str) -> None:
        """One line that stays, such as `no peers yet`."""


class _SilentTask:
    def advance(self, amount: int) -> None: ...

    def tell(self, detail: str) -> None: ...


class Silent:
    """Shows nothing."""

    @contextmanager
    def task(self, title: str, *, total: int, unit: str, initial: int = 0) -> Iterator[Task]:
        yield _SilentTask()

    def note(self, line: str) -> None: ...
