"""The recipe of a new training, and the recipe that a run resumes with."""

from collections.abc import Mapping
from dataclasses import fields, replace
from difflib import get_close_matches
from typing import Any

from imnetprep.messages import WrongUsage, count
from imnetprep.recipes.publications import DEFAULT, RECIPES
from imnetprep.recipes.recipe import CHOICES, DEFAULTS, SEGMENT, Recipe, option_of
from imnetprep.recipes.schedule import FIXED_LENGTH

_MILESTONES = (1 / 3, 2 / 3, 8 / 9)


def plan_recipe(options: Mapping[str, Any], *, amp_pays: bool) -> Recipe:
    """The recipe that `options` make, by name; what is None or absent follows from the rest.

    First from the named recipe: its learning rate grows with the batch (Goyal et al. 2017,
    arXiv:1706.02677), its sizes with the image size. The warm-up is a tenth of the epochs and at
    most 5.
    """
    choices = {name: value for name, value in options.items() if value is not None}
    choices["recipe"] = recipe_of(options)
    _refuse_recipe_of_classes(choices)
    of_name = RECIPES[choices["recipe"]].values
    full = {**DEFAULTS, **of_name, **choices}
    base = base_values(choices)
    zoom = full["image_size"] / base["image_size"]
    train_size = choices.get("train_size", round(zoom * base.get("train_size", base["image_size"])))
    lr = base["lr"] * full["batch_size"] / base["batch_size"]
    if full["task"] == SEGMENT:
        lr = base["lr"]  # from a batch of one it would grow to no end
    if not full["val"]:  # what a recipe says of validation is no wish of who leaves it out
        of_name = {**of_name, "val_fraction": 0.0, "patience": 0}
        if full["schedule"] == "plateau":
            of_name["schedule"] = "constant"
    values = {
        "warmup_epochs": min(5.0, full["epochs"] / 10),
        "milestones": _milestones(full["epochs"]),
        "amp": amp_pays,
        **of_name,
        "lr": lr,
        "head_lr": choices.get("lr", lr),
        "val_resize": round(zoom * base["val_resize"]),
        "train_size": train_size,
        "first_size": round(zoom * base["first_size"]) if "first_size" in base else train_size,
    }
    return Recipe(**{**DEFAULTS, **values, **choices})


def _refuse_recipe_of_classes(choices: Mapping[str, Any]) -> None:
    name = choices["recipe"]
    if choices.get("task") == SEGMENT and RECIPES[name].values.get("task") != SEGMENT:
        raise WrongUsage(
            f"--recipe {name} is of classes, and --task {SEGMENT} of masks",
            hint=f"--recipe {SEGMENT}, which --task {SEGMENT} takes by itself",
        )


def refuse_strange(options: Mapping[str, Any]) -> None:
    """Raise WrongUsage on a name, or a kind of value, that no recipe has: Python may say any."""
    kinds = {each.name: each.type for each in fields(Recipe) if each.name in CHOICES}
    for name, value in options.items():
        if name not in kinds:
            close = get_close_matches(name, kinds, 1)
            raise WrongUsage(
                f"{name!r} is no option of a recipe",
                hint=f"{close[0]!r}" if close else "imnetprep train --help lists them",
            )
        is_number = kinds[name] is float and type(value) is int
        if value is not None and type(value) is not kinds[name] and not is_number:
            raise WrongUsage(
                f"{name}={value!r:.40} is no {getattr(kinds[name], '__name__', 'value')}",
                hint=CHOICES[name].help,
            )
        names = CHOICES[name].names
        if value is not None and names and value not in names:
            raise WrongUsage(f"{name}={value!r:.40} is unknown", hint=f"one of {', '.join(names)}")


def base_values(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The values that the rate and the sizes are scaled from: of the named recipe, or classic."""
    return {**RECIPES[DEFAULT].values, **RECIPES[recipe_of(options)].values}


def recipe_of(options: Mapping[str, Any]) -> str:
    """The name of the recipe that was typed, or that the typed task has."""
    name: str | None = options.get("recipe")
    return name or (SEGMENT if options.get("task") == SEGMENT else DEFAULT)


def arch_of(options: Mapping[str, Any]) -> str | None:
    """The architecture that was typed, or that the typed recipe has."""
    arch: str | None = options.get("arch")
    if arch is None and options.get("recipe"):
        arch = RECIPES[options["recipe"]].values.get("arch")
    return arch


def default_arch(options: Mapping[str, Any]) -> str:
    """The architecture of a new training for which none was typed."""
    return str(RECIPES[recipe_of(options)].values.get("arch", DEFAULTS["arch"]))


def overrides(options: Mapping[str, Any]) -> str:
    """`, with --epochs 4`: what was typed beside the name of a recipe; or nothing."""
    words = [
        option_of(name, value)
        for name, value in options.items()
        if value is not None and name != "recipe"
    ]
    return f", with {' '.join(words)}" if words else ""


def _milestones(epochs: int) -> str:
    return ",".join(map(str, sorted({round(epochs * at) for at in _MILESTONES})))


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
