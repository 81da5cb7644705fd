"""What usually is wrong where a rung fails, the likeliest first, and what to type."""

from collections.abc import Iterator, Sequence

from imnetprep.catalog.datasets import Root
from imnetprep.ladder.outcome import Gate, Sign
from imnetprep.messages import shell_command
from imnetprep.recipes.recipe import Recipe

_RISE = 3.0  # times the first loss
_FALL = 0.5  # of the first loss
# Of what shows before a weight has moved, all else follows.
_OF_SIGNS = {
    Sign.PIXELS: "the pixels are not normalised as the network wants them: mean and std come with"
    " --weights, and without any they are ImageNet's",
    Sign.DEAD: "biases begin too low, or weights too large: begin biases at 0, with a norm layer",
    Sign.GRADIENT: "layers are frozen (requires_grad is False) or cut off (detach(), no_grad(), a"
    " layer that is not called); --freeze says what is to be frozen",
    Sign.FIRST_LOSS: "the last layer begins too large, or its outputs are no logits",
}


def usual_causes(
    gates: Sequence[Gate],
    losses: Sequence[float],
    recipe: Recipe,
    *,
    root: Root,
    is_target: bool,
    is_short: bool,
) -> Iterator[str]:
    """What to look at for the unmet `gates` of a rung with such `losses`, by `recipe`.

    `is_target`: it trained on `root`, and a small set was learned before; `is_short`: for less than
    an epoch of it.
    """
    signs = {gate.sign for gate in gates if not gate.is_met}
    if not signs:
        return
    lr, is_wild = recipe.lr, _is_wild(losses)
    yield from (text for sign, text in _OF_SIGNS.items() if sign in signs)
    if is_wild:
        yield f"the learning rate {lr:g} is too high: --lr {lr / 10:.2g}, or --clip-norm 1"
    if signs & _OF_SIGNS.keys():
        return  # what follows from them
    if is_target and is_short and not is_wild:
        yield "the steps are less than an epoch of the root: more --steps"
    if is_target and Sign.VALIDATION in signs:
        inspect = shell_command("imnetprep", "inspect", "--root", root.path)
        yield (
            "the labels: images lie under other classes than theirs, or val has its classes in"
            f" another order than train; {inspect} shows images and classes"
        )
    elif Sign.VALIDATION in signs:
        yield (
            "what is learned does not hold in validation: too few --steps or too small a"
            " --batch-size for the averages of BatchNorm, or crops of too little: --crop-scale 0.35"
        )
    is_slow = Sign.LOSS in signs or losses[-1] > losses[0] * _FALL
    if is_slow and not is_wild:
        yield f"the learning rate {lr:g} is too low, or the steps are too few: --lr {lr * 10:.2g}"
    if Sign.ANSWERS in signs and not is_wild:
        yield "two images that look alike have two labels, or the network is too small"


def _is_wild(losses: Sequence[float]) -> bool:
    """Did the loss become NaN or infinite, or rise to a multiple of its first value?"""
    return not all(loss < _RISE * max(losses[0], 1) for loss in losses)
