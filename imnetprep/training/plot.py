"""The plot of a run: loss and accuracy by epoch, as a PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from imnetprep.fs import written_whole

_TRAIN, _VAL = "#7a8ba3", "#c2452d"


def draw_plot(log: Sequence[Mapping[str, Any]], path: Path, *, title: str) -> None:
    """Draw the lines of a run's log to the PNG `path`."""
    epochs = [line["epoch"] for line in log]
    figure = Figure(figsize=(10, 4.2), layout="constrained")  # no pyplot: no display, no state
    loss, accuracy = figure.subplots(1, 2)
    figure.suptitle(title)
    for part, colour in (("train", _TRAIN), ("val", _VAL)):
        loss.plot(epochs, [line[part]["loss"] for line in log], ".-", color=colour, label=part)
        for name, style in (("top1", ".-"), ("top5", ".:")):
            shares = [line[part][f"{name}_percent"] for line in log]
            label = f"{part} {name.replace('top', 'top-')}"
            accuracy.plot(epochs, shares, style, color=colour, label=label)
    _dress(loss, "loss")
    _dress(accuracy, "accuracy, %")
    accuracy.set_ylim(0, 100)
    best = max(log, key=lambda line: line["val"]["top1"])
    val = best["val"]
    accuracy.set_title(
        f"best: epoch {best['epoch']}, top-1 {val['top1']:,}/{val['images']:,}"
        f" = {val['top1_percent']:.2f} %",
        fontsize="medium",
    )
    with written_whole(path) as file:
        figure.savefig(file, format="png", dpi=120)


def _dress(axes: Axes, label: str) -> None:
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
