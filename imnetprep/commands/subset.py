"""`imnetprep subset`."""

from pathlib import Path

import click

from imnetprep.commands.options import json_option, quiet_option, root_option
from imnetprep.commands.terminal import print_result, progress
from imnetprep.roots import Root
from imnetprep.units import count, format_bytes


@click.command(short_help="Make a root of some classes or files of another.")
@click.argument("chosen", metavar="LIST")
@root_option
@click.option(
    "--to",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="The new root.",
)
@click.option("--copy", is_flag=True, help="Copies, on any disk. Default: hard links.")
@json_option
@quiet_option
def subset(chosen: str, root: Root, to: Path, copy: bool, as_json: bool, quiet: bool) -> None:
    """Make a root of the classes or train files of --root that LIST names.

    LIST is simclr-1pct, simclr-10pct, imagenet100, mini-imagenet, imagenette, imagewoof, or a
    text file of wnids or of train file names, one a line. Classes are taken from every split.
    File names are taken from train; validation comes whole, for the classes of those files.

    The new root is a dataset of its own: its labels are ranks among its own classes.
    Killed at any instant, the same command goes on.

    \b
    imnetprep subset imagenet100 --to imagenet100
    imnetprep subset mine.txt --root /data/imagenet --to /ssd/mine --copy
    """
    from imnetprep.subset import carry_out_subset, plan_subset

    plan = plan_subset(chosen, root, Root(to))
    for record in carry_out_subset(plan, copy=copy, progress=progress(quiet=quiet)):
        what = f"{count(record.samples, 'image')}, {format_bytes(record.size_bytes)}"
        text = f"{record.split}: {what} in {plan.to.split(record.split)}"
        text += f" ({record.change})" if record.change else ""
        print_result(text, as_json=as_json, **record._asdict())
