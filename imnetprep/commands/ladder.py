"""`imnetprep ladder`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imnetprep.catalog.datasets import Layout, Root, Split
from imnetprep.commands import verb
from imnetprep.commands.recipe_options import HEADINGS, recipe_options, refuse_masks
from imnetprep.commands.terminal import json_option, print_result, stderr_progress
from imnetprep.messages import FINDINGS_EXIT_CODE, WrongUsage, count
from imnetprep.recipes.choices import MACHINE

if TYPE_CHECKING:  # --help loads none of it
    from imnetprep.ladder.outcome import Outcome


@verb.command(
    short_help="Learn one image, one batch, a small set, then some of the root.",
    headings={
        "The ladder": ("root", "layout", "small", "steps", "out"),
        **HEADINGS,
        MACHINE: (*HEADINGS[MACHINE], "device", "workers"),
    },
)
@verb.root_option
@verb.layout_option()
@click.option(
    "--small",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="The root of a small set, such as CIFAR-10, for the third rung.  [default: drawings]",
)
@click.option(
    "--steps",
    type=click.IntRange(10, 100_000),
    default=200,
    show_default=True,
    help="Steps on the root, and at most on the small set.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default="ladder.png",
    show_default=True,
    help="PNG file to write: the losses and their gates, and the images as the network saw them.",
)
@recipe_options
@verb.device_option
@verb.workers_option
@json_option
@verb.quiet_option
def ladder(
    root: Root,
    layout: Layout | None,
    small: Path | None,
    steps: int,
    out: Path,
    device: str | None,
    workers: int | None,
    quiet: bool,
    **options: Any,
) -> int:
    """Try a recipe on more and more before an expensive training, and stop where it fails.

    By the parts of the trainer itself: one image to a loss under 0.001, with a look at pixels,
    first loss, gradients and dead outputs; one batch by heart; a small set, and then some steps on
    ROOT, validated. The first two are without augmentation and all that keeps a network from
    learning by heart; the others go through the schedule of the recipe in --steps. Nothing is
    written but the picture. The exit code is 5 where a rung fails.

    \b
    imnetprep ladder --arch resnet18
    imnetprep ladder --root digits --recipe digits --steps 100
    imnetprep ladder --arch mine:network --image-size 64 --lr 0.05 --small cifar10
    """
    from imnetprep.recipes.plan_recipe import plan_recipe
    from imnetprep.training.runs import require_samples

    if out.suffix.lower() != ".png":
        raise WrongUsage(f"--out {out}: a plot is a PNG", hint=f"--out {out.with_suffix('.png')}")
    refuse_masks(options)
    # Before torch is loaded, which takes seconds.
    if not options["weights"]:  # which bring sizes of their own
        plan_recipe(options, amp_pays=False)
    require_samples(root, (Split.TRAIN,), layout=layout)
    if small:
        require_samples(Root(small), (Split.TRAIN, Split.VAL), layout=None)
    from imnetprep.ladder.climb import climb

    outcomes = list["Outcome"]()
    for outcome in climb(
        root,
        options=options,
        small=Root(small) if small else None,
        steps=steps,
        layout=layout,
        device=device,
        workers=workers,
        progress=stderr_progress(quiet=quiet),
    ):
        outcomes.append(outcome)
        _print(outcome)
        if outcome.views:
            _draw(outcomes, out)
    failures = sum(outcome.verdict == "failed" for outcome in outcomes)
    return FINDINGS_EXIT_CODE if failures else 0


def _print(outcome: "Outcome") -> None:
    if not outcome.gates:
        print_result(f"{outcome.rung}: {outcome.verdict}", **outcome.as_json())
        return
    gates = sorted(outcome.gates, key=lambda gate: gate.is_met)
    print_result(
        f"{outcome.rung}: {outcome.verdict}, {count(outcome.steps, 'step')}",
        *(f"  {'' if gate.is_met else 'failed: '}{gate.text}" for gate in gates),
        *(f"  usually: {cause}" for cause in outcome.causes),
        **outcome.as_json(),
    )


def _draw(outcomes: "Sequence[Outcome]", out: Path) -> None:
    from imnetprep.reports.ladder_plot import LadderRow, draw_ladder

    rows = [
        LadderRow(f"{each.rung}: {each.verdict}", each.losses, each.loss_limit, each.views)
        for each in outcomes
        if each.views
    ]
    draw_ladder(rows, "losses of the ladder, and what the network saw", out)
