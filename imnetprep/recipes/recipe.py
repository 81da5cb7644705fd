"""The recipe: all choices of a training but the machine that it runs on.

A run keeps its recipe from its first step to its last; device and workers may change. Each field of
`Recipe` says all that there is to say of one choice: its default, its limits, its help.
"""

import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

from imnetprep.messages import WrongUsage
from imnetprep.plain_values import real_number, whole_number
from imnetprep.recipes.choices import IMAGES, MACHINE, OPTIMIZER, SCHEDULE, Choice, choice
from imnetprep.recipes.publications import DEFAULT, RECIPES

ALL_BUT_HEAD, UP_TO = "all-but-head", "until:"  # of --freeze
TIMM = "timm:"  # before the name of a network of timm
CLASSIFY, SEGMENT = "classify", "segment"  # of --task
INTERPOLATIONS = ("bilinear", "bicubic", "lanczos")  # by Pillow's names of its filters


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The choices of one training, each under the name of its option."""

    recipe: str = choice(
        "Choices that were published together, as `imnetprep recipes` shows; options override it.",
        OPTIMIZER,
        value=DEFAULT,
        names=tuple(RECIPES),
    )
    task: str = choice(
        "What is learnt of an image: its class, or which of its pixels are foreground (segment).",
        IMAGES,
        value=CLASSIFY,
        names=(CLASSIFY, SEGMENT),
    )
    arch: str = choice(
        "A network that `imnetprep archs` lists, timm:NAME, or MODULE:FUNCTION of your own; with"
        " --task segment DECODER/ENCODER, as unet/resnet18.",
        IMAGES,
        value="resnet18",
    )
    weights: str = choice(
        "Weights to begin with: torchvision[:NAME], timm[:NAME], or a FILE.",
        IMAGES,
        value="",
        default="of the seed",
    )
    image_size: int = choice(
        "Side of the network's input, px.", IMAGES, value=224, limits=(8, 4096)
    )
    train_size: int = choice(
        "Side of a training crop, px, if it is another than that of validation.",
        IMAGES,
        limits=(8, 4096),
        default="image size",
    )
    first_size: int = choice(
        "Side of the crops of the first epochs, px; they grow to the train size.",
        IMAGES,
        limits=(8, 4096),
        default="train size",
    )
    crop_scale: float = choice(
        "Smallest area of a training crop.", IMAGES, value=0.08, limits=(0.001, 1)
    )
    mirror: bool = choice("Mirror half of the training crops.", IMAGES, value=True)
    augment: str = choice(
        "Change each training crop by one random operation (trivial), or not.",
        IMAGES,
        value="none",
        names=("none", "trivial"),
    )
    erase: float = choice(
        "Share of training crops in which a rectangle is erased.", IMAGES, value=0.0, limits=(0, 1)
    )
    repeats: int = choice(
        "Crops of a sample side by side in a batch; an epoch has fewer samples.",
        IMAGES,
        value=1,
        limits=(1, 1000),
    )
    balance: str = choice(
        "Rare classes weigh as much as others: in the loss, or drawn more often (sampler).",
        IMAGES,
        value="none",
        names=("none", "loss", "sampler"),
    )
    shuffle_window: int = choice(
        "Shards in use at once: samples are shuffled among so many; 0: all.",
        IMAGES,
        value=0,
        limits=(0, 10_000_000),
        default="all; with --shards, three quarters of the cache",
    )
    one_batch: bool = choice(
        "Train on the first batch alone, to see whether a network can learn.", IMAGES, value=False
    )
    val_resize: int = choice(
        "Shorter side, px, of a validation image before its centre crop.",
        IMAGES,
        limits=(8, 4096),
        default="image size × 256/224, or as the recipe has it",
    )
    val: bool = choice("Validate after each epoch.", IMAGES, value=True)
    val_fraction: float = choice(
        "Share of each class of train to hold out and validate on, in place of the val split;"
        " 0: none.",
        IMAGES,
        value=0.0,
        limits=(0, 0.9),
    )
    interpolation: str = choice(
        "Filter that resizes images.", IMAGES, value="bilinear", names=INTERPOLATIONS
    )
    epochs: int = choice("Passes over the train split.", OPTIMIZER, value=90, limits=(1, 100_000))
    batch_size: int = choice(
        "Images in a batch, over all processes.", OPTIMIZER, value=256, limits=(1, 65_536)
    )
    accumulate: int = choice(
        "Parts in which a process takes its share of a batch, for less memory.",
        OPTIMIZER,
        value=1,
        limits=(1, 65_536),
    )
    sync_batch_norm: bool = choice(
        "BatchNorm over the batch of all GPUs, not over each slice.", OPTIMIZER, value=False
    )
    lr: float = choice(
        "The highest learning rate.",
        SCHEDULE,
        limits=(1e-12, 1e6),
        default="0.1 × batch size / 256, or as the recipe has it",
    )
    head_lr: float = choice(
        "The highest learning rate of the head.", OPTIMIZER, limits=(1e-12, 1e6), default="as --lr"
    )
    freeze: str = choice(
        "Layers that keep their weights: all-but-head, or until:LAYER for all before it.",
        OPTIMIZER,
        value="",
        default="none",
    )
    warmup_epochs: float = choice(
        "Epochs of rising learning rate.",
        SCHEDULE,
        limits=(0, 100_000),
        default="a tenth, at most 5",
    )
    schedule: str = choice(
        "How the learning rate falls after the warm-up.",
        SCHEDULE,
        value="cosine",
        names=("cosine", "one-cycle", "step", "multi-step", "plateau", "constant"),
    )
    drop: float = choice(
        "Factor of each fall of step, multi-step and plateau.",
        SCHEDULE,
        value=0.1,
        limits=(1e-6, 1),
    )
    step_epochs: int = choice(
        "Epochs between falls of step.", SCHEDULE, value=30, limits=(1, 100_000)
    )
    milestones: str = choice(
        "Epochs after which multi-step falls, as 30,60,80.",
        SCHEDULE,
        default="1/3, 2/3 and 8/9 of all",
    )
    plateau_epochs: int = choice(
        "Epochs without a better score after which plateau falls.",
        SCHEDULE,
        value=10,
        limits=(1, 100_000),
    )
    patience: int = choice(
        "Epochs without a better score after which the training ends; 0: none.",
        SCHEDULE,
        value=0,
        limits=(0, 100_000),
    )
    watch: str = choice(
        "The validation score of plateau and patience; of masks top1 is the F-measure.",
        SCHEDULE,
        value="top1",
        names=("top1", "loss"),
    )
    restart_epoch: int = 0  # where --restart-schedule began the schedule anew
    optimizer: str = choice(
        "How a gradient becomes a step.", OPTIMIZER, value="sgd", names=("sgd", "adamw")
    )
    momentum: float = choice(
        "Momentum of SGD; the first beta of AdamW.", OPTIMIZER, value=0.9, limits=(0, 0.9999)
    )
    nesterov: bool = choice("Nesterov's momentum, for SGD.", OPTIMIZER, value=False)
    weight_decay: float = choice(
        "Weight decay: of SGD an L2 penalty, of AdamW decoupled.",
        OPTIMIZER,
        value=1e-4,
        limits=(0, 100),
    )
    norm_decay: bool = choice("Weight decay on biases and norm layers, too.", OPTIMIZER, value=True)
    clip_norm: float = choice(
        "Largest norm of a gradient; 0: any.", OPTIMIZER, value=0.0, limits=(0, 1e6)
    )
    label_smoothing: float = choice(
        "Share of a label given to all classes.", OPTIMIZER, value=0.0, limits=(0, 0.99)
    )
    mixup: float = choice(
        "Mixup of pairs of images, by the alpha of a beta distribution; 0: none.",
        OPTIMIZER,
        value=0.0,
        limits=(0, 100),
    )
    cutmix: float = choice(
        "Cutmix of pairs of images, by the alpha of a beta distribution; 0: none."
        " With mixup as well a batch gets either.",
        OPTIMIZER,
        value=0.0,
        limits=(0, 100),
    )
    ema: float = choice(
        "Decay of a moving average of the weights, scored beside them; 0: none.",
        OPTIMIZER,
        value=0.0,
        limits=(0, 0.999999),
    )
    seed: int = choice(
        "Seed of weights, order, crops, dropout.", OPTIMIZER, value=0, limits=(0, 2**63 - 1)
    )
    amp: bool = choice(
        "Compute in 16 bits: bfloat16, or float16 with a scaled loss on a GPU without it.",
        MACHINE,
        default="where it is faster",
    )
    gpu_decode: bool = choice(
        "Decode the training images on a CUDA GPU (nvJPEG, by torchcodec), whose pixels are not"
        " those of --decode.",
        MACHINE,
        value=False,
    )
    compile: bool = choice(
        "Compile the network before its first step (torch.compile).", MACHINE, value=False
    )

    def __post_init__(self) -> None:
        for name, meaning in CHOICES.items():
            value = getattr(self, name)
            if meaning.names and value not in meaning.names:
                raise WrongUsage(
                    f"{option_of(name)} {value!r:.40} is none that there is",
                    hint=f"{option_of(name)} {' or '.join(meaning.names)}",
                )
            low, high = meaning.limits or (value, value)
            if not low <= value <= high:
                raise WrongUsage(
                    f"{option_of(name)} {value:g} is not between {low:g} and {high:g}",
                    hint="imnetprep train --help has the defaults",
                )
        if not 0 <= self.restart_epoch < self.epochs:
            raise WrongUsage(
                f"the schedule began anew after {self.restart_epoch} of {self.epochs} epochs",
                hint="--epochs of more than that",
            )
        _ = self.milestone_epochs
        _refuse_freezing(self)
        _refuse_for_masks(self)
        if not self.val and (self.val_fraction or self.patience or self.schedule == "plateau"):
            raise WrongUsage(
                "--val-fraction, --patience and --schedule plateau need a validation, which"
                " --no-val leaves out",
                hint="leave out --no-val, or the other option",
            )
        if self.nesterov and (self.optimizer != "sgd" or not self.momentum):
            raise WrongUsage(
                "--nesterov needs SGD with a momentum", hint="--no-nesterov, or --optimizer sgd"
            )
        if self.first_size > self.train_size:
            raise WrongUsage(
                f"--first-size {self.first_size} is larger than --train-size {self.train_size}",
                hint=f"--first-size {self.train_size} or less",
            )
        if self.val_resize < self.image_size:
            raise WrongUsage(
                f"--val-resize {self.val_resize} is smaller than --image-size {self.image_size}",
                hint=f"--val-resize {self.image_size} or more",
            )

    @property
    def milestone_epochs(self) -> tuple[int, ...]:
        """The epochs of `milestones`. Raises WrongUsage where there are none in it."""
        words = [word.strip() for word in self.milestones.split(",") if word.strip()]
        if not all(word.isascii() and word.isdigit() and len(word) < 7 for word in words):
            raise WrongUsage(
                f"--milestones {self.milestones[:40]!r} is no list of epochs",
                hint="--milestones 30,60,80",
            )
        return tuple(map(int, words))


# By the name of the field, in the order of --help.
CHOICES: Mapping[str, Choice] = {
    item.name: item.metadata["choice"] for item in fields(Recipe) if item.metadata
}
DEFAULTS: Mapping[str, Any] = {
    item.name: item.default for item in fields(Recipe) if item.default is not MISSING
}


def _refuse_freezing(recipe: Recipe) -> None:
    is_layer = recipe.freeze.startswith(UP_TO) and recipe.freeze != UP_TO
    if recipe.freeze and recipe.freeze != ALL_BUT_HEAD and not is_layer:
        raise WrongUsage(
            f"--freeze {recipe.freeze[:40]!r} names no layers",
            hint=f"--freeze {ALL_BUT_HEAD}, or {UP_TO}LAYER, such as {UP_TO}layer4",
        )
    if recipe.freeze and not recipe.weights:
        raise WrongUsage(
            f"--freeze {recipe.freeze} would keep weights that were never trained",
            hint="--weights torchvision, timm, or a FILE",
        )


# What is of classes, or of crops: with masks it has no meaning.
_OF_CLASSES = (
    "train_size", "first_size", "augment", "erase", "repeats", "balance", "mixup", "cutmix",
    "label_smoothing", "gpu_decode", "shuffle_window", "head_lr", "crop_scale", "val_resize",
)  # fmt: skip


def _refuse_for_masks(recipe: Recipe) -> None:
    is_for_masks = is_mask_network(recipe.arch)
    if recipe.task == CLASSIFY:
        if is_for_masks:
            raise WrongUsage(
                f"--arch {recipe.arch} tells pixels apart, not classes of images",
                hint=f"--task {SEGMENT}, or --arch resnet18",
            )
        if recipe.batch_size < 2:
            raise WrongUsage(
                "--batch-size 1 is too small: networks that normalise a batch need two images",
                hint="--batch-size 2 or more",
            )
        return
    if not is_for_masks and not is_own_function(recipe.arch):
        raise WrongUsage(
            f"--arch {recipe.arch} names classes of images, and --task {SEGMENT} wants masks",
            hint=f"--arch unet/{recipe.arch.removeprefix(TIMM)}, a decoder and its encoder",
        )
    sizes = dict.fromkeys(("train_size", "first_size", "val_resize"), recipe.image_size)
    plain = {**DEFAULTS, **sizes, "head_lr": recipe.lr}
    for name in _OF_CLASSES:
        if getattr(recipe, name) != plain[name]:
            raise WrongUsage(
                f"{option_of(name, getattr(recipe, name))} has no meaning with --task {SEGMENT}",
                hint=f"leave out {option_of(name)}",
            )


def is_mask_network(arch: str) -> bool:
    """Is `arch` a decoder and an encoder, `unet/resnet18`, which tells pixels apart?"""
    return "/" in arch and ":" not in arch


def is_own_function(arch: str) -> bool:
    """Is `arch` a function of the user's own, `module:function`?"""
    return ":" in arch and not arch.startswith(TIMM)


def default_run(arch: str) -> str:
    """The name of a run that has none: that of its architecture, as a folder may be called."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", arch).strip("-") or "run"


def parse_recipe(table: Mapping[str, Any]) -> Recipe:
    """The recipe in a table that may come from a stranger. Raises ValueError if it is none."""
    try:
        values = {each.name: table[each.name] for each in fields(Recipe)}
        for each in fields(Recipe):
            value = values[each.name]
            try:
                if each.type is float:
                    real_number(value)
                elif each.type is int:
                    whole_number(value)
                elif type(value) is not each.type:
                    raise ValueError(f"it is {value!r:.40}")
            except ValueError as error:
                raise ValueError(f"the recipe's {each.name}: {error}") from error
        return Recipe(**values)
    except (KeyError, TypeError) as error:
        raise ValueError(f"the recipe lacks {error}") from error
    except WrongUsage as error:
        raise ValueError(str(error)) from error


def option_of(name: str, value: Any = None) -> str:
    """The option of a field as it is typed, with its value or without."""
    flag = "--" + name.replace("_", "-")
    if isinstance(value, bool):
        return flag if value else flag.replace("--", "--no-")
    return flag if value is None else f"{flag} {value}"
