"""Encoded images decoded, checked and made smaller: the one home of Pillow's codecs.

EXIF orientation is applied where a dataset says so, and not otherwise, as in the classic
ImageFolder pipeline: the published accuracies were reached that way. An image that is made here
carries no orientation, so that nobody turns it, and no colour profile: the pixels are those that
the pipeline sees, which applies none.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError, features

from imnetprep.image_kinds import kind_of, why_unread

# As many as Pillow reads: up to 1.4 GB, at 8 bytes a pixel where some are transparent, else 4.
MOST_PIXELS = 178_956_970
# Pillow warns of so many and refuses the double: what --resize makes smaller may have that many.
Image.MAX_IMAGE_PIXELS = 2 * MOST_PIXELS
_LARGEST_JPEG_PX = 65_500  # libjpeg's

_TAGS = ExifTags.Base
_SAMPLE_FORMAT, _WHOLE_NUMBERS = 339, 1
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


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


class _Refusal(ValueError):
    """Why an image is not decoded: a sentence but for its subject."""


class _Giant(_Refusal):
    """An image that is read only to make it smaller."""


def resized_jpeg(body: bytes, resize: Resize, *, apply_orientation: bool = False) -> ResizedImage:
    """The image in `body` as an RGB JPEG whose shorter side is at most `resize.side_px`.

    Never larger than it was, and of the same shape to the pixel. An RGB JPEG that is small enough
    is left as it is, with its orientation; grey, CMYK or PNG is written anew. Raises ValueError as
    `decode_rgb` does, but reads images of four times as many pixels.
    """
    with _problems_as_values(body):
        image, whole = _loaded(body, side_px=resize.side_px)
        size = _fitted(whole, resize.side_px)
        if (image.format, image.mode, whole) == ("JPEG", "RGB", size):
            return ResizedImage(body, None)
        if max(size) > _LARGEST_JPEG_PX:
            raise _Refusal(f"has a side of {max(size)} pixels: {_LARGEST_JPEG_PX} fit in a JPEG")
        turn = _turn(image) if apply_orientation else None
        plain = _plain(image, on_white=apply_orientation)
    if size != whole:
        # Lanczos keeps the most of what a training crop will look at.
        plain = plain.resize(size, Image.Resampling.LANCZOS)
    if turn is not None:
        plain = plain.transpose(turn)
    plain.info.clear()  # a comment would be copied
    file = io.BytesIO()
    plain.save(file, "JPEG", quality=resize.quality, subsampling="4:2:0")
    verb = "re-encoded" if size == whole else f"resized {resize.side_px}"
    return ResizedImage(file.getvalue(), f"{verb} q{resize.quality}")


def decode_rgb(body: bytes, *, apply_orientation: bool = False) -> Image.Image:
    """The image in `body` as RGB, whatever it was: CMYK, grey, palette, PNG under a JPEG name.

    16 bits are scaled to 8, and of an animation the first frame is seen. With `apply_orientation`,
    as images of one's own are seen, EXIF turns it and what is transparent lies over white; without,
    as published ones were, neither. Raises ValueError that says why it cannot be decoded to its
    last pixel.
    """
    with _problems_as_values(body):
        image, _ = _loaded(body)
        turn = _turn(image) if apply_orientation else None
        plain = _plain(image, on_white=apply_orientation)
        return plain if turn is None else plain.transpose(turn)


def exact_grey(body: bytes) -> NDArray[np.int64]:
    """The grey values of the image in `body`, (H, W), as they are stored: of 1, 8 or 16 bits.

    Raises ValueError where it keeps none: a JPEG, an image with colours or with transparency.
    """
    if kind_of(body) == "JPEG":
        raise ValueError("is a JPEG, which keeps no exact values")
    with _problems_as_values(body):
        image, _ = _loaded(body)
        is_opaque = not image.has_transparency_data or (
            min(image.convert("RGBA").getchannel("A").getextrema()) == 255
        )
        if not is_opaque:
            raise _Refusal("has transparent pixels")
        if image.mode.startswith(("I", "F")):
            return np.asarray(image).astype(np.int64)
        values = np.asarray(image.convert("RGB"))
    if (values != values[..., :1]).any():
        raise ValueError("has colours")
    return values[..., 0].astype(np.int64)


def is_turned(body: bytes) -> bool:
    """Does the EXIF of the image in `body` ask to turn it? Raises ValueError."""
    with _problems_as_values(body):
        if (kind := kind_of(body)) is None:
            raise _Refusal(why_unread(body))
        return _turn(Image.open(io.BytesIO(body), formats=(kind,))) is not None


def encode_png(planes: bytes, side_px: int) -> bytes:
    """A square RGB image as PNG, lossless, from its planes: all red, all green, all blue."""
    return _encoded(planes, side_px, "PNG")


def encode_grey_png(pixels: bytes, width: int, height: int) -> bytes:
    """An image of grey pixels, row after row, as PNG, lossless."""
    file = io.BytesIO()
    Image.frombytes("L", (width, height), pixels).save(file, "PNG")
    return file.getvalue()


def encode_jpeg(planes: bytes, side_px: int) -> bytes:
    """A square RGB image as a JPEG to look at, from its planes as `encode_png` has them."""
    return _encoded(planes, side_px, "JPEG")


def _encoded(planes: bytes, side_px: int, form: str) -> bytes:
    size = (side_px, side_px)
    step = side_px * side_px
    bands = [Image.frombytes("L", size, planes[at * step : (at + 1) * step]) for at in range(3)]
    file = io.BytesIO()
    Image.merge("RGB", bands).save(file, form)
    return file.getvalue()


def decoding_problem(body: bytes, *, giants: bool = False) -> str | None:
    """Why `body` cannot be fully decoded, or None if it can: "is empty", "is a web page, …".

    With `giants` None too of one that is read only to make it smaller: it is not decoded.
    """
    try:
        decode_rgb(body)
    except _Giant as error:
        return None if giants else str(error)
    except ValueError as error:
        return str(error)
    return None


def jpeg_header_problem(file: IO[bytes]) -> str | None:
    """Why the JPEG `file` cannot be opened, or None: its pixels are not decoded."""
    try:
        with _problems_as_values(b"\xff\xd8\xff"):
            Image.open(file, formats=("JPEG",))
    except ValueError as error:
        return str(error)
    return None


def shorter_side(body: bytes) -> int:
    """The shorter side of the image in `body`, px, by its header. Raises ValueError."""
    return min(size_of(body))


def size_of(body: bytes) -> tuple[int, int]:
    """Width and height of the image in `body`, px, by its header. Raises ValueError."""
    with _problems_as_values(body):
        kind = kind_of(body)
        if kind is None or (kind == "AVIF" and not _reads_avif()):
            raise _Refusal(why_unread(body))
        if kind == "PNG":
            body = _without_texts(body)  # of which Pillow refuses those of more than a megabyte
        return Image.open(io.BytesIO(body), formats=(kind,)).size


def readable_kinds() -> str:
    """The kinds of images that are read, as a sentence lists them."""
    return "JPEG, PNG, WebP, GIF, BMP, TIFF" + (", PPM and AVIF" if _reads_avif() else " and PPM")


@contextmanager
def _problems_as_values(body: bytes) -> Iterator[None]:
    """Whatever is wrong with the image in `body` while it is used becomes a ValueError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a broken EXIF block says nothing about the pixels
            yield
    except (_Refusal, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise ValueError("has more than 716 million pixels") from error
    except UnidentifiedImageError as error:
        kind = kind_of(body)
        raise ValueError(
            f"does not decode: begins as a {kind}, damaged or of a rare form"
        ) from error
    except Exception as error:  # Pillow meets foreign bytes with almost any exception
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk
        raise ValueError(f"does not decode: {error or type(error).__name__}") from error


def _loaded(body: bytes, *, side_px: int | None = None) -> tuple[Image.Image, tuple[int, int]]:
    """The image in `body` and its size; a giant JPEG is decoded no larger than `side_px` needs.

    Raises _Refusal, or whatever Pillow raises.
    """
    kind = kind_of(body)
    if kind is None or (kind == "AVIF" and not _reads_avif()):
        raise _Refusal(why_unread(body))
    try:
        return _load(body, kind, side_px)
    except ValueError:
        # Pillow refuses texts and profiles of more than a megabyte: the pixels do without.
        if kind != "PNG" or (plain := _without_texts(body)) == body:
            raise
        return _load(plain, kind, side_px)


def _load(body: bytes, kind: str, side_px: int | None) -> tuple[Image.Image, tuple[int, int]]:
    image = Image.open(io.BytesIO(body), formats=(kind,))
    size = image.size
    if size[0] * size[1] > MOST_PIXELS:
        if side_px is None:
            raise _Giant(
                f"has {size[0]} × {size[1]} pixels: at most 179 million are read, or 716 million"
                " where --resize makes images smaller"
            )
        image.draft("RGB", _fitted(size, 2 * side_px))  # a JPEG to ½, ¼ or ⅛ of its size
    image.load()
    if getattr(image, "tag_v2", {}).get(_TAGS.NewSubfileType, 0) & 1:
        raise _Refusal("begins with a preview, as cameras' raw files do: convert it to JPEG")
    return image, size


def _plain(image: Image.Image, *, on_white: bool) -> Image.Image:
    """The image as 8-bit RGB, what is transparent over white or in the colour that it hides.

    Raises _Refusal where no white is known.
    """
    if image.mode.startswith(("I", "F")):
        image = _eight_bits(image)
    if on_white and image.has_transparency_data:
        image = image.convert("RGBA")
        plain = Image.new("RGB", image.size, "white")
        plain.paste(image, mask=image)
        return plain
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 9 to 16 bits as 8, scaled: Pillow would take all above 255 for white."""
    tags = getattr(image, "tag_v2", {})  # of a TIFF; others are of 16 bits
    (bits,), (form,) = (
        tags.get(_TAGS.BitsPerSample, (16,)),
        tags.get(_SAMPLE_FORMAT, (_WHOLE_NUMBERS,)),
    )
    if bits > 16 or form != _WHOLE_NUMBERS:
        raise _Refusal(
            "has floating point, signed or 32-bit pixels, of which none is known to be white:"
            " convert it to 8 or 16 bits"
        )
    grey = image.convert("I").point(lambda value: value * (255 / (2**bits - 1)) + 0.5).convert("L")
    grey.info.pop("transparency", None)  # a number of 16 bits
    return ImageOps.invert(grey) if tags.get(_TAGS.PhotometricInterpretation) == 0 else grey


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What the orientation asks for; Pillow has turned a TIFF already, whoever asked."""
    try:
        return _TURNS.get(image.getexif().get(_TAGS.Orientation, 1))
    except Exception:  # a broken EXIF block says nothing about the pixels
        return None


def _fitted(size: tuple[int, int], side_px: int) -> tuple[int, int]:
    """`size` with its shorter side at most `side_px`, the shape kept."""
    shorter = min(size)
    if shorter <= side_px:
        return size
    return round(size[0] * side_px / shorter), round(size[1] * side_px / shorter)


def _without_texts(png: bytes) -> bytes:
    """The PNG without its texts and its colour profile."""
    chunks, start = [png[:8]], 8
    while start < len(png):
        end = start + 12 + int.from_bytes(png[start : start + 4])
        if png[start + 4 : start + 8] not in (b"tEXt", b"zTXt", b"iTXt", b"iCCP"):
            chunks.append(png[start:end])
        start = end
    return b"".join(chunks)


def _reads_avif() -> bool:
    return "avif" in features.modules and bool(features.check("avif"))
