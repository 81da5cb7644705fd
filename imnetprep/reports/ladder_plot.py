"""The picture of a ladder: the losses of each rung, their gate, and what the network saw."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from imnetprep.fs import written_whole
from imnetprep.outside_text import shown
from imnetprep.reports.parts import Sample

_LOSS, _GATE = "#7a8ba3", "#c2452d"
_MOST_VIEWS = 6
_FLOOR = 1e-6  # of a loss, which may be 0 and has a logarithm here
_LEAST_LINEAR = 0.5  # limits below are of losses over several powers of ten
_NAME_LENGTH = 16
_ROW_INCHES, _WIDTH_INCHES = 1.9, 11


@dataclass(frozen=True)
class LadderRow:
    """A rung: its title, the loss of each step, the limit of the loss, and some images."""

    title: str
    losses: Sequence[float]
    loss_limit: float
    views: Sequence[Sample]


def draw_ladder(rows: Sequence[LadderRow], title: str, path: Path) -> None:
    """Draw the rungs, one below the other, to the PNG `path`."""
    with catch_warnings(), rc_context({"text.parse_math": False}):  # a $ in a name is a $
        simplefilter("ignore")  # of letters that no font has
        height = _ROW_INCHES * len(rows) + 0.5
        figure = Figure(figsize=(_WIDTH_INCHES, height), layout="constrained")
        grid = figure.add_gridspec(len(rows), 2 + _MOST_VIEWS, width_ratios=[3, 3] + [1] * 6)
        for number, row in enumerate(rows):
            _draw_losses(figure.add_subplot(grid[number, :2]), row)
            for at, view in enumerate(row.views[:_MOST_VIEWS]):
                axes = figure.add_subplot(grid[number, 2 + at])
                axes.imshow(imread(BytesIO(view.body)))
                axes.set_title(_short(view.name), fontsize="x-small")
                axes.set_axis_off()
        figure.suptitle(title)
        with written_whole(path) as file:
            figure.savefig(file, format="png", dpi=110)


def _draw_losses(axes: Any, row: LadderRow) -> None:
    losses = enumerate(row.losses, 1)
    points = [(step, max(loss, _FLOOR)) for step, loss in losses if math.isfinite(loss)]
    axes.set_title(row.title, fontsize="small", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.set_ylabel("loss")
    if points:
        axes.plot(*zip(*points, strict=True), ".-", color=_LOSS, markersize=3, linewidth=1)
        if row.loss_limit < _LEAST_LINEAR:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda loss, _: f"{loss:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
    if math.isfinite(row.loss_limit):
        axes.axhline(row.loss_limit, color=_GATE, linestyle="--", linewidth=1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(left=0, right=max(2, len(row.losses) + 1))


def _short(name: str) -> str:
    name = shown(name)
    return name if len(name) <= _NAME_LENGTH else f"{name[: _NAME_LENGTH - 1]}…"
