"""`--log-every` and `--track`: how closely a training is watched."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from imnetprep.reports.record import LogOptions
from imnetprep.reports.trackers import TRACKERS, require_tracker


def log_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--log-every` and `--track`, which make one `log_options`."""

    @click.option(
        "--log-every",
        type=click.IntRange(1),
        default=50,
        show_default=True,
        help="Steps between two lines of log.jsonl; each waits for the device.",
    )
    @click.option(
        "--track",
        multiple=True,
        type=click.Choice([*TRACKERS]),
        help="Let a tracker follow the run as well; may be repeated.",
    )
    @wraps(command)
    def with_log_options(*, log_every: int, track: tuple[str, ...], **options: Any) -> Any:
        trackers = tuple(dict.fromkeys(track))
        for name in trackers:
            require_tracker(name)
        return command(log_options=LogOptions(log_every, trackers), **options)

    return with_log_options
