"""A training from its first epoch to its last: a new one, or one that is resumed."""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from imnetprep import __version__
from imnetprep.catalog.datasets import Layout, Root, Split
from imnetprep.fs import locked
from imnetprep.manifest import open_manifest
from imnetprep.messages import ImnetprepError, Progress, WrongBytes, count
from imnetprep.training.checkpoint import (
    Best,
    Checkpoint,
    Classes,
    Position,
    load_checkpoint,
    save_checkpoint,
    weights_bytes,
)
from imnetprep.training.data import Loader, SampleList, read_samples, shuffled
from imnetprep.training.device import Place, amp_pays, pick_place
from imnetprep.training.evaluate import Validator, classes_of, refuse_other_classes
from imnetprep.training.failures import said_in_words, smaller_batch
from imnetprep.training.loop import Trainer
from imnetprep.training.model import refuse_unknown
from imnetprep.training.plot import draw_plot
from imnetprep.training.recipe import plan_recipe, refuse_contradiction
from imnetprep.training.runs import EpochReport, Run, pick_run
from imnetprep.training.stop_request import StopNow, StopRequest, stop_requests
from imnetprep.training.transforms import Preprocessing, TrainTransform


@dataclass(frozen=True)
class Data:
    """What the root has to train on."""

    classes: Classes
    train: SampleList
    val: SampleList


@dataclass(frozen=True)
class TrainPlan:
    """A run, what it trains on and where, and the recipe's options as they were typed."""

    run: Run
    data: Data
    place: Place
    options: Mapping[str, Any]

    def checkpoint(self, progress: Progress) -> Checkpoint:
        """Where the run begins, or resumes. Raises WrongUsage where the options contradict it."""
        if self.run.is_begun:
            return self._resumed(progress)
        recipe = plan_recipe(self.options, amp_pays=amp_pays(self.place.device))
        if self.options.get("lr") is None:
            size = recipe.batch_size
            progress.note(f"lr {recipe.lr:g} = 0.1 × batch size {size} / 256 (--lr sets another)")
        return Checkpoint(
            recipe=recipe,
            classes=self.data.classes,
            preprocessing=Preprocessing(
                recipe.image_size,
                recipe.val_resize,
                apply_orientation=self.data.train.apply_orientation,
            ),
            weights={},
            optimizer={},
            position=Position(),
            sums={},
            best=None,
            train_samples=len(self.data.train),
        )

    def require_room(self, network: nn.Module) -> None:
        """Raise ImnetprepError where the disk has no room for the checkpoints of `network`."""
        self.run.require_room(weights_bytes(network))

    def _resumed(self, progress: Progress) -> Checkpoint:
        run, train_samples = self.run, len(self.data.train)
        checkpoint = load_checkpoint(run.last)
        refuse_contradiction(checkpoint.recipe, self.options)
        refuse_other_classes(checkpoint.classes, self.data.classes, checkpoint=str(run.last))
        if checkpoint.train_samples != train_samples:
            raise ImnetprepError(
                f"{run.last} was trained on {count(checkpoint.train_samples, 'image')}"
                f" and the root has {train_samples:,}",
                hint="begin another run with --run NAME",
            )
        at = checkpoint.position
        progress.note(f"run {run.folder.name} resumes at epoch {at.epoch + 1}, step {at.step}")
        return checkpoint


def plan_training(
    root: Root,
    *,
    options: Mapping[str, Any],
    run: str | None = None,
    resume: bool = False,
    device: str | None = None,
    workers: int | None = None,
    layout: Layout | None = None,
    progress: Progress,
) -> TrainPlan:
    """Pick the run and read what it trains on; `options`: a recipe's names, None where left out.

    With `resume` a run that exists continues as if it had never stopped. Raises WrongUsage where
    there is one and it is not to be resumed.
    """
    place, arch = pick_place(device, workers), options.get("arch")
    if arch:
        refuse_unknown(arch)
    target = pick_run(root, run, arch=arch, resume=resume)
    with open_manifest(root.manifest) as manifest:
        data = Data(
            classes_of(manifest),
            read_samples(manifest, Split.TRAIN, root, layout=layout),
            read_samples(manifest, Split.VAL, root, layout=layout),
        )
    if resume and not target.is_begun:
        progress.note(f"there is no run {target.folder.name} yet: it begins")
    return TrainPlan(target, data, place, options)


def train(
    plan: TrainPlan, *, progress: Progress, save_every_s: float = 600
) -> Iterator[EpochReport]:
    """Train what `plan` says; yields each epoch.

    Raises Interruption once a SIGTERM or ^C was honoured, WrongUsage where the options contradict
    the run.
    """
    run = plan.run
    with stop_requests(progress) as stop, locked(run.folder):
        try:
            checkpoint = plan.checkpoint(progress)
            recipe = checkpoint.recipe
            smaller = smaller_batch(recipe.batch_size, recipe.image_size)
            with said_in_words(smaller=smaller, run=run):
                session = _Session(plan, checkpoint, stop, progress, save_every_s=save_every_s)
                with closing(session):
                    yield from session.epochs()
        finally:
            run.remove_unbegun()


