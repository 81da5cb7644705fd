"""The options that verbs share: same name, same meaning everywhere."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from imnetprep.catalog.datasets import Layout, Root, Split
from imnetprep.messages import parse_bytes, parse_duration


class _UnitType(click.ParamType[float]):
    """A value with a unit; the parser's own sentence is the error."""

    def __init__(self, name: str, parse: Callable[[str], float]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


RATE = _UnitType("rate", parse_bytes)
DURATION = _UnitType("duration", parse_duration)


def _as_root(_ctx: click.Context, _param: click.Parameter, value: Path) -> Root:
    return Root(value)


def _as_splits(
    _ctx: click.Context, _param: click.Parameter, value: tuple[str, ...]
) -> tuple[Split, ...]:
    return tuple(dict.fromkeys(map(Split, value)))


root_option = click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="IMNETPREP_ROOT",
    default="imagenet",
    show_default=True,
    callback=_as_root,
    help="Where the dataset lies on this machine; or set IMNETPREP_ROOT.",
)
dataset_option = click.option(
    "--dataset",
    metavar="NAME|FILE.toml",
    help="A built-in dataset or your own.  [default: what the root holds, else ilsvrc2012]",
)
archives_option = click.option(
    "--archives",
    metavar="PLACE",
    help="Where the archives lie: a folder, s3://BUCKET/PREFIX, https://…, or - for a pipe."
    "  [default: ROOT/archives]",
)
archives_folder_option = click.option(
    "--archives",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="The folder of the archives on this machine.  [default: ROOT/archives]",
)


def split_option(default: str = "every split") -> Callable[..., Any]:
    """`--split`, which may be repeated: the `splits` of a verb."""
    return click.option(
        "--split",
        "splits",
        multiple=True,
        type=click.Choice([split.value for split in Split]),
        callback=_as_splits,
        help=f"Take this split; may be repeated.  [default: {default}]",
    )


def layout_option(help: str = "Which layout to use, if the root has both.") -> Callable[..., Any]:  # noqa: A002
    """`--layout`, which `organize` writes and the others read."""
    return click.option(
        "--layout",
        type=click.Choice([layout.value for layout in Layout]),
        callback=lambda _ctx, _param, value: value and Layout(value),
        help=help,
    )


SWARM = ("peers", "no_dht", "listen", "wait")


def swarm_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--peer`, `--no-dht` and `--listen`, which make one `network`; and `--wait`."""

    @click.option(
        "--peer",
        "peers",
        multiple=True,
        metavar="HOST:PORT",
        help="Dial this peer; may be repeated.",
    )
    @click.option(
        "--no-dht", is_flag=True, help="Use no DHT, no local discovery and no port mapping."
    )
    @click.option("--listen", metavar="ADDRESS[:PORT]", help="Where peers reach this machine.")
    @click.option(
        "--wait",
        type=DURATION,
        default="30m",
        show_default=True,
        help="How long a swarm may deliver nothing.",
    )
    @wraps(command)
    def with_network(
        *, peers: tuple[str, ...], no_dht: bool, listen: str | None, **options: Any
    ) -> Any:
        from imnetprep.sources.session import DEFAULT_LISTEN, Network, parse_listen, parse_peer

        network = Network(
            listen=parse_listen(listen) if listen else DEFAULT_LISTEN,
            dht=not no_dht,
            peers=tuple(map(parse_peer, peers)),
        )
        return command(network=network, **options)

    return with_network


def dry_run_option(help: str = "Show the plan and change nothing.") -> Callable[..., Any]:  # noqa: A002
    """`--dry-run`, after which nothing on the disk is another."""
    return click.option("--dry-run", is_flag=True, help=help)


jobs_option = click.option(
    "--jobs",
    type=click.IntRange(1),
    help="How many workers run side by side.  [default: as the machine has cores]",
)
digests_option = click.option(
    "--digests", is_flag=True, help="Read every image too, and compare its xxh128."
)
decode_option = click.option(
    "--decode", is_flag=True, help="Decode every image too, to its last pixel."
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print results as JSON, one object a line."
)
quiet_option = click.option("--quiet", is_flag=True, help="Show no progress.")
