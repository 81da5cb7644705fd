"""How many jobs work side by side, for each kind of work, and what memory they take.

No other module decides it: `--jobs` says how many, or else the machine, up to where more of them
would only wait. Memory is that of each job, beside the 40 MB that a command takes.
"""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Jobs:
    """How many jobs do one kind of work: so many a core, and no more than `limit`."""

    per_core: int = 1
    limit: int = sys.maxsize

    def count(self, option: int | None = None) -> int:
        """The number that `--jobs` asks for, else as many as pay on this machine."""
        return option or min(self.per_core * usable_cores(), self.limit)

    def in_threads(
        self, work: Callable[[Item], Result], items: Iterable[Item], *, jobs: int | None
    ) -> Iterator[Result]:
        """What `work` makes of each item, in their order, by as many threads as `count` says.

        Few items are drawn ahead: a million are not held.
        """
        threads = self.count(jobs)
        workers, futures = ThreadPoolExecutor(threads), deque[Future[Result]]()
        try:
            for item in items:
                futures.append(workers.submit(work, item))
                if len(futures) > 2 * threads:
                    yield futures.popleft().result()
            while futures:
                yield futures.popleft().result()
        finally:
            workers.shutdown(cancel_futures=True)  # ^C does not wait for the rest


# Ranges of an archive here: more of them wait for the disk. Each holds a chunk of 2 MB (a piece
# of the torrent where that is longer, and the two at its ends) and a sample: some 5 MB. In order
# they write from at most 24 chunks of 2 MB, from afar of 4 MB.
LOCAL_RANGES = Jobs(limit=8)
# Ranges of an archive far away: most of them wait for the network. Some 5 MB each as well.
FAR_RANGES = Jobs(per_core=4, limit=16)
# Images decoded and made smaller: each holds one that is decoded, 4 bytes a pixel.
IMAGES = Jobs()
# Shards that are copied together, sample by sample: as LOCAL_RANGES.
SHARDS = Jobs(limit=8)
# Files that are hashed, decoded, linked or copied: each holds one, or 2 MB of an archive.
FILES = Jobs()
# Parts of objects that move: each of a push holds one of 16 or 32 MiB, at most 384 MiB together
# (sync/push); each of a pull 1 MiB. Of one object few: its server gives each connection its rate.
TRANSFERS, TRANSFERS_OF_ONE = Jobs(per_core=8, limit=8), Jobs(per_core=4, limit=4)
# Shards that are fetched ahead of a training, of 1 MiB each: one connection is slower than a GPU.
SHARDS_AHEAD = Jobs(per_core=2, limit=4)
# Processes that read batches: on a CPU few, since training itself wants the cores. Each holds the
# batches that it has made ahead, in the room of four.
BATCHES_FOR_CPU, BATCHES_FOR_GPU = Jobs(limit=2), Jobs(limit=16)


def usable_cores() -> int:
    """The cores this process may run on; macOS keeps no such list and says how many there are."""
    return len(core_numbers()) or os.cpu_count() or 1


def core_numbers() -> set[int]:
    """The numbers of the cores that this process may run on; none on macOS, which keeps no list."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


def available_memory() -> int:
    """The bytes that processes may still take here: of the machine, or of their container.

    Without swap; half of all memory where the system does not say.
    """
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    available = os.sysconf("SC_PHYS_PAGES") * page_bytes // 2
    with suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        available = 1024 * next(
            int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")
        )
    with suppress(OSError, ValueError):  # where a limit is "max"
        limit, current = (
            int(Path(f"/sys/fs/cgroup/memory.{name}").read_text()) for name in ("max", "current")
        )
        available = min(available, max(0, limit - current))
    return available


def share_cores() -> None:
    """Let threads of OpenMP that wait for each other leave their core soon: others work there.

    It is for libgomp, which torch brings on Linux, and before torch is loaded. 1,000 turns are what
    libgomp itself takes where it has more threads than cores, in place of 300,000; it does not
    know of processes that read images, nor of other programs.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
