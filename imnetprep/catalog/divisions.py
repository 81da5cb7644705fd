"""A folder of images by class divided into train and val: a dataset made of it.

Where an image goes depends on its own name and the seed alone, so that images that are added later
move no other. Only a class that would be without one split lends it the image nearest to it.
"""

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from imnetprep.catalog.datasets import DEFINITION, Dataset, Split, parse_dataset
from imnetprep.catalog.subsets import format_toml
from imnetprep.messages import ImnetprepError

_SYNSETS = "synsets.tsv"


class Division(NamedTuple):
    """The dataset, and of each split and class the names: those in the folder, and its own."""

    dataset: Dataset
    names: Mapping[Split, Mapping[str, Sequence[tuple[str, str]]]]


def divided(
    name: str, classes: Mapping[str, Collection[str]], *, val_fraction: float, seed: int
) -> Division:
    """`classes` has the file names of each wnid. About `val_fraction` of every class is for val.

    Raises ImnetprepError on a class that cannot have an image in both splits, and where two
    images would have one name.
    """
    names: dict[Split, dict[str, list[tuple[str, str]]]] = {Split.TRAIN: {}, Split.VAL: {}}
    for wnid, files in sorted(classes.items()):
        for split, of_split in _divided_class(wnid, files, val_fraction, seed).items():
            own = [(_own_name(wnid, file), file) for file in of_split]
            names[split][wnid] = [(file, own_names) for own_names, file in sorted(own)]
    _refuse_doubles(names)
    bodies = {_SYNSETS: "".join(f"{line}\n" for line in ("wnid", *sorted(classes)))}
    splits: dict[str, Any] = {}
    for split, by_class in names.items():
        own_names = [own for of_class in by_class.values() for _, own in of_class]
        lists = {"files": f"{split}_files.txt", "names": f"{split}_names.txt"}
        splits[split] = {"samples": len(own_names), **lists}
        bodies[lists["files"]] = "".join(f"{own}\n" for own in own_names)
        bodies[lists["names"]] = _ranks(by_class)
    table = {
        "name": re.sub(r"^[^A-Za-z0-9]+|[^A-Za-z0-9_.-]+", "-", name).strip("-.") or "images",
        "title": f"{name}: {val_fraction:g} of each class for val, seed {seed}",
        "synsets": _SYNSETS,
        "archives": [],
        **splits,
    }
    bodies[DEFINITION] = format_toml(table)
    files_of = {file: body.encode() for file, body in bodies.items()}
    return Division(parse_dataset(files_of.__getitem__), names)


def _divided_class(
    wnid: str, files: Collection[str], val_fraction: float, seed: int
) -> dict[Split, list[str]]:
    """An image is for val if its number, which is as good as random, is below the fraction."""
    if len(files) < 2:
        raise ImnetprepError(
            f"{wnid} has {len(files)} of the two images that it needs for train and val",
            hint="add images to it, or move the folder away",
        )
    numbers = sorted((_number(f"{wnid}/{file}", seed), file) for file in files)
    in_val = sum(number < val_fraction for number, _ in numbers)
    in_val = min(max(in_val, 1), len(files) - 1)
    order = [file for _, file in numbers]
    return {Split.TRAIN: order[in_val:], Split.VAL: order[:in_val]}


def _number(text: str, seed: int) -> float:
    digest = hashlib.blake2b(text.encode(), digest_size=8, key=str(seed).encode())
    return int.from_bytes(digest.digest()) / 2**64


def _own_name(wnid: str, file: str) -> str:
    """Names say their class: two classes may both have an image `0001.jpg`."""
    return file if file.startswith(f"{wnid}_") else f"{wnid}_{file}"


def _refuse_doubles(names: Mapping[Split, Mapping[str, Sequence[tuple[str, str]]]]) -> None:
    places: dict[str, str] = {}
    classes = [of_split for by_class in names.values() for of_split in by_class.items()]
    for wnid, of_class in classes:
        for file, own in of_class:
            place = f"{wnid}/{file}"
            if (other := places.setdefault(own, place)) != place:
                raise ImnetprepError(
                    f"{other} and {place} would both be called {own}", hint="rename one of them"
                )


def _ranks(by_class: Mapping[str, Sequence[tuple[str, str]]]) -> str:
    """The numbers of the names: their places in the list of files, class after class."""
    lines, first = [], 0
    for wnid, of_class in by_class.items():
        lines.append(" ".join([wnid, str(first), *["1"] * (len(of_class) - 1)]))
        first += len(of_class)
    return "".join(f"{line}\n" for line in lines)
