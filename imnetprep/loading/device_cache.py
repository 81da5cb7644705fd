"""Images that are decoded once, in the memory of the device, where batches are made of them."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch import Tensor

from imnetprep.jobs import IMAGES
from imnetprep.loading.batches import Batch
from imnetprep.loading.order import Keys
from imnetprep.loading.samples import SampleList
from imnetprep.loading.substitution import Substitution
from imnetprep.messages import Progress, WrongBytes
from imnetprep.pixels.augmentation import TrainTransform
from imnetprep.pixels.batch_crops import Images, batch_crops
from imnetprep.pixels.transforms import Pixels, ValTransform


class DeviceCache:
    """The images of a split on `device`: whole for training, cut for validation.

    Raises WrongBytes on the first that cannot be read, unless `skips_bad`.
    """

    def __init__(
        self,
        samples: SampleList,
        transform: TrainTransform | ValTransform,
        device: torch.device,
        progress: Progress,
        *,
        skips_bad: bool = False,
    ) -> None:
        self._transform = transform
        self._errors = dict[int, WrongBytes]()
        images = self._read(samples, progress)
        if self._errors and not skips_bad:
            Substitution(samples).item(min(self._errors), {}, self._readable)
        self._sizes = [image.shape[:2] for image in images]
        starts = list(accumulate((height * width for height, width in self._sizes), initial=0))
        pixels = torch.empty(starts[-1], 3, dtype=torch.uint8, device=device)
        for image, ends in zip(images, pairwise(starts), strict=True):
            body = np.require(image, requirements="W")  # torch warns of others
            pixels[slice(*ends)] = torch.from_numpy(body.reshape(-1, 3))
        widths = torch.tensor([width for _, width in self._sizes], device=device)
        self._images = Images(pixels, torch.tensor(starts[:-1], device=device), widths)
        self._labels = torch.from_numpy(samples.labels.astype(np.int64)).to(device)

    def batches(self, keys: Iterable[Keys], substitution: Substitution) -> Iterator[Batch]:
        """The batches with these keys, made on the device as they are asked for."""
        for epoch, batch_keys in keys:
            bad, pairs = dict[int, str](), list[tuple[int, int]]()
            for key in batch_keys:
                number = substitution.item(key % len(self._labels), bad, self._readable)
                if number is not None:
                    pairs.append((key, number))
            numbers = [number for _, number in pairs]
            pixels = self._pixels(epoch, [key for key, _ in pairs], numbers)
            yield Batch(pixels, self._labels[self._places(numbers)], bad)

    def _places(self, numbers: Sequence[int]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.int64).to(self._labels.device)

    def _pixels(self, epoch: int, keys: Sequence[int], numbers: Sequence[int]) -> Tensor:
        """The crops (B, S, S, 3) that samples of these keys become, of the images `numbers`."""
        transform = self._transform
        if isinstance(transform, ValTransform):
            side_px = transform.side_px
            places = self._images.starts[self._places(numbers)] // side_px**2
            return self._images.pixels.view(-1, side_px, side_px, 3)[places]
        outlines = [
            crop.outline(*self._sizes[number])
            for crop, number in zip(transform.crops(epoch, keys), numbers, strict=True)
        ]
        side_px = transform.sizes.at(epoch)
        return batch_crops(self._images, numbers, outlines, side_px, transform.interpolation)

    def _read(self, samples: SampleList, progress: Progress) -> list[Pixels]:
        """All images, as they stay; one that cannot be read has no pixel, and its error is kept."""
        images = [np.empty((0, 0, 3), np.uint8)] * len(samples)

        def image(number: int) -> Pixels | WrongBytes:
            try:
                pixels = samples.pixels(number)
            except WrongBytes as error:
                return error
            return self._transform(pixels) if isinstance(self._transform, ValTransform) else pixels

        order = range(len(samples)) if samples.order is None else samples.order.tolist()
        title = f"{samples.split} images to the device"
        with progress.task(title, total=len(samples), unit="images") as task:
            results = IMAGES.in_threads(image, order, jobs=None)
            for number, result in zip(order, results, strict=True):
                if isinstance(result, WrongBytes):
                    self._errors[number] = result
                else:
                    images[number] = result
                task.advance(1)
        return images

    def _readable(self, number: int) -> int:
        if number in self._errors:
            raise self._errors[number]
        return number
