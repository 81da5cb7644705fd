"""What a network guessed of each image, as small arrays, and what is counted of them."""

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imnetprep.reports.evaluation_page import Reliability

BINS = 15  # of confidence, as in Guo et al. 2017, "On Calibration of Modern Neural Networks"


class Counts(NamedTuple):
    """Images of each class, (C,): all, right by the first guess and by five, and guesses of it."""

    images: NDArray[np.int64]
    top1: NDArray[np.int64]
    top5: NDArray[np.int64]
    guesses: NDArray[np.int64]


class Pair(NamedTuple):
    """A class, one that its images were taken for, and how many of them were."""

    label: int
    guess: int
    images: int


@dataclass(frozen=True)
class Guesses:
    """Labels of images (N,), guesses, how sure the network was of each, and hits in the top 5."""

    labels: NDArray[np.int32]
    guesses: NDArray[np.int32]
    confidences: NDArray[np.float32]
    is_in_top5: NDArray[np.bool_]

    @property
    def is_right(self) -> NDArray[np.bool_]:
        """Is the guess the label? (N,)."""
        equal: NDArray[np.bool_] = self.guesses == self.labels
        return equal

    def sorted_by(self, numbers: NDArray[np.intp]) -> "Guesses":
        """The guesses, each of the image of its number (N,), by these numbers."""
        order = np.argsort(numbers)
        return Guesses(
            self.labels[order], self.guesses[order], self.confidences[order], self.is_in_top5[order]
        )

    def counts(self, classes: int) -> Counts:
        """How many images, hits and guesses each of `classes` has."""
        columns = (
            self.labels, self.labels[self.is_right], self.labels[self.is_in_top5], self.guesses
        )  # fmt: skip
        return Counts(*(np.bincount(column, minlength=classes) for column in columns))

    def confusions(self) -> list[Pair]:
        """Each pair of a class and a wrong guess, the most frequent first."""
        is_wrong = ~self.is_right
        pairs = Counter(
            zip(self.labels[is_wrong].tolist(), self.guesses[is_wrong].tolist(), strict=True)
        )
        rows = (Pair(*pair, images) for pair, images in pairs.items())
        return sorted(rows, key=lambda row: (-row.images, row))

    def surest_mistakes(self) -> list[int]:
        """The indices of wrong guesses, those first that the network was most sure of."""
        wrong = np.flatnonzero(~self.is_right)
        order: list[int] = wrong[np.argsort(-self.confidences[wrong], kind="stable")].tolist()
        return order

    def calibration(self) -> list[Reliability]:
        """The images in BINS equal parts of confidence, from the least sure; empty ones too."""
        confidences = self.confidences.astype(np.float64)
        parts = np.clip(np.ceil(confidences * BINS).astype(int) - 1, 0, BINS - 1)
        images = np.bincount(parts, minlength=BINS)
        sums = np.bincount(parts, confidences, minlength=BINS) / np.maximum(images, 1)
        top1 = np.bincount(parts, self.is_right, minlength=BINS)
        return [
            Reliability(int(number), float(mean), int(hits))
            for number, mean, hits in zip(images, sums, top1, strict=True)
        ]

    def calibration_error(self) -> float:
        """The gap between confidence and share of right guesses, in the mean over images: 0 to 1.

        The expected calibration error (Naeini et al. 2015) of BINS equal bins.
        """
        gaps = (abs(each.confidence * each.images - each.top1) for each in self.calibration())
        return sum(gaps) / max(len(self.labels), 1)


class GuessRecorder:
    """Notes what a network says, batch by batch, on its device."""

    def __init__(self) -> None:
        self._batches: list[tuple[Tensor, ...]] = []

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Note a batch: logits (B, C) of float32 and labels (B,)."""
        top5 = logits.topk(min(5, logits.shape[1]), dim=1).indices
        shares = logits.softmax(dim=1).gather(1, top5[:, :1])[:, 0]
        hits = (top5 == labels[:, None]).any(dim=1)
        # Copies: a batch of a worker holds a file descriptor as long as a part of it lives.
        self._batches.append((labels.clone(), top5[:, 0].clone(), shares, hits))

    def guesses(self) -> Guesses:
        """All that was noted, in order. A share that is no number (NaN) becomes 0."""
        labels, guesses, shares, hits = (
            torch.cat(column).cpu().numpy() for column in zip(*self._batches, strict=True)
        )
        shares = np.nan_to_num(shares)
        return Guesses(labels.astype(np.int32), guesses.astype(np.int32), shares, hits)
