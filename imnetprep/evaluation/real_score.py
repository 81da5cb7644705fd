"""The accuracy by the ReaL labels, for validation images of ilsvrc2012."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from imnetprep.catalog.datasets import DEFAULT, Split, load_dataset
from imnetprep.catalog.real_labels import real_labels
from imnetprep.samples.sample_list import SampleList


class RealScore(NamedTuple):
    """How many guesses are among the ReaL labels of their images, of those that have any."""

    top1: int
    images: int

    def __str__(self) -> str:
        """`ReaL top-1 39210/46837 83.72 %`."""
        return f"ReaL top-1 {self.top1}/{self.images} {self.percent:.2f} %"

    @property
    def percent(self) -> float:
        return 100 * self.top1 / max(self.images, 1)

    def as_json(self) -> dict[str, Any]:
        """The counts, and the share that they make."""
        return {**self._asdict(), "top1_percent": self.percent}


def real_score(samples: SampleList, guesses: NDArray[np.int32]) -> RealScore | None:
    """The score of the guessed labels (N,); None unless all `samples` are of ilsvrc2012.

    Images are known by the number in their names, and must be of the class that it has there.
    """
    dataset = load_dataset(DEFAULT)
    if samples.split is not Split.VAL or samples.wnids != tuple(dataset.label_of_wnid):
        return None
    numbers = []
    for index, label in enumerate(samples.labels):
        name = samples.name(index)
        if dataset.label_of(Split.VAL, name) != label:
            return None
        numbers.append(dataset.number_of(Split.VAL, samples.wnids[label], name))
    labels_of = real_labels(dataset)
    pairs = [(guess, labels_of[at]) for guess, at in zip(guesses.tolist(), numbers, strict=True)]
    return RealScore(
        sum(guess in labels for guess, labels in pairs), sum(bool(labels) for _, labels in pairs)
    )
