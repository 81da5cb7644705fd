"""The loop of a training: its epochs, each of many steps, and what is saved on the way.

It is read from the top: `train` opens the run, and `_Loop.epochs` goes through the epochs.
"""

import time
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import asdict

from torch import nn

from imnetprep.devices.compiler import compiler_errors
from imnetprep.devices.prefetch import on_device
from imnetprep.loading.batches import Batch
from imnetprep.messages import Progress, SourceFailed, WrongBytes
from imnetprep.process_group.ranks import FailedPeer, Ranks, joined
from imnetprep.process_group.stop_request import StopNow, StopRequest, stop_requests
from imnetprep.training.checkpoint import Checkpoint, Position
from imnetprep.training.failures import said_in_words, smaller_batch
from imnetprep.training.mask_meters import AnyScore
from imnetprep.training.plan import TrainPlan
from imnetprep.training.runs import EpochReport
from imnetprep.training.saves import SavePlan, Saves
from imnetprep.training.state import TrainState
from imnetprep.training.step import Step


def train(
    plan: TrainPlan, *, progress: Progress, saves: SavePlan | None = None
) -> Iterator[EpochReport]:
    """Train what `plan` says; yields each epoch.

    Raises Interruption once a SIGTERM or ^C was honoured, WrongUsage where the options contradict
    the run.
    """
    with (
        joined(plan.ranks, plan.place.device) as ranks,
        stop_requests(progress) as stop,
        plan.run.owned() if ranks.is_first else nullcontext(),
    ):
        plan, checkpoint = plan.begin(progress, ranks)
        recipe = checkpoint.recipe
        smaller = smaller_batch(recipe.batch_size, recipe.image_size)
        with said_in_words(smaller=smaller, run=plan.run):
            loop = _Loop(plan, checkpoint, ranks, stop, progress, saves or SavePlan())
            with closing(loop):
                yield from loop.epochs()


class _Loop:
    """A run at work: its state, its loader, its validator, its files."""

    def __init__(
        self,
        plan: TrainPlan,
        checkpoint: Checkpoint,
        ranks: Ranks,
        stop: StopRequest,
        progress: Progress,
        saves: SavePlan,
    ) -> None:
        device = plan.place.device
        self._run, self._recipe = plan.run, checkpoint.recipe
        self._ranks, self._stop, self._progress = ranks, stop, progress
        self._loader = plan.loader(checkpoint.recipe, ranks)
        self._validator = plan.validator(checkpoint, ranks)
        self._objective = plan.objective(checkpoint)
        self._state = TrainState(checkpoint, device, steps=self._loader.steps, ranks=ranks)
        self._step = Step(self._state, self._objective, device, ranks)
        if ranks.is_first and not self._state.is_done:
            plan.require_room(self._state.model, self._recipe, epochs=saves.epochs)
        self._compiles = self._recipe.compile
        self._record = plan.record(checkpoint, ranks, progress)
        is_new = not checkpoint.is_begun
        self._saves = Saves(plan.run, self._record, ranks, saves, plan.bad, is_new=is_new)
        if ranks.is_first and (is_new or not plan.run.records(asdict(checkpoint.recipe))):
            # Before the first checkpoint, which makes a run of the folder.
            plan.run.write_recipe(plan.first_state(checkpoint))
        plan.announce(checkpoint.recipe, progress, steps=self._loader.steps)

    def epochs(self) -> Iterator[EpochReport]:
        """The epochs that are still to train, each after its validation."""
        state = self._state
        if state.is_done:
            self._progress.note(f"nothing is left to train: {state.end()}")
        try:
            while not state.is_done:
                self._train_epoch()
                yield self._finish_epoch()
        except StopNow:
            self._saves.save(state)
            raise self._stop.stopped(self._place_of_stop()) from None
        best = f"; best: {state.best}, " if state.best else ", without validation: "
        self._progress.note(f"{state.end()}{best}{self._run.best}")

    def close(self) -> None:
        """End the workers that read images, and what follows the run."""
        self._loader.close()
        self._validator.close()
        self._record.close()

    def _train_epoch(self) -> None:
        """Train on the rest of the epoch. Raises StopNow between two steps."""
        state, loader, recipe = self._state, self._loader, self._recipe
        title = f"epoch {state.position.epoch + 1}/{recipe.epochs}"
        initial = min(state.position.step * recipe.batch_size, loader.images)
        # Before a signal may raise: an exception in the fork of a worker is lost.
        batches = on_device(
            loader.batches(state.position.epoch, first_step=state.position.step), self._step.device
        )
        state.model.train()
        try:
            with self._progress.task(
                title, total=loader.images, unit="images", initial=initial
            ) as task:
                while not state.is_trained:
                    begun_s = time.monotonic()
                    with self._ranks.together(self._stop, save=self._saves.is_due) as agreement:
                        batch = next(batches)
                    state.waited_s += time.monotonic() - begun_s
                    if agreement.saves:
                        self._saves.save(state)
                    self._take_step(batch)
                    is_logged = state.is_trained or self._record.is_due(state.position.step)
                    # Each look at the loss waits for the device.
                    if is_logged or (self._ranks.is_first and state.is_unseen):
                        task.tell(state.look())
                    state.seconds += time.monotonic() - begun_s
                    if is_logged:
                        self._record.add_steps(state.log_line())
                    task.advance(loader.images_of(state.position.step - 1))
        except (WrongBytes, SourceFailed, FailedPeer):
            self._saves.save(state)  # once the image is repaired, the run resumes from here
            raise
        self._saves.save(state)  # first save, then validate: validation may not live to its end

    def _take_step(self, batch: Batch) -> None:
        """Take a step, of which the first of a process may compile the network for a minute.

        A request to stop is honoured at once then: the last checkpoint is of the state before it.
        """
        images = self._loader.images_of(self._state.position.step)
        if not self._compiles:
            self._step.take(batch, images=images)
            return
        stops = self._stop.honoured() if self._ranks.is_alone else nullcontext()
        try:
            with self._ranks.one_voice(), compiler_errors(), stops:
                self._step.take(batch, images=images)
        except StopNow:
            raise self._stop.stopped(self._place_of_stop()) from None
        self._compiles = False

    def _finish_epoch(self) -> EpochReport:
        """Validate the epoch, log it, and keep its weights if they are the best."""
        state, number = self._state, self._state.position.epoch + 1
        val = self._score(state.model, f"validation {number}")
        network = state.average.network
        average = self._score(network, f"validation {number}, average") if network else None
        report = EpochReport(
            number,
            self._recipe.epochs,
            state.lr(0),
            state.train_score(),
            val,
            state.is_best(val, average),
            state.seconds,
            state.waited_s,
            average,
        )
        state.next_epoch(val, average)
        self._record.add_epoch(report.as_json())
        self._saves.save(state, is_best=report.is_best, is_epoch=True)
        self._record.draw(self._objective.samples, self._validator.class_hits)
        return report

    def _score(self, network: nn.Module, title: str) -> AnyScore:
        return self._validator.score(network, self._progress, title=title, stop=self._stop)

    def _place_of_stop(self) -> str:
        position = self._state.position
        if position == Position():
            return "before its first step; nothing is kept of the run"
        return (
            f"saved at epoch {position.epoch + 1}, step {position.step} of {self._loader.steps};"
            f" imnetprep train --resume --run {self._run.folder.name} resumes it"
        )
