"""Training crops: random parts of images, mirrored, changed and erased.

A crop is a function of (seed, epoch, sample) and of nothing else: not of the worker that makes it,
nor of how many there are.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import nn

from imnetprep.pixels.chances import chances
from imnetprep.pixels.transforms import MEAN, Pixels, pillow_filter

_CROP_RATIOS = (3 / 4, 4 / 3)
_ERASED_SHARES, _ERASED_RATIOS = (0.02, 0.33), (0.3, 3.3)
GREY = tuple(round(255 * value) for value in MEAN)
_TRIES = 10
_CHANCES_OF_A_BOX = 4 * _TRIES
# Of a crop: of its box, whether it is mirrored, what changes it, whether and where it is erased.
_CHANCES = _CHANCES_OF_A_BOX + 3 + _CHANCES_OF_A_BOX
_TORCH_FILTERS = ("bilinear", "bicubic")  # of pixels of uint8
_SIZE_STEP_PX = 32

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Sizes:
    """Sides of training crops, px: `first` until the epoch `start`, `last` from `end` on.

    Between them it grows in steps of 32 px.
    """

    first: int
    last: int
    start: float = 0.0
    end: float = 0.0

    def at(self, epoch: int) -> int:
        """The side of the crops of an epoch, counted from 0."""
        if epoch >= self.end:
            return self.last
        if epoch <= self.start:
            return self.first
        way = (epoch - self.start) / (self.end - self.start)
        size = self.first + (self.last - self.first) * way
        return min(self.last, max(self.first, round(size / _SIZE_STEP_PX) * _SIZE_STEP_PX))


@dataclass(frozen=True)
class TrainTransform:
    """A random crop, scaled to a square, mirrored half the time (Szegedy et al. 2014).

    `augment`: then changed by one operation of TrivialAugment's (Müller, Hutter 2021). `erase`:
    the share of crops in which a rectangle becomes grey (Zhong et al. 2017).
    """

    is_fixed: ClassVar[bool] = False
    sizes: Sizes
    crop_scale: float
    seed: int
    interpolation: str = "bilinear"
    mirror: bool = True
    augment: str = "none"
    erase: float = 0.0

    @property
    def side_px(self) -> int:
        """As `Transform.side_px`."""
        return max(self.sizes.first, self.sizes.last)

    def crops(self, epoch: int, keys: Sequence[int]) -> "list[TrainCrop]":
        """As `Transform.crops`."""
        number = _CHANCES if self.erase else _CHANCES - _CHANCES_OF_A_BOX
        rows = chances(self.seed, epoch, keys, number).tolist()
        return [TrainCrop(self, self.sizes.at(epoch), row) for row in rows]

    def outlines(
        self, epoch: int, keys: Sequence[int], sizes: Sequence[tuple[int, int]]
    ) -> "list[Outline]":
        """What is taken in an epoch of images of these `sizes`, height and width each."""
        crops = self.crops(epoch, keys)
        return [crop.outline(*size) for crop, size in zip(crops, sizes, strict=True)]

    def __call__(self, pixels: Pixels, *, epoch: int, index: int) -> Pixels:
        return self.crops(epoch, [index])[0].cut(pixels)


class Outline(NamedTuple):
    """What is taken of an image, and what is done to it: `seed` of a change, `hole` that is erased.

    The box is of the image, the hole of the crop.
    """

    box: Box
    is_mirror: bool
    seed: int
    hole: Box | None


class TrainCrop:
    """The crop of one sample: `side_px` wide and high, as its chances have it."""

    def __init__(
        self, transform: TrainTransform, side_px: int, chances_of_it: Sequence[float]
    ) -> None:
        self._transform, self._side_px, self._chances = transform, side_px, chances_of_it
        self._latest: tuple[int, int, Outline] | None = None

    def rows(self, height: int, width: int) -> int:
        """As `Crop.rows`: to the lower end of the box."""
        return self.outline(height, width).box[3]

    def cut(self, pixels: Pixels) -> Pixels:
        """As `Crop.cut`."""
        transform = self._transform
        (x, y, x_end, y_end), is_mirror, seed, hole = self.outline(*pixels.shape[:2])
        crop = resized(
            pixels[y:y_end, x:x_end], self._side_px, transform.interpolation, mirror=is_mirror
        )
        if transform.augment == "trivial":
            crop = _trivially_augmented(crop, seed)
        if hole:
            x, y, x_end, y_end = hole
            crop = crop.copy()
            crop[y:y_end, x:x_end] = GREY
        return crop

    def outline(self, height: int, width: int) -> Outline:
        """What is taken of an image of that size."""
        if self._latest is None or self._latest[:2] != (height, width):
            chance, transform, side_px = iter(self._chances), self._transform, self._side_px
            box = random_box(width, height, smallest=transform.crop_scale, chance=chance)
            is_mirror = next(chance) < 0.5 and transform.mirror
            seed, hole = int(next(chance) * 2**53), None
            if transform.erase and next(chance) < transform.erase:
                hole = _tried_box(side_px, side_px, _ERASED_SHARES, _ERASED_RATIOS, chance)
            self._latest = height, width, Outline(box, is_mirror, seed, hole)
        return self._latest[2]


def resized(crop: Pixels, side_px: int, interpolation: str, *, mirror: bool = False) -> Pixels:
    """A part of an image (H, W, 3) as (S, S, 3), antialiased, and mirrored where that is asked.

    By torch, in 0.51 ms where Pillow takes 1.24 with the same weights: within a level of it.
    """
    if interpolation not in _TORCH_FILTERS:
        image = Image.fromarray(crop).resize((side_px, side_px), pillow_filter(interpolation))
        return np.asarray(image)[:, :: -1 if mirror else 1]
    # Its fast kernels, of resizing and of mirroring, want the colours of a pixel side by side, and
    # no gaps between rows: without the copy it takes three times as long.
    size, (height, width, _) = (side_px, side_px), crop.shape
    strides = (3 * height * width, 1, 3 * width, 3)
    planes = torch.from_numpy(np.ascontiguousarray(crop)).as_strided((1, 3, height, width), strides)
    planes = nn.functional.interpolate(planes, size, mode=interpolation, antialias=True)
    pixels: Pixels = (planes.flip(3) if mirror else planes).numpy()[0].transpose(1, 2, 0)
    return pixels


def random_box(width: int, height: int, *, smallest: float, chance: Iterator[float]) -> Box:
    """A part of a `width` × `height` image: `smallest` to 1 of its area, sides 3:4 to 4:3.

    Where ten tries give none that fits, as much of the centre as the shape allows. Whole pixels.
    """
    if box := _tried_box(width, height, (smallest, 1), _CROP_RATIOS, chance):
        return box
    box_width = min(width, max(1, round(height * _CROP_RATIOS[1])))
    box_height = min(height, max(1, round(width / _CROP_RATIOS[0])))
    x, y = (width - box_width) // 2, (height - box_height) // 2
    return x, y, x + box_width, y + box_height


def _tried_box(
    width: int,
    height: int,
    shares: tuple[float, float],
    ratios: tuple[float, float],
    chance: Iterator[float],
) -> Box | None:
    least, log_ratio = shares[0], math.log(ratios[0])
    share_span, log_span = shares[1] - least, math.log(ratios[1]) - log_ratio
    for _ in range(_TRIES):
        area = width * height * (least + share_span * next(chance))
        ratio = math.exp(log_ratio + log_span * next(chance))
        box_width, box_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        x, y = next(chance), next(chance)
        if 0 < box_width <= width and 0 < box_height <= height:
            x_px, y_px = int(x * (width - box_width + 1)), int(y * (height - box_height + 1))
            return x_px, y_px, x_px + box_width, y_px + box_height
    return None


def _trivially_augmented(crop: Pixels, seed: int) -> Pixels:
    from torchvision.transforms import InterpolationMode, TrivialAugmentWide

    augment = TrivialAugmentWide(interpolation=InterpolationMode.BILINEAR)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return np.asarray(augment(Image.fromarray(crop)))
