"""A folder of images by class divided into train and val: a dataset made of it.

Where an image goes depends on its own name and the seed alone, so that images that are added later
move no other. Only a class that would be without one split lends it the image nearest to it.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from imnetprep.catalog.datasets import Dataset, Split
from imnetprep.catalog.listing import listed_dataset


class Division(NamedTuple):
    """The dataset, and the file names of each class of each split."""

    dataset: Dataset
    names: Mapping[Split, Mapping[str, Sequence[str]]]


def divided(
    name: str, classes: Mapping[str, Collection[str]], *, val_fraction: float, seed: int
) -> Division:
    """`classes` has the file names of each wnid. About `val_fraction` of every class is for val."""
    names: dict[Split, dict[str, list[str]]] = {Split.TRAIN: {}, Split.VAL: {}}
    for wnid, files in sorted(classes.items()):
        for split, of_split in divided_class(
            wnid, files, val_fraction=val_fraction, seed=seed
        ).items():
            names[split][wnid] = sorted(of_split)
    title = f"{name}: {val_fraction:g} of each class for val, seed {seed}"
    return Division(listed_dataset(name, title, names), names)


def divided_class(
    wnid: str, files: Collection[str], *, val_fraction: float, seed: int
) -> dict[Split, list[str]]:
    """The file names of one class by split.

    An image is for val if its number, which is as good as random, is below the fraction.

    A class of a single image has it in train.
    """
    numbers = sorted((_number(f"{wnid}/{file}", seed), file) for file in files)
    in_val = sum(number < val_fraction for number, _ in numbers)
    in_val = min(max(in_val, 1), len(files) - 1)  # of a single one: none
    order = [file for _, file in numbers]
    return {Split.TRAIN: order[in_val:], Split.VAL: order[:in_val]}


def _number(text: str, seed: int) -> float:
    digest = hashlib.blake2b(text.encode(), digest_size=8, key=str(seed).encode())
    return int.from_bytes(digest.digest()) / 2**64
