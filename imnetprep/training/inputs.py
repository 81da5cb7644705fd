"""What a recipe makes of the training images: their order, their crops, and what a class weighs."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imnetprep.loading.caches import DEVICE
from imnetprep.loading.order import Order, Window, one_batch, shuffled
from imnetprep.messages import WrongUsage
from imnetprep.pixels.augmentation import Sizes, TrainTransform
from imnetprep.pixels.batch_crops import FILTERS
from imnetprep.recipes.recipe import Recipe
from imnetprep.samples.sample_list import Places, SampleList

# The epochs, of all, in which progressive training grows its crops: FFCV's recipes for ImageNet
# have it between 0.69 and 0.86 of them.
_GROWTH = (0.7, 0.85)


def train_transform(recipe: Recipe) -> TrainTransform:
    """The crops of `recipe`."""
    first, epochs = recipe.restart_epoch, recipe.epochs - recipe.restart_epoch
    start, end = (first + share * epochs for share in _GROWTH)
    return TrainTransform(
        Sizes(recipe.first_size, recipe.train_size, start, end),
        recipe.crop_scale,
        recipe.seed,
        recipe.interpolation,
        mirror=recipe.mirror,
        augment=recipe.augment,
        erase=recipe.erase,
    )


def refuse_window(recipe: Recipe, samples: SampleList) -> None:
    """Raise WrongUsage where `samples` cannot be shuffled as `recipe` says."""
    if recipe.shuffle_window and samples.places is None:
        raise WrongUsage(
            f"--shuffle-window {recipe.shuffle_window} is of shards, and each sample is a file",
            hint="--layout webdataset, or --shards PLACE",
        )
    if samples.supply:
        samples.supply.require_window(recipe.shuffle_window)


def refuse_device(recipe: Recipe, device: torch.device, cache: str | None) -> None:
    """Raise WrongUsage where `recipe` asks of `device`, or of a --cache, what is not made there."""
    if recipe.gpu_decode and (cache or device.type != "cuda"):
        raise WrongUsage(
            f"--gpu-decode and --cache {cache} exclude each other: either decodes in its own way"
            if cache
            else f"--gpu-decode needs a CUDA GPU, and this training is on {device}",
            hint="leave out one of them" if cache else "begin another run without --gpu-decode",
        )
    on_device = cache == DEVICE or recipe.gpu_decode
    if on_device and (recipe.augment != "none" or recipe.interpolation not in FILTERS):
        word = "augment" if recipe.augment != "none" else "interpolation"
        raise WrongUsage(
            f"{'--gpu-decode' if recipe.gpu_decode else f'--cache {DEVICE}'} cannot make"
            f" --{word} {getattr(recipe, word)}, which runs on the CPU",
            hint="leave out --gpu-decode" if recipe.gpu_decode else "--cache ram",
        )


def train_order(recipe: Recipe, labels: NDArray[np.int32], places: Places | None = None) -> Order:
    """The order of the samples with `labels` (N,), at these places in shards."""
    weights = window = None
    if recipe.balance == "sampler":
        weights = torch.from_numpy(1 / np.bincount(labels)[labels])
    if recipe.shuffle_window and places:
        shards = torch.from_numpy(places.shards.astype(np.int64))
        window = Window(shards, recipe.shuffle_window)
    order = shuffled(
        len(labels),
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        repeats=recipe.repeats,
        weights=weights,
        window=window,
    )
    return one_batch(order, batch_size=recipe.batch_size) if recipe.one_batch else order


def class_weights(recipe: Recipe, labels: NDArray[np.int32], *, classes: int) -> Tensor | None:
    """What the loss of a sample of each class weighs (C,), 1 in the mean over samples; None: 1.

    A class without a sample weighs nothing.
    """
    if recipe.balance != "loss":
        return None
    counts = np.bincount(labels, minlength=classes)
    shares = len(labels) / np.maximum(counts, 1) / np.count_nonzero(counts)
    return torch.from_numpy(np.where(counts, shares, 0)).float()
