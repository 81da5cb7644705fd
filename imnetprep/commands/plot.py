"""`imnetprep plot`."""

from pathlib import Path

import click

from imnetprep.catalog.datasets import Root
from imnetprep.commands import verb
from imnetprep.commands.terminal import json_option, print_result
from imnetprep.messages import WrongUsage, count


@verb.command(short_help="Draw the curves of trainings side by side.")
@click.argument("names", metavar="RUN...", nargs=-1, required=True)
@verb.root_option
@verb.runs_option
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default="plot.png",
    show_default=True,
    help="PNG file to write.",
)
@verb.dry_run_option("Read the logs, and draw nothing.")
@json_option
def plot(names: tuple[str, ...], root: Root, out: Path, dry_run: bool) -> None:
    """Draw loss, accuracy, learning rate and images/s of each RUN: its name, or its folder.

    \b
    imnetprep plot resnet18 resnet50
    imnetprep plot imagenet/runs/* --out all.png
    """
    from imnetprep.reports.log import epoch_lines
    from imnetprep.training.runs import find_run

    if out.suffix.lower() != ".png":
        raise WrongUsage(f"--out {out}: a plot is a PNG", hint=f"--out {out.with_suffix('.png')}")
    logs = {}
    for word in dict.fromkeys(names):
        run = find_run(root, word)
        name = run.folder.name if run.folder.name not in logs else word
        logs[name] = run.log_lines()
    if not dry_run:
        from imnetprep.reports.plot import draw_plot

        draw_plot(logs, out)
    epochs = {name: len(epoch_lines(lines)) for name, lines in logs.items()}
    texts = ", ".join(f"{name} ({count(number, 'epoch')})" for name, number in epochs.items())
    print_result(
        f"{out}: {texts}{', not drawn' if dry_run else ''}",
        out=out, drawn=not dry_run, epochs=epochs,
    )  # fmt: skip
