"""Whatever an ImageNet file is inside, it becomes RGB; what is no image is told in a few words."""

import io

import pytest
from PIL import Image

from imnetprep.images import decode_rgb, decoding_problem


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
