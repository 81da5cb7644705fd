"""Values of a checkpoint that a stranger may have written, taken only as what they must be."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from imnetprep.pixels.transforms import Preprocessing
from imnetprep.plain_values import flag, real_number, whole_number
from imnetprep.recipes.recipe import INTERPOLATIONS

_MOST_PIXELS = 4096
_LARGEST_SUM = 2.0**53  # whole numbers are exact in a float up to here
_LARGEST_SCALE, _LARGEST_STEPS = 2.0**127, 2.0**31 - 1  # of a float32, an int32


def parse_preprocessing(state: Mapping[str, Any]) -> Preprocessing:
    """The preprocessing in the table of a checkpoint."""
    table = state["preprocessing"]
    image_size, resize = (whole_number(table[name], least=8) for name in ("image_size", "resize"))
    mean, std = (tuple(map(real_number, table[name])) for name in ("mean", "std"))
    if not image_size <= resize <= _MOST_PIXELS:
        raise ValueError(f"sizes {image_size} and {resize} px")
    if len(mean) != 3 or len(std) != 3 or not all(value > 0 for value in std):
        raise ValueError(f"mean {mean} and std {std}")
    apply_orientation = flag(table.get("apply_orientation", False))
    interpolation = table.get("interpolation", "bilinear")
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"interpolation is {interpolation!r:.40}")
    return Preprocessing(image_size, resize, mean, std, apply_orientation, interpolation)


def parse_tensors(table: Mapping[str, Any]) -> dict[str, Tensor]:
    """A table of tensors."""
    for name, value in table.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} is no tensor")
    return dict(table)


def parse_sum(name: str, value: Any) -> float:
    """A sum of an epoch under way, by its name."""
    if name == "loss" and isinstance(value, float):
        return value  # NaN too: the training says so, and ends
    return real_number(value, least=0, limit=_LARGEST_SUM)


def parse_loss_scale(table: Mapping[str, Any]) -> dict[str, float]:
    """The scale of a loss and the steps since it changed, or none of them."""
    limits = {"scale": _LARGEST_SCALE, "steps": _LARGEST_STEPS}
    return {name: real_number(table[name], least=0, limit=limits[name]) for name in limits if table}


def parse_score(value: Any) -> float:
    """A watched score."""
    if type(value) is not float:  # NaN, too, is a score
        raise TypeError(f"{value!r:.40} is no score")
    return value


def parse_text(value: Any) -> str:
    """A text, whatever is in it."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is no text")
    return value
