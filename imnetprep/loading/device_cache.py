"""Images that are decoded once, in the memory of the device, where batches are made of them."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from imnetprep.jobs import IMAGES
from imnetprep.loading.batches import Batch
from imnetprep.loading.order import Keys
from imnetprep.messages import Progress, WrongBytes
from imnetprep.pixels.augmentation import TrainTransform
from imnetprep.pixels.batch_crops import Images, batch_crops
from imnetprep.pixels.transforms import Pixels, ValTransform
from imnetprep.samples.sample_list import SampleList
from imnetprep.samples.substitution import Substitution

_GROWTH = 1 / 8  # of memory that was too small, beside what is needed at once


class DeviceCache:
    """The images of a split on `device`: whole for training, cut for validation.

    They are read when the first batch is asked for, into `expected_bytes` of memory, or into more
    where they need it.
    """

    def __init__(
        self,
        samples: SampleList,
        transform: TrainTransform | ValTransform,
        device: torch.device,
        progress: Progress,
        *,
        expected_bytes: int,
    ) -> None:
        self._samples, self._transform, self._progress = samples, transform, progress
        self._device, self._expected_bytes = device, expected_bytes
        self._reasons = dict[int, WrongBytes]()
        self._sizes = [(0, 0)] * len(samples)
        self._images: Images | None = None
        self._labels = torch.from_numpy(samples.labels.astype(np.int64)).to(device)

    def batches(self, keys: Iterable[Keys], substitution: Substitution) -> Iterator[Batch]:
        """The batches with these keys, made on the device as they are asked for.

        Raises OSError, and WrongBytes on an image that cannot be read where that is an error.
        """
        if self._images is None:
            self._images = self._read(substitution)
        for epoch, batch_keys in keys:
            bad, pairs = dict[int, str](), list[tuple[int, int]]()
            for key in batch_keys:
                number = substitution.item(key % len(self._labels), bad, self._readable)
                if number is not None:
                    pairs.append((key, number))
            numbers = [number for _, number in pairs]
            pixels = self._pixels(self._images, epoch, [key for key, _ in pairs], numbers)
            yield Batch(pixels, self._labels[self._places(numbers)], bad)

    def _places(self, numbers: Sequence[int]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.int64).to(self._labels.device)

    def _pixels(
        self, images: Images, epoch: int, keys: Sequence[int], numbers: Sequence[int]
    ) -> Tensor:
        """The crops (B, S, S, 3) that samples of these keys become, of the images `numbers`."""
        transform = self._transform
        if isinstance(transform, ValTransform):
            side_px = transform.side_px
            places = images.starts[self._places(numbers)] // side_px**2
            return images.pixels.view(-1, side_px, side_px, 3)[places]
        outlines = transform.outlines(epoch, keys, [self._sizes[number] for number in numbers])
        side_px = transform.sizes.at(epoch)
        return batch_crops(images, numbers, outlines, side_px, transform.interpolation)

    def _read(self, substitution: Substitution) -> Images:
        """All images, as they stay. Of one that cannot be read no pixel is kept, but the reason."""
        samples, transform = self._samples, self._transform

        def image(number: int) -> Pixels | WrongBytes:
            try:
                pixels = samples.pixels(number)
            except WrongBytes as error:
                return error
            return transform(pixels) if isinstance(transform, ValTransform) else pixels

        order = range(len(samples)) if samples.order is None else samples.order.tolist()
        pixels = torch.empty(self._expected_bytes // 3, 3, dtype=torch.uint8, device=self._device)
        starts, end = [0] * len(samples), 0
        title = f"{samples.split} images to {self._device}"
        with self._progress.task(title, total=len(samples), unit="images") as task:
            results = IMAGES.in_threads(image, order, jobs=None)
            for number, result in zip(order, results, strict=True):
                task.advance(1)
                if isinstance(result, WrongBytes):
                    self._reasons[number] = result
                    if not substitution.skips_bad:
                        substitution.item(number, {}, self._readable)
                    continue
                body = np.require(result, requirements="W")  # torch warns of others
                part = torch.from_numpy(body.reshape(-1, 3))
                starts[number], end = end, end + len(part)
                self._sizes[number] = result.shape[0], result.shape[1]
                if end > len(pixels):  # images are larger than those that were measured
                    spare = pixels.new_empty(end - len(pixels) + int(_GROWTH * len(pixels)), 3)
                    pixels = torch.cat([pixels, spare])
                pixels[starts[number] : end] = part
        widths = torch.tensor([width for _, width in self._sizes], device=self._device)
        return Images(pixels[:end], torch.tensor(starts, device=self._device), widths)

    def _readable(self, number: int) -> int:
        if reason := self._reasons.get(number):
            raise WrongBytes(str(reason), hint=reason.hint)
        return number
