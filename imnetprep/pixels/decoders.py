"""Decoders of images: several libraries, one result, and the fastest of them here.

Pillow decodes everything, and it alone says what is broken. The others are asked for plain JPEG
files alone (grey or YCbCr of 8 bits, upright, with an end), for which they give Pillow's pixels,
so that no number of a training depends on who decoded its images.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import NamedTuple

import numpy as np

from imnetprep.images import MOST_PIXELS, decode_rgb
from imnetprep.messages import ImnetprepError
from imnetprep.pixels.transforms import Pixels

PILLOW, AUTO = "pillow", "auto"
_SIMPLEJPEG = "simplejpeg"
Decode = Callable[[bytes], Pixels]
Rows = Callable[[int, int], int]

_SECONDS = 2.0  # for all decoders together
_FRAMES, _TABLES = (0xC0, 0xC1, 0xC2), (0xC4, 0xC8, 0xCC)  # of all C0 to CF: not frames
_EXIF, _PROGRESSIVE = 0xE1, 0xC2
# The orientation in a block of EXIF: tag, type, count; then an upright one's value.
_TAGS = (b"\x01\x12\x00\x03\x00\x00\x00\x01", b"\x12\x01\x03\x00\x01\x00\x00\x00")
_UPRIGHT = (_TAGS[0] + b"\x00\x01", _TAGS[1] + b"\x01\x00")


class Header(NamedTuple):
    """Size of a plain JPEG file, px, where its height is written, and the rows of its blocks (MCU).

    No rows: only the whole of it can be decoded, since it is progressive.
    """

    height: int
    width: int
    height_at: int
    block_rows: int


def _simplejpeg() -> Decode:
    decode = import_module(_SIMPLEJPEG).decode_jpeg  # strict: it refuses what is damaged
    return lambda body: decode(body, "RGB")


def _torchcodec() -> Decode:
    decode = import_module("torchcodec.decoders").decode_jpeg
    return lambda body: decode(body).permute(1, 2, 0).numpy()


# torchvision's decoder is left out: slower than both, and about to be removed.
_LIBRARIES: Mapping[str, Callable[[], Decode]] = {
    _SIMPLEJPEG: _simplejpeg,
    "torchcodec": _torchcodec,
}


def decode_pixels(
    body: bytes, *, decoder: str = PILLOW, apply_orientation: bool = False, rows: Rows | None = None
) -> Pixels:
    """The image in `body` as RGB (H, W, 3), by the library of that name where it is plain JPEG.

    Where `rows` says, of H and W, that only so many of the upper ones are looked at, the others may
    be anything. Raises ValueError and OSError as `images.decode_rgb` does.
    """
    if decoder != PILLOW and (header := read_header(body)):
        try:
            if rows and decoder == _SIMPLEJPEG:
                return _upper_rows(body, header, rows(header.height, header.width))
            return _library(decoder)(body)
        except Exception:  # noqa: S110 - whatever it means, Pillow says it in words
            pass
    image = decode_rgb(body, apply_orientation=apply_orientation)
    return np.array(image)  # a copy, which may be written to: torch warns of others


def _upper_rows(body: bytes, header: Header, rows: int) -> Pixels:
    """The image, of which so many of the upper rows are right: a quarter less work for a crop.

    The decoder gets a header with fewer rows, and a block of them more than are looked at, with
    which colours of half the height are interpolated.
    """
    block = header.block_rows
    end = -(-rows // block) * block + block if block else header.height
    if end >= header.height:
        return _library(_SIMPLEJPEG)(body)
    part, pixels = bytearray(body), np.empty((header.height, header.width, 3), np.uint8)
    part[header.height_at : header.height_at + 2] = end.to_bytes(2)
    import_module(_SIMPLEJPEG).decode_jpeg(part, "RGB", buffer=pixels[:end], strict=False)
    return pixels


def read_header(body: bytes) -> Header | None:
    """The header of a whole JPEG file, grey or YCbCr of 8 bits, upright, and no giant; else None.

    The source is ITU-T T.81, annex B.
    """
    if body[:2] != b"\xff\xd8" or body[-2:] != b"\xff\xd9":
        return None
    at = 2
    while at + 19 < len(body) and body[at] == 0xFF:
        marker, length = body[at + 1], int.from_bytes(body[at + 2 : at + 4])
        if marker in _FRAMES:
            bits, planes, factors = body[at + 4], body[at + 9], body[at + 11]
            height, width = (int.from_bytes(body[start : start + 2]) for start in (at + 5, at + 7))
            is_plain = bits == 8 and planes in (1, 3) and 0 < height * width <= MOST_PIXELS
            block_rows = 0 if marker == _PROGRESSIVE else 8 * (factors & 15)
            return Header(height, width, at + 5, block_rows) if is_plain else None
        if not 0xC0 <= marker < 0xFF or (marker < 0xD0 and marker not in _TABLES):
            return None
        if marker == _EXIF:
            block = body[at : at + 2 + length]
            if any(tag in block for tag in _TAGS) and not any(tag in block for tag in _UPRIGHT):
                return None
        at += 2 + length
    return None


@dataclass(frozen=True)
class Pick:
    """The decoder of a loader, and the images/s on one core of all that were measured."""

    decoder: str
    rates: Mapping[str, float]

    def __str__(self) -> str:
        rates = sorted(self.rates.items(), key=lambda pair: -pair[1])
        return ", ".join(f"{name} {rate:,.0f}" for name, rate in rates)


def pick_decoder(option: str, bodies: Iterable[bytes]) -> Pick:
    """The decoder that `option` names; for auto the fastest of those that give Pillow's pixels.

    It decodes the plain JPEG files among `bodies`, for two seconds at most, by all decoders in
    turns. Raises ImnetprepError where the named one is missing, or gives other pixels.
    """
    names = [name for name in (_LIBRARIES if option == AUTO else [option]) if name != PILLOW]
    usable = [name for name in names if _is_usable(name)]
    if option not in (AUTO, PILLOW, *usable):
        raise ImnetprepError(
            f"--decode {option} cannot be used: {option} is not installed, or does not load",
            hint=f"pip install {option}, or --decode {AUTO}",
        )
    if not usable:
        return Pick(PILLOW, {})
    seconds, images, start_s = dict.fromkeys((PILLOW, *usable), 0.0), 0, time.monotonic()
    for body in bodies:
        if not read_header(body):
            continue
        pixels: dict[str, Pixels] = {}
        for name in seconds:
            cpu_s = time.thread_time()
            pixels[name] = decode_pixels(body, decoder=name)
            seconds[name] += time.thread_time() - cpu_s
        strangers = [each for each in usable if not np.array_equal(pixels[each], pixels[PILLOW])]
        if option in strangers:
            raise ImnetprepError(
                f"--decode {option} gives other pixels than Pillow", hint=f"--decode {AUTO}"
            )
        for each in strangers:
            usable.remove(each)
            del seconds[each]
        images += 1
        if time.monotonic() - start_s > _SECONDS:
            break
    rates = {name: images / max(total_s, 1e-9) for name, total_s in seconds.items() if images}
    fastest = max(rates, key=lambda name: rates[name]) if rates else PILLOW
    return Pick(fastest if option == AUTO else option, rates)


def _is_usable(name: str) -> bool:
    try:
        _library(name)
    except Exception:  # as where it was made for another torch
        return False
    return True


@cache
def _library(name: str) -> Decode:
    return _LIBRARIES[name]()
