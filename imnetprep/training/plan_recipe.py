"""The recipe of a new training, and the recipe that a run resumes with."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from imnetprep.messages import WrongUsage, count
from imnetprep.training.recipe import DEFAULTS, Recipe, option_of
from imnetprep.training.schedule import FIXED_LENGTH

_LR_OF_256 = 0.1
_VAL_RESIZE = 256 / 224
_MILESTONES = (1 / 3, 2 / 3, 8 / 9)


def plan_recipe(options: Mapping[str, Any], *, amp_pays: bool) -> Recipe:
    """The recipe that `options` make, by name; what is None or absent follows from the rest.

    The learning rate grows with the batch (Goyal et al. 2017, arXiv:1706.02677), the warm-up is a
    tenth of the epochs and at most 5, and validation resizes by 256/224 as is usual at 224.
    """
    choices = {name: value for name, value in options.items() if value is not None}
    full = {**DEFAULTS, **choices}
    train_size = full.get("train_size", full["image_size"])
    values = {
        "lr": _LR_OF_256 * full["batch_size"] / 256,
        "warmup_epochs": min(5.0, full["epochs"] / 10),
        "milestones": ",".join(
            map(str, sorted({round(full["epochs"] * at) for at in _MILESTONES}))
        ),
        "train_size": train_size,
        "first_size": train_size,
        "val_resize": round(full["image_size"] * _VAL_RESIZE),
        "amp": amp_pays,
    }
    return Recipe(**(values | full))


def refuse_contradiction(recipe: Recipe, options: Mapping[str, Any]) -> None:
    """Raise WrongUsage if an option in `options` is not what the run's `recipe` says."""
    for name, value in options.items():
        of_run = getattr(recipe, name)
        if value is not None and value != of_run:
            option, of_file = option_of(name, value), option_of(name, of_run)
            raise WrongUsage(
                f"{option} contradicts the run, which has {of_file}",
                hint="leave it out to resume the run, or begin another with --run NAME",
            )


def resumed_recipe(
    recipe: Recipe, options: Mapping[str, Any], *, epoch: int, restart_schedule: bool
) -> Recipe:
    """The recipe of a run that resumes in `epoch` (from 0): its own, or one of more epochs.

    Raises WrongUsage where an option contradicts the run, or its schedule has no more epochs.
    """
    epochs = options.get("epochs") or recipe.epochs
    refuse_contradiction(recipe, {**options, "epochs": min(epochs, recipe.epochs)})
    if restart_schedule and epochs == recipe.epochs and recipe.restart_epoch:
        return recipe  # as the same command began it, and was interrupted
    if restart_schedule and epochs == recipe.epochs:
        raise WrongUsage(
            f"--restart-schedule needs more epochs than the run's {epochs}",
            hint=f"--epochs {2 * epochs} --restart-schedule",
        )
    if restart_schedule:
        return replace(recipe, epochs=epochs, restart_epoch=epoch)
    if epochs > recipe.epochs and recipe.first_size < recipe.train_size:
        raise WrongUsage(
            f"--epochs {epochs} contradicts the run, whose crops grow by a plan of"
            f" {count(recipe.epochs, 'epoch')}",
            hint=f"--restart-schedule begins schedule and growth anew at epoch {epoch + 1}",
        )
    if epochs > recipe.epochs and recipe.schedule in FIXED_LENGTH:
        raise WrongUsage(
            f"--epochs {epochs} contradicts the run, whose {recipe.schedule} schedule falls to lr 0"
            f" over {count(recipe.epochs, 'epoch')}: over {epochs} it would have been another from"
            " its first epoch on",
            hint=f"--restart-schedule begins a new one at epoch {epoch + 1}: up to lr"
            f" {recipe.lr:g} and down over {count(epochs - epoch, 'epoch')}",
        )
    return replace(recipe, epochs=epochs)
