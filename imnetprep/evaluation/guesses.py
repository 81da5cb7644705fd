"""What a network guessed of each image, as small arrays."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Guesses:
    """Labels of images (N,), guesses, how sure the network was of each, and hits in the top 5."""

    labels: NDArray[np.int32]
    guesses: NDArray[np.int32]
    confidences: NDArray[np.float32]
    is_in_top5: NDArray[np.bool_]


class GuessRecorder:
    """Notes what a network says, batch by batch, on its device."""

    def __init__(self) -> None:
        self._batches: list[tuple[Tensor, ...]] = []

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Note a batch: logits (B, C) of float32 and labels (B,)."""
        top5 = logits.topk(min(5, logits.shape[1]), dim=1).indices
        shares = logits.softmax(dim=1).gather(1, top5[:, :1])[:, 0]
        self._batches.append((labels, top5[:, 0], shares, (top5 == labels[:, None]).any(dim=1)))

    def guesses(self) -> Guesses:
        """All that was noted, in order. A share that is no number (NaN) becomes 0."""
        labels, guesses, shares, hits = (
            torch.cat(column).cpu().numpy() for column in zip(*self._batches, strict=True)
        )
        shares = np.nan_to_num(shares)
        return Guesses(labels.astype(np.int32), guesses.astype(np.int32), shares, hits)
