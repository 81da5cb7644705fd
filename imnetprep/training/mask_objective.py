"""What a training on masks descends: how wrong a network is about the pixels that count."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from imnetprep.loading.batches import Batch
from imnetprep.masks.pixels import FOREGROUND, VOID
from imnetprep.messages import WrongUsage, count
from imnetprep.networks.mask_networks import STRIDE_PX
from imnetprep.networks.model import heads
from imnetprep.pixels.transforms import Normaliser
from imnetprep.process_group.ranks import Ranks
from imnetprep.reports.mask_sheet import png, tinted
from imnetprep.reports.parts import Sample
from imnetprep.training.checkpoint import Checkpoint, Position
from imnetprep.training.mixture import Mixture

_VIEW_IMAGES = 12  # images of a batch


class MaskObjective:
    """The loss that the recipe of `checkpoint` makes of batches of images and masks."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device) -> None:
        self._device = device
        self._normaliser = Normaliser(checkpoint.preprocessing, device)
        self._view: Mixture | None = None

    def samples(self) -> list[Sample]:
        """Some images of the first batch of the epoch under way, with their foreground tinted."""
        if (view := self._view) is None:
            return []
        pixels, masks = self._normaliser.denormalised(view.images), view.labels.cpu().numpy()
        return [
            Sample(png(tinted(image, mask)), f"foreground {np.mean(mask == FOREGROUND):.1%}")
            for image, mask in zip(pixels, masks, strict=True)
        ]

    def mixture(self, batch: Batch, position: Position) -> Mixture:
        """The batch as the network sees it at `position`."""
        masks = batch.labels.to(self._device, non_blocking=True)
        mixture = Mixture(self._normaliser.normalised(batch.pixels), masks, masks)
        if position.step == 0 or self._view is None:
            self._view = Mixture(*(tensor[:_VIEW_IMAGES].clone() for tensor in mixture))
        return mixture

    def losses(self, output: Any, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The loss (), twice: the mean over images of `mask_losses`."""
        loss = mask_losses(heads(output)[0], targets).mean()
        return loss, loss


def try_network(checkpoint: Checkpoint, ranks: Ranks) -> None:
    """Raise WrongUsage where the network cannot take a step on parts of a batch as small as asked.

    Some decoders normalise a single value of each image, and others leave parameters out.
    """
    recipe = checkpoint.recipe
    images = max(1, recipe.batch_size // ranks.world // recipe.accumulate)
    network = checkpoint.network(torch.device("cpu")).train()
    state = torch.zeros(images, 3, 2 * STRIDE_PX, 2 * STRIDE_PX)
    try:
        heads(network(state))[0].sum().backward()  # type: ignore[no-untyped-call]
    except ValueError as error:
        raise WrongUsage(
            f"{recipe.arch} takes no batch of {count(images, 'image')}: {error}",
            hint=f"--batch-size {2 * recipe.batch_size // images}, or --arch unet/…",
        ) from error
    if not ranks.is_alone and any(each.grad is None for each in network.parameters()):
        raise WrongUsage(
            f"{recipe.arch} has parameters that no gradient reaches", hint="--devices 1"
        )


def mask_losses(logits: Tensor, masks: Tensor) -> Tensor:
    """The binary cross-entropy of each image (B,), a mean over its pixels that are not void.

    `logits` (B, 1, H, W) are of the foreground, `masks` (B, H, W). Without such a pixel it is 0.
    """
    is_foreground = (masks == FOREGROUND).float()
    losses = nn.functional.binary_cross_entropy_with_logits(
        logits[:, 0].float(), is_foreground, reduction="none"
    )
    counts = (masks != VOID).float()
    return (losses * counts).sum(dim=(1, 2)) / counts.sum(dim=(1, 2)).clamp(min=1)
