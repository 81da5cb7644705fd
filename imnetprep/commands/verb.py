"""A verb: its options under headings, and its hints for the shell that it was typed in."""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from imnetprep.messages import ImnetprepError, Interruption, WrongUsage

# What a command that mends has in common with the one that failed.
_CONTEXT = (
    "address", "root", "dataset", "archives", "layout", "run", "endpoint_url", "region", "profile"
)  # fmt: skip
_COMMAND = re.compile(r"\bimnetprep ([a-z][a-z0-9-]*)([^;,\n]*)")


class Verb(click.Command):
    """`headings`: the names of the parameters that --help shows under each heading."""

    def __init__(
        self, *arguments: Any, headings: Mapping[str, Sequence[str]] | None = None, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self.headings = headings or {}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the options under their headings; first those that have none."""
        heading_of = {name: each for each, names in self.headings.items() for name in names}
        rows: dict[str, list[tuple[str, str]]] = {}
        for heading in ("Options", *self.headings):
            rows[heading] = []
        for parameter in self.get_params(ctx):
            row = parameter.get_help_record(ctx)
            if row is not None and isinstance(parameter, click.Option):
                rows[heading_of.get(parameter.name or "", "Options")].append(row)
        for heading, each in rows.items():
            with formatter.section(heading):
                formatter.write_dl(each)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Say where a root goes that is named without its option: `imnetprep status tin`."""
        words, ctx.allow_extra_args = list(args), True  # to judge here what is too many
        surplus = super().parse_args(ctx, args)
        if not surplus or ctx.resilient_parsing:
            return surplus
        hint = f"{ctx.command_path} --help"
        if _option(self, "root") and not _is_typed(ctx, "root"):
            for word in surplus:
                words.remove(word)
            hint = shlex.join([*ctx.command_path.split(), *words, "--root", surplus[0]])
        raise WrongUsage(f"{surplus[0]!r} is one argument too many", hint=hint)

    def invoke(self, ctx: click.Context) -> Any:
        """Run it; an error's hint names commands with the root that this one had."""
        try:
            return super().invoke(ctx)
        except ImnetprepError as error:
            error.hint = _from_here(error.hint, ctx)
            raise
        except Interruption as stop:
            stop.args = (_from_here(str(stop), ctx),)
            raise


def from_here(text: str) -> str:
    """`text` with its commands as they are to be typed after the command that runs now."""
    return _from_here(text, click.get_current_context())


def refuse(reason: str, *names: str) -> None:
    """Raise WrongUsage if any of these options was typed: nothing is dropped without a word."""
    ctx = click.get_current_context()
    options = " and ".join(
        _option(ctx.command, name) or name for name in names if _is_typed(ctx, name)
    )
    if options:
        raise WrongUsage(f"{options} cannot be used: {reason}", hint=f"leave out {options}")


def _from_here(text: str, ctx: click.Context) -> str:
    assert ctx.parent is not None
    verbs = ctx.parent.command

    def complete(match: re.Match[str]) -> str:
        name, rest = match.groups()
        command = verbs.get_command(ctx, name) if isinstance(verbs, click.Group) else None
        if command is None or "--root" in rest:
            return match[0]
        words = [f"imnetprep {name}"]
        for each in _CONTEXT:
            if each == "layout" and ctx.info_name == "organize" != name:
                continue  # which it was to make, and the others would read
            option, value = _option(command, each), _typed_value(ctx, command, each)
            if option and option not in rest and value is not None:
                words += [option] if option.startswith("-") else []
                words.append(shlex.quote(str(value)))
        return " ".join(words) + rest

    return _COMMAND.sub(complete, text)


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
