"""The optimizer of a recipe: its parameter groups, its memory as tensors, and clipping."""

from collections.abc import Iterator, Mapping, Set

import torch
from torch import Tensor, nn

from imnetprep.messages import ImnetprepError, WrongUsage
from imnetprep.recipes.recipe import Recipe

OptimizerState = dict[str, dict[str, Tensor]]

# What each optimizer remembers of a parameter once it took a step.
_MEMORY: Mapping[type[torch.optim.Optimizer], frozenset[str]] = {
    torch.optim.SGD: frozenset({"momentum_buffer"}),
    torch.optim.AdamW: frozenset({"step", "exp_avg", "exp_avg_sq"}),
}
_COUNTERS = frozenset({"step"})
# By type: a name such as "bn" misses `downsample.1` of a ResNet.
_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def make_optimizer(
    model: nn.Module, recipe: Recipe, *, head: Set[str] = frozenset()
) -> torch.optim.Optimizer:
    """The optimizer that `recipe` names, for the parameters of `model` that train.

    A group's `lr_scale` is its learning rate by that of the recipe: that of the `head` may differ.
    Raises WrongUsage where none trains.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = [
        {"params": part, "weight_decay": decay, "lr_scale": scale}
        for parameters, decay in _groups(model, recipe)
        for is_head, scale in ((False, 1.0), (True, recipe.head_lr / recipe.lr))
        if (part := [each for each in parameters
                     if each.requires_grad and (names[id(each)] in head) is is_head])
    ]  # fmt: skip
    if not groups:
        raise WrongUsage(
            f"no parameter of {recipe.arch} trains: requires_grad is False for all",
            hint="let the parameters train that are to learn; --freeze keeps layers as they are",
        )
    # One kernel for all parameters; of MPS it is not measured.
    fuse = next(model.parameters()).device.type in ("cpu", "cuda") or None
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr, betas=(recipe.momentum, 0.999), fused=fuse)
    optimizer = torch.optim.SGD(
        groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov, fused=fuse
    )
    for group in optimizer.param_groups if recipe.momentum else ():
        for parameter in group["params"]:
            # The first gradient adds to zeros: where float16 overflows and skips the first step,
            # torch's own buffer would stay as the memory was.
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def _groups(model: nn.Module, recipe: Recipe) -> Iterator[tuple[list[nn.Parameter], float]]:
    """Parameters, each once, and their weight decay."""
    if recipe.norm_decay:
        yield list(model.parameters()), recipe.weight_decay
        return
    free = {id(parameter) for parameter in _norms_and_biases(model)}
    yield [each for each in model.parameters() if id(each) not in free], recipe.weight_decay
    yield [each for each in model.parameters() if id(each) in free], 0.0


def _norms_and_biases(model: nn.Module) -> Iterator[nn.Parameter]:
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if isinstance(module, _NORMS) or name.endswith("bias"):
                yield parameter


def clip_gradients(model: nn.Module, *, norm: float) -> None:
    """Scale the gradients of `model` down to `norm` where they are longer."""
    nn.utils.clip_grad_norm_(model.parameters(), norm)


def memory_of(optimizer: torch.optim.Optimizer, model: nn.Module) -> OptimizerState:
    """What `optimizer` remembers, by the names of the parameters of `model`."""
    return {
        name: {key: value for key, value in optimizer.state[parameter].items()
               if isinstance(value, Tensor)}
        for name, parameter in model.named_parameters()
    }  # fmt: skip


def restore_memory(
    optimizer: torch.optim.Optimizer, model: nn.Module, memory: OptimizerState
) -> None:
    """Give `optimizer` what `memory_of` told. Raises ImnetprepError on what is not of `model`."""
    parameters = dict(model.named_parameters())
    if strangers := memory.keys() - parameters.keys():
        raise _altered(f"state of a parameter {min(strangers)}, which the network has not")
    for name, table in memory.items():
        parameter = parameters[name]
        if table and table.keys() != _MEMORY[type(optimizer)]:
            raise _altered(f"{', '.join(sorted(table))} of {name}")
        for key, value in table.items():
            is_counter = key in _COUNTERS
            if value.shape != (() if is_counter else parameter.shape):
                raise _altered(f"the {key} of {name} in the shape {tuple(value.shape)}")
            if is_counter and not (value.dtype == torch.float32 and bool(value >= 0)):
                raise _altered(f"the {key} {value.item()!r:.40} of {name}")
            # A fused kernel has its counters beside the parameters, any other on the CPU.
            is_beside = optimizer.defaults["fused"] or not is_counter
            optimizer.state[parameter][key] = value.to(parameter if is_beside else "cpu")


def _altered(content: str) -> ImnetprepError:
    return ImnetprepError(
        f"the checkpoint has {content}", hint="take another checkpoint; this one was altered"
    )
