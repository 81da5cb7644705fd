"""A training run epoch by epoch: train, save, validate, log, and stop when asked to."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from imnetprep import __version__
from imnetprep.messages import Progress, WrongBytes, count
from imnetprep.training.checkpoint import Best, Checkpoint, Classes, save_checkpoint
from imnetprep.training.data import Loader, SampleList, shuffled
from imnetprep.training.evaluate import Validator
from imnetprep.training.loop import Trainer
from imnetprep.training.plot import draw_plot
from imnetprep.training.recipe import recipe_as_json
from imnetprep.training.runs import EpochReport, Run
from imnetprep.training.stop_request import StopRequest
from imnetprep.training.transforms import TrainTransform


@dataclass(frozen=True)
class Data:
    """What the root has to train on."""

    classes: Classes
    train: SampleList
    val: SampleList


@dataclass(frozen=True)
class Place:
    """Where the training runs."""

    device: torch.device
    workers: int


class Session:
    """A run at work: its trainer, its validator, its files."""

    def __init__(
        self,
        run: Run,
        data: Data,
        checkpoint: Checkpoint,
        *,
        place: Place,
        progress: Progress,
        save_every_s: float,
    ) -> None:
        recipe = checkpoint.recipe
        self._run, self._recipe, self._progress = run, recipe, progress
        self._save_every_s = save_every_s
        self._loader = Loader(
            data.train,
            TrainTransform(recipe.image_size, recipe.crop_scale, recipe.seed),
            order=shuffled(len(data.train), batch_size=recipe.batch_size, seed=recipe.seed),
            batch_size=recipe.batch_size,
            workers=place.workers,
            pin_memory=place.device.type == "cuda",
        )
        self._validator = Validator(
            data.val,
            checkpoint.preprocessing,
            device=place.device,
            batch_size=recipe.batch_size,
            workers=place.workers,
            amp=recipe.amp,
        )
        self._trainer = Trainer(checkpoint, self._loader, place.device)
        self._log = run.log_lines(checkpoint.position.epoch)
        if not checkpoint.weights:
            self._save()
            run.write_recipe(_first_state(checkpoint, data, place))
        progress.note(
            f"{recipe.arch} on {place.device}: {len(data.train):,} training and"
            f" {count(len(data.val), 'validation image')}, {len(data.classes.wnids)} classes,"
            f" {self._loader.steps} steps an epoch, {count(place.workers, 'worker')}"
        )
        for samples in (data.train, data.val):
            if samples.change:
                progress.note(f"the {samples.split} images are not as published: {samples.change}")

    def epochs(self, stop: StopRequest) -> Iterator[EpochReport]:
        """The epochs that are still to train, each after its validation."""
        if self._trainer.position.epoch >= self._recipe.epochs:
            self._progress.note(f"all {count(self._recipe.epochs, 'epoch')} are done")
        while self._trainer.position.epoch < self._recipe.epochs:
            lr = self._trainer.epoch_lr
            self._train_epoch(stop)
            yield self._finish_epoch(lr, self._stopper(stop))
        if best := self._trainer.best:
            self._progress.note(f"best: epoch {best.epoch}, {self._run.best}")

    def close(self) -> None:
        """End the workers that read images."""
        self._loader.close()
        self._validator.close()

    def _train_epoch(self, stop: StopRequest) -> None:
        saved_s = time.monotonic()
        stop_if_requested = self._stopper(stop, save=True)
        try:
            for _ in self._trainer.steps(self._progress):
                stop_if_requested()
                if time.monotonic() - saved_s >= self._save_every_s:
                    self._save()
                    saved_s = time.monotonic()
        except WrongBytes:
            self._save()  # once the image is repaired, the run resumes from here
            raise
        self._save()  # first save, then validate: validation may not live to its end

    def _finish_epoch(self, lr: float, stop_if_requested: Callable[[], None]) -> EpochReport:
        trainer, number = self._trainer, self._trainer.position.epoch + 1
        stop_if_requested()
        val = self._validator.score(
            trainer.model,
            self._progress,
            title=f"validation {number}",
            after_batch=stop_if_requested,
        )
        is_best = trainer.best is None or val.top1 > trainer.best.top1
        best = Best(number, val.top1) if is_best else trainer.best
        report = EpochReport(
            number,
            self._recipe.epochs,
            lr,
            trainer.meter.score(),
            val,
            is_best,
            trainer.seconds,
            trainer.waited_s,
        )
        trainer.next_epoch(best)
        if is_best:
            save_checkpoint(self._run.best, replace(trainer.checkpoint(), optimizer={}))
        self._log.append(report.as_json())
        self._run.write_log(self._log)
        self._save()
        draw_plot(self._log, self._run.plot, title=self._run.folder.name)
        return report

    def _stopper(self, stop: StopRequest, *, save: bool = False) -> Callable[[], None]:
        def stop_if_requested() -> None:
            if not stop:
                return
            if save:
                self._save()
            at = self._trainer.position
            raise stop.stopped(
                f"saved at epoch {at.epoch + 1}, step {at.step} of {self._loader.steps};"
                f" imnetprep train --resume --run {self._run.folder.name} resumes it"
            )

        return stop_if_requested

    def _save(self) -> None:
        save_checkpoint(self._run.last, self._trainer.checkpoint())


def _first_state(checkpoint: Checkpoint, data: Data, place: Place) -> dict[str, Any]:
    return {
        "recipe": recipe_as_json(checkpoint.recipe),
        "dataset": checkpoint.classes.dataset,
        "train_samples": checkpoint.train_samples,
        "changes": {samples.split: samples.change for samples in (data.train, data.val)},
        "device": str(place.device),
        "imnetprep": __version__,
        "torch": torch.__version__,
    }
