"""Validation images held out of a train split, where a root has no others."""

import numpy as np
from numpy.typing import NDArray

from imnetprep.catalog.datasets import Split
from imnetprep.catalog.divisions import divided_class
from imnetprep.samples.sample_list import SampleList

_SEED = 0  # whatever that of the training is: runs are compared on one set of images


def held_out(samples: SampleList, fraction: float) -> NDArray[np.bool_]:
    """Which samples (N,) validate: the images that `imnetprep divide --val-fraction` would take.

    None for a fraction of 0; else at least one of each class that has two or more.
    """
    mask = np.zeros(len(samples), np.bool_)
    if not fraction:
        return mask
    ends = np.cumsum(np.bincount(samples.labels, minlength=len(samples.wnids)))
    for wnid, end, start in zip(samples.wnids, ends, [0, *ends[:-1]], strict=True):
        index = {samples.name(each): each for each in range(start, end)}
        names = divided_class(wnid, index, val_fraction=fraction, seed=_SEED)[Split.VAL]
        mask[[index[name] for name in names]] = True
    return mask
