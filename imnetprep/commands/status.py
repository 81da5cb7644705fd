"""`imnetprep status`."""

from typing import TYPE_CHECKING

from imnetprep.catalog.datasets import Root
from imnetprep.commands import verb
from imnetprep.commands.terminal import is_json, json_option, print_result
from imnetprep.messages import count, format_bytes

if TYPE_CHECKING:
    from imnetprep.status import (
        ArchiveStatus,
        CacheStatus,
        RunStatus,
        SplitStatus,
        Status,
        VerifyStatus,
    )


@verb.command(short_help="Show what is under the root, finished or not.")
@verb.root_option
@verb.runs_option
@json_option
def status(root: Root) -> None:
    """Show what is under the root: archives and their proof, splits, what verify found, the cache
    of --shards, runs.

    Changes nothing and waits for nobody: it may be asked while other commands are at work.

    \b
    imnetprep status
    imnetprep status --json
    """
    from imnetprep.status import statuses

    rows = []
    for each in statuses(root):
        kind = type(each).__name__.removesuffix("Status").lower()
        if is_json():
            print_result("", kind=kind, **each._asdict())
        else:
            rows.append((kind, *_row(each)))
    if not is_json():
        advice = verb.from_here(f"{root.path} holds nothing yet: imnetprep download")
        for line in _aligned(rows) or [advice]:
            print_result(line)


def _row(status: "Status") -> tuple[str, str]:
    """The name of a thing, and its state."""
    from imnetprep.status import (
        ArchiveStatus,
        CacheStatus,
        DatasetStatus,
        RunStatus,
        SplitStatus,
        VerifyStatus,
    )

    match status:
        case DatasetStatus():
            part_of = f" (part of {status.part_of})" if status.part_of else ""
            return status.name, f"{status.title}{part_of}"
        case ArchiveStatus():
            return status.name, _format_archive(status)
        case SplitStatus():
            return status.split, _format_split(status)
        case VerifyStatus():
            return status.name, _format_verify(status)
        case CacheStatus():
            return status.name, _format_cache(status)
        case RunStatus():
            return status.name, _format_run(status)
        case _:
            return status.name, status.problem


def _format_archive(archive: "ArchiveStatus") -> str:
    size, disk = format_bytes(archive.size_bytes), format_bytes(archive.disk_bytes)
    if archive.state == "consumed":
        return f"consumed: images that are organized are deleted from it, {disk} left"
    if archive.state in ("part", "fetching"):
        text = "a part that no record speaks of"
        word = "verified" if archive.state == "part" else "fetched"
        if archive.proved_bytes is not None:
            share = 100 * archive.proved_bytes / max(archive.size_bytes, 1)
            text = f"{format_bytes(archive.proved_bytes)} of {size} {word} ({share:.0f} %)"
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
            classes = ""
            if split.classes is not None:
                classes = f"{split.classes:,} of {split.all_classes:,} classes, "
            end = ", at work now" if split.at_work else ""
            end = ", of another dataset" if split.state == "leftover" else end
            into = " into shards" if split.layout else ""
            return f"unfinished{into}: {classes}{images}, {size}{end}"
        case "gone":
            return f"organized, but its folder is gone ({count(split.samples, 'image')})"
        case "unlisted":
            return "a folder that the manifest knows nothing of"
        case _:
            return "not organized"


def _format_verify(verify: "VerifyStatus") -> str:
    findings = count(verify.findings, "finding") if verify.findings else "no finding"
    time = verify.recorded_at[:16].replace("T", " ")
    return f"{findings} ({', '.join(verify.checks)}), {time} UTC"


def _format_cache(cache: "CacheStatus") -> str:
    shards = f"{count(cache.shards, 'shard')} of other places"
    return f"{shards}, {format_bytes(cache.size_bytes)}{', at work now' if cache.at_work else ''}"


def _format_run(run: "RunStatus") -> str:
    of = "" if run.all_epochs is None else f" of {run.all_epochs}"
    best = "" if run.best_percent is None else f", best {run.measure} {run.best_percent:.2f} %"
    return f"{run.epochs}{of} epochs{best}{', at work now' if run.at_work else ''}"


def _aligned(rows: list[tuple[str, str, str]]) -> list[str]:
    """The rows in columns, each kind named once."""
    widths = [max((len(row[at]) for row in rows), default=0) for at in (0, 1)]
    lines, last = [], ""
    for kind, name, state in rows:
        lines.append(f"{'' if kind == last else kind:{widths[0]}}  {name:{widths[1]}}  {state}")
        last = kind
    return lines
