"""Shards fetched before they are needed, by threads, in the order of their first use."""

import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack, suppress

import numpy as np
from numpy.typing import NDArray

from imnetprep.jobs import SHARDS_AHEAD
from imnetprep.messages import ImnetprepError

_CLOSE_S = 1  # for a thread that waits for the network; it ends with the process

# Fetches a shard, unless somebody does; the shards in use are not to make room for it.
FetchAhead = Callable[[int, Callable[[], Iterable[int]]], None]


class ReadAhead:
    """Fetches what a loader will read, as long as that fits into `limit_bytes`.

    Keys that are no further back than `lag` may still be under way. `lock` is held until it is
    closed.
    """

    def __init__(
        self,
        fetch: FetchAhead,
        sizes_bytes: NDArray[np.int64],
        limit_bytes: int,
        *,
        lag: int,
        lock: AbstractContextManager[None],
    ) -> None:
        self._fetch, self._sizes_bytes, self._limit_bytes = fetch, sizes_bytes, limit_bytes
        self._lag, self._position, self._is_closed = lag, 0, False
        self._rest: list[tuple[int, int]] = []  # shards that nobody has fetched, the next one last
        self._in_use: list[tuple[int, int]] = []  # each with the last key that lies in it
        self._turn = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._locks = ExitStack()
        self._locks.enter_context(lock)

    def follow(self, shards: NDArray[np.uint32]) -> Callable[[int], None]:
        """Begin an epoch whose keys lie in these `shards` (M,).

        The function that is returned hears the position of each batch before that is read.
        """
        numbers, firsts = np.unique(shards, return_index=True)
        lasts = len(shards) - 1 - np.unique(shards[::-1], return_index=True)[1]
        order = np.argsort(-firsts)
        with self._turn:
            self._rest = list(zip(numbers[order].tolist(), lasts[order].tolist(), strict=True))
            self._in_use, self._position = [], -1
        return self._reach

    def _reach(self, position: int) -> None:
        """Go on: the batch at `position` is read now."""
        with self._turn:
            if self._position < 0:  # an epoch may be resumed in its middle
                self._rest = [each for each in self._rest if each[1] >= position]
            self._position = position
            oldest = position - self._lag
            self._in_use = [each for each in self._in_use if each[1] >= oldest]
            self._turn.notify_all()
        while len(self._threads) < SHARDS_AHEAD.count():
            thread = threading.Thread(target=self._work, daemon=True)
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        """Fetch no more, and let the cache go."""
        with self._turn:
            self._is_closed = True
            self._turn.notify_all()
        for thread in self._threads:
            thread.join(_CLOSE_S)
        self._locks.close()

    def _work(self) -> None:
        while (number := self._next()) is not None:
            # Whoever needs the shard meets the failure again, and tells it.
            with suppress(ImnetprepError, OSError):
                self._fetch(number, self._shards_in_use)

    def _shards_in_use(self) -> list[int]:
        with self._turn:
            return [shard for shard, _ in self._in_use]

    def _next(self) -> int | None:
        """The shard to fetch next, as soon as there is room for one; None: it is over."""
        with self._turn:
            self._turn.wait_for(lambda: self._is_closed or self._has_room())
            if self._is_closed:
                return None
            self._in_use.append(self._rest.pop())
            return self._in_use[-1][0]

    def _has_room(self) -> bool:
        if not self._rest or self._position < 0:
            return False
        numbers = [number for number, _ in (*self._in_use, self._rest[-1])]
        return int(self._sizes_bytes[numbers].sum()) <= self._limit_bytes
