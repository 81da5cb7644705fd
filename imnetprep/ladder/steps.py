"""Steps outside the loop of a training, taken by its own parts, each with its score."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from imnetprep.devices.device import Place
from imnetprep.devices.prefetch import on_device
from imnetprep.loading.batches import Batch
from imnetprep.measuring.loader_rate import endless
from imnetprep.messages import Progress, Task
from imnetprep.pixels.transforms import ValTransform
from imnetprep.process_group.ranks import ALONE
from imnetprep.recipes.recipe import Recipe
from imnetprep.recipes.schedule import FIXED_LENGTH
from imnetprep.training.checkpoint import Checkpoint
from imnetprep.training.data import Data
from imnetprep.training.meters import Meter, Score
from imnetprep.training.objective import Objective
from imnetprep.training.plan import TrainPlan
from imnetprep.training.runs import Run
from imnetprep.training.state import TrainState
from imnetprep.training.step import Step
from imnetprep.training.validator import Validator

_VAL_IMAGES = 1000
# What keeps a network from learning a few images by heart, or hides that it does.
_OFF: Mapping[str, Any] = {
    "warmup_epochs": 0.0, "schedule": "constant", "weight_decay": 0.0, "label_smoothing": 0.0,
    "mixup": 0.0, "cutmix": 0.0, "ema": 0.0, "balance": "none", "accumulate": 1,
}  # fmt: skip
_CHANCES = {"StochasticDepth": "p", "DropPath": "drop_prob"}  # of torchvision, of timm


@dataclass(frozen=True)
class Ground:
    """A set of images and the beginning of a training on it."""

    plan: TrainPlan
    checkpoint: Checkpoint

    @property
    def recipe(self) -> Recipe:
        """The recipe as it was asked for."""
        return self.checkpoint.recipe

    @property
    def data(self) -> Data:
        """What it trains on, and is validated on."""
        data = self.plan.data
        assert isinstance(data, Data)  # `begin` has no other
        return data

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return len(self.checkpoint.classes.wnids)

    @property
    def place(self) -> Place:
        """Where it is computed."""
        return self.plan.place

    def batch(self, images: int) -> Batch:
        """Training images, of as many classes as there are, as a validation sees them; shuffled."""
        samples, transform = self.data.train, ValTransform(self.checkpoint.preprocessing)
        numbers = np.random.default_rng(self.recipe.seed).permutation(samples.spread(images))
        pixels = np.stack([transform(samples.pixels(number)) for number in numbers])
        labels = samples.labels[numbers].astype(np.int64)
        return Batch(torch.from_numpy(pixels), torch.from_numpy(labels))

    def step(self, *, steps: int, by_heart: bool) -> Step:
        """What takes `steps` by the recipe; `by_heart`: without all that hinders a network."""
        checkpoint, device = self.checkpoint, self.place.device
        off = _OFF if by_heart else {}
        checkpoint = replace(checkpoint, recipe=replace(self.recipe, compile=False, **off))
        objective = Objective(checkpoint, self.data.train, device)
        state = TrainState(_in_one_epoch(checkpoint), device, steps=steps, ranks=ALONE)
        if by_heart:
            _keep_all_outputs(state.model)
        return Step(state, objective, device, ALONE)


def begin(
    data: Data, options: Mapping[str, Any], place: Place, *, folder: Path, progress: Progress
) -> Ground:
    """The beginning of a training on `data`, in `folder`, where nothing is written."""
    plan = TrainPlan(Run(folder / "run"), data, place, options, ALONE)
    return Ground(*plan.begin(progress))


def scores(step: Step, batches: Iterable[Batch], task: Task) -> Iterator[Score]:
    """Take a step on each of `batches`; the score of each is of the network before it."""
    for batch in batches:
        step.state.model.train()
        step.state.meter = Meter(step.device)
        step.take(batch, images=len(batch.labels))
        score = step.state.meter.score()
        task.advance(1)
        task.tell(f"loss {score.loss:.3g}")
        yield score


def training_scores(ground: Ground, step: Step, *, steps: int, task: Task) -> Iterator[Score]:
    """Take `steps` on the training batches of the recipe, epoch after epoch."""
    with closing(ground.plan.sample_loader(ground.data, step.state.recipe, ALONE)) as loader:
        batches = on_device(endless(loader), step.device)
        yield from scores(step, (next(batches) for _ in range(steps)), task)


def validation(ground: Ground, model: nn.Module, progress: Progress) -> Score:
    """The score of `model` on some validation images, evenly over all of them."""
    val = ground.data.val
    mask = np.zeros(len(val), dtype=np.bool_)
    mask[val.spread(_VAL_IMAGES)] = True
    validator = Validator(
        val.chosen(mask),
        ground.checkpoint.preprocessing,
        place=ground.place,
        batch_size=ground.recipe.batch_size,
        amp=ground.recipe.amp,
    )
    with closing(validator):
        return validator.score(model, progress)


def hindrances(recipe: Recipe) -> Sequence[str]:
    """The choices of `recipe` that the first rungs leave out, by the names of their options."""
    names = [name for name, value in _OFF.items() if getattr(recipe, name) != value]
    return [name.replace("_", " ") for name in names]


def _in_one_epoch(checkpoint: Checkpoint) -> Checkpoint:
    """The schedule of all epochs as one epoch, where it falls over the whole of them."""
    recipe = checkpoint.recipe
    if recipe.schedule not in FIXED_LENGTH:
        return checkpoint  # its falls come after whole epochs, which no ladder goes through
    warmup = recipe.warmup_epochs / recipe.epochs
    return replace(checkpoint, recipe=replace(recipe, epochs=1, warmup_epochs=warmup))


def _keep_all_outputs(model: nn.Module) -> None:
    """Let no output of `model` be dropped."""
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        if name := _CHANCES.get(type(module).__name__):
            setattr(module, name, 0.0)
