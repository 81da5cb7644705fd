"""How results and progress look: results on stdout, talk on stderr, a bar only on a terminal."""

import errno
import io
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imnetprep.messages import (
    Finding,
    Progress,
    Silent,
    Task,
    count,
    format_bytes,
    format_duration,
    format_rate,
    shell_command,
)
from imnetprep.outside_text import shown

if TYPE_CHECKING:  # --help loads none of it
    from imnetprep.manifest import SplitRecord
    from imnetprep.own_images.content import ImageFolder
    from imnetprep.split_plan import SplitPlan

_SECONDS_BETWEEN_LINES = 10
_JSON = "imnetprep.json"  # where a context keeps it


def _keep(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    ctx.meta[_JSON] = value


json_option = click.option(
    "--json",
    is_flag=True,
    expose_value=False,
    callback=_keep,
    help="Print results as JSON, one object a line.",
)


def is_json() -> bool:
    """Does the command that runs now print JSON?"""
    return bool(click.get_current_context().meta.get(_JSON))


def print_result(*lines: str, **fields: Any) -> None:
    """One result on stdout: `lines` for people, or with --json `fields` as one object a line."""
    if is_json():
        click.echo(json.dumps(fields, default=_as_json))
        return
    for line in lines:
        click.echo(shown(line))


def print_note(line: str) -> None:
    """A line on stderr, beside the results."""
    click.echo(shown(line), err=True)


def outlive_terminal() -> None:
    """Let what is printed to a terminal that was closed be lost, and nothing fail for it."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper) and stream.isatty():
            file = _Terminal(stream.fileno(), "w", closefd=False)
            window = io.TextIOWrapper(
                io.BufferedWriter(file), stream.encoding, stream.errors, line_buffering=True
            )
            setattr(sys, name, window)


class _Terminal(io.FileIO):
    """A terminal that may be closed while it is written to."""

    def write(self, body: Any) -> int:
        try:
            return super().write(body) or 0
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return memoryview(body).nbytes


def _as_json(value: Any) -> Any:
    return value.as_json() if hasattr(value, "as_json") else str(value)


def print_finding(finding: Finding) -> None:
    """One finding on stdout."""
    text = f"{finding.kind}: {finding.path} {finding.message}"
    print_result(text, **finding._asdict())


def take_images(
    content: "ImageFolder", *, one_class: bool, skip_bad: bool, jobs: int | None, progress: Progress
) -> None:
    """Look at the images of a folder, print each that cannot be taken, and leave it out or fail."""
    content.examine(decode=skip_bad, jobs=jobs, progress=progress)
    verb = "left out" if skip_bad else "bad"
    for path, reason in content.problems.items():
        print_result(f"{verb}: {path} {reason}", path=path, reason=reason)
    content.require(one_class=one_class, skip_bad=skip_bad)
    for line in content.notes():
        progress.note(line)


def print_split(record: "SplitRecord", place: Path) -> None:
    """A split that lies at `place`, on stdout."""
    content = f"{count(record.samples, 'image')}, {format_bytes(record.size_bytes)}"
    change = f" ({record.change})" if record.change else ""
    print_result(f"{record.split}: {content} in {place}{change}", **record._asdict())


def carry_out(plan: "SplitPlan", *, dry_run: bool, quiet: bool) -> None:
    """Print the splits of a plan and what they take; or make them, and print each."""
    if dry_run:
        for each in plan.described():
            name = f"{each.split} {each.layout.parent}".strip()
            source = "is there; nothing to do" if each.is_done else each.source
            print_result(f"{name}: {source}", **each._asdict())
        needs = plan.needs
        files = f", {count(needs.files, 'file')}" if needs.files else ""
        print_result(
            f"needs {format_bytes(needs.disk_bytes)} of disk{files}",
            needed_bytes=needs.disk_bytes,
            needed_files=needs.files,
        )
        needs.require(plan.root.path, purpose="what is to be made")
        return
    progress = stderr_progress(quiet=quiet)
    done_splits = [each.split for each in plan.described() if each.is_done]
    for record in plan.carry_out(progress):
        print_split(record, plan.root.split(record.split, record.layout))
    if done_splits:
        verify = shell_command("imnetprep", "verify", "--root", plan.root.path)
        text = f"organized already, and not looked at; {verify} looks at the images"
        progress.note(f"{' and '.join(done_splits)}: {text}")


def stderr_progress(*, quiet: bool) -> Progress:
    """The progress that suits where stderr goes: bars, lines now and then, or nothing."""
    if quiet:
        return Silent()
    return _Bars() if sys.stderr.isatty() else _Lines()


class _BarTask:
    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def advance(self, amount: int) -> None:
        self._bar.update(amount)

    def tell(self, detail: str) -> None:
        self._bar.set_postfix_str(shown(detail), refresh=False)


class _Bars:
    @contextmanager
    def task(self, title: str, *, total: int, unit: str, initial: int = 0) -> Iterator[Task]:
        from tqdm import tqdm

        tqdm.monitor_interval = 0  # its thread would keep this process from forking
        unit = unit if unit == "B" else f" {unit}"
        with tqdm(
            desc=shown(title),
            total=total,
            initial=initial,
            unit=unit,
            unit_scale=unit == "B",
            dynamic_ncols=True,
            miniters=1,  # else that thread has to see to it that a slow bar moves
            file=sys.stderr,
        ) as bar:
            yield _BarTask(bar)

    def note(self, line: str) -> None:
        from tqdm import tqdm

        tqdm.write(shown(line), file=sys.stderr)


class _LineTask:
    def __init__(self, title: str, total: int, unit: str, initial: int) -> None:
        self._name, self._total, self._unit = title, total, unit
        self._first, self._amount, self._detail = initial, initial, ""
        self._start_s = self._told_s = time.monotonic()

    def advance(self, amount: int) -> None:
        self._amount += amount
        self._tell_now_and_then()

    def tell(self, detail: str) -> None:
        self._detail = detail
        self._tell_now_and_then()

    def _tell_now_and_then(self) -> None:
        now_s = time.monotonic()
        if now_s - self._told_s < _SECONDS_BETWEEN_LINES:
            return
        self._told_s = now_s
        rate = (self._amount - self._first) / (now_s - self._start_s)
        parts = [f"{self._name}: {self._amount / max(self._total, 1):.0%}"]
        if self._unit == "B":
            parts.append(f"{format_bytes(self._amount)} of {format_bytes(self._total)}")
            parts.append(f"{format_bytes(rate)}/s")
        else:
            parts.append(f"{self._amount:,} of {self._total:,} {self._unit}")
            parts.append(f"{format_rate(rate)}/s")
        if rate > 0:
            parts.append(f"{format_duration((self._total - self._amount) / rate)} left")
        if self._detail:
            parts.append(self._detail)
        print_note(", ".join(parts))


class _Lines:
    @contextmanager
    def task(self, title: str, *, total: int, unit: str, initial: int = 0) -> Iterator[Task]:
        yield _LineTask(title, total, unit, initial)

    def note(self, line: str) -> None:
        print_note(line)
