"""The order of samples: a function of the seed and the epoch, cut into batches."""

import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Order = Callable[[int], Tensor]


def shuffled(
    samples: int,
    *,
    batch_size: int,
    seed: int,
    repeats: int = 1,
    weights: Tensor | None = None,
    window: "Window | None" = None,
) -> Order:
    """A new order in each epoch; whole batches only, if there is at least one.

    A last batch of a few images would bend BatchNorm's running statistics. `repeats`: a sample
    comes so many times in a row, and an epoch has a part of the samples (Hoffer et al. 2019).
    `weights` (N,): samples are drawn with replacement, the heavier the more often. The k-th time
    in an epoch sample i has the key i + k · N, so that its crop is another one. `window`: samples
    that lie in one shard come near each other.
    """
    whole = samples // batch_size * batch_size or samples

    def order(epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(mixed_seed(seed, epoch, "order"))
        if weights is not None:
            draws = torch.multinomial(weights, samples, replacement=True, generator=generator)
        else:
            draws = torch.randperm(samples, generator=generator)
        if window is not None:
            draws = window.sorted(draws, generator)
        if repeats == 1 and weights is None:
            return draws[:whole]
        return _keys(draws.repeat_interleave(repeats)[:whole], samples)

    return order


class Window(NamedTuple):
    """The shards that samples lie in (N,), and among how many of them samples are shuffled."""

    shards: Tensor
    width: int

    def sorted(self, draws: Tensor, generator: torch.Generator) -> Tensor:
        """Sample numbers (M,) in an order in which few shards are in use at once.

        The shards come in a random order, and each sample at a random place between the start of
        its shard and that of the one `width` shards on.
        """
        ranks = torch.randperm(int(self.shards.max()) + 1, generator=generator)
        delays = torch.rand(len(draws), generator=generator, dtype=torch.float64)
        places = ranks[self.shards[draws]] + self.width * delays
        return draws[places.argsort(stable=True)]


def _keys(draws: Tensor, samples: int) -> Tensor:
    """Sample numbers (M,) as keys: the k-th time from 0 that one comes, k · `samples` is added."""
    ranks = draws.argsort(stable=True)
    places = torch.arange(len(draws))
    is_first = draws[ranks].diff(prepend=torch.tensor([-1])) != 0
    starts = torch.where(is_first, places, 0).cummax(0).values
    times = torch.empty_like(draws)
    times[ranks] = places - starts
    return draws + times * samples


def one_batch(order: Order, *, batch_size: int) -> Order:
    """The first batch of the first epoch, in each epoch."""
    return lambda _epoch: order(0)[:batch_size]


def in_turn(samples: int, order: NDArray[np.intp] | None = None) -> Order:
    """Each sample once, in the manifest's order or another, whatever the epoch."""
    keys = torch.arange(samples) if order is None else torch.from_numpy(order)
    return lambda _epoch: keys


class Keys(NamedTuple):
    """What a worker is asked for: sample i as i, i + N, …, and the epoch whose crops it makes."""

    epoch: int
    numbers: list[int]


class KeyBatches:
    """The batches of keys of one epoch, from a step on: set before each pass.

    `share` says which part of a batch this process reads, where several read one together.
    `follow` is told the keys of an epoch; what it returns, the position of each batch in them.
    """

    def __init__(
        self,
        order: Order,
        batch_size: int,
        share: Callable[[Tensor], Tensor] | None = None,
        *,
        follow: Callable[[Tensor], Callable[[int], None]] | None = None,
    ) -> None:
        self._order, self._batch_size, self._share = order, batch_size, share
        self._follow = follow
        self.epoch = self.first_step = 0

    def __iter__(self) -> Iterator[Keys]:
        keys = self._order(self.epoch)
        reach = self._follow(keys) if self._follow else None
        for start in range(self.first_step * self._batch_size, len(keys), self._batch_size):
            if reach:
                reach(start)
            batch = keys[start : start + self._batch_size]
            yield Keys(self.epoch, (self._share(batch) if self._share else batch).tolist())


def mixed_seed(*parts: int | str) -> int:
    """A seed in 0 … 2**63 - 1 that is a function of `parts`, unlike that of any other parts."""
    return random.Random(" ".join(map(str, parts))).getrandbits(63)  # noqa: S311
