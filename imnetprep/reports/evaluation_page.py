"""`report.html` of an evaluation: what the network gets wrong, and how sure it was."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from imnetprep.messages import count
from imnetprep.reports.curves import Curve, chart
from imnetprep.reports.parts import (
    MOST_ROWS,
    ClassScore,
    Sample,
    Tables,
    html_page,
    image_grid,
    listed,
    table,
    text,
    worst_classes,
)


class Confusion(NamedTuple):
    """A class, one that it was taken for, and how many images of how many were."""

    truth: str
    guess: str
    images: int
    of_class: int


class Reliability(NamedTuple):
    """Images of about the same confidence: how many, the mean confidence, and how many right."""

    images: int
    confidence: float
    top1: int


@dataclass(frozen=True)
class EvaluationPage:
    """What the page shows; `lines` are the scores, `mistakes` some of all that were made."""

    title: str
    lines: Sequence[str]
    classes: Sequence[ClassScore]
    confusions: Sequence[Confusion]
    mistakes: Sequence[Sample]
    reliability: Sequence[Reliability]
    tables: Tables

    def html(self) -> bytes:
        """The page, which needs no other file."""
        scores = f'<p class="best">{text(self.lines[0])}</p>' + "".join(
            f"<p>{text(line)}</p>" for line in self.lines[1:]
        )
        tables = (table(name, rows) for name, rows in self.tables.items())
        body = f"{scores}\n{self._wrong()}\n{self._calibration()}\n{''.join(tables)}"
        return html_page(self.title, body)

    def _wrong(self) -> str:
        if not self.confusions:
            return "<h2>Mistakes</h2><p>none</p>"
        pairs = [
            (f"{text(each.truth)} → {text(each.guess)}", f"{each.images:,}/{each.of_class:,}")
            for each in self.confusions[:MOST_ROWS]
        ]
        number = sum(each.images for each in self.confusions)
        title = f"The surest of {count(number, 'mistake')}: truth → guess, confidence"
        return (
            worst_classes("Worst classes (top-1)", self.classes)
            + listed("Most frequent mistakes: truth → guess, of the class", pairs, look="pairs")
            + image_grid(title, self.mistakes, look="large")
        )

    def _calibration(self) -> str:
        """Two charts: the share of right guesses by confidence, and how many images have it."""
        parts = [each for each in self.reliability if each.images]
        right = [(100 * each.confidence, 100 * each.top1 / each.images) for each in parts]
        images = [(100 * each.confidence, float(each.images)) for each in parts]
        curves = [
            Curve("calibrated", [(0, 0), (100, 100)], "train dotted"),
            Curve("network", right, "val"),
        ]
        charts = chart("right, %, by confidence, %", curves, low=0, unit="confidence")
        charts += chart(
            "images by confidence, %", [Curve("", images, "val")], low=0, unit="confidence"
        )
        return f'<h2>Calibration</h2><div class="grid">{charts}</div>'
