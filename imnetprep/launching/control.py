"""What is done to a launch from the laptop: stopped, ended, followed, attached to."""

import codecs
import json
import shlex
import shutil
import time
from collections.abc import Callable, Iterator

from imnetprep.launching.aws import Aws
from imnetprep.launching.folder import Ending, LaunchFolder
from imnetprep.launching.group import set_to_none
from imnetprep.launching.machines import Launch
from imnetprep.launching.orders import GROUP_PREFIX
from imnetprep.launching.user_data import PYTHON
from imnetprep.messages import TERMINATED_EXIT_CODE, ImnetprepError, SourceFailed, shell_command


def stop(aws: Aws, launch: Launch, folder: LaunchFolder) -> str:
    """Ask the machine to save, push and end; where there is none yet, end the launch.

    Returns what is so now, in words.
    """
    if not launch.is_alive:
        return "is over already"
    folder.request_stop()
    if launch.machines:
        return "is asked to save, push and end"
    terminate(aws, launch, folder)
    return "had no machine yet; it is over"


def terminate(aws: Aws, launch: Launch, folder: LaunchFolder) -> None:
    """End the machine at once, and let none follow. What it did since its last push is lost."""
    if launch.capacity is not None:
        set_to_none(aws, GROUP_PREFIX + launch.run)
    elif launch.machines:
        ids = [each.id for each in launch.machines]
        aws.call("ec2", "terminate_instances", InstanceIds=ids)
    try:
        if folder.done() is None:
            folder.write_done(Ending(TERMINATED_EXIT_CODE, "terminated by its user", time.time()))
    except SourceFailed as error:
        raise SourceFailed(
            f"{launch.run} has no machine any more, and the bucket could not be told: {error}",
            hint=error.hint,
        ) from error


def attachment(aws: Aws, launch: Launch, *, profile: str | None) -> list[str]:
    """The command that opens the run's window on its machine, whose ports are all closed.

    Raises ImnetprepError where there is no machine, or a program is missing here.
    """
    follow = shell_command("imnetprep", "machines", launch.run, "--follow")
    candidates = [each for each in launch.machines if each.state == "running"]
    if not candidates:
        raise ImnetprepError(
            f"{launch.run} has no running machine to attach to",
            hint=f"{shell_command('imnetprep', 'machines', launch.run)} says why",
        )
    for program in ("aws", "session-manager-plugin"):
        if shutil.which(program) is None:
            raise ImnetprepError(
                f"attaching goes by Session Manager, and {program} is not installed here",
                hint=f"install it; or {follow}, which needs neither",
            )
    words = ["sudo", "-H", PYTHON, "-m", "imnetprep", "sessions", launch.run, "--attach"]
    return [
        *("aws", "ssm", "start-session", "--region", aws.region, "--target", candidates[0].id),
        *(("--profile", profile) if profile else ()),
        *("--document-name", "AWS-StartInteractiveCommand"),
        *("--parameters", json.dumps({"command": [shlex.join(words)]})),
    ]


def follow(folder: LaunchFolder, *, pause: Callable[[], None]) -> Iterator[str]:
    """The lines of the log, from its beginning until the launch is over; `pause` between looks.

    A machine that takes over begins a log of its own.
    """
    owner, offset, rest = None, 0, ""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    while True:
        ending, lease = folder.done(), folder.lease()  # before the log, to have all of it
        if lease is not None and lease.owner != owner:
            owner, offset, rest = lease.owner, 0, ""
            decoder.reset()
            yield f"--- {owner}"
        body = folder.log(offset)
        offset += len(body)
        *lines, rest = (rest + decoder.decode(body)).split("\n")
        yield from lines
        if ending is not None:
            if rest:
                yield rest
            return
        pause()
