"""`imnetprep sync-s3`."""

import gc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import fields
from functools import wraps
from typing import Any

import click

from imnetprep.catalog.datasets import Root
from imnetprep.commands import verb
from imnetprep.commands.session_options import session_options
from imnetprep.commands.terminal import is_json, json_option, print_note, stderr_progress
from imnetprep.messages import WrongUsage
from imnetprep.s3.address import Settings, parse_s3_address

_CONTENTS = ("archives", "shards", "runs", "manifest")
_AWS = tuple(field.name for field in fields(Settings))


def _parse_contents(text: str) -> frozenset[str]:
    names = [each.strip() for each in text.split(",")]
    if strange := [each for each in names if each not in _CONTENTS]:
        raise ValueError(f"{strange[0]!r} is none of {', '.join(_CONTENTS)}")
    return frozenset(names)


def _parse_prices(text: str) -> tuple[float, float]:
    try:
        put_price, get_price = map(float, text.split(","))
    except ValueError:
        raise ValueError(f"{text!r} is not two prices such as 0.005,0.0004") from None
    return put_price, get_price


def _settings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """How the bucket is reached and what objects are made as, in the words of AWS: `settings`."""

    @click.option("--endpoint-url", metavar="URL", help="Address of an S3 server that is not AWS.")
    @click.option("--region", metavar="NAME", help="Region of the bucket.")
    @click.option("--profile", metavar="NAME", help="Profile of ~/.aws.  [default: AWS_PROFILE]")
    @click.option(
        "--path-style", is_flag=True, help="Name the bucket in the path, not in the host."
    )
    @click.option(
        "--accelerate", is_flag=True, help="Use Transfer Acceleration, which costs extra."
    )
    @click.option("--dual-stack", is_flag=True, help="Use the endpoints that IPv6 reaches too.")
    @verb.bucket_options
    @click.option(
        "--sse", type=click.Choice(["AES256", "aws:kms"]), help="Encryption of the objects at rest."
    )
    @click.option("--sse-kms-key-id", metavar="ID", help="The key of --sse aws:kms.")
    @click.option(
        "--storage-class", metavar="CLASS", help="Storage class, such as INTELLIGENT_TIERING."
    )
    @click.option("--tagging", "tags", metavar="KEY=VALUE&…", help="Tags of the objects.")
    @wraps(command)
    def with_settings(**options: Any) -> Any:
        settings = Settings(**{name: options.pop(name) for name in _AWS})
        return command(settings=settings, **options)

    return with_settings


@contextmanager
def _uncollected() -> Iterator[None]:
    """What is loaded meanwhile stays: to look through it again and again takes 0.3 s of CPU."""
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():  # once a process: what is frozen is never given back
            gc.freeze()
        gc.enable()


