"""Recipes with names: choices that were published together, and what they reached.

A claim is its source's own, with what its source did otherwise; numbers of ours stand in
docs/training.md. What a recipe does not name is as the options of `train` have it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

DEFAULT = "classic90"


class Claim(NamedTuple):
    """What a network reached by a recipe on ILSVRC2012, as its source has it; accuracies in %."""

    arch: str
    top1: float
    top5: float
    machine: str


@dataclass(frozen=True)
class NamedRecipe:
    """A recipe: values by the names of options, claims, their source, and what differs there."""

    summary: str
    values: Mapping[str, Any]
    claims: tuple[Claim, ...] = ()
    source: str = ""
    differences: str = ""


_CLASSIC = {
    "epochs": 90, "batch_size": 256, "lr": 0.1, "image_size": 224, "val_resize": 256,
}  # fmt: skip
_FAST = {
    "batch_size": 1024, "lr": 0.5, "schedule": "one-cycle", "warmup_epochs": 2.0,
    "weight_decay": 5e-5, "norm_decay": False, "label_smoothing": 0.1,
    "image_size": 256, "val_resize": 293, "train_size": 192, "first_size": 160,
}  # fmt: skip
_FFCV = "https://github.com/libffcv/ffcv-imagenet, README.md and rn18_configs/"
_FFCV_DIFFERENCES = (
    "Its networks have BlurPool, and it validates the mean over mirrored images: this program does"
    " neither. Its images are of 400 px (RN50: 500). For RN50 it has --lr 1.7 --weight-decay 1e-4"
    " and batches of 512 on each of 8 GPUs"
)


def _fast(epochs: int, *claims: Claim, **values: Any) -> NamedRecipe:
    return NamedRecipe(
        f"Small crops that grow, one cycle of the rate, {epochs} epochs.",
        _FAST | {"epochs": epochs} | values,
        claims,
        _FFCV,
        _FFCV_DIFFERENCES,
    )


RECIPES: Mapping[str, NamedRecipe] = MappingProxyType({
    DEFAULT: NamedRecipe(
        "The classic training of a ResNet: the default.",
        _CLASSIC,
        (
            Claim("resnet18", 69.758, 89.078, "8 V100"),
            Claim("resnet50", 76.130, 92.862, "8 V100"),
        ),
        "https://docs.pytorch.org/vision/stable/models.html, the IMAGENET1K_V1 weights",
        "It lowers the rate by 0.1 every 30 epochs (--schedule step), without a warm-up",
    ),
    "fast16": _fast(
        16,
        Claim("resnet18", 66.9, 86.8, "1 A100, 35 min"),
        Claim("resnet50", 73.8, 90.8, "8 A100, 15 min"),
    ),
    "fast40": _fast(
        40,
        Claim("resnet18", 70.6, 89.4, "1 A100, 86 min"),
        Claim("resnet50", 77.2, 93.2, "8 A100, 36 min"),
    ),
    "fast88": _fast(
        88,
        Claim("resnet18", 72.4, 90.3, "1 A100, 187 min"),
        Claim("resnet50", 78.4, 94.1, "8 A100, 77 min"),
        ema=0.9999,  # of ours: validated beside the network, it can only help
    ),
    "v2": NamedRecipe(
        "Long, strongly augmented and averaged.",
        {
            "epochs": 600, "batch_size": 1024, "lr": 0.5, "warmup_epochs": 5.0,
            "weight_decay": 2e-5, "norm_decay": False, "label_smoothing": 0.1, "mixup": 0.2,
            "cutmix": 1.0, "augment": "trivial", "erase": 0.1, "repeats": 4, "ema": 0.99997,
            "image_size": 224, "train_size": 176, "val_resize": 232,
        },
        (Claim("resnet50", 80.858, 95.434, "GPUs that are not named"),),
        "https://pytorch.org/blog/how-to-train-state-of-the-art-models-using-torchvision-latest-"
        "primitives/",
        "It averages every 32 steps, by a decay that 0.99997 a step comes to, and puts the crops"
        " of a sample on different GPUs",
    ),
    "finetune": NamedRecipe(
        "A network that has weights already, on images of one's own.",
        {
            "epochs": 25, "batch_size": 64, "lr": 0.01, "schedule": "step", "step_epochs": 7,
            "warmup_epochs": 0.0, "image_size": 224, "val_resize": 256,
        },
        source="https://docs.pytorch.org/tutorials/beginner/transfer_learning_tutorial.html",
        differences="It has batches of 4, and lr 0.001; it is of no dataset that is here",
    ),
    "cifar10": NamedRecipe(
        "A ResNet of nine layers for images of 32 px.",
        {
            "arch": "resnet9", "image_size": 32, "val_resize": 32, "crop_scale": 0.5,
            "epochs": 24, "batch_size": 512, "lr": 0.4, "schedule": "one-cycle",
            "warmup_epochs": 5.0, "nesterov": True, "weight_decay": 5e-4,
        },
        source="https://myrtle.ai/learn/how-to-train-your-resnet/",
        differences="It pads images by 4 px and cuts 32 px out of them, where these crops are of"
        " half the area or more",
    ),
    "digits": NamedRecipe(
        "Small pictures of digits or letters, which have no mirror image.",
        {
            "arch": "cnn-small", "image_size": 32, "val_resize": 32, "crop_scale": 0.7,
            "mirror": False, "epochs": 10, "batch_size": 128, "lr": 0.002,
            "optimizer": "adamw", "weight_decay": 0.01,
        },
    ),
    "segment": NamedRecipe(
        "Foreground and background of images with masks: the default of --task segment.",
        {
            "task": "segment", "arch": "unet/resnet18", "image_size": 1024, "val_resize": 1024,
            "mirror": False, "val_fraction": 0.2, "epochs": 100, "batch_size": 1, "lr": 5e-4,
            "optimizer": "adamw", "weight_decay": 0.0, "warmup_epochs": 0.0, "schedule": "plateau",
            "plateau_epochs": 5, "patience": 10,
        },
    ),
    "overfit-one-batch": NamedRecipe(
        "One batch again and again: a network that can learn has all of it right at the end.",
        {
            # Of tiny10 at 64 px cnn-small has all right after 19 steps, at 32 px resnet18 after 3;
            # by SGD of lr 0.01 cnn-small had 31 of 32 after 50.
            "one_batch": True, "epochs": 50, "batch_size": 32, "lr": 0.002,
            "optimizer": "adamw", "schedule": "constant", "warmup_epochs": 0.0, "weight_decay": 0.0,
            "crop_scale": 1.0, "mirror": False,
        },
    ),
})  # fmt: skip
