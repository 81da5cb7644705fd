"""What a training keeps from step to step, as its checkpoint holds it.

At any step that is the weights, the optimizer's memory, the sums of the epoch and the position. All
else (order, crops, dropout, learning rate) is a function of recipe and position.
"""

import math
import time
from dataclasses import replace
from typing import Any

import torch

from imnetprep.devices.compiler import compiled
from imnetprep.devices.precision import make_scaler, memory_of_scaler
from imnetprep.messages import ImnetprepError, count, format_duration
from imnetprep.networks.fine_tuning import freeze, head_of
from imnetprep.process_group.ranks import Ranks
from imnetprep.recipes.recipe import SEGMENT
from imnetprep.recipes.schedule import ends_early, epochs_without_progress, lr_at
from imnetprep.training.average import Average
from imnetprep.training.checkpoint import Best, Checkpoint, Position, outputs_for
from imnetprep.training.mask_meters import AnyScore, MaskMeter
from imnetprep.training.meters import Meter
from imnetprep.training.optimizer import make_optimizer, memory_of, restore_memory

_SECONDS_BETWEEN_LOOKS = 5


class TrainState:
    """A network, its optimizer, and where they are: made from a checkpoint, saved as one.

    `steps` are those of an epoch. `parallel` is the network as it is called in training, on all
    ranks together.
    """

    def __init__(
        self, checkpoint: Checkpoint, device: torch.device, *, steps: int, ranks: Ranks
    ) -> None:
        self._first, self._device, self.steps, self._ranks = checkpoint, device, steps, ranks
        self.recipe = recipe = checkpoint.recipe
        self._new_meter = MaskMeter if recipe.task == SEGMENT else Meter
        self.model = checkpoint.network(device)
        if recipe.sync_batch_norm:
            self.model = ranks.with_one_batch_norm(self.model)
        head = head_of(recipe, classes=outputs_for(recipe, checkpoint.classes))
        freeze(self.model, recipe, head=head)
        self.parallel = ranks.parallel(self.model, device)
        if recipe.compile:
            self.parallel = compiled(self.parallel)
        self.optimizer = make_optimizer(self.model, recipe, head=head)
        restore_memory(self.optimizer, self.model, checkpoint.optimizer)
        self.scaler = make_scaler(device, is_on=recipe.amp, memory=checkpoint.loss_scale)
        self.average = Average(self.model, recipe.ema, checkpoint.average)
        self.position, self.best = checkpoint.position, checkpoint.best
        self.scores = checkpoint.scores
        self.meter = self._new_meter(device)
        self._first_epochs, self._first_s, self._looked_s = 0.0, 0.0, -math.inf  # of progress
        self.seconds = self.waited_s = 0.0
        if checkpoint.sums and ranks.is_first:
            self.meter.restore(checkpoint.sums)
            self.seconds = checkpoint.sums["seconds"]
            self.waited_s = checkpoint.sums["waited_s"]

    @property
    def is_done(self) -> bool:
        """Are all epochs trained and validated, or as many as are worth it?"""
        return self.position.epoch >= self.recipe.epochs or ends_early(self.scores, self.recipe)

    def end(self) -> str:
        """Why it is done, in words."""
        epochs, recipe = count(self.position.epoch, "epoch"), self.recipe
        if self.position.epoch >= recipe.epochs:
            return f"all {epochs} are done" if recipe.epochs > 1 else "its one epoch is done"
        idle = count(epochs_without_progress(self.scores, recipe), "epoch")
        watch = "F-measure" if (recipe.task, recipe.watch) == (SEGMENT, "top1") else recipe.watch
        return f"it ended after {epochs}, {idle} without a better {watch} (--patience)"

    @property
    def is_trained(self) -> bool:
        """Are all steps of the epoch under way done?"""
        return self.position.step >= self.steps

    def lr(self, step: int) -> float:
        """The learning rate of a step of the epoch under way."""
        return lr_at(
            self.position.epoch * self.steps + step,
            self.recipe,
            steps_per_epoch=self.steps,
            scores=self.scores,
        )

    def set_lr(self) -> None:
        """Give the optimizer the learning rate of the step to come."""
        lr = self.lr(self.position.step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]

    def next_step(self) -> None:
        """Go to the next step: the one under way is done."""
        step = self.position.epoch * self.steps + self.position.step
        self.average.follow(self.model, step=step)
        self.position = replace(self.position, step=self.position.step + 1)
        if not self._first_s:
            self._first_epochs, self._first_s = self._epochs, time.monotonic()

    def is_best(self, val: AnyScore, average: AnyScore | None) -> bool:
        """Is the epoch under way better than any before it, by its weights or their average?

        Without validation each epoch is.
        """
        if not self.best or not val.images:
            return True
        better, best = _better(val, average), self.best  # by shares: some may be unreadable
        return better.hits * best.total > best.hits * better.total

    def next_epoch(self, val: AnyScore, average: AnyScore | None) -> None:
        """Go to the next epoch: the one under way is trained, and validated as `val` says.

        `average` is the score of the average of the weights, if there is one.
        """
        number, better = self.position.epoch + 1, _better(val, average)
        if val.images and self.is_best(val, average):
            is_average = better is not val
            self.best = Best(number, better.hits, better.total, is_average=is_average)
        self.position = Position(number)
        share = better.hits / max(better.total, 1)
        self.scores = (*self.scores, better.loss if self.recipe.watch == "loss" else share)
        self.meter = self._new_meter(self._device)
        self.seconds = self.waited_s = 0.0

    def checkpoint(self) -> Checkpoint:
        """The state to save, made by all ranks together.

        Raises ImnetprepError when the loss or a weight is not finite.
        """
        sums = self._ranks.totals(self.meter.sums())
        self._require_finite(sums["loss"])
        weights = self.model.state_dict()
        floats = [tensor for tensor in weights.values() if tensor.is_floating_point()]
        if not bool(torch.stack([tensor.isfinite().all() for tensor in floats]).all()):
            raise self._not_finite()
        return replace(
            self._first,
            weights=weights,
            optimizer=memory_of(self.optimizer, self.model),
            position=self.position,
            sums={**sums, "seconds": self.seconds, "waited_s": self.waited_s},
            best=self.best,
            processes=self._ranks.world,
            scores=self.scores,
            average=self.average.weights(),
            loss_scale=memory_of_scaler(self.scaler),
        )

    def train_score(self) -> AnyScore:
        """The score of the epoch so far, over all ranks."""
        return self.meter.score_of(self._ranks.totals(self.meter.sums()))

    def log_line(self) -> dict[str, Any]:
        """What the log says of the epoch so far, made by all ranks together.

        Raises ImnetprepError where the loss is NaN or infinite.
        """
        score = self.train_score()
        self._require_finite(score.loss)
        return {
            "epoch": self.position.epoch + 1,
            "step": self.position.step,
            "steps": self.steps,
            "lr": self.lr(self.position.step - 1),
            "epoch_loss": score.loss,
            **score.as_steps(),
            "seconds": round(self.seconds, 3),
            "waited_s": round(self.waited_s, 3),
        }

    @property
    def _epochs(self) -> float:
        """How many epochs are trained, the part of the one under way among them."""
        return self.position.epoch + self.position.step / self.steps

    @property
    def is_unseen(self) -> bool:
        """Is it some seconds since the last look?"""
        return time.monotonic() - self._looked_s > _SECONDS_BETWEEN_LOOKS

    def look(self) -> str:
        """Loss and score of the epoch so far, and when the run ends at the pace of this process."""
        score, self._looked_s = self.meter.score(), time.monotonic()
        text = f"loss {score.loss:.3f}, {score.brief()}"
        if epochs := self._epochs - self._first_epochs:
            rest = (self.recipe.epochs - self._epochs) / epochs
            text += f", run ends in {format_duration(rest * (self._looked_s - self._first_s))}"
        return text

    def _require_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise self._not_finite()

    def _not_finite(self) -> ImnetprepError:
        return ImnetprepError(
            f"the loss became NaN or infinite in epoch {self.position.epoch + 1},"
            f" step {self.position.step} (lr {self.lr(self.position.step):.3g})",
            hint=f"begin another run with a lower --lr, such as --lr {self.recipe.lr / 4:.2g},"
            " or a longer --warmup-epochs",
        )


def _better(val: AnyScore, average: AnyScore | None) -> AnyScore:
    is_better = average is not None and average.hits * val.total > val.hits * average.total
    return average if average is not None and is_better else val