@verb.command(
    "sync-s3",
    short_help="Make a root and a bucket equal, and verify it.",
    headings={
        "What to do": ("push", "pull", "check", "deep", "contents", "run", "abort_stale"),
        "Safety": ("replace", "delete", "yes", "dry_run"),
        "Speed and price": ("jobs", "max_rate", "request_prices"),
        "AWS": (*_AWS, "checksum_algorithm"),
    },
)
@click.argument("address", metavar="s3://BUCKET/PREFIX")
@verb.root_option
@verb.runs_option
@click.option("--push", is_flag=True, help="Send what the bucket lacks.")
@click.option("--pull", is_flag=True, help="Fetch what the root lacks.")
@click.option("--check", is_flag=True, help="Compare both sides; exit code 5 on a finding.")
@click.option("--deep", is_flag=True, help="With --check: read every byte of both sides.")
@click.option(
    "--what",
    "contents",
    type=verb.ParsedType("what", _parse_contents),
    default=",".join(_CONTENTS),
    show_default=True,
    help="Parts of the root, with commas between.",
)
@click.option("--run", metavar="NAME", help="Sync this run only, not all runs.")
@click.option("--replace", is_flag=True, help="Overwrite what differs on the side that receives.")
@click.option(
    "--delete", is_flag=True, help="List what only the receiving side has, to be removed."
)
@click.option("--yes", is_flag=True, help="With --delete, remove what it lists.")
@click.option(
    "--abort-stale",
    type=verb.DURATION,
    metavar="AGE",
    help="Abort unfinished uploads older than AGE: 7d.",
)
@click.option("--jobs", type=click.IntRange(1), help="Parts transferred at once.  [default: 8]")
@click.option("--max-rate", type=verb.RATE, help="Transfer at most so many bytes a second: 20MB.")
@click.option(
    "--request-prices",
    type=verb.ParsedType("prices", _parse_prices),
    default="0.005,0.0004",
    metavar="PUT,GET",
    show_default=True,
    help="Price of 1,000 requests, in USD.",
)
@click.option(
    "--checksum-algorithm",
    type=click.Choice(["CRC64NVME", "CRC32"]),
    help="Checksum of whole objects.  [default: CRC64NVME if awscrt is installed]",
)
@_settings_options
@verb.dry_run_option()
@json_option
@verb.quiet_option
@session_options
def sync_s3(
    address: str,
    root: Root,
    push: bool,
    pull: bool,
    check: bool,
    deep: bool,
    contents: frozenset[str],
    run: str | None,
    replace: bool,
    delete: bool,
    yes: bool,
    abort_stale: float | None,
    jobs: int | None,
    max_rate: float | None,
    request_prices: tuple[float, float],
    checksum_algorithm: str | None,
    settings: Settings,
    dry_run: bool,
    quiet: bool,
) -> int:
    """Make ROOT and a place in a bucket equal: archives, shards, runs and the manifest.

    Prints first what it would send and fetch, and what the requests cost; without --push, --pull or
    --check it stops there. Every byte is verified on its way, by a checksum that the server
    compares too. Nothing that differs is overwritten without --replace, and nothing is removed
    without --delete.

    Interrupted at any instant, the same command resumes, from another machine too.

    \b
    imnetprep sync-s3 s3://my-bucket/imagenet
    imnetprep sync-s3 s3://my-bucket/imagenet --push
    imnetprep sync-s3 s3://my-bucket/imagenet --pull --what archives,manifest
    imnetprep organize --archives s3://my-bucket/imagenet
    """
    _refuse_unused(push=push, pull=pull, check=check, delete=delete, sse=settings.sse)
    _refuse_strange_run(root, run, contents)
    with _uncollected():
        from imnetprep.commands import sync_shown
        from imnetprep.fs import locked
        from imnetprep.jobs import TRANSFERS
        from imnetprep.s3.bucket import Bucket
        from imnetprep.sync.empty_side import refuse_absent_root, refuse_empty_side
        from imnetprep.sync.journal import open_sync_journal
        from imnetprep.sync.keys import Content
        from imnetprep.sync.open_files import OpenFiles
        from imnetprep.sync.plan import Direction, plan_sync
        from imnetprep.sync.run import Sync, best_kind
        from imnetprep.sync.survey import Survey

        place = parse_s3_address(address)
        bucket = Bucket(place.bucket, settings)
    progress = stderr_progress(quiet=quiet)
    parts = frozenset(map(Content, contents))
    kind = checksum_algorithm.lower() if checksum_algorithm else best_kind()
    way = "--push" * push + "--pull" * pull + "--check" * check
    acts = (push or pull or check) and not dry_run
    with ExitStack() as stack:
        stack.enter_context(closing(bucket))
        refuse_absent_root(root, place, way)
        if acts:
            stack.enter_context(locked(root.path, name=".sync.lock"))
        journal = stack.enter_context(open_sync_journal(root, endpoint=bucket.endpoint, keep=acts))
        open_files = stack.enter_context(closing(OpenFiles())) if push else None
        survey = Survey(
            root=root, bucket=bucket, address=place, journal=journal, kind=kind, contents=parts,
            progress=progress, run=run, open_files=open_files,
        ).listed(uploads=not pull)  # fmt: skip
        refuse_empty_side(survey, way)
        if check:
            from imnetprep.sync.check import sync_findings

            findings = sync_findings(
                survey, deep=deep, jobs=TRANSFERS.count(jobs), max_rate=max_rate
            )
            return sync_shown.show_findings(findings, len(survey.local), deep=deep)
        directions = [Direction.PUSH] * push + [Direction.PULL] * pull
        plans = [
            plan_sync(
                survey, direction=direction, replace=replace, delete=delete,
                abort_stale_s=abort_stale,
            )
            for direction in directions or Direction
        ]  # fmt: skip
        for plan in plans:
            rate = max_rate or journal.rate(plan.direction)
            sync_shown.show_plan(plan, rate, request_prices, removes=yes)
        sync_shown.show_unfinished(plans[0])
        if not directions and not is_json():
            print_note("nothing is done yet: --push sends, --pull fetches")
        if not acts:
            return 0
        for move in Sync(plans[0]).carried_out(jobs=jobs, max_rate=max_rate, delete=yes):
            sync_shown.show_move(move)
    return 0


def _refuse_strange_run(root: Root, run: str | None, contents: frozenset[str]) -> None:
    if "runs" not in contents:
        verb.refuse("--what leaves the runs out", "run")
    if run is not None:
        from imnetprep.training.runs import named_run

        named_run(root, run)


def _refuse_unused(*, push: bool, pull: bool, check: bool, delete: bool, sse: str | None) -> None:
    if push + pull + check > 1:
        hint = "imnetprep sync-s3 --push, then the same with --pull or --check"
        raise WrongUsage("--push, --pull and --check are done one after the other", hint=hint)
    if not check:
        verb.refuse("only --check compares bytes", "deep")
    if not delete:
        verb.refuse("nothing is removed without --delete", "yes")
    if check:
        verb.refuse("--check moves nothing", "replace", "delete", "request_prices")
    if pull or check:
        reason = "only a push makes objects and uploads"
        verb.refuse(reason, "sse", "sse_kms_key_id", "storage_class", "tags", "abort_stale")
    if sse != "aws:kms":
        verb.refuse("only --sse aws:kms has a key", "sse_kms_key_id")
