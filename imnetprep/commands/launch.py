"""`imnetprep launch`."""

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from imnetprep.commands import verb
from imnetprep.commands.terminal import is_json, json_option, print_note, print_result
from imnetprep.messages import FINDINGS_EXIT_CODE, WrongUsage
from imnetprep.s3.address import S3Address, Settings, parse_s3_address

if TYPE_CHECKING:  # --help loads none of it
    from imnetprep.launching.aws import Aws
    from imnetprep.launching.plan import Forecast, LaunchPlan, Wish
    from imnetprep.s3.bucket import Bucket

# What the machine says itself, or `launch` does.
_NOT_TYPED = {
    "root": "--root of launch says where the data are",
    "runs": "runs lie beside the data in the bucket",
    "run": "--run of launch names it: write it before the word train",
    "resume": "a machine resumes by itself what is there",
    "dry_run": "without --yes launch does nothing",
    "quiet": "the log of a machine is an object of the bucket",
    "track": "the machine has no trackers; the log of the run comes with each push",
}
_TYPES_TO_CHECK = ("g5.2xlarge",)


def _parse_types(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(each.strip() for each in text.split(",")))
    if not all(names):
        raise ValueError(f"{text!r} is not a list of types such as g5.2xlarge,g6.2xlarge")
    return names


@verb.command(
    short_help="Train on a machine of EC2 that ends by itself.",
    context_settings={"allow_interspersed_args": False},  # what follows `train` is its own
    headings={
        "The machine": ("types", "on_demand", "zone", "volume_gib", "create_role"),
        "Its end": ("max_hours", "max_cost", "keep_minutes"),
        "What to do": ("yes", "dry_run", "check", "text"),
        "AWS": ("region", "profile", "endpoint_url"),
    },
)
@click.argument("words", metavar="-- train …", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--root",
    "address",
    metavar="s3://BUCKET/PREFIX",
    help="Place that `sync-s3` filled: archives or shards, and the runs.",
)
@click.option("--run", metavar="NAME", help="Name of the run.  [default: --arch of train]")
@click.option(
    "--dataset",
    metavar="NAME|FILE.toml",
    help="Dataset of the archives.  [default: as the bucket's manifest says, else ilsvrc2012]",
)
@click.option(
    "--instance",
    "types",
    type=verb.ParsedType("types", _parse_types),
    metavar="TYPE,…",
    help="Types of machine, any of which will do: g5.2xlarge,g6.2xlarge.",
)
@click.option("--on-demand", is_flag=True, help="Pay the full price for a machine that stays.")
@click.option("--zone", metavar="NAME", help="Only in this zone: us-east-1b.")
@click.option(
    "--volume",
    "volume_gib",
    type=click.IntRange(1),
    metavar="GIB",
    help="Size of the root volume.  [default: what image and data need]",
)
@click.option(
    "--create-role", is_flag=True, help="Make the role by which the machine reaches the bucket."
)
@click.option(
    "--max-hours",
    type=click.FloatRange(0.1, 24 * 365),
    default=24.0,
    show_default=True,
    help="Hours after which AWS ends everything, whatever happens.",
)
@click.option(
    "--max-cost",
    type=click.FloatRange(0.01),
    metavar="USD",
    help="End after fewer hours, which cost no more at the highest price of today.",
)
@click.option(
    "--keep",
    "keep_minutes",
    type=click.IntRange(0, 1440),
    default=0,
    metavar="MINUTES",
    help="Let the machine run on for so long after the training, to be looked at.",
)
@click.option("--yes", is_flag=True, help="Launch what the plan shows.")
@verb.dry_run_option("Show the plan and launch nothing, whatever else is said.")
@click.option("--check", is_flag=True, help="Check credentials, policy, quota, image and region.")
@click.option(
    "--print",
    "text",
    type=click.Choice(["user-data", "policy", "skypilot"]),
    help="Print the machine's script, the policies needed, or the same task for SkyPilot.",
)
@click.option("--region", metavar="NAME", help="Region of the machine, and of the bucket.")
@click.option("--profile", metavar="NAME", help="Profile of ~/.aws.  [default: AWS_PROFILE]")
@click.option("--endpoint-url", metavar="URL", help="Address of an S3 server that is not AWS.")
@json_option
def launch(
    words: tuple[str, ...],
    address: str | None,
    types: tuple[str, ...] | None,
    yes: bool,
    dry_run: bool,
    check: bool,
    text: str | None,
    region: str | None,
    profile: str | None,
    endpoint_url: str | None,
    **options: Any,
) -> int:
    """Train on a machine of EC2 that is gone when it is done.

    \b
    imnetprep launch --instance g5.2xlarge,g6.2xlarge --root s3://my-bucket/imagenet \\
        -- train --arch resnet18
    imnetprep launch --check

    Prints first what it would start, how long that takes and what it costs; nothing is done without
    --yes. The machine organizes the archives of the bucket, or takes its shards, trains, and pushes
    the run every two minutes. A group of one machine starts the next where EC2 takes a spot machine
    back, and ends by itself at --max-hours, with this computer off too. `imnetprep machines` shows
    what runs.
    """
    from imnetprep.launching.aws import Aws
    from imnetprep.launching.plan import plan_launch
    from imnetprep.launching.skypilot import skypilot_task
    from imnetprep.launching.user_data import user_data
    from imnetprep.s3.bucket import Bucket

    place = parse_s3_address(address) if address else None
    aws = Aws(region=region, profile=profile)
    if text == "policy":
        return _print_policies(aws, place, create_role=options["create_role"])
    settings = Settings(endpoint_url=endpoint_url, region=aws.region, profile=profile)
    if check:
        return _check(aws, types or _TYPES_TO_CHECK, place, settings)
    if place is None or types is None:
        raise WrongUsage(
            f"{'--root' if place is None else '--instance'} is missing",
            hint="imnetprep launch --instance g5.2xlarge --root s3://BUCKET/PREFIX -- train",
        )
    wish = _wish(words, place, types, endpoint_url=endpoint_url, **options)
    with closing(Bucket(place.bucket, settings)) as bucket:
        plan, forecast = plan_launch(wish, aws, bucket, at=datetime.now(UTC))
        if text == "user-data":
            click.echo(user_data(plan.orders), nl=False)
        elif text == "skypilot":
            click.echo(skypilot_task(plan), nl=False)
        else:
            _launch(plan, forecast, aws, bucket, acts=yes and not dry_run, dry_run=dry_run)
    return 0


