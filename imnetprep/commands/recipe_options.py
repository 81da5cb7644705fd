"""The options of a recipe, made from its fields."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import click

from imnetprep.messages import WrongUsage
from imnetprep.recipes.plan_recipe import recipe_of
from imnetprep.recipes.recipe import CHOICES, DEFAULTS, SEGMENT, Recipe

# The names of the options below each heading.
HEADINGS: Mapping[str, tuple[str, ...]] = {
    heading: tuple(name for name, choice in CHOICES.items() if choice.heading == heading)
    for heading in dict.fromkeys(choice.heading for choice in CHOICES.values())
}


def recipe_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a verb an option for each field of a recipe; None where it is not typed."""
    for each in reversed([each for each in fields(Recipe) if each.name in CHOICES]):
        choice = CHOICES[each.name]
        flag = "--" + each.name.replace("_", "-")
        default = choice.default or _plain(DEFAULTS[each.name])
        settings: dict[str, Any] = {"help": f"{choice.help}  [default: {default}]", "default": None}
        if choice.names:
            settings["type"] = click.Choice(choice.names)
        elif each.type is bool:
            flag += f"/--no-{flag[2:]}"
        else:
            settings["type"] = each.type
        function = click.option(flag, each.name, **settings)(function)
    return function


def refuse_masks(options: Mapping[str, Any]) -> None:
    """Raise WrongUsage where the options are of a training on masks."""
    if SEGMENT in (options["task"], recipe_of(options)):
        raise WrongUsage(
            "bench and ladder try trainings on classes, not on masks", hint="leave out --task"
        )


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
