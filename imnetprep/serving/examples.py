"""An image of each class, from a root: asked for by the number of the class, never by a path."""

import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from imnetprep.catalog.datasets import Split
from imnetprep.images import Resize, resized_jpeg
from imnetprep.machine import is_of_file
from imnetprep.manifest import NoSplit
from imnetprep.samples.listing import Listing
from imnetprep.samples.sample_list import SampleList
from imnetprep.serving.refusals import Refusal

_SIZE = Resize(side_px=192, quality=80)  # as large as the page shows them on a fine screen


@dataclass(frozen=True)
class Examples:
    """The first image of each class of a network that the root has: its list and its place there,
    by the number of the class.
    """

    places: Mapping[int, tuple[SampleList, int]] = field(default_factory=dict)
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def jpeg(self, label: int) -> bytes:
        """The example of class `label`, small. Raises Refusal."""
        hint = "imnetprep verify --decode names every such image"
        if label not in self.places:
            raise Refusal(404, f"there is no example of class {label}", hint="/about lists classes")
        samples, index = self.places[label]
        try:
            with self._turn:  # one is decoded at a time, however many ask
                body = samples.read(index)
                return resized_jpeg(body, _SIZE, apply_orientation=samples.apply_orientation).body
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and not is_of_file(error):
                raise
            raise Refusal(404, f"the example of class {label} cannot be read", hint=hint) from error


def find_examples(listing: Listing, wnids: tuple[str, ...]) -> Examples:
    """The first image of each of the network's classes `wnids`: of train, else of val."""
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    places = dict[int, tuple[SampleList, int]]()
    for split in (Split.TRAIN, Split.VAL):
        with suppress(NoSplit):
            samples = listing.samples(split)
            firsts = zip(*np.unique(samples.labels, return_index=True), strict=True)
            for root_label, index in firsts:
                label = label_of.get(samples.wnids[root_label])
                if label is not None:
                    places.setdefault(label, (samples, int(index)))
    return Examples(places)