def _launch(
    plan: "LaunchPlan",
    forecast: "Forecast",
    aws: "Aws",
    bucket: "Bucket",
    *,
    acts: bool,
    dry_run: bool,
) -> None:
    """Show the plan, and carry it out if so asked."""
    from imnetprep.commands.launch_shown import show_plan
    from imnetprep.launching.folder import LaunchFolder
    from imnetprep.launching.group import carry_out_launch

    show_plan(plan, forecast)
    forecast.require(plan)
    if not acts:
        if not is_json() and not dry_run:
            print_note("nothing is done yet: --yes launches it")
        return
    folder = LaunchFolder(bucket, parse_s3_address(plan.orders.address), plan.orders.run)
    for step in carry_out_launch(plan, aws, folder):
        state = "made" if step.is_new else "there already"
        print_result(f"{step.kind}: {step.name} ({state})", **asdict(step))
    if not is_json():
        print_note(f"imnetprep machines {plan.orders.run} shows how it goes on")


def _wish(
    words: Sequence[str],
    place: S3Address,
    types: tuple[str, ...],
    *,
    run: str | None,
    dataset: str | None,
    on_demand: bool,
    create_role: bool,
    **options: Any,
) -> "Wish":
    """What was asked for, with the training checked as `train` itself would."""
    from imnetprep.launching.orders import run_name
    from imnetprep.launching.plan import Wish
    from imnetprep.launching.policies import role_name
    from imnetprep.launching.wheel import build_wheel
    from imnetprep.recipes.plan_recipe import plan_recipe
    from imnetprep.recipes.recipe import Recipe, default_run

    choices = _training_options(words)
    layout, device = choices["layout"], choices["device"]
    names = {each.name for each in fields(Recipe)}
    recipe = plan_recipe({name: choices[name] for name in choices if name in names}, amp_pays=True)
    if ":" in recipe.arch or recipe.weights.partition(":")[0] not in ("", "torchvision"):
        raise WrongUsage(
            f"{recipe.arch} and weights {recipe.weights or 'of the seed'} are not on the machine",
            hint="launch trains networks of `imnetprep archs`, with --weights torchvision or none",
        )
    wheel = build_wheel()
    try:
        name = run_name(run or default_run(recipe.arch))
    except ValueError as error:
        raise WrongUsage(str(error), hint="--run NAME, before the word train") from error
    return Wish(
        address=place,
        run=name,
        command=tuple(words),
        layout=layout and layout.value,
        recipe=recipe,
        needs_gpu=device != "cpu",
        dataset=dataset,
        types=types,
        is_spot=not on_demand,
        wheel=(wheel.name, wheel.body),
        role=role_name(place),
        creates_role=create_role,
        **options,
    )


