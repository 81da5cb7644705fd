"""`imnetprep show`."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from textwrap import shorten, wrap
from typing import TYPE_CHECKING

import click

from imnetprep.commands import verb
from imnetprep.commands.terminal import json_option, print_result
from imnetprep.messages import count, format_bytes
from imnetprep.recipes.recipe import CLASSIFY

if TYPE_CHECKING:  # of torch
    from imnetprep.training.checkpoint import Checkpoint

_COLUMNS, _NAMES = 98, 160  # of a line, and of all names of classes


@verb.command(short_help="Show what a checkpoint tells.")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@json_option
def show(checkpoint: Path) -> None:
    """Show what CHECKPOINT tells: its network, classes, images, recipe, score and origin.

    \b
    imnetprep show imagenet/runs/resnet18/best.pt
    """
    from imnetprep.training.runs import require_checkpoint

    require_checkpoint(checkpoint)  # before torch is loaded, which takes seconds
    from imnetprep.exports.facts import facts_of
    from imnetprep.training.checkpoint import load_checkpoint

    state = load_checkpoint(checkpoint)
    print_result(
        f"{checkpoint}: {state.recipe.arch}, {format_bytes(checkpoint.stat().st_size)}",
        *(line for name, text in _rows(state) for line in _lines(name, text)),
        checkpoint=checkpoint,
        size_bytes=checkpoint.stat().st_size,
        **facts_of(state),
    )


def _rows(state: "Checkpoint") -> Iterator[tuple[str, str]]:
    """What people read of a checkpoint: names of facts, and their texts."""
    classes, at, origin, recipe = state.classes, state.position, state.origin, asdict(state.recipe)
    names = shorten(", ".join(classes.names), _NAMES, placeholder=" …")
    yield "weights", f"{state.numbers:,}" + ", and the optimizer's memory" * bool(state.optimizer)
    yield "classes", f"{len(classes.names):,} of {classes.dataset}: {names}"
    pixels = asdict(state.preprocessing)
    yield "preprocessing", ", ".join(f"{_spaced(name)} {_plain(pixels[name])}" for name in pixels)
    yield (
        "trained",
        f"{count(at.epoch, 'epoch')} of {state.recipe.epochs}"
        + (f" and {count(at.step, 'step')} of the next" if at.step else ""),
    )
    if best := state.best:
        yield (
            "best",
            f"epoch {best.epoch}, top-1 {best.hits:,} of {count(best.total, 'validation image')}"
            if state.recipe.task == CLASSIFY
            else f"epoch {best.epoch}, F-measure {best.hits / max(best.total, 1):.2%}".replace(
                "%", " %"
            ),
        )
    words = [f"{_spaced(name)} {_plain(value)}" for name, value in recipe.items()]
    yield "recipe", ", ".join(words)
    yield from origin.described()
    yield "saved by", state.written_by


def _lines(name: str, text: str) -> list[str]:
    """A fact as lines of a terminal: its name, its text beside it."""
    return wrap(
        text, _COLUMNS, initial_indent=f"  {name:13}  ", subsequent_indent=" " * 17
    )  # fmt: skip


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _plain(value: object) -> str:
    """A value of a recipe as it is typed."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple | list):
        return " ".join(map(_plain, value))
    return f"{value:g}" if isinstance(value, float) else str(value) or "none"
