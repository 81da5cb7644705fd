"""`imnetprep machines`."""

import os
import time
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from imnetprep.commands import verb
from imnetprep.commands.terminal import json_option, print_note, print_result
from imnetprep.messages import WrongUsage, count, format_duration, shell_command
from imnetprep.s3.address import Settings, parse_s3_address

if TYPE_CHECKING:  # --help loads none of it
    from imnetprep.launching.aws import Aws
    from imnetprep.launching.folder import LaunchFolder
    from imnetprep.launching.machines import Launch

_SECONDS_BETWEEN_LOOKS = 5


@verb.command(
    short_help="Show the launches and their machines; follow, stop or end one.",
    headings={
        "What to do": ("attach", "follow", "stop", "terminate", "clean", "yes"),
        "AWS": ("region", "profile", "endpoint_url"),
    },
)
@click.argument("name", metavar="[RUN]", required=False)
@click.option("--attach", is_flag=True, help="Open the run's screen by Session Manager.")
@click.option("--follow", is_flag=True, help="Print the log, and go on until the launch is over.")
@click.option("--stop", is_flag=True, help="Let the machine save, push and end.")
@click.option("--terminate", is_flag=True, help="End the machine at once, without a save.")
@click.option("--clean", is_flag=True, help="List what launches left in AWS.")
@click.option("--yes", is_flag=True, help="With --clean: remove what it lists.")
@click.option("--region", metavar="NAME", help="Region of the machines and of the bucket.")
@click.option("--profile", metavar="NAME", help="Profile of ~/.aws.  [default: AWS_PROFILE]")
@click.option("--endpoint-url", metavar="URL", help="Address of an S3 server that is not AWS.")
@json_option
def machines(
    name: str | None,
    *,
    clean: bool,
    yes: bool,
    region: str | None,
    profile: str | None,
    endpoint_url: str | None,
    **flags: bool,
) -> None:
    """Show the launches that AWS has, and what the bucket says of each; with RUN, all of one.

    AWS is asked by tag, and the bucket for the rest: nothing is kept on this machine. Where the two
    disagree it is said.

    \b
    imnetprep machines
    imnetprep machines resnet18 --follow
    imnetprep machines --clean --yes
    """
    from imnetprep.launching.aws import Aws
    from imnetprep.launching.folder import LaunchFolder
    from imnetprep.launching.machines import attachment, find_launch, launches
    from imnetprep.s3.bucket import Bucket

    action = _action(clean=clean, **flags)
    if yes and not clean:
        verb.refuse("it is for --clean", "yes")
    aws = Aws(region=region, profile=profile)
    if clean:
        _clean(aws, name, yes=yes)
        return
    if action and name is None:
        raise WrongUsage(
            f"--{action} needs the name of a run", hint="imnetprep machines lists them"
        )
    settings = Settings(endpoint_url=endpoint_url, region=aws.region, profile=profile)
    found = launches(aws) if name is None else [find_launch(aws, name)]
    for each in found:
        address = parse_s3_address(each.address)
        with closing(LaunchFolder(Bucket(address.bucket, settings), address, each.run)) as folder:
            if action == "attach":
                words = attachment(aws, each, profile=profile)
                os.execvp(words[0], words)  # noqa: S606
            elif action:
                _act(action, aws, each, folder)
            else:
                _show(aws, each, folder, in_full=name is not None)
    if not found:
        print_note(f"no launch in {aws.region}")


def _action(**flags: bool) -> str | None:
    """The one thing to do, as its option is called; None: to show."""
    names = [name for name, value in flags.items() if value]
    if len(names) > 1:
        options = " and ".join(f"--{each}" for each in names)
        raise WrongUsage(f"{options} cannot be done at once", hint=f"leave out --{names[-1]}")
    return names[0] if names else None


