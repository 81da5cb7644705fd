"""Encoded images to pixels: the one home of Pillow's decoding.

EXIF orientation is not applied, as in the classic ImageFolder pipeline: the published accuracies
were reached that way.
"""

import io
import warnings

from PIL import Image, UnidentifiedImageError

# No format that runs a program (EPS); ImageNet has JPEG, and PNG under a JPEG name.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


def decode_rgb(body: bytes) -> Image.Image:
    """The image in `body` as RGB, whatever it was: CMYK, grey, palette, PNG under a JPEG name.

    Raises ValueError that says why it cannot be decoded to its last pixel.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a broken EXIF block says nothing about the pixels
            with Image.open(io.BytesIO(body), formats=_FORMATS) as image:
                return image.convert("RGB")
    except UnidentifiedImageError:
        raise ValueError("is not an image") from None
    except Exception as error:  # Pillow meets foreign bytes with almost any exception
        raise ValueError(f"does not decode: {error}") from error


def decoding_problem(body: bytes) -> str | None:
    """Why `body` cannot be fully decoded, or None if it can."""
    try:
        decode_rgb(body)
    except ValueError as error:
        return str(error)
    return None
