"""Networks: torchvision's classification architectures by name, and the loss of their outputs."""

import difflib
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torchvision import models

from imnetprep.messages import ImnetprepError, WrongUsage

# What the second heads of GoogLeNet and Inception add to the loss (Szegedy et al. 2014, 5).
_AUX_WEIGHT = 0.3


def architectures() -> list[str]:
    """The names that `build_model` takes."""
    return list(models.list_models(module=models))


def refuse_unknown(arch: str) -> None:
    """Raise WrongUsage, with the names that come close, unless torchvision has `arch`."""
    if arch not in architectures():
        close = difflib.get_close_matches(arch, architectures(), n=3, cutoff=0.3)
        raise WrongUsage(
            f"torchvision has no architecture {arch!r}",
            hint=f"--arch {' or '.join(close or ['resnet18'])}",
        )


def build_model(arch: str, *, classes: int, image_size: int, seed: int) -> nn.Module:
    """`arch` with fresh weights, the same for the same `seed`, on the CPU.

    Raises WrongUsage on an unknown name or an image size in pixels that it cannot take.
    """
    refuse_unknown(arch)
    size_matters: dict[str, Any] = {}
    if arch.startswith("vit_"):
        size_matters = {"image_size": image_size}
    elif arch.startswith("maxvit_"):
        size_matters = {"input_size": (image_size, image_size)}
    elif arch in ("googlenet", "inception_v3"):
        size_matters = {"init_weights": True}  # without it they warn about a coming change
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model: nn.Module = models.get_model(
                arch, weights=None, num_classes=classes, **size_matters
            )
            _try_on(model, image_size)
        except (RuntimeError, ValueError, AssertionError) as error:
            reason = str(error).strip().splitlines()[0]
            raise WrongUsage(
                f"{arch} does not take images of {image_size} × {image_size} px: {reason}",
                hint=f"--image-size {299 if arch == 'inception_v3' else 224}",
            ) from error
    return model


def _try_on(model: nn.Module, image_size: int) -> None:
    """Push shapes without numbers through `model`, as training will."""
    shapes = {name: tensor.to("meta") for name, tensor in model.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        functional_call(model, shapes, (torch.empty(2, 3, image_size, image_size, device="meta"),))


def heads(output: Any) -> list[Tensor]:
    """The logits (B, C) of each head, the main one first: aux heads speak only in training."""
    if isinstance(output, Tensor):
        return [output]
    return [output.logits, *(head for head in output[1:] if head is not None)]


def loss_of(output: Any, labels: Tensor, *, label_smoothing: float) -> tuple[Tensor, Tensor]:
    """The loss to descend () and the main head's loss (), both means over the batch."""
    main, *aux = (
        nn.functional.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)
        for logits in heads(output)
    )
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
