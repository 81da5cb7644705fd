"""What a run writes beside its checkpoints while it is trained: its log, its plot, its page."""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from imnetprep.fs import written_whole
from imnetprep.messages import Progress
from imnetprep.reports.log import Line, with_rates
from imnetprep.reports.page import Page, write_page
from imnetprep.reports.parts import ClassScore, Sample, Tables
from imnetprep.reports.trackers import Followers

_SECONDS_BETWEEN_WRITES = 10
_PLOT_SHARE = 1 / 20  # of the time, at most: an epoch of a few images is shorter than its plot


@dataclass(frozen=True)
class LogOptions:
    """How closely a training is watched: a line of its log every so many steps, and trackers."""

    log_every: int = 50
    trackers: tuple[str, ...] = ()


class RunRecord:
    """The record of one training in `folder`, with the `lines` that its log has.

    Without `writes` it notes all and writes nothing: of several processes one writes.
    """

    def __init__(
        self,
        folder: Path,
        lines: Sequence[Line],
        log_options: LogOptions,
        classes: Sequence[str],
        tables: Tables,
        progress: Progress,
        *,
        writes: bool = True,
    ) -> None:
        self._folder, self._lines, self._writes = folder, list(lines), writes
        self._classes, self._tables, self._progress = classes, tables, progress
        self._log_every = log_options.log_every
        names = log_options.trackers if writes else ()
        self._followers = Followers(names, folder, tables["Recipe"], progress)
        self._wrote_s, self._is_written = math.inf, True  # not before the first save
        self._plot_due_s, self._owes_plot = 0.0, False

    def is_due(self, step: int) -> bool:
        """Is a line of steps to be noted after `step`? After the last one of an epoch as well."""
        return step % self._log_every == 0

    def add_steps(self, line: Line) -> None:
        """Note some steps; the file follows within seconds."""
        self._lines.append(with_rates(line, self._lines[-1] if self._lines else None))
        self._is_written = False
        self._followers.add(self._lines[-1])
        if time.monotonic() - self._wrote_s >= _SECONDS_BETWEEN_WRITES:
            self.write()

    def add_epoch(self, line: Line) -> None:
        """Note an epoch; the next save writes it."""
        self._lines.append(line)
        self._is_written = False
        self._followers.add(line)

    def close(self) -> None:
        """Draw what the plot lacks, and let trackers know that the training ends or stops."""
        if self._owes_plot:
            with self._only_told():
                self._draw_plot()
        self._followers.close()

    def write(self) -> None:
        """Write the whole log; before a checkpoint is saved, whose steps its lines tell of."""
        self._wrote_s = time.monotonic()
        if self._is_written or not self._writes:
            return
        with written_whole(self._folder / "log.jsonl") as file:
            file.writelines(json.dumps(line).encode() + b"\n" for line in self._lines)
        self._is_written = True

    def draw(
        self, samples: Callable[[], Sequence[Sample]], hits: Sequence[tuple[int, int]]
    ) -> None:
        """Draw the run as it stands: its page, and its plot when that is due.

        `hits`: of each class, how many validation images were right, and how many there are.
        """
        if not self._writes:
            return
        self._owes_plot = True
        with self._only_told():
            classes = [ClassScore(*each) for each in zip(self._classes, hits, strict=True)]
            page = Page(self._folder.name, self._lines, self._tables, samples(), classes)
            write_page(page, self._folder / "report.html")
            if time.monotonic() >= self._plot_due_s:
                self._draw_plot()

    def _draw_plot(self) -> None:
        from imnetprep.reports.plot import draw_plot

        self._owes_plot = False
        began_s = time.monotonic()
        draw_plot({self._folder.name: self._lines}, self._folder / "plot.png")
        ended_s = time.monotonic()
        self._plot_due_s = ended_s + (ended_s - began_s) / _PLOT_SHARE

    @contextmanager
    def _only_told(self) -> Iterator[None]:
        """A drawing that fails is only told: of hours of training none is lost for a picture."""
        try:
            yield
        except Exception as error:
            self._progress.note(f"the run could not be drawn: {type(error).__name__}: {error}")
