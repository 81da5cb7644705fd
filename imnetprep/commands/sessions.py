"""`imnetprep sessions`."""

import os
import select
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import click

from imnetprep.commands import verb
from imnetprep.commands.distant_work import chosen_action, only_watched
from imnetprep.commands.session_options import host_option
from imnetprep.commands.terminal import is_json, json_option, print_note, print_result
from imnetprep.messages import ImnetprepError, WrongUsage, count, format_duration, shell_command

if TYPE_CHECKING:  # --help loads none of it
    from imnetprep.sessions.session import Outcome, Session

_LOOK_MS = 200


@verb.command(short_help="Show sessions of --screen: their state, log and window; stop one.")
@click.argument("name", required=False)
@click.option("--attach", is_flag=True, help="Show the window of the session; ^A d leaves it.")
@click.option("--follow", is_flag=True, help="Print the log until the session is over.")
@click.option("--stop", is_flag=True, help="Let the command save and end, and wait for that.")
@click.option("--clean", is_flag=True, help="List the sessions that are over.")
@click.option("--yes", is_flag=True, help="With --clean: forget what it lists, with its logs.")
@host_option
@json_option
def sessions(name: str | None, *, yes: bool, **flags: bool) -> int:
    """Show the sessions that --screen started: running, ended with an exit code, or lost.

    Lost is a session whose wrapper was killed, or whose machine went away; the same command
    resumes. --attach, --follow and --stop need a NAME. --follow ends with the exit code of the
    session.

    \b
    imnetprep train --arch resnet18 --screen
    imnetprep sessions
    imnetprep sessions train --follow
    imnetprep sessions --host me@gpu1 train --stop
    """
    action = chosen_action(name, **flags)
    if action != "clean":
        verb.refuse("it is for --clean", "yes")
    if is_json():
        verb.refuse("they have no result in JSON", "attach", "follow")
    from imnetprep.sessions.session import all_sessions, require_session

    found = list(all_sessions()) if name is None else [require_session(name)]
    if action == "clean":
        _clean(found, yes=yes)
        return 0
    for session in found:
        if action == "follow":
            return _follow(session)
        if action == "attach":
            _attach(session)
        if action == "stop":
            _stop(session)
        _print_session(session)
    if not found and not is_json():
        print_note("there are no sessions: --screen starts one")
    return 0


def _print_session(session: "Session") -> None:
    """Print the state of a session, its command, and what it said last."""
    from imnetprep.sessions.log import last_lines, progress
    from imnetprep.sessions.session import outcome

    end, last, share = outcome(session), last_lines(session), progress(session)
    lines = [f"{session.name:16}  {_format_state(session, end)}", f"    {session.command}"]
    lines += [f"    {line}" for line in dict.fromkeys((share, *last)) if line]
    print_result(
        *lines,
        name=session.name,
        state=end.state,
        exit_code=end.code,
        began=session.began,
        ended=end.at,
        command=session.command,
        folder=session.cwd,
        machine=session.machine,
        window=session.window,
        log=session.log,
        progress=share,
        last_line=next(iter(last), ""),
    )


def _format_state(session: "Session", end: "Outcome") -> str:
    place = "" if session.is_here else f" on {session.machine}"
    if end.code is None:
        age = format_duration(time.time() - session.began)
        return f"{end.state}{place}, begun {age} ago"
    assert end.at is not None
    return f"{end.state} {end.code}{place} after {format_duration(end.at - session.began)}"


def _require_here(session: "Session") -> None:
    if not session.is_here:
        raise ImnetprepError(
            f"session {session.name} is on {session.machine}, with which this home is shared",
            hint=f"imnetprep sessions {session.name} --host {session.machine}",
        )


def _attach(session: "Session") -> None:
    from imnetprep.sessions.multiplexer import attachment
    from imnetprep.sessions.session import outcome

    _require_here(session)
    follow = _command(session, "--follow")
    if outcome(session).state != "running":
        raise ImnetprepError(f"session {session.name} is over: it has no window", hint=follow)
    words, environment = attachment(session)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise WrongUsage("--attach needs a terminal", hint=follow)
    if subprocess.run(words, env=environment, check=False).returncode:
        raise ImnetprepError(f"the window of session {session.name} cannot be shown", hint=follow)


def _follow(session: "Session") -> int:
    """Print its log until it is over, or nobody reads that any more; its exit code."""
    from imnetprep.sessions.log import log_chunks
    from imnetprep.sessions.session import outcome

    reader = select.poll()
    reader.register(sys.stdout.fileno(), 0)
    with only_watched(f"session {session.name} works on; {_command(session, '--stop')} ends it"):
        for body in log_chunks(session):
            os.write(sys.stdout.fileno(), body)
            if not body and reader.poll(_LOOK_MS):
                return 0  # a pipe that is closed is the only thing that there is to tell
    end = outcome(session)
    print_note(f"session {session.name}: {_format_state(session, end)}")
    return ImnetprepError.exit_code if end.code is None else end.code


def _stop(session: "Session") -> None:
    from imnetprep.sessions.session import outcome, request_stop, wait_for_end

    _require_here(session)
    if outcome(session).state != "running":
        print_note(f"session {session.name} is over: there is nothing to stop")
        return
    request_stop(session)
    print_note(f"session {session.name} stops as soon as its command has saved")
    with only_watched(f"session {session.name} saves, and then ends; {_command(session)} shows it"):
        wait_for_end(session)


def _clean(candidates: "list[Session]", *, yes: bool) -> None:
    """List the sessions that are over, and forget them if so asked."""
    from imnetprep.sessions.session import forget, outcome

    number = 0
    for session in candidates:
        end = outcome(session)
        if end.state == "running" or not session.is_here or (yes and not forget(session)):
            continue
        text = f"{session.name:16}  {_format_state(session, end)}"
        print_result(text, name=session.name, state=end.state, log=session.log, removed=yes)
        number += 1
    total = f"{count(number, 'session')}"
    total += " removed" if yes else " over: nothing is removed yet; --clean --yes does it"
    print_result(total if number else "nothing to remove", found=number, removed=yes)


def _command(session: "Session", *options: str) -> str:
    return shell_command("imnetprep", "sessions", session.name, *options)
