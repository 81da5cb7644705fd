"""The steps of an epoch, and the state of a network in training as a checkpoint holds it.

At any step the state is the weights, the optimizer's memory, the sums of the epoch and the
position. All else (order, crops, dropout, learning rate) is a function of recipe and position.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from imnetprep.messages import ImnetprepError, Progress
from imnetprep.training.checkpoint import Best, Checkpoint, OptimizerState, Position
from imnetprep.training.data import Batch, Loader
from imnetprep.training.meters import Meter
from imnetprep.training.model import heads, loss_of
from imnetprep.training.recipe import Recipe
from imnetprep.training.stop_request import StopRequest
from imnetprep.training.transforms import Normaliser, mixed_seed

_STEPS_BETWEEN_LOOKS = 50  # each look at the loss waits for the device


class Trainer:
    """A network, its optimizer, and where they are: made from a checkpoint, saved as one."""

    def __init__(self, checkpoint: Checkpoint, loader: Loader, device: torch.device) -> None:
        self._start, self._loader, self.device = checkpoint, loader, device
        self.recipe = recipe = checkpoint.recipe
        self.model = checkpoint.network(device)
        self._optimizer = torch.optim.SGD(
            self.model.parameters(),
            lr=recipe.lr,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
        )
        self._restore_optimizer(checkpoint.optimizer)
        self._normaliser = Normaliser(checkpoint.preprocessing, device)
        self.position, self.best = checkpoint.position, checkpoint.best
        self.meter = Meter(device)
        self.seconds = self.waited_s = 0.0
        if checkpoint.sums:
            self.meter.restore(checkpoint.sums)
            self.seconds = checkpoint.sums["seconds"]
            self.waited_s = checkpoint.sums["waited_s"]

    def steps(self, progress: Progress, stop: StopRequest) -> Iterator[None]:
        """Train on the rest of the epoch; hands back control after each step.

        Raises ImnetprepError when the loss becomes NaN or infinite, StopNow between two steps.
        """
        epoch, first = self.position.epoch, self.position.step
        title = f"epoch {epoch + 1}/{self.recipe.epochs}"
        initial = min(first * self.recipe.batch_size, self._loader.images)
        batches = self._loader.batches(epoch, first_step=first)
        self.model.train()
        with progress.task(
            title, total=self._loader.images, unit="images", initial=initial
        ) as task:
            while self.position.step < self._loader.steps:
                begun_s = time.monotonic()
                with stop.honoured():
                    batch = next(batches)
                self.waited_s += time.monotonic() - begun_s
                self._step(batch)
                self.position = replace(self.position, step=self.position.step + 1)
                last = self.position.step == self._loader.steps
                if last or self.position.step % _STEPS_BETWEEN_LOOKS == 0:
                    task.tell(f"loss {self._finite_loss():.3f}")
                self.seconds += time.monotonic() - begun_s
                task.advance(len(batch.labels))
                yield

    def _step(self, batch: Batch) -> None:
        recipe, position = self.recipe, self.position
        for group in self._optimizer.param_groups:
            group["lr"] = self.lr_of(position.step)
        # Dropout's noise: a function of the position, so that a checkpoint keeps no generator.
        torch.manual_seed(mixed_seed(recipe.seed, position.epoch, position.step, "noise"))
        labels = batch.labels.to(self.device, non_blocking=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.amp):
            output = self.model(self._normaliser.normalised(batch.pixels))
        loss, main_loss = loss_of(output, labels, label_smoothing=recipe.label_smoothing)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self.meter.add(main_loss, heads(output)[0], labels)

    def lr_of(self, step: int) -> float:
        """The learning rate of a step of the epoch under way."""
        steps = self._loader.steps
        return lr_at(self.position.epoch * steps + step, self.recipe, steps_per_epoch=steps)

    def next_epoch(self, best: Best | None) -> None:
        """Go to the next epoch: the one under way is trained and validated."""
        self.position, self.best = Position(self.position.epoch + 1), best
        self.meter = Meter(self.device)
        self.seconds = self.waited_s = 0.0

    def checkpoint(self) -> Checkpoint:
        """The state to save. Raises ImnetprepError when the loss or a weight is not finite."""
        self._finite_loss()
        weights = self.model.state_dict()
        floats = [tensor for tensor in weights.values() if tensor.is_floating_point()]
        if not bool(torch.stack([tensor.isfinite().all() for tensor in floats]).all()):
            raise self._not_finite()
        return replace(
            self._start,
            weights=weights,
            optimizer=self._optimizer_state(),
            position=self.position,
            sums={**self.meter.sums(), "seconds": self.seconds, "waited_s": self.waited_s},
            best=self.best,
        )

    def _finite_loss(self) -> float:
        loss = self.meter.score().loss
        if not math.isfinite(loss):
            raise self._not_finite()
        return loss

    def _not_finite(self) -> ImnetprepError:
        return ImnetprepError(
            f"the loss became NaN or infinite in epoch {self.position.epoch + 1},"
            f" step {self.position.step} (lr {self.lr_of(self.position.step):.3g})",
            hint=f"begin another run with a lower --lr, such as --lr {self.recipe.lr / 4:.2g},"
            " or a longer --warmup-epochs",
        )

    def _optimizer_state(self) -> OptimizerState:
        return {
            name: {key: value for key, value in self._optimizer.state[parameter].items()
                   if isinstance(value, Tensor)}
            for name, parameter in self.model.named_parameters()
        }  # fmt: skip

    def _restore_optimizer(self, state: OptimizerState) -> None:
        for name, parameter in self.model.named_parameters():
            for key, value in state.get(name, {}).items():
                if value.shape != parameter.shape:
                    raise ImnetprepError(
                        f"the checkpoint's {key} of {name} has the shape {tuple(value.shape)}",
                        hint="take another checkpoint; this one was altered",
                    )
                self._optimizer.state[parameter][key] = value.to(parameter)


def lr_at(step: int, recipe: Recipe, *, steps_per_epoch: int) -> float:
    """The learning rate of `step`, counted from 0 over all epochs (Loshchilov, Hutter 2016)."""
    steps = recipe.epochs * steps_per_epoch
    warmup_steps = min(steps, round(recipe.warmup_epochs * steps_per_epoch))
    if step < warmup_steps:
        return recipe.lr * (step + 1) / (warmup_steps + 1)
    way = (step - warmup_steps) / (steps - warmup_steps)
    return recipe.lr * (1 + math.cos(math.pi * way)) / 2
