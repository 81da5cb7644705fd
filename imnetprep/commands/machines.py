"""`imnetprep machines`."""

import os
import time
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from imnetprep.commands import verb
from imnetprep.commands.distant_work import chosen_action, only_watched
from imnetprep.commands.terminal import json_option, print_note, print_result
from imnetprep.messages import count, format_duration, shell_command
from imnetprep.s3.address import Settings, parse_s3_address

if TYPE_CHECKING:  # --help loads none of it
    from imnetprep.launching.aws import Aws
    from imnetprep.launching.folder import LaunchFolder
    from imnetprep.launching.machines import Launch, Story

_BETWEEN_LOOKS_S = 5


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
    from imnetprep.launching.control import attachment
    from imnetprep.launching.folder import LaunchFolder
    from imnetprep.launching.machines import find_launch, launches
    from imnetprep.s3.bucket import Bucket

    action = chosen_action(name, **flags)
    if action != "clean":
        verb.refuse("it is for --clean", "yes")
    aws = Aws(region=region, profile=profile)
    if action == "clean":
        _clean(aws, name, yes=yes)
        return
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


def _act(action: str, aws: "Aws", launch: "Launch", folder: "LaunchFolder") -> None:
    from imnetprep.launching import control

    command = shell_command("imnetprep", "machines", launch.run)
    match action:
        case "follow":
            with only_watched(f"{launch.run} goes on; {command} --stop ends it"):
                for line in control.follow(folder, pause=partial(time.sleep, _BETWEEN_LOOKS_S)):
                    print_result(line, line=line)
        case "stop":
            state = control.stop(aws, launch, folder)
            print_result(f"{launch.run} {state}; {command} shows it", run=launch.run, state=state)
        case "terminate":
            control.terminate(aws, launch, folder)
            print_result(
                f"{launch.run} has no machine any more, or one that ends; {command} shows it",
                run=launch.run,
                machines=[each.id for each in launch.machines],
            )


def _show(aws: "Aws", launch: "Launch", folder: "LaunchFolder", *, in_full: bool) -> None:
    from imnetprep.launching.machines import disagreements, end_of_training, read_story, state_of

    moment = time.time()
    story = read_story(folder)
    state = state_of(launch, story, moment=moment)
    end = end_of_training(launch, story, moment=moment)
    usd = story.usd_at_most(moment=moment)
    quarrels = list(disagreements(launch, story, moment=moment))
    fields: dict[str, Any] = {
        "run": launch.run,
        "address": launch.address,
        "state": state,
        "capacity": launch.capacity,
        "machines": [asdict(each) for each in launch.machines],
        "epochs_done": story.pace and story.pace.epoch,
        "epochs": story.pace and story.pace.epochs,
        "training_ends": end,
        "deadline": story.deadline,
        "usd_at_most": usd,
        "last_line": story.last_line,
        "disagreements": quarrels,
    }
    progress = _progress(story, end, moment)
    if not in_full:
        parts = (state, progress, ", ".join(map(str, launch.machines)))
        lines = [f"{launch.run}: {'; '.join(filter(None, parts))}"]
    else:
        rows = {
            "run": f"{launch.run} at {launch.address}",
            "state": state,
            "progress": progress,
            "machine": "; ".join(
                f"{each} ({each.state}), for {format_duration(moment - each.launched_at)}"
                for each in launch.machines
            ),
            "end": _end(story.deadline, moment) if launch.is_alive else "",
            "cost": _cost(story, end, moment),
            "log": story.last_line or "",
        }
        lines = [f"{title:9} {text}" for title, text in rows.items() if text]
    if launch.obstacle is not None:
        quarrels.append(launch.obstacle)
    for text, hint in quarrels:
        lines += [f"{'!':9} {text}", f"{'':9} {verb.from_here(hint)}"]
    if in_full:
        things, fields["things"] = _things(aws, launch)
        lines.append(f"{'exists':9} {things}")
    print_result(*lines, **fields)


def _progress(story: "Story", end: float | None, moment: float) -> str:
    """The epochs that the bucket has, and when the last one will be over."""
    if story.pace is None:
        return ""
    text = f"{story.pace.epoch} of {story.pace.epochs} epochs"
    if end is None:
        return text
    text += f", {format_duration(story.pace.epoch_s)} each"
    if story.deadline is not None and end > story.deadline:
        return f"{text}: not done before its end, which saves it; launched again it resumes"
    return f"{text}, done in about {format_duration(end - moment)}"


def _cost(story: "Story", end: float | None, moment: float) -> str:
    usd = story.usd_at_most(moment=moment)
    if usd is None:
        return "unknown"
    text = f"${usd:.2f} so far at most, by the plan's price"
    in_all = end and story.usd_at_most(moment=end)
    return f"{text}; ${in_all:.2f} when it is done" if in_all else text


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
    text = ", ".join(names := [f"{each.kind} {each.name}" for each in things])
    if names and not launch.is_alive and all(each.cost == "free" for each in things):
        clean = shell_command("imnetprep", "machines", launch.run, "--clean", "--yes")
        text = f"{text}: free; {clean} removes it"
    return text or "nothing", names


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
