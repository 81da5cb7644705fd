"""Whatever an ImageNet file is inside, it becomes RGB; what is no image is told in a few words."""

import io
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageDraw

from imnetprep.images import Resize, decode_rgb, decoding_problem, resized_jpeg


def _encoded(mode: str, form: str) -> bytes:
    body = io.BytesIO()
    Image.new(mode, (20, 10), 200 if mode == "L" else None).save(body, form)
    return body.getvalue()


@pytest.mark.parametrize(
    ("mode", "form"),
    [("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("RGB", "PNG"), ("RGBA", "PNG"),
     ("P", "PNG"), ("RGB", "WEBP"), ("P", "GIF"), ("RGB", "BMP"), ("RGB", "TIFF")],
)  # fmt: skip
def test_every_kind_becomes_rgb(mode: str, form: str) -> None:
    image = decode_rgb(_encoded(mode, form))
    assert (image.mode, image.size) == ("RGB", (20, 10))


@pytest.mark.parametrize(
    "body", [b"", b"text", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"]
)
def test_what_is_no_image_is_told(body: bytes) -> None:
    assert decoding_problem(body) == "is not an image"


def test_an_image_cut_short_is_told() -> None:
    problem = decoding_problem(_encoded("RGB", "JPEG")[:-30])
    assert problem is not None and problem.startswith("does not decode: ")


def _drawn(mode: str, size: tuple[int, int], form: str, **options: Any) -> bytes:
    """Red on the left, blue on the right, so that a turned or inverted image shows."""
    image = Image.new("RGB", size, (220, 30, 30))
    ImageDraw.Draw(image).rectangle((size[0] // 2, 0, *size), fill=(30, 30, 220))
    body = io.BytesIO()
    image = image.quantize(4) if mode == "P" else image.convert(mode)  # a palette, not dithered
    image.save(body, form, **options)
    return body.getvalue()


def _turned() -> dict[str, Any]:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to look at it
    return {"exif": exif, "comment": b"a comment", "icc_profile": _srgb()}


def _srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize("size", [(80, 60), (40, 30)])
@pytest.mark.parametrize(
    ("mode", "form", "options"),
    [
        ("CMYK", "JPEG", {}),
        ("L", "JPEG", {}),
        ("RGB", "PNG", {}),  # under a JPEG name or not: the bytes say what it is
        ("P", "PNG", {}),
        ("RGBA", "PNG", {}),
        ("L", "PNG", {}),
        ("P", "GIF", {}),
        ("RGB", "JPEG", _turned()),
    ],
)
def test_every_kind_becomes_a_plain_rgb_jpeg(
    mode: str, form: str, options: dict[str, Any], size: tuple[int, int]
) -> None:
    body = _drawn(mode, size, form, **options)
    made, change = resized_jpeg(body, Resize(30, 85))
    if (mode, form, size) == ("RGB", "JPEG", (40, 30)):
        assert (made, change) == (body, None)
        return
    assert change == ("resized 30 q85" if size == (80, 60) else "re-encoded q85")
    with Image.open(io.BytesIO(made)) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (40, 30))
        assert not dict(image.getexif())
        assert not {"icc_profile", "comment", "exif", "xmp"} & image.info.keys()
        left, right = image.getpixel((5, 15)), image.getpixel((35, 15))
    wanted = decode_rgb(body)
    for seen, at in ((left, 5), (right, 35)):
        pixel = wanted.getpixel((at * size[0] // 40, size[1] // 2))
        assert isinstance(seen, tuple) and isinstance(pixel, tuple)
        assert all(abs(a - b) <= 6 for a, b in zip(seen, pixel, strict=True)), (seen, pixel)


@settings(deadline=None, max_examples=150)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 300), st.booleans())
def test_never_larger_and_of_the_same_shape(
    width: int, height: int, side_px: int, grey: bool
) -> None:
    body = io.BytesIO()
    Image.new("L" if grey else "RGB", (width, height)).save(body, "JPEG")
    made, change = resized_jpeg(body.getvalue(), Resize(side_px, 50))
    with Image.open(io.BytesIO(made)) as image:
        size = image.size
    shorter = min(width, height)
    assert min(size) == min(shorter, side_px)
    if shorter <= side_px:
        assert size == (width, height)
        assert (change is None) is not grey
    scale = min(size) / shorter
    assert abs(size[0] - width * scale) <= 0.5 and abs(size[1] - height * scale) <= 0.5


@pytest.mark.parametrize("size", [(80, 60), (20, 10)])
def test_a_cut_image_is_not_made_smaller_or_passed_on(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="does not decode"):
        resized_jpeg(_drawn("RGB", size, "JPEG")[:-30], Resize(30))
