"""The order of samples: a function of the seed and the epoch, cut into batches."""

import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

Order = Callable[[int], Tensor]


def shuffled(samples: int, *, batch_size: int, seed: int) -> Order:
    """A new order in each epoch; whole batches only, if there is at least one.

    A last batch of a few images would bend BatchNorm's running statistics.
    """
    whole = samples // batch_size * batch_size or samples

    def order(epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(mixed_seed(seed, epoch, "order"))
        return torch.randperm(samples, generator=generator)[:whole]

    return order


def in_turn(samples: int) -> Order:
    """Each sample once, in the manifest's order, whatever the epoch."""
    return lambda _epoch: torch.arange(samples)


class Keys(NamedTuple):
    """The samples that a worker is asked for, and the epoch whose crops it makes."""

    epoch: int
    indices: list[int]


class KeyBatches:
    """The batches of keys of one epoch, from a step on: set before each pass.

    `share` says which part of a batch this process reads, where several read one together.
    """

    def __init__(
        self, order: Order, batch_size: int, share: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        self._order, self._batch_size, self._share = order, batch_size, share
        self.epoch = self.first_step = 0

    def __iter__(self) -> Iterator[Keys]:
        for batch in torch.split(self._order(self.epoch), self._batch_size)[self.first_step :]:
            yield Keys(self.epoch, (self._share(batch) if self._share else batch).tolist())


def mixed_seed(*parts: int | str) -> int:
    """A seed in 0 … 2**63 - 1 that is a function of `parts`, unlike that of any other parts."""
    return random.Random(" ".join(map(str, parts))).getrandbits(63)  # noqa: S311
