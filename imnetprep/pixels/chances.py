"""Random numbers by their place: those of a crop are a function of (seed, epoch, sample).

The generator is SplitMix64 (Steele, Lea, Flood 2014), whose n-th number is known without those
before it: for a batch at once 3 µs a crop, where a generator that is seeded for each takes 9.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_STEP = 0x9E3779B97F4A7C15
_SHIFTS_AND_FACTORS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_DOUBLE_BITS = 53  # of 64, which a float64 holds
_MASK = 2**64 - 1


def chances(seed: int, epoch: int, keys: Sequence[int], number: int) -> NDArray[np.float64]:
    """`number` random numbers from 0 to below 1 for each key: (K, `number`)."""
    states = _mixed(np.array([seed & _MASK], np.uint64))
    for part in (np.uint64(epoch), np.array(keys, np.uint64)):
        states = _mixed(states + np.uint64(_STEP) + part)
    places = np.arange(1, number + 1, dtype=np.uint64) * np.uint64(_STEP)
    draws = _mixed(states[:, None] + places) >> np.uint64(64 - _DOUBLE_BITS)
    values: NDArray[np.float64] = draws / 2**_DOUBLE_BITS
    return values


def _mixed(states: NDArray[np.uint64]) -> NDArray[np.uint64]:
    for shift, factor in _SHIFTS_AND_FACTORS:
        states = (states ^ (states >> np.uint64(shift))) * np.uint64(factor)
    return states ^ (states >> np.uint64(31))
