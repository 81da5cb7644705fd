"""Weights from anywhere put into a network: what fits, what does not, and the pixels they want."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from imnetprep.loading.order import mixed_seed
from imnetprep.messages import ImnetprepError, count
from imnetprep.networks.fine_tuning import shrink_head
from imnetprep.networks.mask_networks import flat_name, in_encoder, is_of_encoder, split_name
from imnetprep.networks.model import build_model
from imnetprep.networks.weight_files import plain_name, read_tensors
from imnetprep.networks.zoo import (
    Weights,
    published_preprocessing,
    timm_weights,
    torchvision_weights,
)
from imnetprep.outside_text import shown
from imnetprep.pixels.transforms import Preprocessing
from imnetprep.recipes.recipe import SEGMENT, TIMM, Recipe, is_mask_network
from imnetprep.training.checkpoint import Classes, is_checkpoint, load_checkpoint, outputs_for

_SHOWN_NAMES = 6
_COUNTER = "num_batches_tracked"  # of BatchNorm, which files of old versions lack


@dataclass(frozen=True)
class Fit:
    """Names of a network's tensors: those that a file has, has in another shape, and lacks.

    `surplus`: what the file has beside them.
    """

    matches: tuple[str, ...]
    misfits: tuple[str, ...]
    gaps: tuple[str, ...]
    surplus: tuple[str, ...]

    def __str__(self) -> str:
        total = len(self.matches) + len(self.misfits) + len(self.gaps)
        lists = {
            "of another shape, so new": self.misfits,
            "not in it, so new": self.gaps,
            "not used": self.surplus,
        }
        rest = (f"; {title}: {format_names(names)}" for title, names in lists.items() if names)
        return f"{len(self.matches)} of {total} tensors{''.join(rest)}"


def read_weights(text: str, arch: str) -> Weights:
    """The weights that --weights names: `torchvision[:NAME]`, `timm[:NAME]`, or a file.

    Raises ImnetprepError where they cannot be had, WrongUsage where there are none.
    """
    kind, _, name = text.partition(":")
    if is_mask_network(arch):
        encoder = split_name(arch)[1]
        arch = encoder if kind == "torchvision" else TIMM + encoder
    if kind == "torchvision":
        return torchvision_weights(arch, name)
    if kind == "timm":
        return timm_weights(name or arch.removeprefix(TIMM))
    path = Path(text)
    if is_checkpoint(path):
        checkpoint = load_checkpoint(path)
        return Weights(text, checkpoint.weights, checkpoint.preprocessing)
    return Weights(text, read_tensors(path), published_preprocessing(arch, path))


def pixel_options(weights: Weights | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """`options` of a recipe, with the sizes and the filter of `weights` where none is typed."""
    pixels = weights.preprocessing if weights else None
    if pixels is None:
        return dict(options)
    size = options.get("image_size") or pixels.image_size
    own = {
        "image_size": size,
        "val_resize": round(size * pixels.resize / pixels.image_size),
        "interpolation": pixels.interpolation,
    }
    return own | {name: value for name, value in options.items() if value is not None}


def preprocessing_of(
    recipe: Recipe, weights: Weights | None, *, apply_orientation: bool
) -> Preprocessing:
    """The pixels of a training: sizes and filter of its recipe, mean and std of its weights."""
    pixels = weights.preprocessing if weights else None
    own = pixels or Preprocessing(recipe.image_size, recipe.val_resize)
    return replace(
        own,
        image_size=recipe.image_size,
        resize=recipe.val_resize,
        interpolation=recipe.interpolation,
        apply_orientation=apply_orientation,
    )


def fit_weights(model: nn.Module, weights: Weights, *, of_encoder: bool = False) -> Fit:
    """Put into `model` all that fits by name and shape; the rest keeps what it had.

    `of_encoder`: the weights may be of the encoder of a mask network alone. Raises ImnetprepError
    where what fits is less than half of the tensors that they are for.
    """
    own: dict[str, Tensor] = model.state_dict()
    tensors = {plain_name(name, own): tensor for name, tensor in weights.tensors.items()}
    if is_for_encoder := of_encoder and not any(map(is_of_encoder, tensors)):
        own_names = {flat_name(name): name for name in own}
        tensors = {
            own_names.get(flat_name(in_encoder(name)), in_encoder(name)): tensor
            for name, tensor in tensors.items()
        }
    fits = {
        name: tensor
        for name, tensor in tensors.items()
        if name in own and own[name].shape == tensor.shape
    }
    names = [name for name in own if not name.endswith(_COUNTER)]
    fit = Fit(
        tuple(name for name in names if name in fits),
        tuple(name for name in names if name in tensors and name not in fits),
        tuple(name for name in names if name not in tensors),
        tuple(name for name in tensors if name not in own),
    )
    share = [name for name in names if is_of_encoder(name)] if is_for_encoder else names
    if 2 * len(fit.matches) < len(share):
        raise ImnetprepError(
            f"{weights.source} fits {len(fit.matches)} of {count(len(share), 'tensor')}:"
            f" its own are {format_names(tuple(tensors))}",
            hint="name the network that it is of by --arch",
        )
    try:
        model.load_state_dict(fits, strict=False)
    except RuntimeError as error:  # sparse or quantized
        raise ImnetprepError(
            f"{weights.source} has tensors that no network takes: {error!s:.200}",
            hint="save it as plain floats",
        ) from error
    return fit


def first_weights(
    recipe: Recipe, classes: Classes, weights: Weights
) -> tuple[dict[str, Tensor], Fit]:
    """All weights that a training begins with: of `weights` what fits, else of the seed."""
    model = build_model(
        recipe.arch,
        classes=outputs_for(recipe, classes),
        image_size=recipe.image_size,
        seed=mixed_seed(recipe.seed, "weights"),
        of_pixels=recipe.task == SEGMENT,
    )
    fit = fit_weights(model, weights, of_encoder=is_mask_network(recipe.arch))
    if recipe.task == SEGMENT:
        return model.state_dict(), fit
    shrink_head(model, recipe, classes=len(classes.wnids), among=fit.misfits + fit.gaps)
    return model.state_dict(), fit


def format_names(names: tuple[str, ...]) -> str:
    """The first names of tensors, and how many more there are."""
    rest = len(names) - _SHOWN_NAMES
    return ", ".join(map(shown, names[:_SHOWN_NAMES])) + (f" and {rest} more" if rest > 0 else "")
