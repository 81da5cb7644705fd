"""`imnetprep recipes`."""

import click

from imnetprep.commands import verb
from imnetprep.commands.terminal import json_option, print_result
from imnetprep.messages import WrongUsage
from imnetprep.recipes.publications import RECIPES, Claim, NamedRecipe
from imnetprep.recipes.recipe import option_of


@verb.command(short_help="Show the recipes that train knows by name.")
@click.argument("name", required=False)
@json_option
def recipes(name: str | None) -> None:
    """Show the recipes of `train --recipe`: their options, and what their sources reached by them.

    \b
    imnetprep recipes
    imnetprep recipes fast16
    """
    if name is not None and name not in RECIPES:
        raise WrongUsage(f"there is no recipe {name!r}", hint="imnetprep recipes lists them")
    for each, recipe in RECIPES.items():
        if name in (None, each):
            _print(each, recipe, is_long=name is not None)


def _print(name: str, recipe: NamedRecipe, *, is_long: bool) -> None:
    options = " ".join(option_of(field, value) for field, value in recipe.values.items())
    claims = [_claim(each) for each in recipe.claims] or ["no published accuracy"]
    lines = [f"{name}: {recipe.summary}", *(f"  {line}" for line in claims)]
    if is_long:
        lines += [f"  {line}" for line in (recipe.source, recipe.differences, options) if line]
    print_result(
        *lines,
        recipe=name,
        summary=recipe.summary,
        values=dict(recipe.values),
        claims=[each._asdict() for each in recipe.claims],
        source=recipe.source,
        differences=recipe.differences,
    )


def _claim(claim: Claim) -> str:
    return f"{claim.arch}: top-1 {claim.top1:g} %, top-5 {claim.top5:g} %, on {claim.machine}"
