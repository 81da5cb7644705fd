"""A dataset made of a listing: the file names of each class of each split, as they lie."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from imnetprep.catalog.datasets import (
    DEFAULT,
    DEFINITION,
    Dataset,
    Split,
    load_dataset,
    parse_dataset,
)
from imnetprep.catalog.definition_text import format_rows, format_toml

# The file names of each class of each split.
Listing = Mapping[Split, Mapping[str, Sequence[str]]]


def listed_dataset(name: str, title: str, listing: Listing) -> Dataset:
    """The dataset of these images. Classes called by wnids of ImageNet get its words; of nothing
    but such classes, images are not turned as their EXIF says, as those of ImageNet.

    The same images make the same definition, to the byte, in whatever order they were found.
    """
    words = {synset.wnid: synset.words for synset in load_dataset(DEFAULT).synsets}
    wnids = sorted(set().union(*listing.values()))
    synsets = [("wnid", "words"), *((wnid, words.get(wnid, wnid)) for wnid in wnids)]
    bodies = {"synsets.tsv": format_rows(synsets)}
    splits: dict[str, Any] = {}
    for split, by_class in listing.items():
        rows = [(each, wnid) for wnid in sorted(by_class) for each in sorted(by_class[wnid])]
        bodies[f"{split}.tsv"] = format_rows(rows)
        splits[split] = {"samples": len(rows), "labels": f"{split}.tsv"}
    table = {
        "name": re.sub(r"^[^A-Za-z0-9]+|[^A-Za-z0-9_.-]+", "-", name).strip("-.") or "images",
        "title": "".join(each if each.isprintable() else "?" for each in title),
        "synsets": "synsets.tsv",
        **({} if words.keys() >= set(wnids) else {"orientation": "applied"}),
        **splits,
    }
    bodies[DEFINITION] = format_toml(table)
    return parse_dataset({file: body.encode() for file, body in bodies.items()}.__getitem__)
