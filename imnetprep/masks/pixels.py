"""The pixels of an image and of its mask, and both made to fit a batch."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imnetprep.images import decode_rgb, exact_grey, is_turned
from imnetprep.messages import WrongBytes
from imnetprep.outside_files import read_file
from imnetprep.pixels.transforms import Pixels, pillow_filter

BACKGROUND, FOREGROUND, VOID = 0, 1, 255  # of the pixels of a mask; void ones do not count
_WHITE, _WHITE_16 = 255, 65_535  # of the foreground in a file of 8 and of 16 bits
_VOID_GREYS = {50, 85, 170}  # of changedetection.net, where a frame may have no foreground
_MOST_GREYS, _MOST_VOID = 16, 0.25  # share of the pixels: more is a photograph
Mask = NDArray[np.uint8]


class PixelPair(NamedTuple):
    """An image (H, W, 3) and its mask (H, W) of BACKGROUND, FOREGROUND and VOID."""

    pixels: Pixels
    mask: Mask


def read_pair(image: Path, mask: Path) -> PixelPair:
    """The pixels of an image and of its mask, in their own size. Raises WrongBytes, OSError."""
    body = read_file(image)
    pixels, values = _pixels_of(image, body), read_mask(mask)
    if is_turned(body):
        raise WrongBytes(
            f"{image} is to be turned, by its EXIF, and whether its mask is too is not known",
            hint="save the image as it is seen, without an orientation",
        )
    if pixels.shape[:2] != values.shape:
        sizes = (f"{width} × {height}" for height, width in (values.shape, pixels.shape[:2]))
        raise WrongBytes(
            f"{mask} is not of the size of {image}: {' and '.join(sizes)} px",
            hint="a mask has a pixel for each of its image",
        )
    return PixelPair(pixels, values)


def read_image(path: Path) -> Pixels:
    """The image at `path`, RGB (H, W, 3), turned as its EXIF says. Raises WrongBytes, OSError."""
    return _pixels_of(path, read_file(path))


def _pixels_of(path: Path, body: bytes) -> Pixels:
    try:
        return np.array(decode_rgb(body, apply_orientation=True))
    except ValueError as error:
        hint = "repair it, or move the image and its mask away"
        raise WrongBytes(f"{path} {error}", hint=hint) from error


def read_mask(path: Path) -> Mask:
    """The mask at `path`: white is foreground, black background, and all between is void.

    A mask of ones and zeros is taken as well. Raises WrongBytes where it is none.
    """
    try:
        values = exact_grey(read_file(path))
    except ValueError as error:
        raise _no_mask(path, str(error)) from error
    present = np.unique(values)
    if set(present) <= {BACKGROUND, FOREGROUND}:
        return values.astype(np.uint8)
    white = _WHITE if present[-1] <= _WHITE else _WHITE_16
    greys = [int(each) for each in present if each not in (0, white)]
    if white not in present and not set(greys) <= _VOID_GREYS:
        raise _no_mask(path, f"its largest value is {present[-1]}")
    if greys == [FOREGROUND]:
        raise _no_mask(path, f"has both {FOREGROUND} and {white}")
    mask = np.full(values.shape, VOID, np.uint8)
    mask[values == 0], mask[values == white] = BACKGROUND, FOREGROUND
    if len(greys) > _MOST_GREYS and (void := np.mean(mask == VOID)) > _MOST_VOID:
        share = f"{100 * void:.0f} %"
        raise _no_mask(path, f"has {len(greys)} kinds of grey in {share} of its pixels")
    return mask


def _no_mask(path: Path, reason: str) -> WrongBytes:
    return WrongBytes(
        f"{path} is no mask: {reason}",
        hint="a PNG in which 255 is foreground, 0 background, and all between is void",
    )


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
