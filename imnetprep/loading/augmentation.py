"""Training crops: random parts of images, mirrored, changed and erased.

A crop is a function of (seed, epoch, sample) and of nothing else: not of the worker that makes it,
nor of how many there are.
"""

import math
import random
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import nn

from imnetprep.loading.transforms import MEAN, Pixels, pillow_filter

_CROP_RATIOS = (3 / 4, 4 / 3)
_ERASED_SHARES, _ERASED_RATIOS = (0.02, 0.33), (0.3, 3.3)
_GREY = tuple(round(255 * value) for value in MEAN)
_TRIES = 10
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

    def __call__(self, pixels: Pixels, *, epoch: int, index: int) -> Pixels:
        height, width, _ = pixels.shape
        chance, (x, y, x_end, y_end) = self._box(height, width, epoch=epoch, index=index)
        mirror = self.mirror and chance.random() < 0.5
        crop = resized(
            pixels[y:y_end, x:x_end], self.sizes.at(epoch), self.interpolation, mirror=mirror
        )
        if self.augment == "trivial":
            crop = _trivially_augmented(crop, chance.getrandbits(63))
        return _erased(crop, self.erase, chance) if self.erase else crop

    def rows(self, height: int, width: int, *, epoch: int, index: int) -> int:
        """As `Transform.rows`: to the lower end of the crop."""
        return self._box(height, width, epoch=epoch, index=index)[1][3]

    def _box(self, height: int, width: int, *, epoch: int, index: int) -> tuple[random.Random, Box]:
        """The part of the image, and the source of all that is decided after it."""
        # One number of all three: the generator mixes all words of it.
        chance = random.Random(self.seed + (epoch << 64) + (index << 96))  # noqa: S311
        return chance, random_box(width, height, smallest=self.crop_scale, chance=chance)


def resized(crop: Pixels, side_px: int, interpolation: str, *, mirror: bool = False) -> Pixels:
    """A part of an image (H, W, 3) as (S, S, 3), antialiased, and mirrored where that is asked.

    By torch, in 0.51 ms where Pillow takes 1.24 with the same weights: within a level of it.
    """
    if interpolation not in _TORCH_FILTERS:
        image = Image.fromarray(crop).resize((side_px, side_px), pillow_filter(interpolation))
        return np.asarray(image)[:, :: -1 if mirror else 1]
    # Its fast kernels, of resizing and of mirroring, want the colours of a pixel side by side, and
    # no gaps between rows: without the copy it takes three times as long.
    planes = torch.from_numpy(np.ascontiguousarray(crop))[None].permute(0, 3, 1, 2)
    size = (side_px, side_px)
    planes = nn.functional.interpolate(planes, size, mode=interpolation, antialias=True)
    pixels: Pixels = (planes.flip(3) if mirror else planes)[0].permute(1, 2, 0).numpy()
    return pixels


def random_box(width: int, height: int, *, smallest: float, chance: random.Random) -> Box:
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
    chance: random.Random,
) -> Box | None:
    low, high = (math.log(ratio) for ratio in ratios)
    for _ in range(_TRIES):
        area = width * height * chance.uniform(*shares)
        ratio = math.exp(chance.uniform(low, high))
        box_width, box_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < box_width <= width and 0 < box_height <= height:
            x = chance.randint(0, width - box_width)
            y = chance.randint(0, height - box_height)
            return x, y, x + box_width, y + box_height
    return None


def _trivially_augmented(crop: Pixels, seed: int) -> Pixels:
    from torchvision.transforms import InterpolationMode, TrivialAugmentWide

    augment = TrivialAugmentWide(interpolation=InterpolationMode.BILINEAR)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return np.asarray(augment(Image.fromarray(crop)))


def _erased(pixels: Pixels, share: float, chance: random.Random) -> Pixels:
    """The pixels, in a `share` of crops with a rectangle of the mean colour in them."""
    if chance.random() >= share:
        return pixels
    height, width, _ = pixels.shape
    if box := _tried_box(width, height, _ERASED_SHARES, _ERASED_RATIOS, chance):
        x, y, x_end, y_end = box
        pixels = pixels.copy()
        pixels[y:y_end, x:x_end] = _GREY
    return pixels
