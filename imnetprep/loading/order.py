"""The order of samples: a function of the seed and the epoch, cut into batches."""

import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

Order = Callable[[int], Tensor]


def shuffled(
    samples: int, *, batch_size: int, seed: int, repeats: int = 1, weights: Tensor | None = None
) -> Order:
    """A new order in each epoch; whole batches only, if there is at least one.

    A last batch of a few images would bend BatchNorm's running statistics. `repeats`: a sample
    comes so many times in a row, and an epoch has a part of the samples (Hoffer et al. 2019).
    `weights` (N,): samples are drawn with replacement, the heavier the more often. The k-th time
    in an epoch sample i has the key i + k · N, so that its crop is another one.
    """
    whole = samples // batch_size * batch_size or samples

    def order(epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(mixed_seed(seed, epoch, "order"))
        if weights is not None:
            draws = torch.multinomial(weights, samples, replacement=True, generator=generator)
        else:
            draws = torch.randperm(samples, generator=generator)
        if repeats == 1 and weights is None:
            return draws[:whole]
        return _keys(draws.repeat_interleave(repeats)[:whole], samples)

    return order


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


def in_turn(samples: int) -> Order:
    """Each sample once, in the manifest's order, whatever the epoch."""
    return lambda _epoch: torch.arange(samples)


class Keys(NamedTuple):
    """What a worker is asked for: sample i as i, i + N, …, and the epoch whose crops it makes."""

    epoch: int
    numbers: list[int]


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
