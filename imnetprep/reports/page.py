"""`report.html` of a run: its curves, its images, its classes and its facts on one page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from imnetprep.fs import written_whole
from imnetprep.messages import format_duration
from imnetprep.reports.curves import Curve, chart
from imnetprep.reports.log import (
    Line,
    best_of,
    epoch_lines,
    format_score,
    measures_of,
    place,
    step_lines,
)
from imnetprep.reports.parts import (
    ClassScore,
    Sample,
    Tables,
    html_page,
    image_grid,
    table,
    worst_classes,
)


@dataclass(frozen=True)
class Page:
    """What the page shows of a run: its log, and tables of facts by their headings."""

    title: str
    lines: Sequence[Line]
    tables: Tables
    samples: Sequence[Sample] = ()
    classes: Sequence[ClassScore] = ()


def write_page(page: Page, path: Path) -> None:
    """Write the page, whole or not at all."""
    with written_whole(path) as file:
        file.write(html_page(page.title, _body(page)))


def _body(page: Page) -> str:
    epochs = epoch_lines(page.lines)
    unit = measures_of(epochs[0]["train"] if epochs else {})[0].title
    worst = worst_classes(
        "Pixels that were right in the last validation"
        if unit == "F-measure"
        else "Worst classes of the last validation (top-1)",
        page.classes,
    )
    return f"""{_summary(page.lines)}
<h2>Curves</h2>
<div class="grid">{_charts(page.lines)}</div>
{image_grid("A training batch, as the network saw it", page.samples)}{worst}
{"".join(table(name, rows) for name, rows in page.tables.items())}"""


def _summary(lines: Sequence[Line]) -> str:
    epochs = epoch_lines(lines)
    if not epochs:
        return '<p class="best">no epoch is over</p>'
    best, last, title = best_of(lines), epochs[-1], "not validated"
    if best:
        val = best["val"]
        title = f"best: epoch {best['epoch']}, {format_score(val)}" + (
            f" ({val['left_out']:,} more could not be read)" if "left_out" in val else ""
        )
    seconds = sum(line["seconds"] for line in epochs)
    return (
        f'<p class="best">{title}</p>'
        f'<p class="faint">{last["epoch"]} of {last["epochs"]} epochs,'
        f" {format_duration(seconds)} of training</p>"
    )


def _charts(lines: Sequence[Line]) -> str:
    epochs, steps = epoch_lines(lines), step_lines(lines)

    def of_epochs(*keys: str) -> list[tuple[float, float]]:
        values = []
        for line in epochs:
            value = line
            for key in keys:
                value = value.get(key, {})
            if value != {}:
                values.append((float(line["epoch"]), float(value)))  # type: ignore[arg-type]
        return values

    def of_steps(key: str) -> list[tuple[float, float]]:
        return [(place(line), float(line[key])) for line in steps]

    first, *rest = measures_of(epochs[0]["train"] if epochs else {})
    rates = [(x - 1, y) for x, y in of_epochs("lr")]
    rates += [(place(line, is_end=False), float(line["lr"])) for line in steps]
    return "".join([
        chart("loss", [
            Curve("", of_steps("loss"), "train thin"),
            Curve("train", of_epochs("train", "loss"), "train"),
            Curve("val", of_epochs("val", "loss"), "val"),
        ]),
        chart("accuracy, %", [
            Curve(f"train {first.title}", of_epochs("train", first.key), "train"),
            *(Curve(f"val {each.title}", of_epochs("val", each.key), "val dotted")
              for each in rest),
            Curve(f"val {first.title}", of_epochs("val", first.key), "val"),
        ], low=0),
        chart("learning rate", [Curve("", sorted(rates), "val")], low=0),
        chart("images/s", [
            Curve("", of_steps("images_per_second"), "train thin"),
            Curve("", of_epochs("images_per_second"), "val"),
        ], low=0),
    ])  # fmt: skip