def _act(action: str, aws: "Aws", launch: "Launch", folder: "LaunchFolder") -> None:
    from imnetprep.launching import machines as of

    command = shell_command("imnetprep", "machines", launch.run)
    match action:
        case "follow":
            for line in of.follow(folder, pause=lambda: time.sleep(_SECONDS_BETWEEN_LOOKS)):
                print_result(line, line=line)
        case "stop":
            is_asked = of.stop(aws, launch, folder)
            text = (
                "is asked to save, push and end" if is_asked else "had no machine yet; it is over"
            )
            print_result(f"{launch.run} {text}; {command} shows it", run=launch.run, stop=is_asked)
        case "terminate":
            of.terminate(aws, launch, folder)
            print_result(
                f"{launch.run} has no machine any more, or one that ends; {command} shows it",
                run=launch.run,
                machines=[each.id for each in launch.machines],
            )


def _show(aws: "Aws", launch: "Launch", folder: "LaunchFolder", *, in_full: bool) -> None:
    from imnetprep.launching import machines as of

    moment = time.time()
    story = of.read_story(folder)
    state = of.state_of(launch, story, moment=moment)
    quarrels = list(of.disagreements(launch, story, moment=moment))
    usd = story.usd_at_most(moment=moment)
    fields: dict[str, Any] = {
        "run": launch.run,
        "address": launch.address,
        "state": state,
        "capacity": launch.capacity,
        "machines": [asdict(each) for each in launch.machines],
        "deadline": story.deadline,
        "usd_at_most": usd,
        "last_line": story.last_line,
        "disagreements": quarrels,
    }
    if not in_full:
        names = ", ".join(map(str, launch.machines))
        lines = [f"{launch.run}: {state}" + (f"; {names}" if names else "")]
    else:
        rows = {
            "run": f"{launch.run} at {launch.address}",
            "state": state,
            "machine": "; ".join(
                f"{each} ({each.state}), for {format_duration(moment - each.launched_at)}"
                for each in launch.machines
            ),
            "end": _end(story.deadline, moment) if launch.is_alive else "",
            "cost": "unknown" if usd is None else f"${usd:.2f} so far at most, by the plan's price",
            "log": story.last_line or "",
        }
        lines = [f"{title:9} {text}" for title, text in rows.items() if text]
    if launch.obstacle is not None:
        quarrels.append(launch.obstacle)
    lines += [line for text, hint in quarrels for line in (f"{'!':9} {text}", f"{'':9} {hint}")]
    if in_full:
        things, fields["things"] = _things(aws, launch)
        lines.append(f"{'exists':9} {things}")
    print_result(*lines, **fields)


def _end(deadline: float | None, moment: float) -> str:
    if deadline is None:
        return "unknown"
    at = datetime.fromtimestamp(deadline, UTC)
    return (
        f"by itself at {at:%Y-%m-%d %H:%M} UTC, in {format_duration(max(0.0, deadline - moment))}"
    )


def _things(aws: "Aws", launch: "Launch") -> tuple[str, list[str]]:
    """What AWS has of a run, in words and as a list."""
    from imnetprep.launching.leftovers import find_leftovers

    things = find_leftovers(aws, launch.run)
    names = [f"{each.kind} {each.name}" for each in things]
    if not things:
        return "nothing", names
    is_free = all(each.cost == "free" for each in things)
    text = (
        ": free; imnetprep machines --clean removes it" if is_free and not launch.is_alive else ""
    )
    return ", ".join(names) + text, names


def _clean(aws: "Aws", run: str | None, *, yes: bool) -> None:
    from imnetprep.launching.leftovers import carry_out_clean, find_leftovers

    number = 0
    for each in carry_out_clean(aws, run) if yes else find_leftovers(aws, run):
        stays = f"; stays: {each.obstacle}" if each.obstacle else ""
        text = f"{each.kind:15} {each.name}  {each.cost}{stays}"
        is_removed = yes and not each.obstacle
        print_result(text, **asdict(each), removed=is_removed)
        number += not each.obstacle
    total = f"{count(number, 'thing')}"
    if number:
        total += " removed" if yes else ": nothing is removed yet; --clean --yes does it"
    print_result(total if number else "nothing to remove", found=number, removed=yes)
