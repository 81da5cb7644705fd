"""Batches of pixels, and how workers hand them over: in slots of memory, or by a pipe."""

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from imnetprep.loading.order import Keys
from imnetprep.loading.ram_cache import RamCache
from imnetprep.loading.slots import Slots, slots_of
from imnetprep.messages import ImnetprepError
from imnetprep.pixels.transforms import Crop, Pixels, Transform
from imnetprep.samples.substitution import Substitution

_NO_PIXELS = np.empty((0, 1, 1, 3), np.uint8)  # of a batch that others share among them
Failure = ImnetprepError | OSError


Reasons = Mapping[int, str]


class Batch(NamedTuple):
    """Pixels (B, S, S, 3) of uint8 and labels (B,) of int64.

    `bad`: why samples of these numbers cannot be read, where they are skipped.
    """

    pixels: Tensor
    labels: Tensor
    bad: Reasons = MappingProxyType({})

    def parts(self, number: int) -> "list[Batch]":
        """The batch in `number` parts, or in fewer where it has fewer images."""
        pairs = zip(self.pixels.chunk(number), self.labels.chunk(number), strict=True)
        return [Batch(*pair) for pair in pairs]


class BatchArrays(NamedTuple):
    """A batch as arrays, which are sent through a pipe where no slot is free."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    bad: Reasons

    def batch(self) -> Batch:
        return Batch(torch.from_numpy(self.pixels), torch.from_numpy(self.labels), self.bad)


class SlotBatch:
    """A worker's batch in a slot, which becomes a `Batch` where it is received."""

    def __init__(self, slots: Slots, slot: int, batch: BatchArrays) -> None:
        self._place, self._batch = (slots.number, slot, batch.pixels.shape), batch

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (*self._place, self._batch.labels, self._batch.bad)


def _received(
    number: int, slot: int, shape: tuple[int, ...], labels: NDArray[np.int64], bad: Reasons
) -> Batch:
    slots = slots_of(number)
    pixels = slots.array(slot, shape)
    slots.free_after(pixels, slot)
    return BatchArrays(pixels, labels, bad).batch()


class BatchDataset(Dataset[Batch | BatchArrays | SlotBatch | Failure]):
    """Batches by their keys, or the first error: one that is raised in a worker would lose its
    type.
    """

    def __init__(
        self,
        substitution: Substitution,
        transform: Transform,
        *,
        cache: RamCache | None = None,
        slots: Slots | None = None,
    ) -> None:
        self._substitution, self._samples = substitution, substitution.samples
        self._transform, self._cache, self._slots = transform, cache, slots

    def __getitems__(self, keys: Keys) -> Batch | BatchArrays | SlotBatch | Failure:
        pixels, slot, indices, bad = _NO_PIXELS, None, list[int](), dict[int, str]()
        worker = get_worker_info()
        try:
            crops = self._transform.crops(keys.epoch, keys.numbers)
            for key, crop in zip(keys.numbers, crops, strict=True):
                index = key % len(self._samples)
                part = self._substitution.item(index, bad, partial(self._pixels, crop))
                if part is None:
                    continue
                if not indices:
                    shape = (len(keys.numbers), *part.shape)
                    if worker and self._slots:
                        slot = self._slots.take(worker.id, int(np.prod(shape)))
                    pixels = (
                        self._slots.array(slot, shape)
                        if self._slots and slot is not None
                        else np.empty(shape, np.uint8)
                    )
                pixels[len(indices)] = part
                indices.append(index)
        except (ImnetprepError, OSError) as error:
            return error
        labels = self._samples.labels[indices].astype(np.int64)
        arrays = BatchArrays(pixels[: len(indices)], labels, bad)
        if self._slots and slot is not None:
            return SlotBatch(self._slots, slot, arrays)
        return arrays if worker else arrays.batch()

    def _pixels(self, crop: Crop, number: int) -> Pixels:
        """The crop of sample `number`; where it is fixed the cache has it, else the whole image."""
        if not self._cache:
            return crop.cut(self._samples.pixels(number, crop.rows))
        is_fixed, pixels = self._transform.is_fixed, self._cache.get(number)
        if pixels is None:
            image = self._samples.pixels(number)
            pixels = crop.cut(image) if is_fixed else image
            self._cache.add(number, pixels)
        return pixels if is_fixed else crop.cut(pixels)
