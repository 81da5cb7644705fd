"""The root that a recipe would like: of images no larger than what it looks at."""

import statistics
from contextlib import suppress

from imnetprep.images import shorter_side
from imnetprep.recipes.recipe import Recipe
from imnetprep.samples.sample_list import SampleList

_ROOT_STEP_PX = 32
_LOOKS = 16  # images
_PAYS = 1.25  # as many pixels along a side, or more


def root_side(recipe: Recipe) -> int:
    """The shorter side, px, of images in which `recipe` misses nothing that it looks at.

    Validation makes none of them larger, nor does a training crop of the whole image, with as much
    around it as validation leaves. A multiple of 32.
    """
    margin = recipe.val_resize / recipe.image_size
    largest = max(recipe.val_resize, round(margin * recipe.train_size))
    return -(-largest // _ROOT_STEP_PX) * _ROOT_STEP_PX


def root_wish(recipe: Recipe, samples: SampleList) -> str | None:
    """The root that `recipe` would like better than `samples`, in words; None: these are fine.

    By the headers of some images, evenly over the split.
    """
    side, sides = root_side(recipe), []
    for number in samples.spread(_LOOKS):
        with suppress(OSError, ValueError):  # the training itself says what it cannot read
            sides.append(shorter_side(samples.read(number)))
    median = statistics.median(sides) if sides else 0
    if median < _PAYS * side:
        return None
    return (
        f"the recipe looks at {max(recipe.val_resize, recipe.train_size)} px at most, the images"
        f" have {median:.0f} px: a root of organize --resize {side} is read faster;"
        " imnetprep bench says how much"
    )
