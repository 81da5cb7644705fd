"""`imnetprep status`."""

from typing import TYPE_CHECKING

import click

from imnetprep.commands.options import json_option, root_option
from imnetprep.commands.terminal import print_result
from imnetprep.commands.verb import Verb, from_here
from imnetprep.messages import count, format_bytes
from imnetprep.roots import Root

if TYPE_CHECKING:
    from imnetprep.status import ArchiveStatus, RunStatus, SplitStatus, Status, VerifyStatus


@click.command(cls=Verb, short_help="Say what is under the root, and how far it is.")
@root_option
@json_option
def status(root: Root, as_json: bool) -> None:
    """Say what is under the root: archives and their proof, splits, the last verify, runs.

    Changes nothing and waits for nobody: it may be asked while other commands are at work.

    \b
    imnetprep status
    imnetprep status --json
    """
    from imnetprep.status import statuses

    rows = []
    for each in statuses(root):
        kind = type(each).__name__.removesuffix("Status").lower()
        if as_json:
            print_result("", as_json=True, kind=kind, **each._asdict())
        else:
            rows.append((kind, *_row(each)))
    if not as_json:
        advice = from_here(f"{root.path} holds nothing yet: imnetprep download")
        for line in _aligned(rows) or [advice]:
            print_result(line, as_json=False)


def _row(each: "Status") -> tuple[str, str]:
    """What it is called, and how it is."""
    from imnetprep.status import (
        ArchiveStatus,
        DatasetStatus,
        RunStatus,
        SplitStatus,
        VerifyStatus,
    )

    match each:
        case DatasetStatus():
            part_of = f" (part of {each.part_of})" if each.part_of else ""
            return each.name, f"{each.title}{part_of}"
        case ArchiveStatus():
            return each.name, _format_archive(each)
        case SplitStatus():
            return each.split, _format_split(each)
        case VerifyStatus():
            return each.what, _format_verify(each)
        case RunStatus():
            return each.name, _format_run(each)
        case _:
            return each.what, each.why


def _format_archive(archive: "ArchiveStatus") -> str:
    size, disk = format_bytes(archive.size_bytes), format_bytes(archive.disk_bytes)
    if archive.state == "consumed":
        return f"consumed: image data deleted after extraction, headers kept ({disk})"
    if archive.state == "part":
        text = "a part that no record speaks of"
        if archive.proved_bytes is not None:
            share = 100 * archive.proved_bytes / max(archive.size_bytes, 1)
            text = f"{format_bytes(archive.proved_bytes)} of {size} verified ({share:.0f} %)"
        return f"{text}, {disk} on the disk{', at work now' if archive.at_work else ''}"
    return f"{size}, {archive.proof.describe() if archive.proof else 'not proved'}"


def _format_split(split: "SplitStatus") -> str:
    images = f"{split.samples:,} of {count(split.all_samples, 'image')}"
    size = format_bytes(split.size_bytes)
    match split.state:
        case "organized":
            change = f", {split.change}" if split.change else ""
            return f"{count(split.samples, 'image')}, {size}, {split.layout}{change}"
        case "unfinished" | "leftover":
            of = (
                f"{split.classes:,} of {split.all_classes:,} classes, "
                if split.classes is not None
                else ""
            )
            end = ", at work now" if split.at_work else ""
            end = ", of another dataset" if split.state == "leftover" else end
            into = " into shards" if split.layout else ""
            return f"unfinished{into}: {of}{images}, {size}{end}"
        case "gone":
            return f"organized, but its folder is gone ({count(split.samples, 'image')})"
        case "unlisted":
            return "a folder that the manifest knows nothing of"
        case _:
            return "not organized"


def _format_verify(verify: "VerifyStatus") -> str:
    found = count(verify.findings, "finding") if verify.findings else "no finding"
    where = f" in {', '.join(verify.splits)}" if verify.splits else ""
    when = verify.recorded_at[:16].replace("T", " ")
    return f"{found}{where} ({', '.join(verify.checks)}), {when} UTC"


def _format_run(run: "RunStatus") -> str:
    of = "" if run.all_epochs is None else f" of {run.all_epochs}"
    best = "" if run.best_top1_percent is None else f", best top-1 {run.best_top1_percent:.2f} %"
    return f"{run.epochs}{of} epochs{best}{', at work now' if run.at_work else ''}"


def _aligned(rows: list[tuple[str, str, str]]) -> list[str]:
    """The rows in columns, each kind named once."""
    widths = [max((len(row[at]) for row in rows), default=0) for at in (0, 1)]
    lines, last = [], ""
    for kind, name, how in rows:
        shown = "" if kind == last else kind
        lines.append(f"{shown:{widths[0]}}  {name:{widths[1]}}  {how}")
        last = kind
    return lines
