"""A verb: the options that verbs share, its help under headings, its hints for the shell."""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from imnetprep.catalog.datasets import Layout, Root, Split
from imnetprep.commands.session_options import note_typed, run_elsewhere
from imnetprep.messages import (
    ImnetprepError,
    Interruption,
    WrongUsage,
    parse_bytes,
    parse_duration,
    shell_command,
    shell_word,
)
from imnetprep.outside_text import public_address
from imnetprep.s3.address import SCHEME, Settings, read_buckets_with

# What a command that mends has in common with the one that failed.
_REACH = ("endpoint_url", "region", "profile", "request_payer", "no_sign_request")  # of a bucket
_SHARDS = ("shards", "cache_dir", "cache_size")
_CONTEXT = (
    "address", "root", "runs", "dataset", "splits", "archives", "layout", "run", *_SHARDS, *_REACH
)  # fmt: skip
# Of a bucket that is open to all, which is no help where the verb writes to it.
_PUBLIC_HINT = re.compile(r"; (?:or|to read a public bucket, say) --no-sign-request[^;]*")
_COMMAND = re.compile(r"\bimnetprep ([a-z][a-z0-9-]*)([^;,\n]*)")


class BrokenPipe(Exception):
    """A pipe to a worker or a server broke; the cause says the rest."""


