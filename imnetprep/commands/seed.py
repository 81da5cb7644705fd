"""`imnetprep seed`."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imnetprep.catalog.datasets import Root, Split
from imnetprep.commands import verb
from imnetprep.commands.session_options import session_options
from imnetprep.commands.terminal import json_option, print_result, stderr_progress
from imnetprep.messages import WrongUsage

if TYPE_CHECKING:  # --help loads none of it
    from imnetprep.sources.session import Network


@verb.command(
    short_help="Give verified archives, or any file, to the swarm.",
    headings={"The swarm": ("peers", "no_dht", "listen", "max_up", "ratio", "duration")},
)
@click.argument("files", nargs=-1, type=verb.ExistingPath(dir_okay=False), metavar="[FILE]...")
@verb.root_option
@verb.dataset_option
@verb.split_option()
@click.option(
    "--make-torrent", is_flag=True, help="Write FILE.torrent beside each FILE, and seed nothing."
)
@verb.network_options
@click.option("--max-up", type=verb.RATE, default=0, help="Send at most this many bytes a second.")
@click.option("--ratio", type=click.FloatRange(0), help="Stop when this many times it is sent.")
@click.option(
    "--for",
    "duration",
    type=verb.DURATION,
    help="Stop after this long, such as 2h.  [default: when it is interrupted]",
)
@json_option
@verb.quiet_option
@session_options
def seed(
    files: tuple[Path, ...],
    root: Root,
    dataset: str | None,
    splits: tuple[Split, ...],
    make_torrent: bool,
    network: "Network",
    max_up: int,
    ratio: float | None,
    duration: float | None,
    quiet: bool,
) -> None:
    """Seed the archives of ROOT/archives that their torrents have verified, or any FILE.

    A torrent is made of each FILE, which is read for it; --make-torrent writes it. The magnet link
    of each is printed. Nothing is written but that.

    \b
    imnetprep seed
    imnetprep seed --split val --for 12h --max-up 10MB
    imnetprep seed photos.tar --make-torrent
    """
    from imnetprep.seed import seed_of_file, seeds_of_root, write_torrent
    from imnetprep.sources.seeder import SeedLimits, seed_until

    if files:
        verb.refuse("only the archives of the root have splits and a dataset", "dataset", "splits")
    if make_torrent:
        swarm = ("peers", "no_dht", "listen", "max_up", "ratio", "duration")
        verb.refuse("--make-torrent seeds nothing", *swarm)
    if make_torrent and not files:
        raise WrongUsage("--make-torrent is for files", hint="imnetprep seed FILE --make-torrent")
    seeds = list(map(seed_of_file, files)) or seeds_of_root(root, dataset=dataset, splits=splits)
    for each in seeds:
        torrent = write_torrent(each) if make_torrent else None
        text = f"{torrent or each.path}: {each.magnet}"
        print_result(text, path=each.path, magnet=each.magnet, torrent=torrent)
    if not make_torrent:
        seed_until(
            [each.seed for each in seeds],
            replace(network, max_up=max_up),
            SeedLimits(ratio, duration),
            progress=stderr_progress(quiet=quiet),
        )
