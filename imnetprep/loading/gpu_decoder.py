"""Images that the GPU decodes: workers read bytes, and batches are made of them on the device.

nvJPEG has its own arithmetic, whose pixels are not those of libjpeg: so a recipe says that it is
used. What it is not asked for, or refuses, a decoder of the CPU decodes.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from imnetprep.loading.batches import Batch
from imnetprep.loading.order import Keys
from imnetprep.messages import ImnetprepError
from imnetprep.pixels.augmentation import TrainTransform
from imnetprep.pixels.batch_crops import Images, batch_crops
from imnetprep.pixels.decoders import read_header
from imnetprep.samples.sample_list import SampleList
from imnetprep.samples.substitution import Substitution

DecodeBatch = Callable[[list[bytes]], list[Tensor]]


class EncodedBatch(NamedTuple):
    """Encoded images by their keys; one that cannot be read is empty."""

    keys: Keys
    bodies: list[bytes]


class EncodedDataset(Dataset[EncodedBatch]):
    """Batches of encoded images, as workers read them."""

    def __init__(self, samples: SampleList) -> None:
        self._samples = samples

    def __getitems__(self, keys: Keys) -> EncodedBatch:
        return EncodedBatch(keys, [self._read(key % len(self._samples)) for key in keys.numbers])

    def _read(self, index: int) -> bytes:
        try:
            return self._samples.read(index)
        except (OSError, ValueError):
            return b""  # read once more, and told, where it is to be decoded


def nvjpeg(device: torch.device) -> DecodeBatch:
    """What decodes JPEG files on `device`, each to (3, H, W) of uint8, by torchcodec.

    Raises ImnetprepError where torchcodec is not installed.
    """
    try:
        decode = import_module("torchcodec.decoders").decode_jpeg
    except (ImportError, OSError, RuntimeError) as error:  # as where it was made for another torch
        raise ImnetprepError(
            f"--gpu-decode: torchcodec does not load: {str(error).partition(chr(10))[0]}",
            hint="pip install torchcodec, or begin another run without --gpu-decode",
        ) from error
    return lambda bodies: decode(bodies, device=device)


class GpuDecoder:
    """Training batches on `device`, of images that `decode` decodes there."""

    def __init__(
        self,
        samples: SampleList,
        transform: TrainTransform,
        device: torch.device,
        decode: DecodeBatch,
    ) -> None:
        self._samples, self._transform = samples, transform
        self._device, self._decode = device, decode

    def batches(
        self, inputs: Iterable[EncodedBatch], substitution: Substitution
    ) -> Iterator[Batch]:
        """The batches of `inputs`, as `BatchDataset` makes them.

        Raises OSError, and WrongBytes on an image that cannot be read where that is an error.
        """
        for keys, bodies in inputs:
            yield self._batch(keys, self._decoded(bodies), substitution)

    def _batch(
        self, keys: Keys, images: Sequence[Tensor | None], substitution: Substitution
    ) -> Batch:
        bad, pairs, indices = dict[int, str](), list[tuple[int, Tensor]](), list[int]()
        for key, image in zip(keys.numbers, images, strict=True):
            index = key % len(self._samples)
            if image is None:
                image = substitution.item(index, bad, self._by_cpu)
            if image is not None:
                pairs.append((key, image))
                indices.append(index)
        crops = self._crops(keys.epoch, pairs)
        labels = torch.from_numpy(self._samples.labels[indices].astype(np.int64))
        return Batch(crops, labels.to(self._device), bad)

    def _crops(self, epoch: int, pairs: Sequence[tuple[int, Tensor]]) -> Tensor:
        """The crops (B, S, S, 3) that keys and their images (3, H, W) become."""
        keys, images = [key for key, _ in pairs], [image for _, image in pairs]
        sizes = [(image.shape[1], image.shape[2]) for image in images]
        starts = np.cumsum([0, *(height * width for height, width in sizes)])[:-1]
        whole = Images(
            torch.cat([image.permute(1, 2, 0).reshape(-1, 3) for image in images]),
            torch.from_numpy(starts).to(self._device),
            torch.tensor([width for _, width in sizes], device=self._device),
        )
        return batch_crops(
            whole,
            range(len(images)),
            self._transform.outlines(epoch, keys, sizes),
            self._transform.sizes.at(epoch),
            self._transform.interpolation,
        )

    def _decoded(self, bodies: Sequence[bytes]) -> list[Tensor | None]:
        """Images (3, H, W); None for what is no plain JPEG file, or is refused."""
        images: list[Tensor | None] = [None] * len(bodies)
        numbers = [number for number, body in enumerate(bodies) if read_header(body)]
        try:
            found: Sequence[Tensor | None] = self._decode([bodies[number] for number in numbers])
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:  # of one of them, and nobody says of which
            found = [self._alone(bodies[number]) for number in numbers]
        for number, image in zip(numbers, found, strict=True):
            images[number] = image
        return images

    def _alone(self, body: bytes) -> Tensor | None:
        try:
            return self._decode([body])[0]
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            return None

    def _by_cpu(self, index: int) -> Tensor:
        pixels = np.require(self._samples.pixels(index), requirements="W")  # torch warns of others
        return torch.from_numpy(pixels).to(self._device).permute(2, 0, 1)
