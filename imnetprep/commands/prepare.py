"""`imnetprep prepare`."""

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from imnetprep.catalog.datasets import Root, Split
from imnetprep.commands import verb
from imnetprep.commands.session_options import session_options
from imnetprep.commands.terminal import json_option, print_result, print_split, stderr_progress
from imnetprep.commands.verify import print_findings
from imnetprep.fs import bytes_below
from imnetprep.messages import FINDINGS_EXIT_CODE, count, format_bytes, format_duration
from imnetprep.outside_text import public_address

if TYPE_CHECKING:  # --help loads none of it
    from imnetprep.prepare import PreparePlan
    from imnetprep.sources.session import Network


@verb.command(
    short_help="Download, organize and verify in one go.",
    headings={"From servers": verb.BUCKET, "The swarm": (*verb.SWARM, "max_down", "max_up")},
)
@click.argument("addresses", nargs=-1, metavar="[ADDRESS]...")
@verb.root_option
@verb.dataset_option
@verb.split_option()
@verb.bucket_options
@verb.swarm_options
@verb.rate_options
@verb.jobs_option
@verb.dry_run_option()
@json_option
@verb.quiet_option
@session_options
def prepare(
    addresses: tuple[str, ...],
    root: Root,
    dataset: str | None,
    splits: tuple[Split, ...],
    request_payer: bool,
    no_sign_request: bool,
    network: "Network",
    wait: float,
    max_down: int,
    max_up: int,
    jobs: int | None,
    dry_run: bool,
    quiet: bool,
) -> int:
    """Bring archives to a verified tree of images: download, organize and verify as one verb.

    An ADDRESS is one of `imnetprep download`. From a server the archives are organized as they are
    read, and take no room on the disk. From a swarm they come into ROOT/archives, and each is
    organized while it comes: the images are ready with its last piece. Interrupted at any
    instant, the same command resumes.

    \b
    imnetprep prepare
    imnetprep prepare imagenette-160 --root imagenette
    imnetprep prepare s3://my-bucket/imagenet/archives
    """
    from imnetprep.checking.recognise import recognise
    from imnetprep.messages import Checks
    from imnetprep.prepare import Stages, carry_out_prepare, plan_prepare

    bucket = next((each for each in addresses if each.startswith("s3:")), None)
    verb.read_bucket(bucket, request_payer=request_payer, no_sign_request=no_sign_request)
    plan = plan_prepare(root, addresses, dataset=dataset, splits=splits)
    if dry_run:
        _print_plan(plan)
        return 0
    progress, stages = stderr_progress(quiet=quiet), Stages()
    if plan.download.has_archives and plan.dataset.terms:
        title, terms = plan.dataset.title, plan.dataset.terms
        progress.note(f"The terms of {title} are yours to accept: {terms}")
    for record in carry_out_prepare(
        plan,
        network=replace(network, max_down=max_down, max_up=max_up),
        wait_s=wait,
        jobs=jobs,
        stages=stages,
        progress=progress,
    ):
        print_split(record, root.split(record.split, record.layout))
    start_s = time.monotonic()
    kinds = print_findings(
        root,
        recognise(root, dataset=None),
        splits=plan.splits,
        layout=None,
        checks=Checks(),
        jobs=jobs,
        dry_run=False,
        progress=progress,
    )
    _print_end(plan, {**stages.seconds, "verify": time.monotonic() - start_s})
    return FINDINGS_EXIT_CODE if kinds else 0


def _print_plan(plan: "PreparePlan") -> None:
    """Say where each split will come from."""
    from imnetprep.archive_parts import split_of_parquet

    sources = dict[Split, str]()
    for address, splits in plan.servers.items():
        sources |= dict.fromkeys(splits, f"read from {public_address(address)}")
    parts = [split_of_parquet(each.name or "") for each in plan.download.files]
    for split in plan.splits:
        if split in parts:
            files = count(parts.count(split), "parquet file")
            sources[split] = f"organized from {files}, downloaded first"
    for archive in plan.download.to_fetch:
        text = f"organized while {archive.name} comes by torrent"
        sources |= dict.fromkeys(archive.splits, text)
    for archive in plan.download.present:
        text = f"organized from {plan.root.archives / archive.name}"
        sources |= dict.fromkeys(archive.splits, text)
    for split in plan.splits:
        text = "is there; nothing to do" if split in plan.done_splits else sources[split]
        print_result(f"{split}: {text}", split=split, source=text)


def _print_end(plan: "PreparePlan", seconds: dict[str, float]) -> None:
    """Say what each stage took, and what the disk holds."""
    times = ", ".join(f"{stage} {format_duration(each)}" for stage, each in seconds.items())
    sizes = {str(split): bytes_below(plan.root.split(split)) for split in plan.splits}
    sizes["archives"] = bytes_below(plan.root.archives)
    disk = ", ".join(f"{name} {format_bytes(size)}" for name, size in sizes.items() if size)
    print_result(f"{times}; on the disk: {disk}", seconds=seconds, disk_bytes=sizes)
