"""`--screen` and `--host`: a command in a session that outlives the terminal, here or elsewhere."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import click

from imnetprep.commands.distant_work import only_watched
from imnetprep.commands.terminal import is_json, print_note, print_result, stderr_progress
from imnetprep.messages import WrongUsage, shell_command

_META = "imnetprep.place"  # where a context keeps it
_HELP = {"--help", "-h"}

_screen_option = click.option(
    "--screen",
    metavar="[NAME]",
    is_flag=False,
    flag_value="",
    expose_value=False,
    help="Run in a session that outlives the terminal.  [default: --run, else the verb]",
)
host_option = click.option(
    "--host",
    metavar="[USER@]HOST[:PATH]",
    expose_value=False,
    help="Do the same on another machine, by ssh; PATH is where imnetprep lies there.",
)


def session_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--screen` and `--host`, of a verb that may work for hours."""
    return _screen_option(host_option(command))


class _Place(NamedTuple):
    """Where a command is to run: on a host, in a session (an empty name: the default), or both.

    `words`: the command line without `--screen` and `--host`.
    """

    host: str | None
    session: str | None
    words: list[str]


def note_typed(ctx: click.Context, words: Sequence[str]) -> bool:
    """Keep the words as typed. True: another machine is to judge them, whose files they name."""
    names = {each.name for each in ctx.command.params}
    if not names & {"screen", "host"} or _HELP & {*words} or ctx.resilient_parsing:
        return False
    host, rest = _split_off("--host", words)
    session, rest = _split_off("--screen", rest) if "screen" in names else (None, rest)
    ctx.meta[_META] = _Place(host, session, rest)
    return host is not None


def typed_words() -> list[str]:
    """The command line that runs now, from its verb on, without `--screen` and `--host`."""
    ctx = click.get_current_context()
    return [str(ctx.info_name), *ctx.meta[_META].words]


def run_elsewhere(ctx: click.Context) -> int | None:
    """Run the command where its options say; None: here and now, as any other."""
    place = ctx.meta.get(_META)
    if place is None or place.host is place.session is None:
        return None
    has_screen = any(each.name == "screen" for each in ctx.command.params)
    if has_screen and any(word == "-" or word.endswith("=-") for word in place.words):
        reason = "a pipe ends with the terminal, and a session goes on"
        raise WrongUsage(f"- cannot be used with a session: {reason}", hint="leave out --screen")
    if place.host is None:
        return _start_session(ctx, place)
    return _run_there(ctx, place, [f"--screen={place.session or ''}"] if has_screen else [])


def _start_session(ctx: click.Context, place: _Place) -> int:
    from imnetprep.sessions.multiplexer import NO_WINDOW, start_session
    from imnetprep.sessions.session import NAME, module_command

    verb, run = str(ctx.info_name), str(ctx.params.get("run") or "")
    name = place.session or (run if NAME.fullmatch(run) else verb)
    words = [*module_command("imnetprep"), verb, *place.words]
    session = start_session(name, words, progress=stderr_progress(quiet=False))
    window = "without a window" if session.window == NO_WINDOW else f"in {session.window}"
    print_result(
        f"session {name} runs {window}: {session.command}",
        session=name,
        window=session.window,
        command=session.command,
        log=session.log,
    )
    if not is_json():
        attach = "" if session.window == NO_WINDOW else "--attach, "
        print_note(f"imnetprep sessions {name}, with {attach}--follow or --stop")
    return 0


def _run_there(ctx: click.Context, place: _Place, options: list[str]) -> int:
    from imnetprep.sessions.ssh import Host, run_there

    try:
        host = Host.parse(str(place.host))
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param_hint="'--host'") from error
    words = [str(ctx.info_name), *options, *place.words]
    sessions = shell_command("imnetprep", "sessions", "--host", place.host)
    with only_watched(f"what runs on {host.name} goes on; {sessions} shows it"):
        code = run_there(host, words, terminal="--attach" in place.words)
    if options and code == 0:
        print_note(f"from here: {sessions}")
    return code


def _split_off(option: str, words: Sequence[str]) -> tuple[str | None, list[str]]:
    """The value that is typed for an option, and the words without both; None: it is not typed."""
    value, rest, queue = None, [], list(words)
    while queue and queue[0] != "--":
        word = queue.pop(0)
        if word == option:
            has_value = queue and (queue[0] == "-" or not queue[0].startswith("-"))
            value = queue.pop(0) if has_value else ""
        elif word.startswith(f"{option}="):
            value = word.removeprefix(f"{option}=")
        else:
            rest.append(word)
    return value, rest + queue
