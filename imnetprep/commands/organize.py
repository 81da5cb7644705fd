"""`imnetprep organize`."""

import click

from imnetprep.catalog.datasets import Split
from imnetprep.commands.options import (
    dataset_option,
    dry_run_option,
    jobs_option,
    json_option,
    quiet_option,
    root_option,
    split_option,
)
from imnetprep.commands.terminal import print_result, progress
from imnetprep.roots import Root
from imnetprep.units import count, format_bytes


@click.command(short_help="Make class folders of the archives, in one pass.")
@root_option
@dataset_option
@split_option
@click.option(
    "--archives",
    metavar="PLACE",
    help="Where the published archives lie: a folder, or - for a pipe. Default: ROOT/archives.",
)
@jobs_option
@dry_run_option
@json_option
@quiet_option
def organize(
    root: Root,
    dataset: str | None,
    splits: tuple[Split, ...],
    archives: str | None,
    jobs: int | None,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Make class folders of the archives, in one pass: train/<wnid>/, val/<wnid>/.

    A split appears under its name when its archive is proved and its counts fit, never before.
    Killed at any instant, the same command goes on from the last class that was safe on the disk.

    \b
    imnetprep organize
    imnetprep organize --root /data/imagenet --archives /mnt/downloads
    """
    from imnetprep.organize import carry_out_organize, plan_organize

    plan = plan_organize(root, dataset=dataset, splits=splits, archives=archives)
    if dry_run:
        for planned in plan.splits:
            done = "is organized; nothing to do"
            text = f"{planned.split}: {done if planned.done else f'from {planned.address}'}"
            print_result(
                text,
                as_json=as_json,
                split=planned.split,
                address=planned.address,
                done=planned.done,
            )
        print_result(
            f"needs {format_bytes(plan.needed_bytes)} of disk",
            as_json=as_json,
            needed_bytes=plan.needed_bytes,
        )
        return
    for record in carry_out_organize(plan, root, jobs=jobs, progress=progress(quiet=quiet)):
        what = f"{count(record.samples, 'image')}, {format_bytes(record.size_bytes)}"
        text = f"{record.split}: {what} in {root.split(record.split)}"
        print_result(text, as_json=as_json, **record._asdict())
