"""Samples as stored and as the network sees them, through the transforms of training."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from PIL import Image

from imnetprep.catalog.datasets import Split
from imnetprep.messages import WrongBytes
from imnetprep.training.data import SampleList
from imnetprep.training.recipe import Recipe, plan_recipe
from imnetprep.training.transforms import (
    Normaliser,
    Preprocessing,
    TrainTransform,
    Transform,
    ValTransform,
)


class Preview(NamedTuple):
    """One sample: the plain image, and what reaches the network, denormalised again."""

    plain: Image.Image
    crop: Image.Image


def previews(
    samples: SampleList, indices: Iterable[int], *, split: Split, recipe: Recipe
) -> Iterator[Preview]:
    """The samples at `indices`: those of train as in the first epoch, others as validated.

    Raises WrongBytes on an image that cannot be read.
    """
    transform: Transform = ValTransform(recipe.image_size, recipe.val_resize)
    if split is Split.TRAIN:
        transform = TrainTransform(recipe.image_size, recipe.crop_scale, recipe.seed)
    normaliser = Normaliser(
        Preprocessing(recipe.image_size, recipe.val_resize), torch.device("cpu")
    )
    for index in indices:
        try:
            plain = samples.decode(index)
        except (OSError, ValueError) as error:
            raise WrongBytes(
                f"{samples.describe(index)}: {error}",
                hint="imnetprep verify --decode names every such image",
            ) from error
        pixels = torch.from_numpy(transform(plain, epoch=0, index=index).copy())[None]
        crop = normaliser.denormalised(normaliser.normalised(pixels))[0]
        yield Preview(plain, Image.fromarray(crop))


def preview_recipe(**options: Any) -> Recipe:
    """The recipe that training would have with `options`, for a preview of its images."""
    return plan_recipe(options, amp_pays=False)
