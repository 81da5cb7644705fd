"""`imnetprep divide`."""

from pathlib import Path

import click

from imnetprep.catalog.datasets import Root
from imnetprep.commands import verb
from imnetprep.commands.terminal import carry_out, json_option


@verb.command(short_help="Divide a folder of images by class into train and val.")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@verb.root_option
@click.option(
    "--val-fraction",
    metavar="SHARE",
    required=True,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share of each class that becomes val, between 0 and 1.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the division.")
@click.option("--copy", is_flag=True, help="Copy the images instead of hard-linking them.")
@verb.jobs_option
@verb.dry_run_option()
@json_option
@verb.quiet_option
def divide(
    folder: Path,
    root: Root,
    val_fraction: float,
    seed: int,
    copy: bool,
    jobs: int | None,
    dry_run: bool,
    quiet: bool,
) -> None:
    """Divide FOLDER, which holds a folder of images for each class, into train and val.

    ROOT becomes a dataset of its own, called as FOLDER is. An image's split depends on its name
    and --seed alone: images added later move no other. Interrupted at any instant, the same
    command resumes.

    \b
    imnetprep divide photos --val-fraction 0.25 --root divided
    """
    from imnetprep.divide import plan_divide

    plan = plan_divide(root, folder, val_fraction=val_fraction, seed=seed, copy=copy, jobs=jobs)
    carry_out(plan, dry_run=dry_run, quiet=quiet)
