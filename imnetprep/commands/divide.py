"""`imnetprep divide`."""

from collections.abc import Mapping
from math import isnan
from pathlib import Path

import click

from imnetprep.catalog.datasets import Root, Split
from imnetprep.commands import verb
from imnetprep.commands.session_options import session_options
from imnetprep.commands.terminal import (
    carry_out,
    json_option,
    print_result,
    stderr_progress,
    take_images,
)
from imnetprep.messages import WrongUsage


@verb.command(
    short_help="Divide images by class into train and val.",
    headings={
        "The classes": ("rule", "table", "columns", "one_class"),
        "The division": ("val_fraction", "seed"),
    },
)
@click.argument("images", type=verb.ExistingPath())
@verb.root_option
@click.option(
    "--val-fraction",
    metavar="SHARE",
    default=0.25,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share of each class that becomes val, between 0 and 1; it is met on average.",
)
@click.option(
    "--seed",
    type=click.IntRange(-(2**63), 2**63 - 1),
    default=0,
    show_default=True,
    help="Seed of the division.",
)
@click.option(
    "--label-from",
    "rule",
    metavar="name|REGEX",
    help="Take the class of each image in a flat folder from its file name: the word before the"
    " first separator, or the group of a regular expression.",
)
@click.option(
    "--labels",
    "table",
    metavar="FILE",
    type=verb.ExistingPath(dir_okay=False),
    help="Take the class of each image from this table: CSV, TSV or JSON lines.",
)
@click.option(
    "--columns",
    metavar="FILE,LABEL",
    help="The two columns of --labels, if they are not found; 1,2 counts them, without a header.",
)
@click.option("--copy", is_flag=True, help="Copy the images instead of hard-linking them.")
@verb.one_class_option
@verb.skip_bad_option
@verb.jobs_option
@verb.dry_run_option()
@json_option
@verb.quiet_option
@session_options
def divide(
    images: Path,
    root: Root,
    val_fraction: float,
    seed: int,
    rule: str | None,
    table: Path | None,
    columns: str | None,
    copy: bool,
    one_class: bool,
    skip_bad: bool,
    jobs: int | None,
    dry_run: bool,
    quiet: bool,
) -> None:
    """Divide IMAGES into train and val, class by class.

    IMAGES is a folder that holds a folder for each class; or all images, and --label-from or
    --labels says the class of each; or a CSV with a label and the pixels of a grey square in each
    line. ROOT becomes a dataset of its own, called as IMAGES is. An image's split depends on its
    name (in a CSV its line) and --seed alone: files added later move no other, and a share is not
    exact. All files that cannot be taken are named at once. Interrupted at any instant, the same
    command resumes.

    \b
    imnetprep divide photos --val-fraction 0.25 --root divided
    imnetprep divide dogs-vs-cats/train --label-from name --root divided
    imnetprep divide photos --labels labels.csv --columns file,breed --root divided
    imnetprep divide digits.csv --root digits
    """
    from imnetprep.divide import plan_divide, plan_divide_pixels
    from imnetprep.own_images.content import refuse_root_in
    from imnetprep.own_images.labels import read_labelled
    from imnetprep.own_images.pixel_table import read_pixel_table

    if isnan(val_fraction):
        raise WrongUsage("--val-fraction is no number", hint="--val-fraction 0.25")
    if rule is not None and table is not None:
        raise WrongUsage("--label-from and --labels both say the class", hint="leave out one")
    if table is None:
        verb.refuse("there is no table without --labels", "columns")
    progress = stderr_progress(quiet=quiet)
    if not images.is_dir():
        verb.refuse(
            f"{images} is a file, of pixels with their labels", "rule", "table", "copy", "skip_bad"
        )
        pixels = read_pixel_table(images, progress)
        pixels.require_classes(one_class=one_class)
        _print_classes(pixels.images)
        carry_out(
            plan_divide_pixels(root, pixels, val_fraction=val_fraction, seed=seed, jobs=jobs),
            dry_run=dry_run,
            quiet=quiet,
        )
        return
    refuse_root_in(images, root)
    content = read_labelled(images, rule=rule, table=table, columns=columns)
    take_images(content, one_class=one_class, skip_bad=skip_bad, jobs=jobs, progress=progress)
    plan = plan_divide(root, content, val_fraction=val_fraction, seed=seed, copy=copy, jobs=jobs)
    _print_classes(content.splits[Split.TRAIN])
    carry_out(plan, dry_run=dry_run, quiet=quiet)


def _print_classes(classes: Mapping[str, Mapping[str, object]]) -> None:
    from imnetprep.own_images.content import describe_classes

    sizes = {wnid: len(files) for wnid, files in classes.items()}
    print_result(describe_classes(classes), classes=sizes)
