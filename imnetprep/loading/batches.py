"""Batches of pixels, and how workers hand them over: in shared memory, or by a pipe."""

import os
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from imnetprep.loading.order import Keys
from imnetprep.loading.samples import SampleList
from imnetprep.loading.transforms import Transform
from imnetprep.messages import WrongBytes

_NO_PIXELS = np.empty((0, 1, 1, 3), np.uint8)  # of a batch that others share among them
_SHM = Path("/dev/shm")  # where torch puts what processes share, on Linux  # noqa: S108


class Batch(NamedTuple):
    """Pixels (B, S, S, 3) of uint8 and labels (B,) of int64."""

    pixels: Tensor
    labels: Tensor

    def parts(self, number: int) -> "list[Batch]":
        """The batch in `number` parts, or in fewer where it has fewer images."""
        pairs = zip(self.pixels.chunk(number), self.labels.chunk(number), strict=True)
        return [Batch(*pair) for pair in pairs]


class BatchArrays(NamedTuple):
    """A batch as arrays, which are sent through a pipe: shared memory has no room for it."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def batch(self) -> Batch:
        return Batch(torch.from_numpy(self.pixels), torch.from_numpy(self.labels))


class BatchDataset(Dataset[Batch | BatchArrays | WrongBytes | OSError]):
    """Batches by their keys, or the first image that cannot be read: one that is raised in a worker
    would lose its type.
    """

    def __init__(self, samples: SampleList, transform: Transform) -> None:
        self._samples, self._transform = samples, transform
        self._shares, self._has_shared = True, False

    def __getitems__(self, keys: Keys) -> Batch | BatchArrays | WrongBytes | OSError:
        indices = [key % len(self._samples) for key in keys.numbers]
        try:
            pixels = [
                self._transform(self._samples.decode(index), epoch=keys.epoch, index=key)
                for index, key in zip(indices, keys.numbers, strict=True)
            ]
        except (WrongBytes, OSError) as error:
            return error
        labels = self._samples.labels[indices].astype(np.int64)
        arrays = BatchArrays(np.stack(pixels) if pixels else _NO_PIXELS, labels)
        return arrays.batch() if get_worker_info() is None else self._in_shared_memory(arrays)

    def _in_shared_memory(self, arrays: BatchArrays) -> Batch | BatchArrays:
        """A worker's batch in shared memory, of which a container may have 64 MB: two batches."""
        if self._shares and _has_room(arrays):
            batch = arrays.batch()
            try:
                if not self._has_shared:
                    DupFd(0)  # by its like the parent gets what is shared; raises where it cannot
                    self._has_shared = True
                for tensor in batch:
                    tensor.share_memory_()  # type: ignore[no-untyped-call]
                return batch
            except (OSError, RuntimeError):
                self._shares = False  # each try leaves an empty file
                for path in _SHM.glob(f"torch_{os.getpid()}_*"):
                    path.unlink(missing_ok=True)
        return arrays


def _has_room(arrays: BatchArrays) -> bool:
    try:
        status = os.statvfs(_SHM)
    except OSError:
        return True  # as on macOS, which says it when it is tried
    size_bytes = arrays.pixels.nbytes + arrays.labels.nbytes
    return status.f_bavail * status.f_frsize >= size_bytes + 2 * status.f_frsize