def _training_options(words: Sequence[str]) -> dict[str, Any]:
    """The options of `train` in the command for the machine. Raises WrongUsage, and as click."""
    from imnetprep.commands.train import train

    example = "imnetprep launch --instance g5.2xlarge --root s3://BUCKET/PREFIX -- train"
    if not words or words[0] != "train":
        problem = f"{words[0]!r} is no training" if words else "nothing is said of what to train"
        raise WrongUsage(problem, hint=f"{example} --arch resnet18")
    try:
        context = train.make_context("imnetprep train", list(words[1:]))
    except click.NoSuchOption as error:
        if any(error.option_name in each.opts for each in launch.params):
            raise WrongUsage(
                f"{error.option_name} is an option of launch, and stands among those of train",
                hint="write it before the word train",
            ) from error
        raise
    for name, reason in _NOT_TYPED.items():
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            option = f"--{name.replace('_', '-')}"
            raise WrongUsage(
                f"{option} is not for the machine: {reason}", hint=f"leave out {option}"
            )
    return {name: value for name, value in context.params.items() if name not in _NOT_TYPED}


def _check(aws: "Aws", types: tuple[str, ...], place: S3Address | None, settings: Settings) -> int:
    """A line for each thing that a launch needs, and its mend; 5: one is to be mended."""
    from imnetprep.launching.checks import checks

    code = 0
    for each in checks(aws, types, place, settings):
        lines = [f"{'ok' if each.mend is None else 'no':<4}{each.name:<16}{each.text}"]
        if each.mend is not None:
            lines.append(f"{'':<20}{verb.from_here(each.mend)}")
            code = FINDINGS_EXIT_CODE
        print_result(*lines, name=each.name, ok=each.mend is None, text=each.text, mend=each.mend)
    return code


def _print_policies(aws: "Aws", place: S3Address | None, *, create_role: bool) -> int:
    """What whoever launches needs, and the role of the machine, as IAM takes it."""
    from imnetprep.launching.policies import (
        TRUST,
        Scope,
        launcher_policy,
        machine_policy,
        role_name,
    )

    account = aws.call("sts", "get_caller_identity")["Account"]
    scope = Scope(account, aws.region, place or S3Address("BUCKET", "PREFIX"))
    policies = {
        "launcher": launcher_policy(scope, create_role=create_role),
        "machine": machine_policy(scope),
        "role": {"name": role_name(scope.address), "trust": TRUST},
    }
    click.echo(json.dumps(policies, indent=2))
    return 0
