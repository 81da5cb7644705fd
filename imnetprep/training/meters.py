"""Loss and top-1 and top-5 hits, summed on the device and counted in whole images."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

COUNTS = ("top1", "top5")
_SPREADS = 3  # standard deviations above chance; with fewer right a network only guesses
_MOST_BY_LUCK = 0.8  # of the images: where as many may be right by luck, nothing is told


@dataclass(frozen=True)
class Score:
    """How good a network is: hits are counts of `images`, `loss` is their mean."""

    loss: float
    top1: int
    top5: int
    images: int
    left_out: int = 0  # images that could not be read

    @property
    def hits(self) -> int:
        """What is right, by which epochs are compared: the top-1 of `total` images."""
        return self.top1

    @property
    def total(self) -> int:
        """All images."""
        return self.images

    def brief(self) -> str:
        """`top-1 74.2 %`."""
        return f"top-1 {100 * self.top1 / max(self.images, 1):.1f} %"

    def as_steps(self) -> dict[str, Any]:
        """What a line of steps has of it."""
        return {"top1": self.top1, "images": self.images}

    def __str__(self) -> str:
        """`top-1 371/500 74.20 %  top-5 480/500 96.00 %  loss 0.9876`."""
        note = f"  ({self.left_out:,} more could not be read)" if self.left_out else ""
        hits = "".join(
            f"{name} {hits}/{self.images} {hits / max(self.images, 1):.2%}  ".replace("%", " %")
            for name, hits in (("top-1", self.top1), ("top-5", self.top5))
        )
        return f"{hits}loss {self.loss:.4f}{note}"

    def as_json(self) -> dict[str, Any]:
        """The counts, and the shares that they make."""
        return {
            "loss": self.loss,
            "top1": self.top1,
            "top5": self.top5,
            "images": self.images,
            "top1_percent": 100 * self.top1 / max(self.images, 1),
            "top5_percent": 100 * self.top5 / max(self.images, 1),
            **({"left_out": self.left_out} if self.left_out else {}),
        }


def score_of(sums: Mapping[str, float]) -> Score:
    """The score that the sums of one meter make, or those of several together."""
    images, left_out = int(sums["images"]), int(sums.get("left_out", 0))
    loss = sums["loss"] / max(images, 1)
    return Score(loss, int(sums["top1"]), int(sums["top5"]), images, left_out)


def luck_limit(images: int, *, share: float) -> float | None:
    """How many of `images` may be right by guesses of which this `share` is; None: nearly all.

    Three standard deviations above the mean of a binomial distribution.
    """
    limit = images * share + _SPREADS * math.sqrt(images * share * (1 - share))
    return None if limit > images * _MOST_BY_LUCK else limit


def count_hits(logits: Tensor, labels: Tensor) -> Tensor:
    """How many rows of `logits` (B, C) rank their label (B,) first, and in the top 5: (2,).

    With fewer than five classes every row hits the top 5.
    """
    ranks = logits.topk(min(5, logits.shape[1]), dim=1).indices
    hits = ranks == labels[:, None]
    return torch.stack([hits[:, 0].sum(), hits.sum()])


class Meter:
    """Sums on `device` without waiting for it; `score` and `sums` do wait."""

    score_of = staticmethod(score_of)

    def __init__(self, device: torch.device) -> None:
        exact = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
        self._loss = torch.zeros((), dtype=exact, device=device)
        self._hits = torch.zeros(2, dtype=torch.int64, device=device)
        self._images = 0

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a batch of which `loss` () is the mean."""
        self._loss += loss.detach() * len(labels)
        self._hits += count_hits(logits.detach(), labels)
        self._images += len(labels)

    def score(self) -> Score:
        """The score so far."""
        return score_of(self.sums())

    def sums(self) -> dict[str, float]:
        """The sums so far as plain numbers, exactly."""
        top1, top5 = self._hits.tolist()
        return {"loss": self._loss.item(), "top1": top1, "top5": top5, "images": self._images}

    def restore(self, sums: Mapping[str, float]) -> None:
        """Continue from `sums`."""
        self._loss.fill_(sums["loss"])
        self._hits.copy_(torch.tensor([int(sums["top1"]), int(sums["top5"])]))
        self._images = int(sums["images"])
