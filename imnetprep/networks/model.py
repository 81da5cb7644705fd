"""A network for the classes and the image size of a training, and the loss of its outputs."""

import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from imnetprep.messages import ImnetprepError, WrongUsage
from imnetprep.networks.architectures import make_network
from imnetprep.networks.mask_networks import STRIDE_PX

# What the second heads of GoogLeNet and Inception add to the loss (Szegedy et al. 2014, 5).
_AUX_WEIGHT = 0.3


def build_model(
    arch: str,
    *,
    classes: int,
    image_size: int,
    seed: int,
    train_sizes: Iterable[int] = (),
    of_pixels: bool = False,
) -> nn.Module:
    """`arch` with fresh weights, the same for the same `seed`, on the CPU.

    `of_pixels`: it gives logits for each pixel, (B, C, H, W). Raises WrongUsage on an unknown name
    or an image size in pixels that it cannot take, such as one of `train_sizes`.
    """
    if of_pixels:
        image_size, train_sizes = 2 * STRIDE_PX, ()  # it takes any multiple
    side = image_size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = make_network(arch, classes=classes, image_size=image_size)
            for side in {*train_sizes, image_size}:
                output = _try_on(model, side, falls_back=":" in arch)
        except (RuntimeError, ValueError, AssertionError) as error:
            reason = str(error).strip().splitlines()[0]
            if of_pixels:
                raise WrongUsage(
                    f"{arch} does not take images of any size: {reason}",
                    hint="another encoder, such as resnet18",
                ) from error
            raise WrongUsage(
                f"{arch} does not take images of {side} × {side} px: {reason}",
                hint=f"--image-size {299 if arch == 'inception_v3' else 224}",
            ) from error
    shape = tuple(heads(output)[0].shape[1:])
    wish = (classes, side, side) if of_pixels else (classes,)
    if shape != wish:
        raise WrongUsage(
            f"{arch} gives {shape} for an image where logits {wish} are wanted",
            hint="a network for num_classes classes returns logits (B, num_classes)"
            + ", of each pixel (B, num_classes, H, W)" * of_pixels,
        )
    return model


def _try_on(model: nn.Module, image_size: int, *, falls_back: bool) -> Any:
    """Push shapes without numbers through `model`, as training will.

    `falls_back`: where that fails an image, for tables of a network that stay on the CPU.
    """
    shapes = {name: tensor.to("meta") for name, tensor in model.state_dict().items()}
    images = torch.empty(2, 3, image_size, image_size, device="meta")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            return functional_call(model, shapes, (images,))
        except (RuntimeError, ValueError, AssertionError):
            if not falls_back:
                raise
            output = model.eval()(torch.zeros(1, 3, image_size, image_size))
            model.train()
            return output


def heads(output: Any) -> list[Tensor]:
    """The logits (B, C) of each head, the main one first: aux heads speak only in training."""
    if isinstance(output, Tensor):
        return [output]
    return [output.logits, *(head for head in output[1:] if head is not None)]


def loss_of(
    output: Any, targets: Tensor, *, label_smoothing: float, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The loss to descend () and the main head's loss (), both means over the batch.

    `targets` are labels (B,) or shares of classes (B, C); `weights` (C,) those of the classes.
    """

    def mean(logits: Tensor) -> Tensor:
        loss = nn.functional.cross_entropy(
            logits.float(), targets, weights, reduction="sum", label_smoothing=label_smoothing
        )
        return loss / len(targets)  # whatever they weigh: parts of a batch add up to the batch

    main, *aux = map(mean, heads(output))
    return main + _AUX_WEIGHT * sum(aux, torch.zeros_like(main)), main


def load_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Put `weights` into `model`. Raises ImnetprepError if they are of another network."""
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        lines = str(error).strip().splitlines()
        raise ImnetprepError(
            f"the checkpoint's weights do not fit its architecture: {lines[-1].strip()}",
            hint="take another checkpoint; this one was altered or written by another program",
        ) from error
