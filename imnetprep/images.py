"""Encoded images decoded, checked and made smaller: the one home of Pillow's codecs.

EXIF orientation is not applied, as in the classic ImageFolder pipeline: the published accuracies
were reached that way. An image that is made here carries no orientation, so that nobody turns it,
and no colour profile: the pixels are those that the pipeline sees, which applies none.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

# No format that runs a program (EPS); ImageNet has JPEG, and PNG under a JPEG name.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


class Resize(NamedTuple):
    """The shorter side at most `side_px`, as JPEG of `quality` (1 to 100)."""

    side_px: int
    quality: int = 90

    def __str__(self) -> str:
        return f"resize {self.side_px} q{self.quality}"


class ResizedImage(NamedTuple):
    """An encoded image and the change that made it; None: the original, byte for byte."""

    body: bytes
    change: str | None


def resized_jpeg(body: bytes, resize: Resize) -> ResizedImage:
    """The image in `body` as an RGB JPEG whose shorter side is at most `resize.side_px`.

    Never larger than it was, and of the same shape to the pixel. An RGB JPEG that is small enough
    is left as it is; grey, CMYK or PNG is written anew. Raises ValueError as `decode_rgb` does.
    """
    with _opened(body) as image:
        size = _fitted(image.size, resize.side_px)
        if (image.format, image.mode, image.size) == ("JPEG", "RGB", size):
            image.load()  # to its last pixel, as the others
            return ResizedImage(body, None)
        smaller = size != image.size
        plain = image.convert("RGB")
    if smaller:
        # Lanczos keeps the most of what a training crop will look at.
        plain = plain.resize(size, Image.Resampling.LANCZOS)
    plain.info.clear()  # a comment would be copied
    file = io.BytesIO()
    plain.save(file, "JPEG", quality=resize.quality, subsampling="4:2:0")
    verb = f"resized {resize.side_px}" if smaller else "re-encoded"
    return ResizedImage(file.getvalue(), f"{verb} q{resize.quality}")


def decode_rgb(body: bytes) -> Image.Image:
    """The image in `body` as RGB, whatever it was: CMYK, grey, palette, PNG under a JPEG name.

    Raises ValueError that says why it cannot be decoded to its last pixel.
    """
    with _opened(body) as image:
        return image.convert("RGB")


def encode_png(planes: bytes, side_px: int) -> bytes:
    """A square RGB image as PNG, lossless, from its planes: all red, all green, all blue."""
    size = (side_px, side_px)
    step = side_px * side_px
    bands = [Image.frombytes("L", size, planes[at * step : (at + 1) * step]) for at in range(3)]
    file = io.BytesIO()
    Image.merge("RGB", bands).save(file, "PNG")
    return file.getvalue()


def decoding_problem(body: bytes) -> str | None:
    """Why `body` cannot be fully decoded, or None if it can."""
    try:
        decode_rgb(body)
    except ValueError as error:
        return str(error)
    return None


@contextmanager
def _opened(body: bytes) -> Iterator[Image.Image]:
    """The image in `body`; whatever goes wrong while it is used is a ValueError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a broken EXIF block says nothing about the pixels
            with Image.open(io.BytesIO(body), formats=_FORMATS) as image:
                yield image
    except UnidentifiedImageError:
        raise ValueError("is not an image") from None
    except Exception as error:  # Pillow meets foreign bytes with almost any exception
        raise ValueError(f"does not decode: {error}") from error


def _fitted(size: tuple[int, int], side_px: int) -> tuple[int, int]:
    """`size` with its shorter side at most `side_px`, the shape kept."""
    shorter = min(size)
    if shorter <= side_px:
        return size
    return round(size[0] * side_px / shorter), round(size[1] * side_px / shorter)
