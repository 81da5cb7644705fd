"""Batches of pixels, and how workers hand them over: in shared memory, or by a pipe."""

import os
from collections.abc import Iterator, Mapping
from functools import partial
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from imnetprep.loading.cache import PixelCache
from imnetprep.loading.decoders import Rows
from imnetprep.loading.order import Keys
from imnetprep.loading.samples import SampleList
from imnetprep.loading.transforms import Pixels, Transform
from imnetprep.messages import ImnetprepError, WrongBytes

_NO_PIXELS = np.empty((0, 1, 1, 3), np.uint8)  # of a batch that others share among them
_SHM = Path("/dev/shm")  # where torch puts what processes share, on Linux  # noqa: S108


class Batch(NamedTuple):
    """Pixels (B, S, S, 3) of uint8 and labels (B,) of int64.

    `bad`: why samples of these numbers cannot be read, where they are skipped.
    """

    pixels: Tensor
    labels: Tensor
    bad: Mapping[int, str] = {}

    def parts(self, number: int) -> "list[Batch]":
        """The batch in `number` parts, or in fewer where it has fewer images."""
        pairs = zip(self.pixels.chunk(number), self.labels.chunk(number), strict=True)
        return [Batch(*pair) for pair in pairs]


class BatchArrays(NamedTuple):
    """A batch as arrays, which are sent through a pipe: shared memory has no room for it."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    bad: Mapping[int, str]

    def batch(self) -> Batch:
        return Batch(torch.from_numpy(self.pixels), torch.from_numpy(self.labels), self.bad)


class BatchDataset(Dataset[Batch | BatchArrays | ImnetprepError | OSError]):
    """Batches by their keys, or the first error: one that is raised in a worker would lose its
    type.

    A sample that cannot be read is an error, unless `skips_bad`: then it is left out, or with
    `replaces_bad` the next one of its class takes its place, so that all labels stay as they are.
    """

    def __init__(
        self,
        samples: SampleList,
        transform: Transform,
        *,
        skips_bad: bool,
        replaces_bad: bool,
        cache: PixelCache | None = None,
    ) -> None:
        self._samples, self._transform = samples, transform
        self._skips_bad, self._replaces_bad, self._cache = skips_bad, replaces_bad, cache
        self._shares, self._has_shared = True, False

    def __getitems__(self, keys: Keys) -> Batch | BatchArrays | ImnetprepError | OSError:
        pixels: list[Pixels] = []
        labels: list[int] = []
        bad: dict[int, str] = {}
        try:
            for key in keys.numbers:
                index = key % len(self._samples)
                rows = partial(self._transform.rows, epoch=keys.epoch, index=key)
                if (image := self._image(index, bad, rows)) is not None:
                    pixels.append(self._transform(image, epoch=keys.epoch, index=key))
                    labels.append(self._samples.labels[index])
        except (ImnetprepError, OSError) as error:
            return error
        arrays = BatchArrays(
            np.stack(pixels) if pixels else _NO_PIXELS, np.array(labels, np.int64), bad
        )
        return arrays.batch() if get_worker_info() is None else self._in_shared_memory(arrays)

    def _image(self, index: int, bad: dict[int, str], rows: Rows) -> Pixels | None:
        """The image in the place of sample `index`, None: it is left out; `bad` gets the reasons.

        Raises OSError, and WrongBytes where that is an error.
        """
        for number in self._candidates(index):
            if self._cache and (pixels := self._cache.get(number)) is not None:
                return pixels
            try:
                if not self._cache:
                    return self._samples.pixels(number, rows)
                self._cache.add(number, pixels := self._samples.pixels(number))
                return pixels
            except WrongBytes as error:
                if not self._skips_bad:
                    error.hint += "; --on-bad-image skip goes on without them"
                    raise
                bad[number] = str(error)
        if not self._replaces_bad:
            return None
        wnid = self._samples.wnids[self._samples.labels[index]]
        raise WrongBytes(
            f"no image of class {wnid} can be read, such as {bad[index]}",
            hint="imnetprep verify --decode names every such image",
        )

    def _candidates(self, index: int) -> Iterator[int]:
        """The sample, and where it may be replaced all others of its class, from it on."""
        yield index
        if self._replaces_bad:
            labels = self._samples.labels
            start, end = np.searchsorted(labels, [labels[index], labels[index] + 1]).tolist()
            yield from (*range(index + 1, end), *range(start, index))

    def _in_shared_memory(self, arrays: BatchArrays) -> Batch | BatchArrays:
        """A worker's batch in shared memory, of which a container may have 64 MB: two batches."""
        if self._shares and _has_room(arrays):
            batch = arrays.batch()
            try:
                if not self._has_shared:
                    DupFd(0)  # by its like the parent gets what is shared; raises where it cannot
                    self._has_shared = True
                for tensor in (batch.pixels, batch.labels):
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
