"""The log of a run: a line of JSON every few steps, and one at the end of each epoch.

A line of steps has `step`; its `loss` and `images_per_second` are of the steps since the line
above, `epoch_loss`, `images`, `seconds` and `waited_s` of the epoch so far.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from imnetprep.plain_values import real_number, table, whole_number

Line = Mapping[str, Any]


def tables(text: str | bytes) -> list[Line]:
    """The lines of a log as tables, whatever they hold. Raises ValueError, RecursionError."""
    return [table(json.loads(line)) for line in text.splitlines()]


def epoch_lines(lines: Iterable[Line]) -> list[Line]:
    """The lines that tell of a whole epoch."""
    return [line for line in lines if "step" not in line]


def step_lines(lines: Iterable[Line]) -> list[Line]:
    """The lines that tell of some steps."""
    return [line for line in lines if "step" in line]


def best_of(lines: Iterable[Line]) -> Line | None:
    """The epoch with the best top-1; None where there is none (--no-val)."""
    lines = [line for line in epoch_lines(lines) if "val" in line]
    return max(lines, key=lambda line: line["val"]["top1_percent"], default=None)


def place(line: Line, *, is_end: bool = True) -> float:
    """Where a line of steps lies between whole epochs: at the end of its last step, or before."""
    return float(line["epoch"] - 1 + (line["step"] - (not is_end)) / line["steps"])


def parse_log(text: str, *, epochs: int, step: int = 0) -> list[Line]:
    """The lines up to `step` of the epoch behind `epochs`: later ones are in no checkpoint.

    What is drawn of them is of the right kind. Raises ValueError, KeyError, RecursionError.
    """
    lines = tables(text)
    for line in lines:
        _check(line)
    end = epochs + 1, step
    return [line for line in lines if (line["epoch"], line.get("step", step + 1)) <= end]


def with_rates(line: Line, last: Line | None) -> Line:
    """A line of steps with loss and pace since the `last` line, or since the epoch began."""
    start = {"epoch_loss": 0.0, "images": 0, "seconds": 0.0}
    if last is not None and "step" in last and last["epoch"] == line["epoch"]:
        start = dict(last)
    images = line["images"] - start["images"]
    loss = line["epoch_loss"] * line["images"] - start["epoch_loss"] * start["images"]
    seconds = line["seconds"] - start["seconds"]
    return {
        **line,
        "loss": round(loss / max(images, 1), 6),
        "images_per_second": round(images / seconds, 1) if seconds > 0 else 0.0,
    }


def _check(line: Line) -> None:
    whole_number(line["epoch"], least=1)
    for name in ("lr", "seconds", "waited_s", "images_per_second"):
        real_number(line[name])
    if "step" in line:
        for name in ("step", "steps"):
            whole_number(line[name], least=1)
        whole_number(line["images"])
        for name in ("loss", "epoch_loss"):
            real_number(line[name])
        return
    for part in map(table, [line["train"], *([line["val"]] if "val" in line else [])]):
        for name in ("top1", "images"):
            whole_number(part[name])
        for name in ("loss", "top1_percent", "top5_percent"):
            if not isinstance(part[name], float):  # the loss may be NaN
                real_number(part[name])
