"""What the device alone takes, and what it takes from the loader: by the steps of a training."""

import time
from collections.abc import Callable
from contextlib import closing
from typing import NamedTuple

import torch

from imnetprep.devices.device import Place
from imnetprep.devices.prefetch import on_device
from imnetprep.loading.batches import Batch
from imnetprep.loading.loader import Loader
from imnetprep.loading.order import shuffled
from imnetprep.measuring.clock import INTERVALS, median_rate
from imnetprep.measuring.loader_rate import endless, warm_up
from imnetprep.messages import Silent
from imnetprep.process_group.ranks import ALONE
from imnetprep.samples.bad_images import BadImages
from imnetprep.samples.sample_list import SampleList
from imnetprep.training.checkpoint import Checkpoint
from imnetprep.training.objective import Objective
from imnetprep.training.state import TrainState
from imnetprep.training.step import Step
from imnetprep.training.validator import Validator

_STEPS = 1_000_000  # of an epoch that never ends, in the warm-up
_FEW_IMAGES = 8  # of the first steps, which show how many fit into an interval


class Fit(NamedTuple):
    """How many `images` a measured step has, and the rate of a first one."""

    images: int
    images_per_s: float

    def limit(self, seconds: float) -> int:
        """How many steps the device does in an interval of a measurement of so many `seconds`."""
        return max(1, round(seconds / INTERVALS * self.images_per_s / self.images))


class StepClock:
    """Takes the steps that a training of `checkpoint` on `samples` would, and measures them."""

    def __init__(self, checkpoint: Checkpoint, samples: SampleList, place: Place) -> None:
        self._checkpoint, self._place = checkpoint, place
        objective = Objective(checkpoint, samples, place.device)
        self._state = TrainState(checkpoint, place.device, steps=_STEPS, ranks=ALONE)
        self._step = Step(self._state, objective, place.device, ALONE)
        self._state.model.train()

    def fit(self, side_px: int, *, seconds: float) -> Fit:
        """How many images of `side_px` a step may have that takes no longer than `seconds`.

        At most a batch of the recipe, and a few at least.
        """
        recipe = self._checkpoint.recipe
        images = min(recipe.batch_size, max(_FEW_IMAGES, 2 * recipe.accumulate))
        while True:
            step_s = self._step_s(self._batch(images, side_px))
            limit = int(images * seconds / step_s)
            if images == recipe.batch_size or limit < 1.5 * images:
                return Fit(images, images / step_s)
            images = min(recipe.batch_size, limit)

    def alone(
        self, fit: Fit, side_px: int, *, seconds: float, on_interval: Callable[[], None]
    ) -> float:
        """Images/s of steps of random images of `side_px`."""
        batch = self._batch(fit.images, side_px)
        self._take(batch)
        self._settle()
        return median_rate(
            lambda: self._take(batch),
            seconds=seconds,
            limit=fit.limit(seconds),
            settle=self._settle,
            on_interval=on_interval,
        )

    def fed(
        self, loader: Loader, fit: Fit, *, seconds: float, on_interval: Callable[[], None]
    ) -> tuple[float, float]:
        """Images/s of steps on the batches of `loader`, which is closed, and the share of the time
        that the steps wait for them.
        """
        waits_s = [0.0]

        def advance() -> int:
            begun_s = time.perf_counter()
            batch = next(batches)
            waits_s[0] += time.perf_counter() - begun_s
            return self._take(batch)

        with closing(loader):
            batches = on_device(endless(loader), self._place.device)
            end_s = time.perf_counter() + seconds / 2
            for _ in range(warm_up(self._place.workers)):
                advance()
                if time.perf_counter() > end_s:
                    break
            self._settle()
            begun_s, waits_s[0] = time.perf_counter(), 0.0
            rate = median_rate(
                advance,
                seconds=seconds,
                limit=fit.limit(seconds),
                settle=self._settle,
                on_interval=on_interval,
            )
            return rate, waits_s[0] / (time.perf_counter() - begun_s)

    def validation(self, samples: SampleList, *, seconds: float, estimate: float) -> float:
        """Images/s of a validation on some of the `samples`, as many as an `estimate` allows.

        It is the second pass over them: the first starts the workers.
        """
        recipe = self._checkpoint.recipe
        images = min(len(samples), max(2, int(estimate * seconds / 2)))
        order = shuffled(len(samples), batch_size=1, seed=recipe.seed)(0)
        mask = torch.zeros(len(samples), dtype=torch.bool)
        mask[order[:images]] = True
        validator = Validator(
            samples.chosen(mask.numpy()),
            self._checkpoint.preprocessing,
            place=self._place,
            batch_size=min(recipe.batch_size, max(1, images // (2 * INTERVALS))),
            amp=recipe.amp,
            bad=BadImages(Silent()),
        )
        with closing(validator):
            validator.score(self._state.model, Silent())
            begun_s = time.perf_counter()
            validator.score(self._state.model, Silent())
            return images / (time.perf_counter() - begun_s)

    def _batch(self, images: int, side_px: int) -> Batch:
        """Random pixels and labels, where the loader would put them."""
        classes = len(self._checkpoint.classes.wnids)
        pixels = torch.randint(0, 256, (images, side_px, side_px, 3), dtype=torch.uint8)
        labels = torch.randint(0, classes, (images,))
        if self._place.device.type == "cuda":
            pixels, labels = pixels.pin_memory(), labels.pin_memory()
        return Batch(pixels, labels)

    def _take(self, batch: Batch) -> int:
        self._step.take(batch, images=len(batch.labels))
        return len(batch.labels)

    def _step_s(self, batch: Batch) -> float:
        """Seconds of a step on `batch`, after one that is not counted."""
        self._take(batch)
        self._settle()
        begun_s = time.perf_counter()
        self._take(batch)
        self._settle()
        return time.perf_counter() - begun_s

    def _settle(self) -> None:
        device = self._place.device
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elif device.type == "mps":
            torch.mps.synchronize()
