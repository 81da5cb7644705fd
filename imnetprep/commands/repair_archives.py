"""`imnetprep repair-archives`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from imnetprep.catalog.datasets import Root, Split
from imnetprep.commands import verb
from imnetprep.commands.session_options import session_options
from imnetprep.commands.terminal import json_option, print_result, stderr_progress
from imnetprep.messages import format_bytes

if TYPE_CHECKING:  # --help loads none of it
    from imnetprep.repair_archives import ArchiveRepair
    from imnetprep.sources.session import Network


@verb.command(
    "repair-archives",
    short_help="Fetch the wrong pieces of the archives again.",
    headings={"The swarm": verb.SWARM},
)
@verb.root_option
@verb.dataset_option
@verb.split_option()
@verb.archives_folder_option
@click.option(
    "--from",
    "source",
    metavar="PLACE",
    help="Fetch the pieces from a folder, or an address as `imnetprep sources` lists them, not from"
    " the swarm.",
)
@verb.bucket_options
@verb.swarm_options
@verb.jobs_option
@verb.dry_run_option("Read the archives, say how much of each is wrong, and stop.")
@json_option
@verb.quiet_option
@session_options
def repair_archives(
    root: Root,
    dataset: str | None,
    splits: tuple[Split, ...],
    archives: Path | None,
    source: str | None,
    request_payer: bool,
    no_sign_request: bool,
    network: "Network",
    wait: float,
    jobs: int | None,
    dry_run: bool,
    quiet: bool,
) -> None:
    """Fetch just the wrong and missing pieces of the archives, each verified by its torrent.

    Every archive is read first. While it is repaired it is called NAME.part, and nothing takes it
    for whole. Interrupted at any instant, the same command resumes.

    \b
    imnetprep repair-archives --dry-run
    imnetprep repair-archives --split val
    imnetprep repair-archives --from s3://my-bucket/imagenet/archives
    """
    verb.read_bucket(source, request_payer=request_payer, no_sign_request=no_sign_request)
    from imnetprep.repair_archives import Swarm, carry_out_archive_repair, plan_archive_repair

    if source is not None:
        verb.refuse("--from names one place, and no swarm is asked", *verb.SWARM)
    progress = stderr_progress(quiet=quiet)
    plan = plan_archive_repair(
        root, archives, dataset=dataset, splits=splits, jobs=jobs, progress=progress
    )
    if dry_run:
        for archive in plan.archives:
            _print_archive(archive, dry_run=True)
        return
    place = source or Swarm(network, wait)
    for archive in carry_out_archive_repair(plan, root, source=place, jobs=jobs, progress=progress):
        _print_archive(archive, dry_run=False)


def _print_archive(archive: "ArchiveRepair", *, dry_run: bool) -> None:
    size_bytes = archive.wrong_bytes
    size = "what its part lacks" if size_bytes is None else format_bytes(size_bytes)
    text = f"{archive.path}: all pieces right"
    if not archive.is_right:
        state = "to fetch" if dry_run else "fetched, all pieces right"
        text = f"{archive.path}: {size} {state}"
    print_result(
        text,
        path=archive.path,
        wrong_bytes=size_bytes,
        repaired=not dry_run and not archive.is_right,
        proof=None if dry_run else archive.proof,
    )
