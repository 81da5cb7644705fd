"""Batches of pixels, and how workers hand them over: in slots of memory, or by a pipe."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from imnetprep.loading.cache import PixelCache
from imnetprep.loading.decoders import Rows
from imnetprep.loading.order import Keys
from imnetprep.loading.samples import SampleList
from imnetprep.loading.slots import Slots, slots_of
from imnetprep.loading.transforms import Pixels, Transform
from imnetprep.messages import ImnetprepError, WrongBytes

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
        slots: Slots | None = None,
    ) -> None:
        self._samples, self._transform, self._slots = samples, transform, slots
        self._skips_bad, self._replaces_bad, self._cache = skips_bad, replaces_bad, cache

    def __getitems__(self, keys: Keys) -> Batch | BatchArrays | SlotBatch | Failure:
        pixels, slot, read, bad = _NO_PIXELS, None, list[int](), dict[int, str]()
        worker = get_worker_info()
        try:
            crops = self._transform.crops(keys.epoch, keys.numbers)
            for key, crop in zip(keys.numbers, crops, strict=True):
                index = key % len(self._samples)
                if (image := self._image(index, bad, crop.rows)) is not None:
                    cut = crop.cut(image)
                    if not read:
                        shape = (len(keys.numbers), *cut.shape)
                        if worker and self._slots:
                            slot = self._slots.take(worker.id, int(np.prod(shape)))
                        pixels = (
                            self._slots.array(slot, shape)
                            if self._slots and slot is not None
                            else np.empty(shape, np.uint8)
                        )
                    pixels[len(read)] = cut
                    read.append(index)
        except (ImnetprepError, OSError) as error:
            return error
        labels = self._samples.labels[read].astype(np.int64)
        arrays = BatchArrays(pixels[: len(read)], labels, bad)
        if self._slots and slot is not None:
            return SlotBatch(self._slots, slot, arrays)
        return arrays if worker else arrays.batch()

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
