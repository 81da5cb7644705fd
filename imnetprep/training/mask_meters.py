"""Pixels of masks, counted: what they are in truth, and what was guessed of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from imnetprep.masks.pixels import BACKGROUND, FOREGROUND
from imnetprep.training.meters import Score

# Foreground and background pixels, each guessed right (true) or as the other (false).
MASK_COUNTS = ("true_foreground", "false_foreground", "false_background", "true_background")


@dataclass(frozen=True)
class MaskScore:
    """How good masks are, by the pixels of all `images` together; `loss` is the mean over images.

    A false foreground pixel is background in truth.
    """

    loss: float
    true_foreground: int
    false_foreground: int
    false_background: int
    true_background: int
    images: int

    @property
    def pixels(self) -> int:
        """All that count: void ones do not."""
        return (
            self.true_foreground + self.false_foreground
            + self.false_background + self.true_background
        )  # fmt: skip

    @property
    def hits(self) -> int:
        """What the F-measure (Dice) counts as right: hits / total is the F-measure.

        Where there is no foreground, neither in truth nor guessed, all is right: 1 of 1.
        """
        return 2 * self.true_foreground if self._union else 1

    @property
    def total(self) -> int:
        """What the F-measure counts."""
        return self.true_foreground + self._union if self._union else 1

    @property
    def _union(self) -> int:
        return self.true_foreground + self.false_foreground + self.false_background

    @property
    def class_hits(self) -> list[tuple[int, int]]:
        """Right pixels and all, of background and of foreground."""
        background = self.true_background + self.false_foreground
        foreground = self.true_foreground + self.false_background
        return [(self.true_background, background), (self.true_foreground, foreground)]

    def shares(self) -> dict[str, float]:
        """F-measure, IoU and pixel accuracy, and the accuracy of "all background", in percent."""
        background = self.true_background + self.false_foreground
        return {
            "f_percent": _percent(self.hits, self.total),
            "iou_percent": _percent(self.true_foreground, self._union),
            "accuracy_percent": _percent(self.true_foreground + self.true_background, self.pixels),
            "all_background_percent": _percent(background, self.pixels),
        }

    def __str__(self) -> str:
        """`F 98.72 %  IoU 97.48 %  pixels 99.74 % (all background: 89.68 %)  loss 0.0123`."""
        shares = self.shares()
        f, iou, accuracy, background = (f"{each:.2f} %" for each in shares.values())
        return (
            f"F {f}  IoU {iou}  pixels {accuracy} (all background: {background})"
            f"  loss {self.loss:.4f}"
        )

    def brief(self) -> str:
        """`F 98.7 %`."""
        return f"F {self.shares()['f_percent']:.1f} %"

    def as_steps(self) -> dict[str, Any]:
        """What a line of steps has of it."""
        return {"f_percent": self.shares()["f_percent"], "images": self.images}

    def as_json(self) -> dict[str, Any]:
        """The counts, and the shares that they make."""
        return {
            "loss": self.loss,
            **{name: getattr(self, name) for name in MASK_COUNTS},
            "images": self.images,
            **self.shares(),
        }


def mask_score(sums: Mapping[str, float]) -> MaskScore:
    """The score that the sums of one meter make, or those of several together."""
    images = int(sums["images"])
    counts = {name: int(sums[name]) for name in MASK_COUNTS}
    return MaskScore(sums["loss"] / max(images, 1), images=images, **counts)


AnyScore = Score | MaskScore


def count_pixels(guesses: Tensor, masks: Tensor) -> Tensor:
    """Pixels by MASK_COUNTS (4,), of `guesses` of the foreground and `masks`, both (…, H, W)."""
    foreground, background = masks == FOREGROUND, masks == BACKGROUND
    cases = (guesses & foreground, guesses & background, ~guesses & foreground,
             ~guesses & background)  # fmt: skip
    return torch.stack([each.sum() for each in cases])


class MaskMeter:
    """Sums on `device` without waiting for it; `sums` does wait."""

    score_of = staticmethod(mask_score)

    def __init__(self, device: torch.device) -> None:
        exact = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
        self._loss = torch.zeros((), dtype=exact, device=device)
        self._counts = torch.zeros(len(MASK_COUNTS), dtype=torch.int64, device=device)
        self._images = 0

    def add(self, loss: Tensor, logits: Tensor, masks: Tensor) -> None:
        """Add a batch of which `loss` () is the mean: `logits` (B, 1, H, W), `masks` (B, H, W)."""
        self._counts += count_pixels(logits.detach()[:, 0] > 0, masks)
        self._loss += loss.detach() * len(masks)
        self._images += len(masks)

    def score(self) -> MaskScore:
        """The score so far."""
        return mask_score(self.sums())

    def sums(self) -> dict[str, float]:
        """The sums so far as plain numbers, exactly."""
        counts = dict(zip(MASK_COUNTS, self._counts.tolist(), strict=True))
        return {"loss": self._loss.item(), **counts, "images": self._images}

    def restore(self, sums: Mapping[str, float]) -> None:
        """Continue from `sums`."""
        self._loss.fill_(sums["loss"])
        self._counts.copy_(torch.tensor([int(sums[name]) for name in MASK_COUNTS]))
        self._images = int(sums["images"])


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 100.0
