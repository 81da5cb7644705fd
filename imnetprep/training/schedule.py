"""The learning rate, a function of the recipe and the step."""

import math

from imnetprep.training.recipe import Recipe


def lr_at(step: int, recipe: Recipe, *, steps_per_epoch: int) -> float:
    """The learning rate of `step`, counted from 0 over all epochs (Loshchilov, Hutter 2016)."""
    steps = recipe.epochs * steps_per_epoch
    warmup_steps = min(steps, round(recipe.warmup_epochs * steps_per_epoch))
    if step < warmup_steps:
        return recipe.lr * (step + 1) / (warmup_steps + 1)
    way = (step - warmup_steps) / (steps - warmup_steps)
    return recipe.lr * (1 + math.cos(math.pi * way)) / 2
