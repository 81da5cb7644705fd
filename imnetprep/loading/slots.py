"""Memory in which workers hand batches over: made before they are forked, and used again.

It has no name in /dev/shm, of which a container may have 64 MB, and its pages are touched once, not
for each batch: in a new piece of shared memory an image of 224 px took 0.28 ms, most of it for
pages; here 0.02 ms.
"""

import itertools
import mmap
from weakref import WeakValueDictionary, finalize

import numpy as np
from numpy.typing import NDArray

# In the making, waiting, in use, and in use until the next one is taken.
_OF_A_WORKER = 4
_numbers = itertools.count()
_registry: "WeakValueDictionary[int, Slots]" = WeakValueDictionary()  # the same in forked workers


class Slots:
    """Room for the pixels of batches of up to `size_bytes`, of each of so many `workers`."""

    def __init__(self, workers: int, size_bytes: int) -> None:
        self.number, self._size_bytes = next(_numbers), size_bytes
        count = workers * _OF_A_WORKER
        self._pixels = np.frombuffer(mmap.mmap(-1, max(1, count * size_bytes)), np.uint8)
        self._states = np.frombuffer(mmap.mmap(-1, max(1, count)), np.uint8)  # 1: in use
        _registry[self.number] = self

    def take(self, worker: int, size_bytes: int) -> int | None:
        """A slot of `worker` for so many bytes, which no batch uses; None: there is none."""
        if size_bytes <= self._size_bytes:
            for slot in range(worker * _OF_A_WORKER, (worker + 1) * _OF_A_WORKER):
                if not self._states[slot]:
                    self._states[slot] = 1
                    return slot
        return None

    def array(self, slot: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """The memory of a slot as an array of that shape."""
        start = slot * self._size_bytes
        return self._pixels[start : start + int(np.prod(shape))].reshape(shape)

    def free_after(self, array: NDArray[np.uint8], slot: int) -> None:
        """Let the slot be taken again once nobody has `array`, or a tensor that was made of it."""
        finalize(array, self._states.__setitem__, slot, 0).atexit = False


def slots_of(number: int) -> Slots:
    """The slots of that number, in the process that made them or a worker of it."""
    return _registry[number]
