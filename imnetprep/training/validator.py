"""A network's score on a split: every image exactly once, hits counted in whole images."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from imnetprep.devices.device import Place
from imnetprep.devices.precision import autocast
from imnetprep.loading.batches import Batch
from imnetprep.loading.device_cache import DeviceCache
from imnetprep.loading.loader import Loader
from imnetprep.loading.order import in_turn
from imnetprep.loading.ram_cache import RamCache
from imnetprep.messages import Progress
from imnetprep.pixels.transforms import Normaliser, Preprocessing, ValTransform
from imnetprep.process_group.ranks import ALONE, Ranks
from imnetprep.process_group.stop_request import StopRequest
from imnetprep.samples.bad_images import BadImages
from imnetprep.samples.sample_list import SampleList
from imnetprep.training.meters import Meter, Score, score_of

OnLogits = Callable[[Tensor, Tensor], None]


class Validator:
    """Scores a network on the same samples again and again."""

    def __init__(
        self,
        samples: SampleList,
        preprocessing: Preprocessing,
        *,
        place: Place,
        batch_size: int,
        amp: bool,
        ranks: Ranks = ALONE,
        bad: BadImages | None = None,
        cache: RamCache | DeviceCache | None = None,
    ) -> None:
        self._device, self._amp, self._ranks = place.device, amp, ranks
        # How many answers were wrong, and right, of each class in turn.
        self._answers = torch.zeros(2 * len(samples.wnids), dtype=torch.int64, device=place.device)
        self.class_hits = [(0, 0)] * len(samples.wnids)  # top-1, images
        self._normaliser = Normaliser(preprocessing, place.device)
        self._loader = Loader(
            samples,
            ValTransform(preprocessing),
            order=in_turn(len(samples), samples.order),
            batch_size=batch_size,
            workers=place.workers,
            pin_memory=place.device.type == "cuda",
            share=ranks.slice,
            bad=bad,
            cache=cache,
        )
        self.unread = self._loader.unread  # samples that the last score leaves out, by this rank

    def close(self) -> None:
        """End the workers that read images."""
        self._loader.close()

    @torch.inference_mode()
    def score(
        self,
        model: nn.Module,
        progress: Progress,
        *,
        title: str = "validation",
        stop: StopRequest | None = None,
        on_logits: OnLogits | None = None,
    ) -> Score:
        """The score of `model`, which is left in evaluation mode, by all ranks together.

        `on_logits` gets the logits and the labels of each batch of this rank, in order. Without an
        image the score is that of none. Raises StopNow once one of them is asked to stop.
        """
        if not self._loader.images:
            return Score(0.0, 0, 0, 0)
        model.eval()
        self._ranks.share_buffers(model)
        self._answers.zero_()
        meter, batches = Meter(self._device), self._loader.batches(0)
        with progress.task(title, total=self._loader.images, unit="images") as task:
            for step in range(self._loader.steps):
                with self._ranks.together(stop or StopRequest()):
                    self._add(next(batches), model, meter, on_logits)
                task.advance(self._loader.images_of(step))
        answers = {str(place): number for place, number in enumerate(self._answers.tolist())}
        sums = self._ranks.totals(meter.sums() | answers | {"left_out": len(self.unread)})
        pairs = zip(*[(int(sums[place]) for place in answers)] * 2, strict=True)
        self.class_hits = [(right, wrong + right) for wrong, right in pairs]
        score = score_of(sums)
        with self._ranks.one_voice():
            self._loader.require_some(read=score.images, left_out=score.left_out)
        return score

    def _add(
        self, batch: Batch, model: nn.Module, meter: Meter, on_logits: OnLogits | None
    ) -> None:
        if len(batch.labels):
            labels = batch.labels.to(self._device, non_blocking=True)
            with autocast(self._device, is_on=self._amp):
                logits = model(self._normaliser.normalised(batch.pixels)).float()
            meter.add(nn.functional.cross_entropy(logits, labels), logits, labels)
            places = 2 * labels + (logits.argmax(dim=1) == labels)
            self._answers.index_add_(0, places, torch.ones_like(places))
            if on_logits:
                on_logits(logits, labels)
