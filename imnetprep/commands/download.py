"""`imnetprep download`."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imnetprep.catalog.datasets import Root, Split
from imnetprep.commands import verb
from imnetprep.commands.session_options import session_options
from imnetprep.commands.terminal import json_option, print_result, stderr_progress
from imnetprep.messages import format_bytes

if TYPE_CHECKING:  # --help loads none of it
    from imnetprep.sources.session import Network


@verb.command(
    short_help="Fetch the archives by torrent, each piece verified.",
    headings={
        "What to fetch": ("dataset", "splits", "magnets", "torrents"),
        "The swarm": (*verb.SWARM, "max_down", "max_up", "seed_ratio", "seed_for"),
    },
)
@verb.root_option
@verb.dataset_option
@verb.split_option()
@click.option(
    "--magnet",
    "magnets",
    multiple=True,
    metavar="URI",
    help="Fetch from the swarm of this magnet link; may be repeated.",
)
@click.option(
    "--torrent",
    "torrents",
    multiple=True,
    type=verb.ExistingPath(dir_okay=False),
    help="Fetch from the swarm of this .torrent file; may be repeated.",
)
@verb.swarm_options
@click.option(
    "--max-down",
    type=verb.RATE,
    default=0,
    help="Receive at most this many bytes a second, such as 20MB.",
)
@click.option(
    "--max-up",
    type=verb.RATE,
    default=0,
    help="Send at most this many bytes a second, such as 5MB.",
)
@click.option(
    "--seed-ratio",
    type=click.FloatRange(0),
    help="After the download, seed until this many times its bytes are sent.",
)
@click.option(
    "--seed-for",
    type=verb.DURATION,
    help="After the download, seed for this long, such as 2h.  [default: do not seed]",
)
@verb.dry_run_option()
@json_option
@verb.quiet_option
@session_options
def download(
    root: Root,
    dataset: str | None,
    splits: tuple[Split, ...],
    magnets: tuple[str, ...],
    torrents: tuple[Path, ...],
    network: "Network",
    max_down: int,
    max_up: int,
    wait: float,
    seed_ratio: float | None,
    seed_for: float | None,
    dry_run: bool,
    quiet: bool,
) -> None:
    """Fetch the archives by torrent into ROOT/archives and verify every piece on the disk.

    Without --magnet and --torrent it uses the dataset's own torrents. Interrupted at any
    instant, the same command resumes, and fetches again at most the pieces that were in flight.

    \b
    imnetprep download
    imnetprep download --split val --max-down 20MB
    imnetprep download --split val --magnet 'magnet:?xt=urn:btih:lvwq357nqhx5jhfjt2shg7qk4xr2l4xf'
    """
    from imnetprep.download import carry_out_download, plan_download
    from imnetprep.sources.seeder import SeedLimits

    plan = plan_download(root, dataset=dataset, splits=splits, magnets=magnets, torrents=torrents)
    for archive in plan.present:
        text = f"{archive.name}: nothing to fetch"
        print_result(text, archive=archive.name, fetched=False)
    if dry_run:
        for archive in plan.to_fetch:
            size = format_bytes(archive.size_bytes) if archive.size_bytes else "size not known"
            text = f"{archive.name}: to fetch, {size}"
            print_result(text, archive=archive.name, size_bytes=archive.size_bytes)
        return
    progress = stderr_progress(quiet=quiet)
    if plan.to_fetch and plan.dataset.terms:
        title, terms = plan.dataset.title, plan.dataset.terms
        progress.note(f"The terms of {title} are yours to accept: {terms}")
    for archive, proof in carry_out_download(
        plan,
        root,
        network=replace(network, max_down=max_down, max_up=max_up),
        wait_s=wait,
        seed_limits=SeedLimits(seed_ratio, seed_for),
        progress=progress,
    ):
        size_bytes = (root.archives / archive.name).stat().st_size
        print_result(
            f"{archive.name}: {format_bytes(size_bytes)}, {proof.describe()}",
            archive=archive.name,
            fetched=True,
            size_bytes=size_bytes,
            proof=proof,
        )
