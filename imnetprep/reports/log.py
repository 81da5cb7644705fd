"""The log of a run: a line of JSON every few steps, and one at the end of each epoch.

A line of steps has `step`; its `loss` and `images_per_second` are of the steps since the line
above, `epoch_loss`, `images`, `seconds` and `waited_s` of the epoch so far.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from imnetprep.plain_values import real_number, table, whole_number

Line = Mapping[str, Any]


class Measure(NamedTuple):
    """A share in percent that a score has: its key in the log, and what people call it."""

    key: str
    title: str


_OF_CLASSES = (Measure("top1_percent", "top-1"), Measure("top5_percent", "top-5"))
_OF_MASKS = (
    Measure("f_percent", "F-measure"),
    Measure("iou_percent", "IoU"),
    Measure("accuracy_percent", "pixel accuracy"),
)


def measures_of(score: Line) -> tuple[Measure, ...]:
    """The measures of a score in the log, first that by which epochs are compared."""
    return _OF_MASKS if _OF_MASKS[0].key in score else _OF_CLASSES


def format_score(score: Line) -> str:
    """`top-1 371/500 = 74.20 %, top-5 96.00 %`, or the measures of masks."""
    texts = [f"{each.title} {score[each.key]:.2f} %" for each in measures_of(score)]
    if "top1" in score:
        texts[0] = f"top-1 {score['top1']:,}/{score['images']:,} = {score['top1_percent']:.2f} %"
    return ", ".join(texts)


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
    """The epoch with the best score; None where there is none (--no-val)."""
    lines = [line for line in epoch_lines(lines) if "val" in line]
    return max(lines, key=lambda line: line["val"][measures_of(line["val"])[0].key], default=None)


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
        measures = measures_of(part)
        for name in ("top1", "images") if measures is _OF_CLASSES else ("images",):
            whole_number(part[name])
        for name in ("loss", *(each.key for each in measures)):
            if not isinstance(part[name], float):  # the loss may be NaN
                real_number(part[name])
