"""The pixels of an image and of its mask, and both made to fit a batch."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imnetprep.images import decode_rgb
from imnetprep.messages import WrongBytes
from imnetprep.outside_files import read_file
from imnetprep.pixels.transforms import Pixels, pillow_filter

BACKGROUND, FOREGROUND, VOID = 0, 1, 255  # of the pixels of a mask; void ones do not count
_WHITE = 255  # of the foreground in a file
_MOST_VOID = 0.5  # share of the pixels: more are of a mask that has other values
Mask = NDArray[np.uint8]


class PixelPair(NamedTuple):
    """An image (H, W, 3) and its mask (H, W) of BACKGROUND, FOREGROUND and VOID."""

    pixels: Pixels
    mask: Mask


def read_pair(image: Path, mask: Path) -> PixelPair:
    """The pixels of an image and of its mask, in their own size. Raises WrongBytes, OSError."""
    pixels, values = read_image(image), read_mask(mask)
    if pixels.shape[:2] != values.shape:
        sizes = (f"{width} × {height}" for height, width in (pixels.shape[:2], values.shape))
        raise WrongBytes(
            f"{mask} is not of the size of {image}: {' and '.join(reversed([*sizes]))} px",
            hint="a mask has a pixel for each of its image",
        )
    return PixelPair(pixels, values)


def read_image(path: Path) -> Pixels:
    """The image at `path`, RGB (H, W, 3), turned as its EXIF says. Raises WrongBytes."""
    try:
        return np.array(decode_rgb(read_file(path), apply_orientation=True))
    except ValueError as error:
        raise WrongBytes(
            f"{path} {error}", hint="repair it, or move it and its mask away"
        ) from error


def read_mask(path: Path) -> Mask:
    """The mask at `path`: white is foreground, black background, and all between is void.

    A mask of ones and zeros alone is taken as well. Raises WrongBytes where it is none.
    """
    pixels = read_image(path)
    values = pixels[..., 0]
    if (pixels != values[..., None]).any():
        raise WrongBytes(
            f"{path} is no mask: it has colours", hint="white is foreground, black is background"
        )
    if values.max(initial=0) <= FOREGROUND:
        return values.copy()
    mask = np.full(values.shape, VOID, np.uint8)
    mask[values == 0] = BACKGROUND
    mask[values == _WHITE] = FOREGROUND
    if (void := np.mean(mask == VOID)) > _MOST_VOID:
        raise WrongBytes(
            f"{path} is no mask of white and black: {void:.0%} of its pixels are grey".replace(
                "%", " %"
            ),
            hint="white (255) is foreground, black (0) is background; a JPEG keeps neither",
        )
    return mask


def shrunk(pair: PixelPair, longest_px: int, interpolation: str) -> PixelPair:
    """The pair with the longer side at most `longest_px`, the shape kept."""
    height, width = pair.mask.shape
    if max(height, width) <= longest_px:
        return pair
    scale = longest_px / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    image = Image.fromarray(pair.pixels).resize(size, pillow_filter(interpolation))
    mask = Image.fromarray(pair.mask).resize(size, Image.Resampling.NEAREST)
    return PixelPair(np.asarray(image), np.asarray(mask))


def stacked(pairs: list[PixelPair], *, multiple_px: int) -> tuple[Pixels, Mask]:
    """A batch (B, H, W, 3) and its masks (B, H, W): sides of a multiple, what is added is void."""
    height, width = (
        -(-max(pair.mask.shape[axis] for pair in pairs) // multiple_px) * multiple_px
        for axis in (0, 1)
    )
    pixels = np.empty((len(pairs), height, width, 3), np.uint8)
    masks = np.full((len(pairs), height, width), VOID, np.uint8)
    for at, pair in enumerate(pairs):
        rows, columns = pair.mask.shape
        margins = (0, height - rows), (0, width - columns)
        pixels[at] = np.pad(pair.pixels, (*margins, (0, 0)), mode="edge")
        masks[at, :rows, :columns] = pair.mask
    return pixels, masks
