"""A network's score on images with masks: each pixel of the files once, whatever size it sees."""

from collections.abc import Callable
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from imnetprep.devices.device import Place
from imnetprep.devices.precision import autocast
from imnetprep.jobs import FILES
from imnetprep.masks.pairs import PairList
from imnetprep.masks.pixels import PixelPair, read_pair
from imnetprep.messages import Progress
from imnetprep.pixels.transforms import Preprocessing
from imnetprep.process_group.ranks import ALONE, Ranks
from imnetprep.process_group.stop_request import StopRequest
from imnetprep.training.mask_meters import MaskMeter, MaskScore, mask_score
from imnetprep.training.mask_objective import mask_losses
from imnetprep.training.mask_view import logits_of

OnMask = Callable[[int, PixelPair, NDArray[np.float32]], None]


class MaskValidator:
    """Scores a network on the same pairs again and again."""

    def __init__(
        self,
        pairs: PairList,
        preprocessing: Preprocessing,
        *,
        place: Place,
        amp: bool,
        ranks: Ranks = ALONE,
    ) -> None:
        self._pairs, self._preprocessing = pairs, preprocessing
        self._device, self._amp, self._ranks = place.device, amp, ranks
        self.class_hits = [(0, 0)] * 2  # of background and foreground: right pixels, and all

    def close(self) -> None:
        """Nothing is left to close."""

    @torch.inference_mode()
    def score(
        self,
        model: nn.Module,
        progress: Progress,
        *,
        title: str = "validation",
        stop: StopRequest | None = None,
        on_mask: OnMask | None = None,
    ) -> MaskScore:
        """The score of `model`, which is left in evaluation mode, by all ranks together.

        `on_mask` gets the number of each pair of this rank, its pixels, and the logits (H, W) of
        its foreground. Raises StopNow once one of them is asked to stop, WrongBytes.
        """
        if not len(self._pairs):
            return MaskScore(0.0, 0, 0, 0, 0, 0)
        model.eval()
        self._ranks.share_buffers(model)
        meter, pairs = MaskMeter(self._device), self._pairs
        # A step gives each rank one image, and the last ones none where they do not divide.
        steps = [self._ranks.slice(part).tolist()
                 for part in torch.split(torch.arange(len(pairs)), self._ranks.world)]  # fmt: skip
        readings = FILES.in_threads(
            lambda at: (at, read_pair(pairs.images[at], pairs.masks[at])), chain(*steps), jobs=None
        )
        with progress.task(title, total=len(pairs), unit="images") as task:
            for step, numbers in enumerate(steps):
                with self._ranks.together(stop or StopRequest()):
                    batch = [next(readings) for _ in numbers]
                for at, pair in batch:
                    with autocast(self._device, is_on=self._amp):
                        logits = logits_of(model, pair.pixels, self._preprocessing, self._device)
                    masks = torch.from_numpy(pair.mask).to(self._device)[None]
                    meter.add(mask_losses(logits, masks).mean(), logits, masks)
                    if on_mask:
                        on_mask(at, pair, logits[0, 0].cpu().numpy())
                task.advance(min(self._ranks.world, len(pairs) - step * self._ranks.world))
        score = mask_score(self._ranks.totals(meter.sums()))
        self.class_hits = score.class_hits
        return score
