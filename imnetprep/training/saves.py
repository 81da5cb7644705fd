"""When a training is saved, and which checkpoints of it are kept."""

import math
import time
from dataclasses import dataclass

from imnetprep.process_group.ranks import Ranks
from imnetprep.reports.record import RunRecord
from imnetprep.samples.bad_images import BadImages
from imnetprep.training.checkpoint import Position, save_checkpoint
from imnetprep.training.runs import Run
from imnetprep.training.state import TrainState


@dataclass(frozen=True)
class SavePlan:
    """The seconds between two checkpoints at most, and of how many epochs the weights are kept."""

    every_s: float = 600
    epochs: int = 0


class Saves:
    """The checkpoints of a run: made by all ranks together, written by the first."""

    def __init__(
        self, run: Run, record: RunRecord, ranks: Ranks, plan: SavePlan, bad: BadImages | None,
        *, is_new: bool,
    ) -> None:  # fmt: skip
        self._run, self._record, self._ranks, self._plan, self._bad = run, record, ranks, plan, bad
        # A new run is saved after its first step: it exists then, and there is room for it.
        self._saved_s = -math.inf if is_new else time.monotonic()

    @property
    def is_due(self) -> bool:
        """Is it time for a checkpoint?"""
        return time.monotonic() - self._saved_s >= self._plan.every_s

    def save(self, state: TrainState, *, is_best: bool = False, is_epoch: bool = False) -> None:
        """Save the state, which is that of an epoch that is over, or of any step.

        Before the first step there is none.
        """
        if state.position == Position():
            return
        checkpoint = state.checkpoint()
        self._record.write()  # first: a line of what is not saved is dropped on resume
        if self._bad:
            self._bad.tell(self._ranks.shares)
        if self._ranks.is_first:
            if is_best:
                save_checkpoint(self._run.best, checkpoint.as_best())
            if is_epoch and self._plan.epochs:
                epoch = state.position.epoch
                save_checkpoint(self._run.of_epoch(epoch), checkpoint.without_memory())
                self._run.remove_epochs(limit=epoch - self._plan.epochs + 1)
            save_checkpoint(self._run.last, checkpoint)
        self._saved_s = time.monotonic()
