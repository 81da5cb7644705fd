"""What the first steps on a batch show: pixels, the first loss, gradients, and dead outputs."""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn

from imnetprep.ladder.outcome import Gate, Sign
from imnetprep.loading.batches import Batch
from imnetprep.training.step import Step

# In the first step a layer behind a weight of zero has no gradient: residual branches begin so.
_STEPS = 3
_RECTIFIERS = (nn.ReLU, nn.ReLU6)
# Handwritten digits, white on black, have a mean of -1.5 and a std of 1.4 in ImageNet's units.
_LARGEST_MEAN, _STDS = 3.0, (0.1, 5.0)
# Half of the outputs of a wide layer may be 0 for a whole batch of a healthy network.
_MOST_DEAD = 0.9
_NAMES = 3


class FirstLook(NamedTuple):
    """What a network of fresh weights does with a batch.

    `mean` and `std` are of the pixels as it gets them, `loss` is that of the first step,
    `dead_share` is the share of outputs that are 0 for each image, of `dead_layer`, which has most.
    `idle_names` are the parameters that no gradient reaches, and `idle_share` their share of all.
    """

    mean: float
    std: float
    loss: float
    dead_layer: str
    dead_share: float
    idle_names: Sequence[str]
    idle_share: float

    def gates(self, *, guess_loss: float) -> Iterator[Gate]:
        """What is asked of it, where a guess among the classes has the loss `guess_loss`."""
        is_scaled = abs(self.mean) <= _LARGEST_MEAN and _STDS[0] <= self.std <= _STDS[1]
        text = f"pixels of mean {self.mean:.2g} and std {self.std:.2g}"
        yield Gate(Sign.PIXELS, text + " where 0 and 1 are expected" * (not is_scaled), is_scaled)
        names = ", ".join(self.idle_names[:_NAMES]) + ", …" * (len(self.idle_names) > _NAMES)
        text = "a gradient in all parameters"
        if self.idle_names:
            text = f"no gradient in {self.idle_share:.0%} of the parameters: {names}"
        yield Gate(Sign.GRADIENT, text.replace("%", " %"), not self.idle_names)
        text = "no output of a layer is 0 for each image"
        if self.dead_share:
            text = f"{self.dead_share:.0%} of the outputs of {self.dead_layer} are 0 for each image"
        is_alive = self.dead_share < _MOST_DEAD
        if self.dead_layer:
            yield Gate(Sign.DEAD, text.replace("%", " %"), is_alive)
        text = f"a first loss of {self.loss:.3g} where guesses have {guess_loss:.3g}"
        yield Gate(Sign.FIRST_LOSS, text, self.loss <= 1.5 * guess_loss + 1)


def first_look(step: Step, batch: Batch) -> FirstLook:
    """Take a few steps on `batch` and watch the network."""
    model, recipe = step.state.model, step.state.recipe
    shares, pixels = dict[str, float](), list[float]()
    hooks = [model.register_forward_pre_hook(partial(_note_pixels, pixels))]
    for name, module in model.named_modules():
        if isinstance(module, _RECTIFIERS):
            hooks.append(module.register_forward_hook(partial(_note_dead, shares, name)))
    idle = {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad or not recipe.freeze  # what is to be frozen may be idle
    }
    numbers = sum(each.numel() for each in idle.values())
    model.train()
    loss = math.nan
    for number in range(_STEPS):
        step.take(batch, images=len(batch.labels))
        if not number:
            loss = step.state.meter.score().loss
            for hook in hooks:
                hook.remove()
        idle = {name: each for name, each in idle.items() if not _has_gradient(each)}
    dead_layer = max(shares, key=lambda name: shares[name], default="")
    idle_share = sum(each.numel() for each in idle.values()) / max(1, numbers)
    dead_share = shares.get(dead_layer, 0.0)
    mean, std = pixels
    return FirstLook(mean, std, loss, dead_layer, dead_share, list(idle), idle_share)


def _has_gradient(parameter: nn.Parameter) -> bool:
    return parameter.grad is not None and bool(parameter.grad.any())


def _note_pixels(pixels: list[float], _model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """A hook of torch, called before the network."""
    pixels[:] = [inputs[0].mean().item(), inputs[0].std().item()]


def _note_dead(shares: dict[str, float], name: str, _module: Any, _in: Any, output: Tensor) -> None:
    """A hook of torch, called behind a layer; it may be called more than once."""
    rest = [axis for axis in range(output.ndim) if axis != 1]
    share = (output.detach().amax(dim=rest) <= 0).float().mean().item()
    shares[name] = max(share, shares.get(name, 0.0))