class Verb(click.Command):
    """`headings`: the names of the parameters that --help shows under each heading."""

    def __init__(
        self, *arguments: Any, headings: Mapping[str, Sequence[str]] | None = None, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self.headings = dict(headings or {})
        if any(each.name == "screen" for each in self.params):
            self.headings["In a session"] = ("screen", "host")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the options under their headings; first those that have none."""
        heading_of = {name: each for each, names in self.headings.items() for name in names}
        rows: dict[str, list[tuple[str, str]]] = {each: [] for each in ("Options", *self.headings)}
        for parameter in self.get_params(ctx):
            row = parameter.get_help_record(ctx)
            if row is not None and isinstance(parameter, click.Option):
                rows[heading_of.get(parameter.name or "", "Options")].append(row)
        for heading, each in rows.items():
            with formatter.section(heading):
                formatter.write_dl(each)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Say where a root goes that is named without its option: `imnetprep status tin`."""
        if note_typed(ctx, args):
            return []
        words, ctx.allow_extra_args = list(args), True  # to judge here what is too many
        surplus = super().parse_args(ctx, args)
        if not surplus or ctx.resilient_parsing:
            return surplus
        hint = f"{ctx.command_path} --help"
        if _option(self, "root") and not _is_typed(ctx, "root"):
            for word in surplus:
                words.remove(word)
            hint = shell_command(*ctx.command_path.split(), *words, "--root", surplus[0])
        raise WrongUsage(f"{surplus[0]!r} is one argument too many", hint=hint)

    def invoke(self, ctx: click.Context) -> Any:
        """Run it; an error's hint names commands with the root that this one had."""
        try:
            code = run_elsewhere(ctx)
            return super().invoke(ctx) if code is None else code
        except ImnetprepError as error:
            error.hint = from_here(error.hint)
            raise
        except Interruption as stop:
            stop.args = (from_here(str(stop)),)
            raise
        except BrokenPipeError as error:  # click would end without a word
            raise BrokenPipe from error


def command(name: str | None = None, **options: Any) -> Callable[..., Verb]:
    """As `click.command`, for a function that becomes a `Verb`."""
    return click.command(name, Verb, **options)


def from_here(text: str) -> str:
    """`text` with its commands as they are to be typed after the command that runs now."""
    ctx = click.get_current_context()
    assert ctx.parent is not None
    verbs = ctx.parent.command
    if _option(ctx.command, "no_sign_request") is None:
        text = _PUBLIC_HINT.sub("", text)

    def complete(match: re.Match[str]) -> str:
        name, rest = match.groups()
        command = verbs.get_command(ctx, name) if isinstance(verbs, click.Group) else None
        if command is None:
            return match[0]
        words = [f"imnetprep {name}"]
        for each in _CONTEXT if "--root" not in rest else _REACH:
            if each == "address" and SCHEME in rest:
                continue
            if each in _REACH and SCHEME not in " ".join([*words, rest]):
                continue
            if each == "root" and name == "adopt" and ctx.info_name not in ("adopt", "divide"):
                continue  # which is the folder to adopt, as the hint has it
            if each == "layout" and ctx.info_name == "organize" != name:
                continue  # which it was to make, and the others would read
            option, value = _option(command, each), _typed_value(ctx, command, each)
            if option and option not in rest and value is not None:
                for word in value if isinstance(value, tuple) else (value,):
                    words += [option] if option.startswith("-") else []
                    if word is not True:
                        words.append(shell_word(public_address(str(word), mark="…")))
        return " ".join(words) + rest

    return _COMMAND.sub(complete, text)


def refuse(reason: str, *names: str) -> None:
    """Raise WrongUsage if any of these options was typed: nothing is dropped without a word."""
    ctx = click.get_current_context()
    options = " and ".join(
        _option(ctx.command, name) or name for name in names if _is_typed(ctx, name)
    )
    if options:
        raise WrongUsage(f"{options} cannot be used: {reason}", hint=f"leave out {options}")


def _typed_value(ctx: click.Context, command: click.Command, name: str) -> Any:
    """What was typed for the option `name`, as `command` takes it; None: nothing that it can."""
    if name == "archives" and ctx.info_name == "repair":
        name = "source"  # --from says there where the archives lie
    if not _is_typed(ctx, name):
        return None
    value = getattr(ctx.params[name], "path", ctx.params[name])
    is_folder = any(
        isinstance(each.type, click.Path) for each in command.params if each.name == "archives"
    )
    if name in ("archives", "source") and is_folder:
        path = Path(value)
        return path if path.is_dir() else path.parent if path.is_file() else None
    return value


def _option(command: click.Command, name: str) -> str | None:
    """How the option `name` of `command` is typed; None: it has no such option."""
    return next((each.opts[-1] for each in command.params if each.name == name), None)


def _is_typed(ctx: click.Context, name: str) -> bool:
    """What comes from IMNETPREP_ROOT comes again in the same shell."""
    return ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE


class ParsedType(click.ParamType[Any]):
    """A value that `parse` reads; the sentence of its ValueError is the error."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


RATE = ParsedType("rate", parse_bytes)
DURATION = ParsedType("duration", parse_duration)


class ExistingPath(click.Path):
    """A path that must be there; what keeps this user from looking is told as what it is."""

    def __init__(self, **options: Any) -> None:
        super().__init__(path_type=Path, exists=True, **options)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        with suppress(FileNotFoundError, NotADirectoryError):
            Path(value).stat()
        return super().convert(value, param, ctx)


def runs_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--runs`, which becomes a part of `root`."""

    @click.option(
        "--runs",
        metavar="DIR",
        type=click.Path(path_type=Path, file_okay=False),
        envvar="IMNETPREP_RUNS",
        help="Folder of the trainings; IMNETPREP_RUNS sets it too.  [default: ROOT/runs]",
    )
    @wraps(command)
    def with_runs(*, root: Root, runs: Path | None, **options: Any) -> Any:
        return command(root=replace(root, runs_folder=runs), **options)

    return with_runs


def _as_root(_ctx: click.Context, _param: click.Parameter, value: Path) -> Root:
    return Root(value)


def _as_splits(
    _ctx: click.Context, _param: click.Parameter, value: tuple[str, ...]
) -> tuple[Split, ...]:
    return tuple(dict.fromkeys(map(Split, value)))


def _checked_device(ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """The device as it was typed; a verb that has one loads torch."""
    from imnetprep.loading.loadable import require_loadable

    if not ctx.resilient_parsing:
        require_loadable()
    return value


root_option = click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="IMNETPREP_ROOT",
    default="imagenet",
    show_default=True,
    callback=_as_root,
    help="Folder of the dataset on this machine; IMNETPREP_ROOT sets it too.",
)
dataset_option = click.option(
    "--dataset",
    metavar="NAME|FILE.toml",
    help="Built-in dataset, or a file that defines one.  [default: the root's, else ilsvrc2012]",
)
archives_option = click.option(
    "--archives",
    metavar="PLACE",
    help="Where the archives lie: a folder, - for a pipe, or an address as `imnetprep sources`"
    " lists them.  [default: ROOT/archives]",
)
archives_folder_option = click.option(
    "--archives",
    metavar="DIR",
    type=ExistingPath(file_okay=False),
    help="The folder of the archives on this machine.  [default: ROOT/archives]",
)


BUCKET = ("request_payer", "no_sign_request")


def bucket_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--request-payer` and `--no-sign-request`, of a verb that may read a bucket."""
    for option in (
        click.option("--no-sign-request", is_flag=True, help="Read a public bucket unsigned."),
        click.option("--request-payer", is_flag=True, help="Pay in place of the bucket's owner."),
    ):
        command = option(command)
    return command


def read_bucket(place: str | None, *, request_payer: bool, no_sign_request: bool) -> None:
    """Read the bucket at `place` by the `bucket_options`. Raises WrongUsage where it is none."""
    if not str(place).startswith(SCHEME):
        refuse("only a bucket, s3://BUCKET/PREFIX, is read so", *BUCKET)
    read_buckets_with(Settings(request_payer=request_payer, no_sign_request=no_sign_request))


def split_option(default: str = "every split") -> Callable[..., Any]:
    """`--split`, which may be repeated: the `splits` of a verb."""
    return click.option(
        "--split",
        "splits",
        multiple=True,
        type=click.Choice([split.value for split in Split]),
        callback=_as_splits,
        help=f"Only this split; may be repeated.  [default: {default}]",
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
    """The `network_options`, and `--wait`."""
    wait = click.option(
        "--wait",
        type=DURATION,
        default="30m",
        show_default=True,
        help="Fail when the swarm has delivered nothing for this long.",
    )
    return network_options(wait(command))


def network_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--peer`, `--no-dht` and `--listen`, which make one `network`."""

    @click.option(
        "--peer",
        "peers",
        multiple=True,
        metavar="HOST:PORT",
        help="Connect to this peer too; may be repeated.",
    )
    @click.option(
        "--no-dht", is_flag=True, help="Use no DHT, no local discovery and no port mapping."
    )
    @click.option(
        "--listen", metavar="ADDRESS[:PORT]", help="Address where peers reach this machine."
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


def rate_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--max-down` and `--max-up`, of a verb that downloads."""
    for option in (
        click.option(
            "--max-up",
            type=RATE,
            default=0,
            help="Send at most this many bytes a second, such as 5MB.",
        ),
        click.option(
            "--max-down",
            type=RATE,
            default=0,
            help="Receive at most this many bytes a second, such as 20MB.",
        ),
    ):
        command = option(command)
    return command


def dry_run_option(help: str = "Show the plan and change nothing.") -> Callable[..., Any]:  # noqa: A002
    """`--dry-run`, after which nothing on the disk is another."""
    return click.option("--dry-run", is_flag=True, help=help)


jobs_option = click.option(
    "--jobs",
    type=click.IntRange(1),
    help="Number of parallel workers.  [default: one for each core]",
)
digests_option = click.option(
    "--digests", is_flag=True, help="Read every image as well, and compare its xxh128 digest."
)
decode_option = click.option(
    "--decode", is_flag=True, help="Decode every image as well, to its last pixel."
)
device_option = click.option(
    "--device",
    callback=_checked_device,
    help="Where to compute: cpu, cuda, cuda:1, mps.  [default: the best there is]",
)
arch_option = click.option(
    "--arch",
    help="Network of weights that another program saved; or the checkpoint's own MODULE:FUNCTION.",
)
workers_option = click.option(
    "--workers",
    type=click.IntRange(0),
    help="Processes that read images.  [default: 2 on a CPU, up to 16 on a GPU]",
)
decoder_option = click.option(
    "--decode",
    type=click.Choice(["auto", "pillow", "simplejpeg", "torchcodec"]),
    default="auto",
    show_default=True,
    help="Library that decodes JPEG files; auto: the fastest here. The pixels are the same by all.",
)
cache_option = click.option(
    "--cache",
    type=click.Choice(["ram", "device"]),
    help="Decode each image once and keep it, in memory or in that of the GPU, which then makes the"
    " crops: for a set that fits.",
)
one_class_option = click.option(
    "--one-class", is_flag=True, help="Take images that are all of one class."
)
skip_bad_option = click.option(
    "--skip-bad",
    is_flag=True,
    help="Decode every image, and leave out what is no whole one; the receipt lists it.",
)
on_bad_image_option = click.option(
    "--on-bad-image",
    "skip_bad",
    type=click.Choice(["error", "skip"]),
    default="error",
    show_default=True,
    callback=lambda _ctx, _param, value: value == "skip",
    help="Where an image cannot be read: end, or list it and go on. In a training another image of"
    " its class takes its place; a score leaves it out.",
)
quiet_option = click.option("--quiet", is_flag=True, help="Show no progress.")
