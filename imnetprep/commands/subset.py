"""`imnetprep subset`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from imnetprep.catalog.datasets import Split
from imnetprep.commands.options import (
    dataset_option,
    jobs_option,
    json_option,
    quiet_option,
    root_option,
    split_option,
)
from imnetprep.commands.terminal import print_result, progress
from imnetprep.errors import WrongUsage
from imnetprep.roots import Root
from imnetprep.units import count, format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imnetprep.manifest import SplitRecord


@click.command(short_help="Make a root of some classes or files of a dataset.")
@click.argument("chosen", metavar="LIST")
@root_option
@click.option(
    "--to",
    type=click.Path(path_type=Path, file_okay=False),
    help="The new root. With --archives, --root is it by default.",
)
@click.option("--copy", is_flag=True, help="Copies, on any disk. Default: hard links.")
@click.option(
    "--archives",
    metavar="PLACE",
    help="Straight from the archives there: a folder, s3://BUCKET/PREFIX, https://…, or -.",
)
@dataset_option
@split_option
@jobs_option
@json_option
@quiet_option
def subset(
    chosen: str,
    root: Root,
    to: Path | None,
    copy: bool,
    archives: str | None,
    dataset: str | None,
    splits: tuple[Split, ...],
    jobs: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Make a root of the classes or train files of --root, or of --archives, that LIST names.

    LIST is simclr-1pct, simclr-10pct, imagenet100, mini-imagenet, imagenette, imagewoof, or a
    text file of wnids or of train file names, one a line. Classes are taken from every split.
    File names are taken from train; validation comes whole, for the classes of those files.

    The new root is a dataset of its own: its labels are ranks among its own classes.
    Killed at any instant, the same command goes on.

    With --archives no organized root is needed. Of a tar of class tars that lies here, or that can
    be read by ranges, only the chosen classes are read. --dataset is that of the archives.

    \b
    imnetprep subset imagenet100 --to imagenet100
    imnetprep subset mine.txt --root /data/imagenet --to /ssd/mine --copy
    imnetprep subset imagewoof --archives s3://my-bucket/imagenet --to imagewoof
    """
    made = Root(to) if to else root
    if archives is None:
        if dataset or splits or jobs:
            raise WrongUsage(
                "--dataset, --split and --jobs are for --archives",
                hint="leave them out: all that --root holds is taken",
            )
        if to is None:
            raise WrongUsage("--to is missing", hint="--to NEWROOT names the new root")
        records = _of_root(chosen, root, made, copy=copy, quiet=quiet)
    else:
        if copy:
            raise WrongUsage("--copy is for a root's files", hint="leave it out: archives stay")
        records = _of_archives(
            chosen, archives, made, dataset=dataset, splits=splits, jobs=jobs, quiet=quiet
        )
    for record in records:
        what = f"{count(record.samples, 'image')}, {format_bytes(record.size_bytes)}"
        text = f"{record.split}: {what} in {made.split(record.split)}"
        text += f" ({record.change})" if record.change else ""
        print_result(text, as_json=as_json, **record._asdict())


def _of_root(
    chosen: str, root: Root, to: Root, *, copy: bool, quiet: bool
) -> "Iterator[SplitRecord]":
    from imnetprep.subset import carry_out_subset, plan_subset

    plan = plan_subset(chosen, root, to)
    return carry_out_subset(plan, copy=copy, progress=progress(quiet=quiet))


def _of_archives(
    chosen: str,
    archives: str,
    to: Root,
    *,
    dataset: str | None,
    splits: tuple[Split, ...],
    jobs: int | None,
    quiet: bool,
) -> "Iterator[SplitRecord]":
    from imnetprep.organize import carry_out_organize
    from imnetprep.subset_archives import plan_subset_of_archives

    plan = plan_subset_of_archives(chosen, archives, to, dataset=dataset, splits=splits, jobs=jobs)
    return carry_out_organize(plan, to, jobs=jobs, progress=progress(quiet=quiet))
