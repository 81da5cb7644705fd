"""One step of a training: forward, backward, and the optimizer."""

from dataclasses import dataclass

import torch

from imnetprep.devices.precision import autocast
from imnetprep.loading.batches import Batch
from imnetprep.networks.model import heads
from imnetprep.process_group.ranks import Ranks
from imnetprep.training.mask_objective import MaskObjective
from imnetprep.training.objective import Objective
from imnetprep.training.optimizer import clip_gradients
from imnetprep.training.state import TrainState


@dataclass(frozen=True)
class Step:
    """What takes the steps of `state` down the loss of `objective`, on `device`, by all ranks."""

    state: TrainState
    objective: Objective | MaskObjective
    device: torch.device
    ranks: Ranks

    def take(self, batch: Batch, *, images: int) -> None:
        """Take the step of this rank's `batch`, a part of one of so many `images`."""
        state, recipe, position = self.state, self.state.recipe, self.state.position
        state.set_lr()
        # Dropout's noise: a function of the position, so that a checkpoint keeps no generator.
        torch.manual_seed(self.ranks.noise(recipe.seed, position.epoch, position.step))
        state.optimizer.zero_grad(set_to_none=True)
        parts = batch.parts(recipe.accumulate)
        for number, part in enumerate(parts, 1):
            mixture = self.objective.mixture(part, position)
            with self.ranks.summing(state.parallel, is_last=number == len(parts)):
                with autocast(self.device, is_on=recipe.amp):
                    output = state.parallel(mixture.images)
                loss, main_loss = self.objective.losses(output, mixture.targets)
                # Gradients are summed over parts, and their mean taken over ranks.
                loss = loss * (len(part.labels) * self.ranks.world / images)
                state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            state.meter.add(main_loss, heads(output)[0], mixture.labels)
        if recipe.clip_norm:
            state.scaler.unscale_(state.optimizer)
            clip_gradients(state.model, norm=recipe.clip_norm)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.next_step()
