"""Parts of a network: its head, and the layers that keep their weights in a training."""

from collections.abc import Collection, Mapping, Set
from types import MethodType

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from imnetprep.messages import WrongUsage
from imnetprep.networks.architectures import make_network
from imnetprep.recipes.recipe import ALL_BUT_HEAD, UP_TO, Recipe

_SHOWN_LAYERS = 12
_HEAD_RMS = 0.01  # of a new head's weights at most; with EfficientNet's own 0.18 its body suffers


def head_of(recipe: Recipe, *, classes: int) -> frozenset[str]:
    """The names of the head's tensors, where the recipe treats it in a way of its own; else none.

    Raises WrongUsage where the network has no head.
    """
    if not recipe.freeze and recipe.head_lr == recipe.lr:
        return frozenset()
    head = _head_names(recipe, classes=classes)
    if not head:
        raise WrongUsage(
            f"no layer of {recipe.arch} depends on the number of classes: it has no head",
            hint="leave out --freeze and --head-lr",
        )
    return head


def shrink_head(model: nn.Module, recipe: Recipe, *, classes: int, among: Collection[str]) -> None:
    """Make the weights of the head that are `among` these small.

    The first gradients of a new head then do not undo what the body has learnt.
    """
    if not among:  # so that no other network is made
        return
    tensors = model.state_dict()
    for name in _head_names(recipe, classes=classes).intersection(among):
        if (tensor := tensors[name]).dim() > 1:
            tensor.mul_((_HEAD_RMS / tensor.square().mean().sqrt()).clamp(max=1))


def _head_names(recipe: Recipe, *, classes: int) -> frozenset[str]:
    """The names of tensors whose shape depends on the number of classes, which may be none."""
    shapes, wider = (_shapes(recipe, classes=number) for number in (classes, classes + 1))
    return frozenset(name for name in shapes if shapes[name] != wider.get(name))


def freeze(model: nn.Module, recipe: Recipe, *, head: Set[str]) -> None:
    """Keep the layers of `model` that --freeze names as they are, their running statistics too.

    Norm layers among them stay in evaluation mode, whatever `train()` says to the network. Raises
    WrongUsage where there is no such layer.
    """
    names = list(model.state_dict())
    if recipe.freeze == ALL_BUT_HEAD:
        constants = set(names) - head
    elif recipe.freeze:
        layer = recipe.freeze.removeprefix(UP_TO)
        at = [name == layer or name.startswith(f"{layer}.") for name in names]
        if not any(at):
            layers = [name for name, _ in model.named_children()]
            raise WrongUsage(
                f"--freeze {recipe.freeze}: {recipe.arch} has no layer {layer}",
                hint=f"--freeze {UP_TO}LAYER, such as {', '.join(layers[:_SHOWN_LAYERS])}",
            )
        constants = set(names[: at.index(True)])
    else:
        return
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in constants)
    for name, module in model.named_modules():
        if isinstance(module, _NormBase) and constants.issuperset(
            f"{name}.{part}" for part in module.state_dict()
        ):
            setattr(module, "train", MethodType(_stay_in_evaluation, module))  # noqa: B010


def _stay_in_evaluation(module: nn.Module, _mode: bool = True) -> nn.Module:
    module.training = False
    return module


def _shapes(recipe: Recipe, *, classes: int) -> Mapping[str, torch.Size]:
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                model = make_network(recipe.arch, classes=classes, image_size=recipe.image_size)
        except Exception:  # a few networks look at numbers while they are made
            model = make_network(recipe.arch, classes=classes, image_size=recipe.image_size)
    return {name: tensor.shape for name, tensor in model.state_dict().items()}
