"""Parts of a network: its head, and the layers that keep their weights in a training."""

from collections.abc import Mapping, Set
from types import MethodType

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from imnetprep.messages import WrongUsage
from imnetprep.networks.architectures import make_network
from imnetprep.recipes.recipe import ALL_BUT_HEAD, UP_TO, Recipe

_SHOWN_LAYERS = 12


def head_of(recipe: Recipe, *, classes: int) -> frozenset[str]:
    """The names of tensors whose shape depends on the number of classes; none if nobody asks.

    Raises WrongUsage where none does.
    """
    if not recipe.freeze and recipe.head_lr == recipe.lr:
        return frozenset()
    shapes, wider = (_shapes(recipe, classes=number) for number in (classes, classes + 1))
    head = frozenset(name for name in shapes if shapes[name] != wider.get(name))
    if not head:
        raise WrongUsage(
            f"no layer of {recipe.arch} depends on the number of classes: it has no head",
            hint="leave out --freeze and --head-lr",
        )
    return head


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
