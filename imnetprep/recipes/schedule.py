"""The learning rate and an early end: functions of the recipe, the step, and scores so far.

`scores` are the watched ones (--watch), an epoch each. A plateau and an early end follow from them
anew each time, so that nothing else must be remembered.
"""

import math
from collections.abc import Sequence

from imnetprep.recipes.recipe import Recipe

# Longer, such a schedule is another one in its first epochs, too.
FIXED_LENGTH = frozenset({"cosine", "one-cycle"})


def lr_at(
    step: int, recipe: Recipe, *, steps_per_epoch: int, scores: Sequence[float] = ()
) -> float:
    """The learning rate of `step`, counted from 0 over all epochs.

    After a linear warm-up: half a cosine to 0 (Loshchilov, Hutter 2016), a line to 0 (one-cycle;
    Smith, Topin 2017), or the highest rate, lowered by `drop` at some epochs.
    """
    step -= recipe.restart_epoch * steps_per_epoch
    steps = (recipe.epochs - recipe.restart_epoch) * steps_per_epoch
    warmup_steps = min(steps, round(recipe.warmup_epochs * steps_per_epoch))
    if step < warmup_steps:
        return recipe.lr * (step + 1) / (warmup_steps + 1)
    if recipe.schedule in FIXED_LENGTH:
        way = (step - warmup_steps) / (steps - warmup_steps)
        return recipe.lr * (1 - way if recipe.schedule == "one-cycle" else _cosine(way))
    epoch = step // steps_per_epoch
    return float(recipe.lr * recipe.drop ** _drops(epoch, recipe, scores))


def _cosine(way: float) -> float:
    return (1 + math.cos(math.pi * way)) / 2


def _drops(epoch: int, recipe: Recipe, scores: Sequence[float]) -> int:
    """How many times the rate has fallen by `epoch`, counted from the start of the schedule."""
    if recipe.schedule == "step":
        return epoch // recipe.step_epochs
    if recipe.schedule == "multi-step":
        return sum(epoch >= milestone for milestone in recipe.milestone_epochs)
    if recipe.schedule == "plateau":
        return _plateaus(scores[recipe.restart_epoch :], recipe)
    return 0


def _plateaus(scores: Sequence[float], recipe: Recipe) -> int:
    """How many times `plateau_epochs` went by without a better score; each begins anew."""
    plateaus, idle, best = 0, 0, None
    for score in scores:
        if best is None or is_better(score, best, recipe):
            best, idle = score, 0
        else:
            idle += 1
        if idle == recipe.plateau_epochs:
            plateaus, idle = plateaus + 1, 0
    return plateaus


def is_better(score: float, rival: float, recipe: Recipe) -> bool:
    """Is a watched score better than another? NaN is the worst."""
    if math.isnan(rival):
        return not math.isnan(score)
    return score < rival if recipe.watch == "loss" else score > rival


def epochs_without_progress(scores: Sequence[float], recipe: Recipe) -> int:
    """How many epochs went by since the best of `scores`."""
    best_at = 0
    for at, score in enumerate(scores):
        if is_better(score, scores[best_at], recipe):
            best_at = at
    return len(scores) - 1 - best_at if scores else 0


def ends_early(scores: Sequence[float], recipe: Recipe) -> bool:
    """Have `patience` epochs gone by without a better score?"""
    return 0 < recipe.patience <= epochs_without_progress(scores, recipe)