class _Session:
    """A run at work: its trainer, its validator, its files."""

    def __init__(
        self,
        plan: TrainPlan,
        checkpoint: Checkpoint,
        stop: StopRequest,
        progress: Progress,
        *,
        save_every_s: float,
    ) -> None:
        recipe, data, place = checkpoint.recipe, plan.data, plan.place
        self._run, self._recipe = plan.run, recipe
        self._stop, self._progress = stop, progress
        self._save_every_s = save_every_s
        # A new run is saved after its first step: it exists then, and there is room for it.
        self._saved_s = time.monotonic() if checkpoint.weights else -math.inf
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
            place=place,
            batch_size=recipe.batch_size,
            amp=recipe.amp,
        )
        self._trainer = Trainer(checkpoint, self._loader, place.device)
        if checkpoint.position.epoch < recipe.epochs:
            plan.require_room(self._trainer.model)
        self._log = plan.run.log_lines(checkpoint.position.epoch)
        if not checkpoint.weights or not plan.run.recipe.exists():
            # Before the first checkpoint, which makes a run of the folder.
            plan.run.write_recipe(_first_state(checkpoint, plan))
        progress.note(
            f"{recipe.arch} on {place.device}: {len(data.train):,} training and"
            f" {count(len(data.val), 'validation image')}, {len(data.classes.wnids)} classes,"
            f" {self._loader.steps} steps an epoch, {count(place.workers, 'worker')}"
        )
        for samples in (data.train, data.val):
            if samples.change:
                progress.note(f"the {samples.split} images are not as published: {samples.change}")

    def epochs(self) -> Iterator[EpochReport]:
        """The epochs that are still to train, each after its validation."""
        if self._trainer.position.epoch >= self._recipe.epochs:
            self._progress.note(f"all {count(self._recipe.epochs, 'epoch')} are done")
        try:
            while self._trainer.position.epoch < self._recipe.epochs:
                self._train_epoch()
                yield self._finish_epoch()
        except StopNow:
            self._save()
            raise self._stop.stopped(self._where()) from None
        if best := self._trainer.best:
            self._progress.note(f"best: epoch {best.epoch}, {self._run.best}")

    def close(self) -> None:
        """End the workers that read images."""
        self._loader.close()
        self._validator.close()

    def _train_epoch(self) -> None:
        try:
            for _ in self._trainer.steps(self._progress, self._stop):
                if time.monotonic() - self._saved_s >= self._save_every_s:
                    self._save()
        except WrongBytes:
            self._save()  # once the image is repaired, the run resumes from here
            raise
        self._save()  # first save, then validate: validation may not live to its end

    def _finish_epoch(self) -> EpochReport:
        trainer, number = self._trainer, self._trainer.position.epoch + 1
        with self._stop.honoured():
            title = f"validation {number}"
            val = self._validator.score(trainer.model, self._progress, title=title)
        is_best = trainer.best is None or val.top1 > trainer.best.top1
        report = EpochReport(
            number,
            self._recipe.epochs,
            trainer.lr_of(0),
            trainer.meter.score(),
            val,
            is_best,
            trainer.seconds,
            trainer.waited_s,
        )
        trainer.next_epoch(Best(number, val.top1) if is_best else trainer.best)
        if is_best:
            save_checkpoint(self._run.best, replace(trainer.checkpoint(), optimizer={}))
        self._log.append(report.as_json())
        self._run.write_log(self._log)
        self._save()
        draw_plot(self._log, self._run.plot, title=self._run.folder.name)
        return report

    def _where(self) -> str:
        at = self._trainer.position
        if at == Position():
            return "before its first step; nothing is kept of the run"
        return (
            f"saved at epoch {at.epoch + 1}, step {at.step} of {self._loader.steps};"
            f" imnetprep train --resume --run {self._run.folder.name} resumes it"
        )

    def _save(self) -> None:
        if self._trainer.position != Position():
            save_checkpoint(self._run.last, self._trainer.checkpoint())
            self._saved_s = time.monotonic()


def _first_state(checkpoint: Checkpoint, plan: TrainPlan) -> dict[str, Any]:
    return {
        "recipe": asdict(checkpoint.recipe),
        "dataset": checkpoint.classes.dataset,
        "train_samples": checkpoint.train_samples,
        "changes": {samples.split: samples.change for samples in (plan.data.train, plan.data.val)},
        "device": str(plan.place.device),
        "imnetprep": __version__,
        "torch": torch.__version__,
    }
