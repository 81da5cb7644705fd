"""What a step of training descends: a batch made ready and mixed, and the loss of its outputs."""

from typing import Any

import torch
from torch import Tensor, nn

from imnetprep.images import encode_png
from imnetprep.loading.batches import Batch
from imnetprep.networks.model import loss_of
from imnetprep.pixels.transforms import Normaliser
from imnetprep.reports.parts import Sample
from imnetprep.samples.sample_list import SampleList
from imnetprep.training.checkpoint import Checkpoint, Position
from imnetprep.training.inputs import class_weights
from imnetprep.training.mixture import Mixture, mixed

_VIEW_IMAGES = 12  # images of a batch


class Objective:
    """The loss that the recipe of `checkpoint` makes of batches of `samples`."""

    def __init__(self, checkpoint: Checkpoint, samples: SampleList, device: torch.device) -> None:
        self._recipe, self._device = checkpoint.recipe, device
        self._classes = len(checkpoint.classes.wnids)
        self._normaliser = Normaliser(checkpoint.preprocessing, device)
        weights = class_weights(self._recipe, samples.labels, classes=self._classes)
        self._weights = None if weights is None else weights.to(device)
        self._names = checkpoint.classes.names
        self._view: Mixture | None = None

    def samples(self) -> list[Sample]:
        """Some images of the first batch of the epoch under way, as the network saw them."""
        if (view := self._view) is None:
            return []
        pixels = self._normaliser.denormalised(view.images)
        shares = view.targets.float()
        if view.targets.ndim == 1:
            shares = nn.functional.one_hot(view.targets, self._classes).float()
        names = []
        for row in shares.cpu():
            pairs = zip(*(each.tolist() for each in row.topk(min(2, len(row)))), strict=True)
            names.append(" + ".join(
                self._names[at] + f" {share:.0%}" * (share < 0.995)
                for share, at in pairs if share > 0.005
            ))  # fmt: skip
        return [
            Sample(encode_png(image.transpose(2, 0, 1).tobytes(), image.shape[0]), name)
            for image, name in zip(pixels, names, strict=True)
        ]

    def mixture(self, batch: Batch, position: Position) -> Mixture:
        """The batch as the network sees it at `position`."""
        mixture = mixed(
            self._normaliser.normalised(batch.pixels),
            batch.labels.to(self._device, non_blocking=True),
            self._recipe,
            classes=self._classes,
            position=(position.epoch, position.step),
        )
        if position.step == 0 or self._view is None:
            self._view = Mixture(*(tensor[:_VIEW_IMAGES].clone() for tensor in mixture))
        return mixture

    def losses(self, output: Any, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The loss to descend () and the main head's loss (), means over the batch."""
        return loss_of(
            output, targets, label_smoothing=self._recipe.label_smoothing, weights=self._weights
        )
