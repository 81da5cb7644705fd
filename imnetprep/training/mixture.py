"""Mixup and cutmix: pairs of images of a batch become one, by a function of the position.

An image is mixed with its neighbour, the even with the odd: whether a batch is taken whole or in
parts of an even number of images changes nothing.
"""

import math
import random
from typing import NamedTuple

import torch
from torch import Tensor

from imnetprep.loading.order import mixed_seed
from imnetprep.recipes.recipe import Recipe


class Mixture(NamedTuple):
    """Images (B, 3, S, S), and what they show: labels (B,), or shares of classes (B, C).

    `labels` (B,) are those that have the larger share.
    """

    images: Tensor
    targets: Tensor
    labels: Tensor


def mixed(
    images: Tensor, labels: Tensor, recipe: Recipe, *, classes: int, position: tuple[int, int]
) -> Mixture:
    """The batch as `recipe` has it mixed at `position` (epoch, step), or as it is.

    Mixup is of Zhang et al. (arXiv:1710.09412), cutmix of Yun et al. (arXiv:1905.04899). With both
    a batch gets either.
    """
    ways = {name: alpha for name, alpha in (("mixup", recipe.mixup), ("cutmix", recipe.cutmix))
            if alpha}  # fmt: skip
    if not ways:
        return Mixture(images, labels, labels)
    chance = random.Random(mixed_seed(recipe.seed, *position, "mix"))  # noqa: S311
    way = chance.choice(sorted(ways))
    share = chance.betavariate(ways[way], ways[way])
    neighbours = torch.arange(len(labels), device=labels.device) ^ 1
    neighbours.clamp_(max=len(labels) - 1)  # the last of an odd number stays as it is
    if way == "mixup":
        images = images.lerp(images[neighbours], 1 - share)
    else:
        images, share = _with_patches(images, images[neighbours], share, chance)
    # Not one_hot, which waits for the device to look at the labels.
    shares = (labels[:, None] == torch.arange(classes, device=labels.device)).float()
    targets = shares.lerp(shares[neighbours], 1 - share)
    return Mixture(images, targets, labels if share >= 0.5 else labels[neighbours])


def _with_patches(
    images: Tensor, sources: Tensor, share: float, chance: random.Random
) -> tuple[Tensor, float]:
    """The images with a box of `sources` in them, and the share that stays theirs."""
    height, width = images.shape[2:]
    x, y = chance.randrange(width), chance.randrange(height)
    half = math.sqrt(1 - share) / 2
    x, x_end = max(0, round(x - width * half)), min(width, round(x + width * half))
    y, y_end = max(0, round(y - height * half)), min(height, round(y + height * half))
    images = images.clone()
    images[:, :, y:y_end, x:x_end] = sources[:, :, y:y_end, x:x_end]
    return images, 1 - (x_end - x) * (y_end - y) / (width * height)
