"""`imnetprep sync-s3`."""

from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from imnetprep.commands.options import (
    DURATION,
    RATE,
    dry_run_option,
    json_option,
    quiet_option,
    root_option,
)
from imnetprep.commands.terminal import print_finding, print_result, progress
from imnetprep.errors import FINDINGS_EXIT_CODE, WrongUsage
from imnetprep.roots import Root
from imnetprep.units import count, format_bytes, format_duration

if TYPE_CHECKING:  # --help loads none of it
    from imnetprep.s3.bucket import Bucket, Settings
    from imnetprep.sync.plan import SyncPlan

_WHAT = ("archives", "shards", "runs", "manifest", "images")
_DEFAULT_WHAT = ",".join(_WHAT[:-1])
_LISTED_BEFORE_SUMMING_UP = 20
_IMAGES_IN_A_SHARD = 1000


class _What(click.ParamType[frozenset[str]]):
    name = "what"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        wanted = [each.strip() for each in str(value).split(",")]
        if unknown := [each for each in wanted if each not in _WHAT]:
            self.fail(f"{unknown[0]!r} is none of {', '.join(_WHAT)}", param, ctx)
        return frozenset(wanted)


class _Prices(click.ParamType[tuple[float, float]]):
    name = "prices"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            put, get = map(float, value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not two prices such as 0.005,0.0004", param, ctx)
        return put, get


def settings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """How the bucket is reached and what objects are made as, in the words of AWS: `settings`."""

    @click.option("--endpoint-url", metavar="URL", help="Of a server that is not AWS.")
    @click.option("--region", metavar="NAME", help="Where the bucket is.")
    @click.option("--profile", metavar="NAME", help="Of ~/.aws; else AWS_PROFILE and the rest.")
    @click.option("--path-style", is_flag=True, help="The bucket in the path, not in the host.")
    @click.option("--accelerate", is_flag=True, help="By transfer acceleration (it costs).")
    @click.option("--dual-stack", is_flag=True, help="By IPv6 where there is.")
    @click.option("--request-payer", is_flag=True, help="You pay, not the bucket's owner.")
    @click.option("--sse", type=click.Choice(["AES256", "aws:kms"]), help="Encrypt objects so.")
    @click.option("--sse-kms-key-id", metavar="ID", help="With this key.")
    @click.option("--storage-class", metavar="CLASS", help="Such as INTELLIGENT_TIERING.")
    @click.option("--tagging", metavar="KEY=VALUE&…", help="Tags of the objects.")
    @wraps(command)
    def gathered(
        *,
        endpoint_url: str | None,
        region: str | None,
        profile: str | None,
        path_style: bool,
        accelerate: bool,
        dual_stack: bool,
        request_payer: bool,
        sse: str | None,
        sse_kms_key_id: str | None,
        storage_class: str | None,
        tagging: str | None,
        **others: Any,
    ) -> Any:
        from imnetprep.s3.bucket import Settings

        settings = Settings(
            endpoint_url, region, profile, path_style, accelerate, dual_stack, request_payer,
            sse, sse_kms_key_id, storage_class, tagging,
        )  # fmt: skip
        return command(settings=settings, **others)

    return gathered


@click.command("sync-s3", short_help="Make a root and a bucket equal, and prove it.")
@click.argument("address", metavar="s3://BUCKET/PREFIX")
@root_option
@click.option("--push", is_flag=True, help="Send what the bucket lacks.")
@click.option("--pull", is_flag=True, help="Fetch what the root lacks.")
@click.option("--check", is_flag=True, help="Compare both sides; exit code 5 on a finding.")
@click.option("--deep", is_flag=True, help="With --check: read every byte of both sides.")
@click.option(
    "--what",
    type=_What(),
    default=_DEFAULT_WHAT,
    show_default=True,
    help="These parts of a root, or images (a request for each).",
)
@click.option("--replace", is_flag=True, help="Overwrite what is newer or different there.")
@click.option("--delete", is_flag=True, help="List what the source side lacks; with --yes remove.")
@click.option("--yes", is_flag=True, help="With --delete: remove what is listed.")
@click.option("--yes-many-objects", is_flag=True, help="With --what images: pay for each image.")
@click.option(
    "--abort-stale", type=DURATION, metavar="AGE", help="Drop unfinished uploads older than that."
)
@click.option("--jobs", type=click.IntRange(1), help="Parts at once. Default: 8.")
@click.option("--max-rate", type=RATE, help="At most so many bytes a second: 20MB.")
@click.option(
    "--request-prices",
    type=_Prices(),
    default="0.005,0.0004",
    metavar="PUT,GET",
    show_default=True,
    help="USD per 1,000 requests.",
)
@click.option(
    "--checksum-algorithm",
    type=click.Choice(["CRC64NVME", "CRC32"]),
    help="Of whole objects. Default: CRC64NVME where awscrt is installed.",
)
@settings_options
@dry_run_option
@json_option
@quiet_option
def sync_s3(
    address: str,
    root: Root,
    push: bool,
    pull: bool,
    check: bool,
    deep: bool,
    what: frozenset[str],
    replace: bool,
    delete: bool,
    yes: bool,
    yes_many_objects: bool,
    abort_stale: float | None,
    jobs: int | None,
    max_rate: float | None,
    request_prices: tuple[float, float],
    checksum_algorithm: str | None,
    settings: "Settings",
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Make ROOT and a place in a bucket equal: archives, shards, runs and the manifest.

    Says first what it would send and fetch, and what the requests cost; without --push, --pull or
    --check it stops there. Every byte is proved on its way, by a checksum that the server compares
    too. Nothing that differs is overwritten without --replace, nothing removed without --delete.

    Killed at any instant, the same command goes on, from another machine too.

    \b
    imnetprep sync-s3 s3://my-bucket/imagenet
    imnetprep sync-s3 s3://my-bucket/imagenet --push
    imnetprep sync-s3 s3://my-bucket/imagenet --pull --what archives,manifest
    imnetprep organize --archives s3://my-bucket/imagenet/archives
    """
    if push + pull + check > 1 or (deep and not check) or (yes and not delete):
        raise WrongUsage(
            "--push, --pull and --check are three things; --deep goes with --check, --yes with"
            " --delete",
            hint="imnetprep sync-s3 --help",
        )
    from imnetprep.fs import locked
    from imnetprep.s3.address import parse_s3_address
    from imnetprep.s3.bucket import Bucket
    from imnetprep.sync.journal import open_sync_journal
    from imnetprep.sync.places import What
    from imnetprep.sync.plan import Direction, plan_sync
    from imnetprep.sync.session import Sync, best_kind
    from imnetprep.sync.survey import survey

    shown, place = progress(quiet=quiet), parse_s3_address(address)
    parts = frozenset(map(What, what))
    kind = checksum_algorithm.lower() if checksum_algorithm else best_kind()
    bucket = Bucket(place.bucket, settings)
    acts = (push or pull or check) and not dry_run
    with ExitStack() as stack:
        if acts:
            stack.enter_context(locked(root.path, name=".sync.lock"))
        journal = stack.enter_context(open_sync_journal(root, endpoint=bucket.endpoint, keep=acts))
        found = survey(root, bucket, place, journal, what=parts, uploads=not pull, progress=shown)
        if check:
            from imnetprep.sync.check import sync_findings

            findings = 0
            for finding in sync_findings(
                root, bucket, found, journal, deep=deep, kind=kind, progress=shown
            ):
                print_finding(finding, as_json=as_json)
                findings += 1
            how = "every byte of both sides read" if deep else "sizes and checksums"
            text = f"{count(findings, 'finding')} in {count(len(found.here), 'file')} ({how})"
            print_result(text, as_json=as_json, findings=findings, files=len(found.here))
            return FINDINGS_EXIT_CODE if findings else 0
        directions = [each for each, wanted in zip(Direction, (push, pull), strict=True) if wanted]
        plans = [
            plan_sync(
                root, bucket, found, journal,
                direction=direction, what=parts, replace=replace, delete=delete,
                abort_stale_s=abort_stale,
            )
            for direction in directions or Direction
        ]  # fmt: skip
        for plan in plans:
            known_rate = max_rate or journal.rate(plan.direction)
            _show_plan(plan, known_rate, request_prices, as_json=as_json, removes=yes)
        _show_unfinished(plans[0], bucket)
        if not directions and not as_json:
            click.echo("nothing is done yet: --push sends, --pull fetches", err=True)
        if What.IMAGES in parts and not yes_many_objects:
            _refuse_images(plans, request_prices, acts=acts)
        if not acts:
            return 0
        sync = Sync(plans[0], root, bucket, journal, kind=kind, progress=shown)
        for moved in sync.carried_out(jobs=jobs, max_rate=max_rate, delete=yes):
            step = moved.step
            proof = f", {moved.known.whole.kind} {moved.known.whole.value:x}" if moved.known else ""
            text = f"{_DONE[moved.action]} {step.path}: {format_bytes(step.size_bytes)}{proof}"
            print_result(
                text, as_json=as_json, file=step.path, done=moved.action,
                size_bytes=step.size_bytes, etag=moved.etag,
                checksum=proof.removeprefix(", ") or None,
            )  # fmt: skip
    return 0


_DONE = {
    "send": "sent",
    "fetch": "fetched",
    "skip": "the same",
    "keep": "kept",
    "delete": "removed",
}


_VERBS = {"push": "send", "pull": "fetch"}


def _show_plan(
    plan: "SyncPlan",
    rate: float | None,
    prices: tuple[float, float],
    *,
    as_json: bool,
    removes: bool,
) -> None:
    """What it would do, file by file where these are few, and what that takes."""
    from imnetprep.sync.plan import Action, Step

    both = plan.survey.here.keys() & plan.survey.there.keys()
    by_action = {action: plan.of(action) for action in Action if plan.of(action)}
    for action, steps in by_action.items():
        listed, left_out = list[Step](), list[Step]()
        for step in steps:
            # What is to go, and what differs and stays, is never summed up.
            weighty = action is Action.DELETE or (action is Action.KEEP and step.path in both)
            few = len(listed) < _LISTED_BEFORE_SUMMING_UP
            (listed if as_json or weighty or few else left_out).append(step)
        for step in listed:
            print_result(
                f"{plan.direction}: {action:7} {format_bytes(step.size_bytes):>8}  {step.path}"
                f"  ({step.why})",
                as_json=as_json,
                direction=plan.direction, action=action, file=step.path,
                size_bytes=step.size_bytes, why=step.why, requests=step.requests,
            )  # fmt: skip
        if left_out:
            size_bytes = sum(step.size_bytes for step in left_out)
            click.echo(
                f"{plan.direction}: {action:7} {format_bytes(size_bytes):>8}  in"
                f" {count(len(left_out), 'file')} more"
            )
    moves = plan.of(Action.SEND, Action.COMPARE, Action.FETCH)
    size_bytes = sum(step.size_bytes for step in moves)
    puts = sum(s.requests for s in plan.of(Action.SEND, Action.COMPARE))
    gets = sum(s.requests for s in plan.of(Action.FETCH))
    cost = (puts * prices[0] + gets * prices[1]) / 1000
    seconds = size_bytes / (rate or 100e6)
    guessed = "" if rate else ", if it is 100 MB/s"
    same = count(len(plan.of(Action.SKIP)), "file")
    text = (
        f"{plan.direction}: {count(len(moves), 'file')}, {format_bytes(size_bytes)} in"
        f" {count(puts + gets, 'request')} (${cost:.4f}), about"
        f" {format_duration(seconds)}{guessed};"
        f" {same} the same already"
    )
    if not moves:
        text = f"{plan.direction}: 0 files to {_VERBS[plan.direction]}; {same} the same already"
    print_result(
        text, as_json=as_json,
        direction=plan.direction, files=len(moves), size_bytes=size_bytes, requests=puts + gets,
        cost_usd=round(cost, 6), seconds=round(seconds), same=len(plan.of(Action.SKIP)),
        unfinished=len(plan.survey.unfinished),
    )  # fmt: skip
    if (deletes := plan.of(Action.DELETE)) and not removes:
        click.echo(f"{count(len(deletes), 'file')} to remove: --yes does it", err=True)


def _show_unfinished(plan: "SyncPlan", bucket: "Bucket") -> None:
    """The uploads in parts that somebody began: they are paid for, and no listing shows them."""
    from imnetprep.s3.listing import stored_bytes
    from imnetprep.sync.plan import Action

    planned = {(plan.survey.address / step.path).key: step.action for step in plan.steps}
    for uploads, aborted in ((plan.survey.unfinished, False), (plan.stale, True)):
        for upload in uploads:
            goes_on = "a" if planned.get(upload.key) is Action.SEND else "no"
            what = f"{goes_on} push goes on with it, --abort-stale drops it"
            what = "to abort" if aborted else what
            age = format_duration((datetime.now(UTC) - upload.begun_at).total_seconds())
            size = format_bytes(stored_bytes(bucket, upload))
            click.echo(f"unfinished upload of {upload.key}: {size}, {age} old; {what}", err=True)


def _refuse_images(plans: "list[SyncPlan]", prices: tuple[float, float], *, acts: bool) -> None:
    """Say what images cost as they are, and what as shards. Raises WrongUsage if it `acts`."""
    from imnetprep.sync.places import What, what_of
    from imnetprep.sync.plan import Direction

    told = []
    for plan in plans:
        images = sum(bool(s.requests) for s in plan.steps if what_of(s.path) is What.IMAGES)
        shards = -(-images // _IMAGES_IN_A_SHARD)
        price = prices[plan.direction is Direction.PULL] / 1000
        told.append(
            f"{plan.direction}: images take {count(images, 'request')} (${images * price:.4f});"
            f" as shards {count(shards, 'request')} (${shards * price:.4f})"
        )
    if acts:
        raise WrongUsage(
            told[0],
            hint="organize --layout webdataset makes shards, which every reader gets for as much"
            " less; or say --yes-many-objects",
        )
    for line in told:
        click.echo(line, err=True)
