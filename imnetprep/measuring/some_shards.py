"""A few of the shards that lie elsewhere: what is measured of a place, and how fast they come."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from imnetprep.jobs import SHARDS_AHEAD
from imnetprep.messages import Progress
from imnetprep.outside_text import public_address
from imnetprep.samples.sample_list import Fetch, SampleList, Supply
from imnetprep.training.data import Data


class SomeShards(NamedTuple):
    """The images of a few shards, and images/s in which train shards came; None: none did."""

    data: Data
    images_per_s: float | None


def fetch_some_shards(data: Data, *, seed: int, progress: Progress) -> SomeShards:
    """Fetch a few shards of `data`, whose shards lie elsewhere, others with another `seed`.

    Raises SourceFailed.
    """
    train, val = data.train, data.val
    assert train.supply
    place = public_address(train.supply.place)
    progress.note(f"measured on some shards of {place}, which are fetched first if need be")
    fetch = _fetch(train.supply, seed)
    is_held_out = val.supply is train.supply
    val_fetch = fetch if is_held_out or not val.supply else val.supply.fetch_some(1, seed=seed)
    part = replace(data, train=_chosen(train, fetch), val=_chosen(val, val_fetch))
    images = fetch.share * len(train)
    return SomeShards(part, images / fetch.seconds if images else None)


def _fetch(supply: Supply, seed: int) -> Fetch:
    """Fetch as many as a training does at once; a small cache keeps room for a val shard."""
    at_once = SHARDS_AHEAD.count()
    return supply.fetch_some(min(at_once, supply.window or at_once), seed=seed)


def _chosen(samples: SampleList, fetch: Fetch) -> SampleList:
    """The samples in shards that were fetched."""
    assert samples.places
    return samples.chosen(np.isin(samples.places.shards, fetch.shards))
