"""What a step of training descends: a batch made ready and mixed, and the loss of its outputs."""

from typing import Any

import torch
from torch import Tensor

from imnetprep.loading.batches import Batch
from imnetprep.loading.samples import SampleList
from imnetprep.loading.transforms import Normaliser
from imnetprep.training.checkpoint import Checkpoint, Position
from imnetprep.training.inputs import class_weights
from imnetprep.training.mixture import Mixture, mixed
from imnetprep.training.model import loss_of


class Objective:
    """The loss that the recipe of `checkpoint` makes of batches of `samples`."""

    def __init__(self, checkpoint: Checkpoint, samples: SampleList, device: torch.device) -> None:
        self._recipe, self._device = checkpoint.recipe, device
        self._classes = len(checkpoint.classes.wnids)
        self._normaliser = Normaliser(checkpoint.preprocessing, device)
        weights = class_weights(self._recipe, samples.labels, classes=self._classes)
        self._weights = None if weights is None else weights.to(device)

    def mixture(self, batch: Batch, position: Position) -> Mixture:
        """The batch as the network sees it at `position`."""
        return mixed(
            self._normaliser.normalised(batch.pixels),
            batch.labels.to(self._device, non_blocking=True),
            self._recipe,
            classes=self._classes,
            position=(position.epoch, position.step),
        )

    def losses(self, output: Any, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The loss to descend () and the main head's loss (), means over the batch."""
        return loss_of(
            output, targets, label_smoothing=self._recipe.label_smoothing, weights=self._weights
        )
