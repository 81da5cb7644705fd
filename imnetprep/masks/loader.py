"""Batches of images and masks, read by threads while the network computes."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from imnetprep.jobs import FILES
from imnetprep.loading.batches import Batch
from imnetprep.loading.order import KeyBatches, Keys, Order
from imnetprep.masks.pairs import PairList
from imnetprep.masks.pixels import PixelPair, read_pair, shrunk, stacked
from imnetprep.pixels.chances import chances


class PairLoader:
    """Reads the pairs of a split in batches, as `loading.loader.Loader` reads samples.

    Images are no larger than `longest_px`; half of them are mirrored where `mirror_seed` is given.
    `share`: the part of each batch that this process reads, with so many `threads`.
    """

    def __init__(
        self,
        pairs: PairList,
        *,
        order: Order,
        batch_size: int,
        longest_px: int,
        interpolation: str,
        multiple_px: int,
        mirror_seed: int | None = None,
        share: Callable[[Tensor], Tensor] | None = None,
        threads: int = 1,
    ) -> None:
        self.pairs, self.batch_size = pairs, batch_size
        self.steps = -(-len(order(0)) // batch_size)
        self.images = len(order(0))
        self._keys = KeyBatches(order, batch_size, share)
        self._size, self._multiple_px = (longest_px, interpolation), multiple_px
        self._mirror_seed, self._threads = mirror_seed, threads

    def images_of(self, step: int) -> int:
        """How many images the whole batch of `step` has."""
        return min(self.batch_size, self.images - step * self.batch_size)

    def batches(self, epoch: int, *, first_step: int = 0) -> Iterator[Batch]:
        """The batches of `epoch` from `first_step` on. The iterator raises WrongBytes."""
        self._keys.epoch, self._keys.first_step = epoch, first_step
        return FILES.in_threads(self._batch, self._keys, jobs=self._threads)

    def close(self) -> None:
        """Nothing is left to close: threads end with their batches."""

    def _batch(self, keys: Keys) -> Batch:
        pairs = [
            shrunk(read_pair(self.pairs.images[at], self.pairs.masks[at]), *self._size)
            for at in keys.numbers
        ]
        if self._mirror_seed is not None:
            draws = chances(self._mirror_seed, keys.epoch, keys.numbers, 1)[:, 0]
            pairs = [_mirrored(pair) if draw < 0.5 else pair
                     for pair, draw in zip(pairs, draws, strict=True)]  # fmt: skip
        pixels, masks = stacked(pairs, multiple_px=self._multiple_px)
        return Batch(torch.from_numpy(pixels), torch.from_numpy(masks))


def _mirrored(pair: PixelPair) -> PixelPair:
    return PixelPair(*(np.ascontiguousarray(each[:, ::-1]) for each in pair))
