"""The plot of one or several runs: loss, accuracy, learning rate and pace, as a PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from imnetprep.fs import written_whole
from imnetprep.reports.log import (
    Line,
    best_of,
    epoch_lines,
    format_score,
    measures_of,
    place,
    step_lines,
)

_TRAIN, _VAL = "#7a8ba3", "#c2452d"
_THIN: Mapping[str, Any] = {"alpha": 0.4, "linewidth": 0.8}  # between epochs
_LABELS = ("loss", "accuracy, %", "learning rate", "images/s")


def draw_plot(logs: Mapping[str, Sequence[Line]], path: Path) -> None:
    """Draw the logs of runs, by the names of the runs, to the PNG `path`."""
    with rc_context({"text.parse_math": False}):  # a $ in a name is a $
        figure = Figure(figsize=(11, 7.6), layout="constrained")  # no pyplot: no display, no state
        axes = figure.subplots(2, 2).flatten()
        colours = colormaps["tab10"].colors  # type: ignore[attr-defined]
        for number, (name, log) in enumerate(logs.items()):
            colour = None if len(logs) == 1 else colours[number % len(colours)]
            _draw_run(axes, log, name="" if colour is None else name, colour=colour)
        for each, label in zip(axes, _LABELS, strict=True):
            _dress(each, label)
        axes[1].set_ylim(0, 103)
        axes[3].set_ylim(bottom=0)
        figure.suptitle(_title(logs))
        with written_whole(path) as file:
            figure.savefig(file, format="png", dpi=110)


def _draw_run(axes: Sequence[Axes], log: Sequence[Line], *, name: str, colour: str | None) -> None:
    """One run: alone, train and validation have their colours; beside others, it has one."""
    loss, accuracy, lr, pace = axes
    epochs, steps = epoch_lines(log), step_lines(log)
    places = [place(line) for line in steps]
    train, val = (colour or _TRAIN), (colour or _VAL)
    for axis, column in ((loss, "loss"), (pace, "images_per_second")):
        axis.plot(places, [line[column] for line in steps], "-", color=train, **_THIN)
    for part, tint, dash in (("train", train, "--" if colour else "-"), ("val", val, "-")):
        label = f"{name} {part}".strip()
        lines = [line for line in epochs if part in line]
        at = [line["epoch"] for line in lines]
        losses = [line[part]["loss"] for line in lines]
        loss.plot(at, losses, f".{dash}", color=tint, label=label)
        measures = measures_of(lines[0][part]) if lines else ()
        for number, measure in enumerate(measures):
            if colour is None or not number:  # of several runs, half as many curves
                shares = [line[part][measure.key] for line in lines]
                mark = f".{dash}" if not number else ".:"
                accuracy.plot(at, shares, mark, color=tint, label=f"{label} {measure.title}")
    # Each line has the rate of one step: of the first one of an epoch, or of the latest.
    rates = [(line["epoch"] - 1, line["lr"]) for line in epochs]
    rates += [(place(line, is_end=False), line["lr"]) for line in steps]
    lr.plot(*zip(*sorted(rates), strict=True), "-", color=val, label=name or None)
    paces = [line["images_per_second"] for line in epochs]
    pace.plot([line["epoch"] for line in epochs], paces, ".-", color=val, label=name or None)


def _title(logs: Mapping[str, Sequence[Line]]) -> str:
    """The best epoch of a run that is alone; of several, nothing but their names."""
    if len(logs) > 1:
        return ", ".join(logs)
    ((name, log),) = logs.items()
    best = best_of(log)
    if best is None:
        return name
    share = format_score(best["val"]).partition(", ")[0]
    return f"{name}, best: epoch {best['epoch']}, {share}"


def _dress(axes: Axes, label: str) -> None:
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, fontsize="small")
