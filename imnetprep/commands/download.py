"""`imnetprep download`."""

from dataclasses import replace
from pathlib import Path
from string import hexdigits
from typing import TYPE_CHECKING

import click

from imnetprep.catalog.datasets import Archive, Root, Split
from imnetprep.catalog.definition_text import DIGEST_DIGITS
from imnetprep.commands import verb
from imnetprep.commands.session_options import session_options
from imnetprep.commands.terminal import json_option, print_result, stderr_progress
from imnetprep.digests import ARCHIVE_DIGESTS
from imnetprep.messages import format_bytes

if TYPE_CHECKING:  # --help loads none of it
    from imnetprep.sources.session import Network


def _checked_digest(
    _ctx: click.Context, _param: click.Parameter, value: str | None
) -> tuple[str, str] | None:
    """The kind and the value of a digest."""
    if value is None:
        return None
    kind, _, digits = value.lower().partition(":")
    if (
        kind not in ARCHIVE_DIGESTS
        or len(digits) != DIGEST_DIGITS[kind]
        or not set(digits) <= set(hexdigits)
    ):
        raise click.BadParameter(f"{value!r} is no digest such as sha256: and 64 hex digits")
    return kind, digits


@verb.command(
    short_help="Fetch the archives by torrent or from any server, verified.",
    headings={
        "What to fetch": ("dataset", "splits", "magnets", "torrents", "digest"),
        "From servers": ("jobs", *verb.BUCKET),
        "The swarm": (*verb.SWARM, "max_up", "seed_ratio", "seed_for"),
    },
)
@click.argument("addresses", nargs=-1, metavar="[ADDRESS]...")
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
@click.option(
    "--digest",
    metavar="KIND:HEX",
    callback=_checked_digest,
    help="Digest of the one file, which must be right, such as sha256:9f86….",
)
@click.option(
    "--jobs", type=click.IntRange(1), help="Connections that are open at once.  [default: 8]"
)
@verb.bucket_options
@verb.swarm_options
@verb.rate_options
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
    addresses: tuple[str, ...],
    root: Root,
    dataset: str | None,
    splits: tuple[Split, ...],
    magnets: tuple[str, ...],
    torrents: tuple[Path, ...],
    digest: tuple[str, str] | None,
    jobs: int | None,
    request_payer: bool,
    no_sign_request: bool,
    network: "Network",
    max_down: int,
    max_up: int,
    wait: float,
    seed_ratio: float | None,
    seed_for: float | None,
    dry_run: bool,
    quiet: bool,
) -> None:
    """Fetch archives into ROOT/archives and verify them, by torrent or from ADDRESS.

    An ADDRESS is a file or a folder of archives on a web server, in a bucket or at a service, as
    `imnetprep sources` lists them; a magnet link, a .torrent file, a path, or the name of a
    built-in dataset. Several of one file are mirrors. Without any, it uses the dataset's own
    torrents and addresses. Interrupted at any instant, the same command resumes.

    \b
    imnetprep download
    imnetprep download imagenette-160 --root imagenette
    imnetprep download https://example.org/ILSVRC2012_img_val.tar s3://my-bucket/archives
    imnetprep download kaggle:competitions/imagenet-object-localization-challenge
    imnetprep download --split val --magnet 'magnet:?xt=urn:btih:lvwq357nqhx5jhfjt2shg7qk4xr2l4xf'
    """
    from imnetprep.download import carry_out_download, plan_download
    from imnetprep.sources.seeder import SeedLimits

    bucket = next((each for each in addresses if each.startswith("s3:")), None)
    verb.read_bucket(bucket, request_payer=request_payer, no_sign_request=no_sign_request)
    plan = plan_download(
        root, addresses, dataset=dataset, splits=splits, magnets=magnets, torrents=torrents
    )
    if digest is not None:
        plan.require_one_file()
    for archive in plan.present:
        text = f"{archive.name}: nothing to fetch"
        print_result(text, archive=archive.name, fetched=False)
    if dry_run:
        for request in plan.files:
            _print_plan(request.title, request.archive, [each.title for each in request.places])
        for archive in plan.to_fetch:
            _print_plan(archive.name, archive, [])
        return
    progress = stderr_progress(quiet=quiet)
    if plan.has_archives and plan.dataset.terms:
        title, terms = plan.dataset.title, plan.dataset.terms
        progress.note(f"The terms of {title} are yours to accept: {terms}")
    for each in carry_out_download(
        plan,
        root,
        network=replace(network, max_down=max_down, max_up=max_up),
        wait_s=wait,
        seed_limits=SeedLimits(seed_ratio, seed_for),
        progress=progress,
        jobs=jobs,
        digest=digest,
    ):
        text = f"{each.name}: {format_bytes(each.size_bytes)}, {each.proof.describe()}"
        print_result(
            text if each.is_new else f"{each.name}: nothing to fetch",
            archive=each.name,
            fetched=each.is_new,
            size_bytes=each.size_bytes,
            proof=each.proof,
        )


def _print_plan(name: str, archive: "Archive | None", addresses: list[str]) -> None:
    """Say that a file is to be fetched, and from where."""
    size_bytes = archive and archive.size_bytes
    size = format_bytes(size_bytes) if size_bytes else "size not known"
    places = f" from {' or '.join(addresses)}" if addresses else ""
    print_result(
        f"{name}: to fetch, {size}{places}",
        archive=name,
        size_bytes=size_bytes,
        addresses=addresses,
    )
