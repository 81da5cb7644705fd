"""What the verbs share that look at work which goes on elsewhere: sessions, and machines."""

from collections.abc import Iterator
from contextlib import contextmanager

import click

from imnetprep.messages import INTERRUPTED_EXIT_CODE, Interruption, WrongUsage


def chosen_action(name: str | None, **flags: bool) -> str | None:
    """The one thing to do with `name`, as its option is called; None: to show. Raises WrongUsage.

    `flags`: the options that say it, by name. --clean alone is of all where no name is given.
    """
    actions = [action for action, value in flags.items() if value]
    command = click.get_current_context().command_path
    if len(actions) > 1:
        options = " and ".join(f"--{each}" for each in actions)
        raise WrongUsage(f"{options} cannot be done at once", hint=f"leave out --{actions[-1]}")
    if name is None and actions not in ([], ["clean"]):
        raise WrongUsage(
            f"--{actions[0]} needs a name",
            hint=f"{command} NAME --{actions[0]}; {command} lists the names",
        )
    return actions[0] if actions else None


@contextmanager
def only_watched(message: str) -> Iterator[None]:
    """Let ^C end nothing but the look; `message` says what goes on, and what ends that."""
    try:
        yield
    except KeyboardInterrupt as stop:
        raise Interruption(INTERRUPTED_EXIT_CODE, message) from stop
