"""`imnetprep organize`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from imnetprep.catalog.datasets import Split
from imnetprep.commands.options import (
    dataset_option,
    dry_run_option,
    jobs_option,
    json_option,
    layout_option,
    quiet_option,
    root_option,
    split_option,
)
from imnetprep.commands.terminal import print_result, progress
from imnetprep.errors import WrongUsage
from imnetprep.roots import Layout, Root
from imnetprep.units import count, format_bytes

if TYPE_CHECKING:
    from imnetprep.manifest import SplitRecord


@click.command(short_help="Make class folders of the archives, in one pass.")
@root_option
@dataset_option
@split_option
@click.option(
    "--archives",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Where the published archives lie. Default: ROOT/archives.",
)
@layout_option(help="Class folders of the archives (default), or shards of the class folders.")
@click.option("--shard-size", type=click.IntRange(1), help="Samples in a shard. Default: 1000.")
@click.option("--seed", type=int, help="Of the order in the shards. Default: 0.")
@click.option(
    "--resize",
    metavar="SIDE",
    type=click.IntRange(1),
    help="The images in the shards as RGB JPEG, their shorter side at most SIDE px.",
)
@click.option("--quality", type=click.IntRange(1, 100), help="Of those JPEGs. Default: 90.")
@jobs_option
@dry_run_option
@json_option
@quiet_option
def organize(
    root: Root,
    dataset: str | None,
    splits: tuple[Split, ...],
    archives: Path | None,
    layout: Layout | None,
    shard_size: int | None,
    seed: int | None,
    resize: int | None,
    quality: int | None,
    jobs: int | None,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Make class folders of the archives, in one pass: train/<wnid>/, val/<wnid>/.

    A split appears under its name when its archive is proved and its counts fit, never before.
    Killed at any instant, the same command goes on from the last class that was safe on the disk.

    With --layout webdataset, make shuffled shards of the class folders: shards/train/, shards/val/.
    The same images, --seed and --shard-size give the same bytes; killed, it goes on by shard.

    \b
    imnetprep organize
    imnetprep organize --root /data/imagenet --archives /mnt/downloads
    imnetprep organize --layout webdataset --resize 256
    """
    if quality and not resize:
        raise WrongUsage("--quality is that of resized images", hint="--resize SIDE --quality Q")
    if layout is not Layout.WEBDATASET:
        if any(option is not None for option in (shard_size, seed, resize)):
            raise WrongUsage(
                "--shard-size, --seed and --resize are for shards", hint="--layout webdataset"
            )
        _organize_archives(
            root,
            dataset=dataset,
            splits=splits,
            archives=archives,
            jobs=jobs,
            dry_run=dry_run,
            as_json=as_json,
            quiet=quiet,
        )
        return
    if archives:
        raise WrongUsage(
            "--layout webdataset makes shards of the class folders, not of --archives",
            hint=f"imnetprep organize --archives {archives}; then --layout webdataset",
        )
    from imnetprep.images import Resize
    from imnetprep.preparation.sharding import Sharding, carry_out_sharding, plan_sharding

    smaller = Resize(resize, quality or 90) if resize else None
    sharding = Sharding(shard_size or 1000, seed or 0, smaller)
    plan = plan_sharding(root, sharding, dataset=dataset, splits=splits)
    if dry_run:
        for planned in plan.splits:
            split, samples = planned.source.split, planned.source.samples
            text = "there; nothing to do" if planned.done else f"of {count(samples, 'image')}"
            print_result(f"{split} shards: {text}", as_json=as_json, split=split, done=planned.done)
        _print_needed(plan.needed_bytes, as_json=as_json)
        return
    for record in carry_out_sharding(plan, root, jobs=jobs, progress=progress(quiet=quiet)):
        _print_organized(root, record, as_json=as_json)


def _organize_archives(
    root: Root,
    *,
    dataset: str | None,
    splits: tuple[Split, ...],
    archives: Path | None,
    jobs: int | None,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    from imnetprep.organize import carry_out_organize, plan_organize

    plan = plan_organize(root, dataset=dataset, splits=splits, archives=archives)
    if dry_run:
        for planned in plan.splits:
            done = "is organized; nothing to do"
            text = f"{planned.split}: {done if planned.done else f'from {planned.path}'}"
            print_result(
                text, as_json=as_json, split=planned.split, path=planned.path, done=planned.done
            )
        _print_needed(plan.needed_bytes, as_json=as_json)
        return
    for record in carry_out_organize(plan, root, jobs=jobs, progress=progress(quiet=quiet)):
        _print_organized(root, record, as_json=as_json)


def _print_needed(needed_bytes: int, *, as_json: bool) -> None:
    text = f"needs {format_bytes(needed_bytes)} of disk"
    print_result(text, as_json=as_json, needed_bytes=needed_bytes)


def _print_organized(root: Root, record: "SplitRecord", *, as_json: bool) -> None:
    what = f"{count(record.samples, 'image')}, {format_bytes(record.size_bytes)}"
    text = f"{record.split}: {what} in {root.split(record.split, record.layout)}"
    text += f" ({record.change})" if record.change else ""
    print_result(text, as_json=as_json, **record._asdict())
