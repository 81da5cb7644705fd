"""Networks by name: torchvision's, timm's, small ones of ours, and functions of the user's own."""

import difflib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torchvision import models

from imnetprep.messages import ImnetprepError, WrongUsage
from imnetprep.networks.mask_networks import mask_decoders, mask_network, split_name
from imnetprep.networks.small_networks import SMALL_NETWORKS
from imnetprep.recipes.recipe import TIMM, is_mask_network, is_own_function

_SMALL_PX, _MASK_PX = 32, 224


@dataclass(frozen=True)
class Architecture:
    """A name for --arch, parameters with 1,000 classes, and the input that it was made for."""

    name: str
    parameters: int
    input_px: int


def architectures() -> list[str]:
    """The names that torchvision and this package have; timm has more, each with `timm:`."""
    return [*models.list_models(module=models), *SMALL_NETWORKS]


def timm_module() -> ModuleType:
    """The package timm. Raises ImnetprepError where it is not installed."""
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        raise ImnetprepError(
            "timm is not installed", hint="pip install 'imnetprep[timm]'"
        ) from error


def refuse_unknown(arch: str) -> None:
    """Raise WrongUsage, with the names that come close, unless there is a network `arch`.

    A function of the user's own is imported: `arch` must have been typed.
    """
    if is_own_function(arch):
        _own_function(arch)
        return
    names, base = architectures(), arch
    if is_mask_network(arch):
        decoder, encoder = split_name(arch)
        decoders, encoders = mask_decoders(), timm_module().list_models()
        if decoder in decoders and encoder in encoders:
            return
        if decoder in decoders:
            names = [f"{decoder}/{name}" for name in encoders]
        else:
            names = [f"{name}/{encoder}" for name in decoders]
    elif arch.startswith(TIMM):
        names = [TIMM + name for name in timm_module().list_models()]
        base = arch.partition(".")[0]  # what follows names weights
    if base not in names:
        close = difflib.get_close_matches(base, names, n=3, cutoff=0.3)
        raise WrongUsage(
            f"there is no architecture {arch!r}",
            hint=f"--arch {' or '.join(close or ['resnet18'])}; imnetprep archs lists all",
        )


def make_network(arch: str, *, classes: int, image_size: int) -> nn.Module:
    """`arch` with fresh weights. Raises WrongUsage on an unknown name."""
    refuse_unknown(arch)
    if is_own_function(arch):
        return _own_network(arch, classes=classes, image_size=image_size)
    if is_mask_network(arch):
        return mask_network(arch, logits=classes)
    options: dict[str, Any] = {"num_classes": classes}
    if arch in SMALL_NETWORKS:
        return SMALL_NETWORKS[arch](**options)
    if arch.startswith(TIMM):
        timm, name = timm_module(), arch.removeprefix(TIMM)
        if timm.get_pretrained_cfg(name.partition(".")[0]).fixed_input_size:
            options["img_size"] = image_size
    elif arch.startswith("vit_"):
        options["image_size"] = image_size
    elif arch.startswith("maxvit_"):
        options["input_size"] = (image_size, image_size)
    elif arch in ("googlenet", "inception_v3"):
        options["init_weights"] = True  # without it they warn about a coming change
    network: nn.Module = (
        timm_module().create_model(arch.removeprefix(TIMM), pretrained=False, **options)
        if arch.startswith(TIMM)
        else models.get_model(arch, weights=None, **options)
    )
    return network


def described(pattern: str = "") -> Iterator[Architecture]:
    """The architectures whose name `pattern` has: a glob, or a part of the name; timm's only then.

    Nothing is downloaded, and no weights are made.
    """
    names = architectures()
    if pattern:
        try:
            names += [TIMM + name for name in timm_module().list_models()]
        except ImnetprepError:
            if pattern.startswith(TIMM):
                raise
    if is_mask_network(pattern):
        encoders = timm_module().list_models()
        names += [f"{decoder}/{name}" for decoder in mask_decoders() for name in encoders]
    glob = pattern if any(mark in pattern for mark in "*?[") else f"*{pattern}*"
    for name in filter(lambda name: fnmatchcase(name, glob), names):
        with suppress(WrongUsage) if is_mask_network(name) else nullcontext():
            yield _described(name)  # no decoder goes with each encoder


def _described(name: str) -> Architecture:
    if is_mask_network(name):
        with torch.device("meta"):
            network = make_network(name, classes=1, image_size=_MASK_PX)
        return Architecture(name, sum(each.numel() for each in network.parameters()), _MASK_PX)
    if name in SMALL_NETWORKS or name.startswith(TIMM):
        side = _SMALL_PX
        if name.startswith(TIMM):
            side = timm_module().get_pretrained_cfg(name.removeprefix(TIMM)).input_size[-1]
        with torch.device("meta"):
            network = make_network(name, classes=1000, image_size=side)
        return Architecture(name, sum(each.numel() for each in network.parameters()), side)
    weights = models.get_model_weights(name).DEFAULT
    return Architecture(name, weights.meta["num_params"], weights.transforms().crop_size[0])


def _own_function(arch: str) -> Callable[..., Any]:
    """The function at `module:function`, looked for in the working directory too."""
    module, _, name = arch.partition(":")
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        function = getattr(importlib.import_module(module), name)
    except Exception as error:  # a module of the user's own may raise anything
        raise WrongUsage(
            f"--arch {arch} cannot be imported: {type(error).__name__}: {error}",
            hint="--arch module:function, such as mine:network for network() in ./mine.py",
        ) from error
    finally:
        sys.path.remove(folder)
    if not callable(function):
        raise WrongUsage(f"--arch {arch} is no function", hint="name a function of that module")
    return function  # type: ignore[no-any-return]


def _own_network(arch: str, *, classes: int, image_size: int) -> nn.Module:
    function = _own_function(arch)
    options = {"num_classes": classes, "image_size": image_size}
    parameters = inspect.signature(function).parameters
    if "num_classes" not in parameters:
        raise WrongUsage(
            f"--arch {arch}: the function takes no num_classes",
            hint="def network(num_classes): …; image_size too, if it is wanted",
        )
    network = function(**{name: value for name, value in options.items() if name in parameters})
    if not isinstance(network, nn.Module):
        raise WrongUsage(
            f"--arch {arch} gives a {type(network).__name__}", hint="return a torch.nn.Module"
        )
    return network
