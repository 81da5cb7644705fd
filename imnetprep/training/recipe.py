"""The recipe: all choices of a training but the machine that it runs on.

A run keeps its recipe from its first step to its last; device and workers may change.
"""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

from imnetprep.messages import WrongUsage
from imnetprep.plain_values import real_number, whole_number

_LR_OF_256 = 0.1
_VAL_RESIZE = 256 / 224

# Lowest and highest value that makes sense; also what a checkpoint from a stranger may say.
_LIMITS: Mapping[str, tuple[float, float]] = {
    "epochs": (1, 100_000),
    "batch_size": (2, 65_536),
    "lr": (1e-12, 1e6),
    "warmup_epochs": (0, 100_000),
    "momentum": (0, 0.9999),
    "weight_decay": (0, 100),
    "label_smoothing": (0, 0.99),
    "image_size": (8, 4096),
    "val_resize": (8, 4096),
    "crop_scale": (0.001, 1),
    "seed": (0, 2**63 - 1),
}


@dataclass(frozen=True)
class Recipe:
    """The choices of one training, each under the name of its option.

    `lr` is the highest learning rate; `image_size` the side of the square that the network sees,
    in pixels; `val_resize` the short side of a validation image before its centre is cut out;
    `crop_scale` the smallest part of the area that a training crop keeps.
    """

    lr: float
    warmup_epochs: float
    val_resize: int
    amp: bool
    arch: str = "resnet18"
    epochs: int = 90
    batch_size: int = 256
    momentum: float = 0.9
    weight_decay: float = 1e-4
    label_smoothing: float = 0.0
    image_size: int = 224
    crop_scale: float = 0.08
    seed: int = 0

    def __post_init__(self) -> None:
        for name, (low, high) in _LIMITS.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise WrongUsage(
                    f"{_option(name)} {value:g} is not between {low:g} and {high:g}",
                    hint="imnetprep train --help has the defaults",
                )
        if self.val_resize < self.image_size:
            raise WrongUsage(
                f"--val-resize {self.val_resize} is smaller than --image-size {self.image_size}",
                hint=f"--val-resize {self.image_size} or more",
            )


def plan_recipe(options: Mapping[str, Any], *, amp_pays: bool) -> Recipe:
    """The recipe that `options` make, by name; what is None or absent follows from the rest.

    The learning rate grows with the batch (Goyal et al. 2017, arXiv:1706.02677), the warm-up is a
    tenth of the epochs and at most 5, and validation resizes by 256/224 as is usual at 224.
    """
    choices = {name: value for name, value in options.items() if value is not None}
    defaults = {
        field.name: field.default for field in fields(Recipe) if field.default is not MISSING
    }
    full = defaults | choices
    values = {
        "lr": _LR_OF_256 * full["batch_size"] / 256,
        "warmup_epochs": min(5.0, full["epochs"] / 10),
        "val_resize": round(full["image_size"] * _VAL_RESIZE),
        "amp": amp_pays,
    }
    return Recipe(**(values | full))


def refuse_contradiction(recipe: Recipe, options: Mapping[str, Any]) -> None:
    """Raise WrongUsage if an option in `options` is not what the run's `recipe` says."""
    for name, value in options.items():
        of_run = getattr(recipe, name)
        if value is not None and value != of_run:
            raise WrongUsage(
                f"{_option(name, value)} contradicts the run, which has {_option(name, of_run)}",
                hint="leave it out to resume the run, or begin another with --run NAME",
            )


def parse_recipe(table: Mapping[str, Any]) -> Recipe:
    """The recipe in a table that may come from a stranger. Raises ValueError if it is none."""
    try:
        values = {field.name: table[field.name] for field in fields(Recipe)}
        for field in fields(Recipe):
            value = values[field.name]
            try:
                if field.type is float:
                    real_number(value)
                elif field.type is int:
                    whole_number(value)
                elif type(value) is not field.type:
                    raise ValueError(f"it is {value!r:.40}")
            except ValueError as error:
                raise ValueError(f"the recipe's {field.name}: {error}") from error
        return Recipe(**values)
    except (KeyError, TypeError) as error:
        raise ValueError(f"the recipe lacks {error}") from error
    except WrongUsage as error:
        raise ValueError(str(error)) from error


def _option(name: str, value: Any = None) -> str:
    flag = "--" + name.replace("_", "-")
    if isinstance(value, bool):
        return flag if value else flag.replace("--", "--no-")
    return flag if value is None else f"{flag} {value}"
