"""Images to what the network sees: crops as uint8, normalised on the device."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

# Of the ImageNet training set, per channel in 0..1, as published models have them.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

_PART_BYTES = 1 << 17  # of uint8, in half a megabyte of float32
_LONGEST_SHAPE = 400  # a long side by a short one, up to which an image is resized whole

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Preprocessing:
    """What a network expects of an image: a checkpoint carries it. Sizes in pixels.

    `apply_orientation`: turned as its EXIF says. `interpolation`: a filter of Pillow.
    """

    image_size: int
    resize: int
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    apply_orientation: bool = False
    interpolation: str = "bilinear"


class Crop(Protocol):
    """What one sample becomes in one epoch."""

    def rows(self, height: int, width: int) -> int:
        """Number of upper rows that are looked at of an image of that size."""
        ...

    def cut(self, pixels: Pixels) -> Pixels:
        """An image (H, W, 3) to pixels (S, S, 3)."""
        ...


class Transform(Protocol):
    """Images (H, W, 3) to pixels (S, S, 3); `is_fixed`: the same in each epoch."""

    is_fixed: ClassVar[bool]

    @property
    def side_px(self) -> int:
        """The largest S."""
        ...

    def crops(self, epoch: int, keys: Sequence[int]) -> Sequence[Crop]:
        """What samples become in an epoch, by their keys."""
        ...

    def __call__(self, pixels: Pixels, *, epoch: int, index: int) -> Pixels: ...


@dataclass(frozen=True)
class ValTransform:
    """The short side to `resize` pixels, the shape kept, then the centre: always the same.

    The pixels are those of torchvision's `Resize` and `CenterCrop` on images of Pillow: its long
    side is cut down to whole pixels, and the corner of the crop is rounded.
    """

    is_fixed: ClassVar[bool] = True
    preprocessing: Preprocessing

    @property
    def side_px(self) -> int:
        """As `Transform.side_px`."""
        return self.preprocessing.image_size

    def crops(self, epoch: int, keys: Sequence[int]) -> "list[ValTransform]":
        """As `Transform.crops`: all alike."""
        return [self] * len(keys)

    def __call__(self, pixels: Pixels, *, epoch: int = 0, index: int = 0) -> Pixels:
        return self.cut(pixels)

    def cut(self, pixels: Pixels) -> Pixels:
        """As `Crop.cut`."""
        image = Image.fromarray(pixels)
        side, resize = self.preprocessing.image_size, self.preprocessing.resize
        kernel, short = pillow_filter(self.preprocessing.interpolation), min(image.size)
        width, height = (resize * length // short for length in image.size)
        x, y = round((width - side) / 2), round((height - side) / 2)
        if max(image.size) <= _LONGEST_SHAPE * short:
            # Whole, then cut: Pillow has the corners of a box as float32, which moves one pixel
            # in 500 by a level, and picks the order of its passes by the size of the result.
            whole = image.resize((width, height), kernel)
            return np.asarray(whole.crop((x, y, x + side, y + side)))
        x_scale, y_scale = image.width / width, image.height / height
        box = (x * x_scale, y * y_scale, (x + side) * x_scale, (y + side) * y_scale)
        return np.asarray(image.resize((side, side), kernel, box=box))

    def rows(self, height: int, width: int) -> int:
        """As `Crop.rows`: all."""
        return height


def pillow_filter(interpolation: str) -> Image.Resampling:
    """Pillow's filter of that name."""
    return Image.Resampling[interpolation.upper()]


class Normaliser:
    """Normalises on `device`; its constants go there once, not at every step."""

    def __init__(self, preprocessing: Preprocessing, device: torch.device | str) -> None:
        self._device = device
        mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
        self._shift, self._scale = (mean * 255).to(device), (1 / (std * 255)).to(device)

    def normalised(self, pixels: Tensor) -> Tensor:
        """Pixels (B, S, S, 3) of uint8 as the network wants them: (B, 3, S, S) of float32."""
        # By whole rows: with three colours in the innermost loop a CPU took half as long again.
        rows, side = pixels.to(self._device, non_blocking=True).flatten(2), pixels.shape[2]
        shift, scale = self._shift.repeat(side), self._scale.repeat(side)
        floats = torch.empty(rows.shape, device=rows.device)
        # A part at a time on a CPU, which then has it in its cache from the first pass to the last.
        images = max(1, _PART_BYTES // (3 * side**2) if rows.is_cpu else len(rows))
        for part, target in zip(
            torch.split(rows, images), torch.split(floats, images), strict=True
        ):
            target.copy_(part).sub_(shift).mul_(scale)
        # The permuted view of rows of RGB is channels-last already: no copy.
        return floats.view(pixels.shape).permute(0, 3, 1, 2)

    def denormalised(self, batch: Tensor) -> Pixels:
        """What the network sees (B, 3, S, S) as pixels (B, S, S, 3) again."""
        pixels = batch.permute(0, 2, 3, 1) / self._scale + self._shift
        return pixels.round_().clamp_(0, 255).to(torch.uint8).cpu().numpy()


def network_view(pixels: Pixels, preprocessing: Preprocessing) -> Pixels:
    """What the network sees of a crop (S, S, 3), as pixels again."""
    normaliser = Normaliser(preprocessing, "cpu")
    batch = torch.from_numpy(pixels.copy())[None]
    view: Pixels = normaliser.denormalised(normaliser.normalised(batch))[0]
    return view
