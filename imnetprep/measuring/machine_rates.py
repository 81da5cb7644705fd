"""`ROOT/.bench.json`: the rates that machines showed, so that plans need no second measurement.

Nothing depends on the file: a damaged one counts as absent, and the next measurement replaces it.
"""

import json
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from imnetprep.catalog.datasets import Root
from imnetprep.fs import written_whole
from imnetprep.jobs import Jobs
from imnetprep.measuring.rates import Rates, parse_rates
from imnetprep.messages import ImnetprepError
from imnetprep.outside_files import read_text
from imnetprep.plain_values import plain_text, table, whole_number
from imnetprep.recipes.recipe import Recipe

_MOST_ENTRIES = 200
_MOST_BYTES = 1 << 20
_CPU_FACTS = Path("/proc/cpuinfo")


# What of a recipe decides how fast an image is read and trained on.
_DECISIVE = (
    "arch", "image_size", "train_size", "first_size", "val_resize", "crop_scale", "augment",
    "erase", "interpolation", "batch_size", "accumulate", "freeze", "optimizer", "mixup", "cutmix",
    "ema", "amp", "compile",
)  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """What was measured: a machine, how it reads images, and the decisive part of a recipe.

    `device` is its own name, such as NVIDIA H200; `choices` are the recipe's, by name. `layout` is
    that of the images, `decoder` the library that decodes them, each time that they are read.
    `shards`: where they lie, by --shards; empty: in the root.
    """

    processor: str
    cores: int
    device: str
    workers: int
    layout: str
    decoder: str
    shards: str
    choices: Mapping[str, str | float]


@dataclass(frozen=True)
class Entry:
    """The rates of a subject, measured `at` (ISO 8601)."""

    subject: Subject
    rates: Rates
    at: str


def subject_of(
    recipe: Recipe, *, device: str, workers: int, layout: str, decoder: str, shards: str
) -> Subject:
    """What this machine measures of `recipe` on its device of that name."""
    choices = {name: getattr(recipe, name) for name in _DECISIVE}
    return Subject(
        processor_name(), Jobs().count(), device, workers, layout, decoder, shards, choices
    )


def processor_name() -> str:
    """What this machine calls its processor."""
    try:
        lines = _CPU_FACTS.read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    name = next(names, "") or platform.processor() or platform.machine()
    return name if name.isprintable() else "unknown"


def read_rates(root: Root, subject: Subject) -> Entry | None:
    """What was measured of `subject` last; None: nothing."""
    return next((each for each in _entries(root) if each.subject == subject), None)


def latest_rates(root: Root, *, arch: str, image_size: int) -> Entry | None:
    """What was measured last of a network at that size of images, on this processor."""
    wish = {"arch": arch, "image_size": image_size}
    for each in _entries(root):
        is_of_machine = (each.subject.processor, each.subject.cores) == (
            processor_name(),
            Jobs().count(),
        )
        if is_of_machine and wish.items() <= each.subject.choices.items():
            return each
    return None


def write_rates(root: Root, subject: Subject, rates: Rates) -> None:
    """Keep the rates of `subject` with those of others; of a plain tree nothing is kept.

    Raises OSError.
    """
    if root.is_tree or not (root.manifest.exists() or subject.shards):
        return
    earlier = [each for each in _entries(root) if each.subject != subject]
    at = datetime.now(UTC).isoformat(timespec="seconds")
    entries = [Entry(subject, rates, at), *earlier][:_MOST_ENTRIES]
    tables = [
        {"subject": asdict(each.subject), "rates": each.rates.as_json(), "at": each.at}
        for each in entries
    ]
    with written_whole(_place(root)) as file:
        file.write(json.dumps({"entries": tables}, indent=1).encode() + b"\n")


def _place(root: Root) -> Path:
    return root.path / ".bench.json"


def _entries(root: Root) -> Iterator[Entry]:
    """The entries that can be read, newest first."""
    try:
        if os.stat(_place(root)).st_size > _MOST_BYTES:  # noqa: PTH116 - raises as reading does
            return
        tables = table(json.loads(read_text(_place(root))))["entries"]
        rows = tables if isinstance(tables, list) else []
    except (OSError, ImnetprepError, ValueError, LookupError, RecursionError):
        return
    for row in rows:
        try:
            fields = table(row)
            entry = Entry(
                _parse_subject(fields["subject"]),
                parse_rates(fields["rates"]),
                plain_text(fields["at"]),
            )
        except (ValueError, LookupError):
            continue
        yield entry


def _parse_subject(value: object) -> Subject:
    fields = table(value)
    return Subject(
        plain_text(fields["processor"]),
        whole_number(fields["cores"]),
        plain_text(fields["device"]),
        whole_number(fields["workers"]),
        plain_text(fields["layout"]),
        plain_text(fields["decoder"]),
        plain_text(fields["shards"]),
        table(fields["choices"]),
    )
