"""Whatever an ImageNet file is inside, it becomes RGB; what is no image is told in a few words."""

import io
import struct
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageDraw

from imnetprep import images
from imnetprep.images import Resize, decode_rgb, decoding_problem, readable_kinds, resized_jpeg


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


def _box(brand: bytes, *others: bytes) -> bytes:
    brands = brand + bytes(4) + b"".join(others)
    return struct.pack(">I", 8 + len(brands)) + b"ftyp" + brands + bytes(64)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "is empty"),
        (bytes(500), "is nothing but zeros, as a file whose bytes never reached the disk"),
        (b"\n<!DocType HTML>\n<title>Not here", "is a web page, not an image"),
        (b"<html lang=fr>", "is a web page, not an image"),
        (b'{"error": "no such key"}\n', "is text, not an image"),
        (b"<?xml version='1.0'?><Error/>", "is text, not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is a PostScript document, not an"),
        (b"%PDF-1.7", "is a PDF document, not an image"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid",
            "is a Git LFS pointer (`git lfs pull`",
        ),
        (_box(b"isom"), "is a video, not an image"),
        (_box(b"heic"), "is a HEIC image, as phones make them: `heif-convert` makes a JPEG of it"),
        (_box(b"mif1", b"miaf", b"heix"), "is a HEIC image"),
        (
            b"\0\0\0\x0cjP  \r\n\x87\n",
            "is a JPEG 2000 image, which is not read: convert it to JPEG or PNG",
        ),
        (b"\0\0\2" + bytes(40) + b"TRUEVISION-XFILE.\0", "is a TGA image, which is not read"),
        (b"<?xml version='1.0'?><svg/>", "is an SVG drawing, which is not read"),
        (b"\x07\xfe\x99\x01" * 9, "is not an image of a kind that is read"),
        (b"\x89PNG\r\n\x1a\n", "does not decode: begins as a PNG, damaged or of a rare form"),
        (b"BMW and others", "does not decode: "),
    ],
)
def test_what_is_no_image_is_told_by_what_it_is(body: bytes, problem: str) -> None:
    found = decoding_problem(body)
    assert found is not None and found.startswith(problem)
    with pytest.raises(ValueError) as told:
        resized_jpeg(body, Resize(8))
    assert str(told.value) == found


def test_avif_is_read_where_pillow_can_and_else_named(monkeypatch: pytest.MonkeyPatch) -> None:
    body = io.BytesIO()
    try:
        Image.new("RGB", (20, 10), "red").save(body, "AVIF")
    except KeyError:
        body.write(_box(b"avif", b"mif1"))
    else:
        assert readable_kinds().endswith("PPM and AVIF")
        assert decode_rgb(body.getvalue()).size == (20, 10)
        monkeypatch.setattr(images, "_reads_avif", lambda: False)
    problem = decoding_problem(body.getvalue())
    assert problem == "is an AVIF image, which Pillow reads from 11.3 on"
    assert readable_kinds().endswith("TIFF and PPM")


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
    assert abs(size[0] - width * scale) < 0.501 and abs(size[1] - height * scale) < 0.501


@pytest.mark.parametrize("size", [(80, 60), (20, 10)])
def test_a_cut_image_is_not_made_smaller_or_passed_on(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="does not decode"):
        resized_jpeg(_drawn("RGB", size, "JPEG")[:-30], Resize(30))


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _png(
    size: tuple[int, int], *, depth: int, colour: int, pixels: bytes, extra: bytes = b""
) -> bytes:
    """A PNG of one line, or of none that can be read."""
    head = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0)
    data = _chunk(b"IDAT", zlib.compress(b"\0" + pixels))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + extra + data + _chunk(b"IEND", b"")


def _tiff(
    pixels: bytes, *, bits: int, photometric: int = 1, bands: int = 1, form: int = 1, kind: int = 0
) -> bytes:
    """A little-endian TIFF of one line of `pixels`, not compressed."""
    width = len(pixels) * 8 // bits // bands
    tags = {254: kind, 256: width, 257: 1, 258: bits, 259: 1, 262: photometric, 273: 8, 277: bands,
            278: 1, 279: len(pixels), 339: form}  # fmt: skip
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    ends = struct.pack("<I", 8 + len(pixels)) + pixels + struct.pack("<H", len(tags))
    return b"II*\0" + ends + table + bytes(4)


_RAMP = (0, 128, 20_000, 65_535)
_SEEN = (0, 0, 78, 255)


def _saved(form: str, mode: str) -> bytes:
    body = io.BytesIO()
    order = ">" if mode == "I;16B" else "<"
    Image.frombytes(mode, (4, 1), struct.pack(f"{order}4H", *_RAMP)).save(body, form)
    return body.getvalue()


@pytest.mark.parametrize(
    "body",
    [
        _saved("PNG", "I;16"),
        _saved("TIFF", "I;16"),
        _saved("TIFF", "I;16B"),
        _saved("PPM", "I;16"),
        _tiff(struct.pack("<4H", *(65_535 - grey for grey in _RAMP)), bits=16, photometric=0),
        _tiff(bytes.fromhex("0000084e2fff"), bits=12),
        _png((4, 1), depth=16, colour=0, pixels=struct.pack(">4H", *_RAMP),
             extra=_chunk(b"tRNS", struct.pack(">H", 7))),
    ],
)  # fmt: skip
def test_grey_of_more_than_8_bits_is_scaled_and_never_clipped(body: bytes) -> None:
    for image in (
        decode_rgb(body),
        Image.open(io.BytesIO(resized_jpeg(body, Resize(8, 100)).body)),
    ):
        assert image.mode == "RGB"
        for at, wanted in enumerate(_SEEN):
            assert image.getpixel((at, 0)) == pytest.approx((wanted,) * 3, abs=2)


def test_colour_of_16_bits_is_scaled() -> None:
    pixels = (0, 300, 65_535, 20_000, 40_000, 60_000)
    for body in (
        _png((2, 1), depth=16, colour=2, pixels=struct.pack(">6H", *pixels)),
        _tiff(struct.pack("<6H", *pixels), bits=16, photometric=2, bands=3),
    ):
        assert list(decode_rgb(body).tobytes()) == [value >> 8 for value in pixels]


@pytest.mark.parametrize(
    ("code", "bits", "form"), [("f", 32, 3), ("I", 32, 1), ("i", 32, 2), ("h", 16, 2)]
)
def test_pixels_without_a_known_white_are_refused(code: str, bits: int, form: int) -> None:
    problem = decoding_problem(_tiff(struct.pack(f"<2{code}", 0, 1), bits=bits, form=form))
    assert problem is not None
    assert problem.startswith("has floating point, signed or 32-bit pixels, of which none is known")


def test_the_preview_of_a_raw_file_is_not_taken_for_the_image() -> None:
    raw = _tiff(bytes(12), bits=8, photometric=2, bands=3, kind=1)
    assert decoding_problem(raw) == (
        "begins with a preview, as cameras' raw files do: convert it to JPEG"
    )


def _half_seen(mode: str, form: str) -> bytes:
    """Black and opaque, half transparent, and not to be seen (over a colour that would show)."""
    body, image = io.BytesIO(), Image.new("RGBA", (3, 1), (0, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 128))
    image.putpixel((2, 0), (90, 90, 90, 0))
    image.convert(mode).save(
        body, form, **({"lossless": True, "exact": True} if form == "WEBP" else {})
    )
    return body.getvalue()


@pytest.mark.parametrize(("mode", "form"), [("RGBA", "PNG"), ("LA", "PNG"), ("RGBA", "WEBP")])
def test_what_is_transparent_lies_over_white(mode: str, form: str) -> None:
    body = _half_seen(mode, form)
    seen = decode_rgb(body, apply_orientation=True)
    assert list(seen.tobytes()) == [0] * 3 + [127] * 3 + [255] * 3
    with Image.open(io.BytesIO(body)) as image:
        assert decode_rgb(body).tobytes() == image.convert("RGB").tobytes(), "as published"


@pytest.mark.parametrize("form", ["PNG", "GIF"])
def test_a_transparent_colour_of_a_palette_lies_over_white(form: str) -> None:
    image, body = Image.new("P", (2, 1), 1), io.BytesIO()
    image.putpalette([10, 20, 30, 200, 100, 0])
    image.putpixel((0, 0), 0)
    image.save(body, form, transparency=0)
    seen = decode_rgb(body.getvalue(), apply_orientation=True)
    assert list(seen.tobytes()) == [255, 255, 255, 200, 100, 0]


def test_a_transparent_colour_without_a_palette_lies_over_white() -> None:
    key = _chunk(b"tRNS", struct.pack(">3H", 9, 8, 7))
    body = _png((2, 1), depth=8, colour=2, pixels=bytes((9, 8, 7, 9, 8, 6)), extra=key)
    seen = decode_rgb(body, apply_orientation=True)
    assert list(seen.tobytes()) == [255, 255, 255, 9, 8, 6]


@pytest.mark.parametrize(
    ("mode", "form"),
    [("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("RGB", "PNG"), ("L", "PNG"), ("P", "PNG"),
     ("1", "PNG")],
)  # fmt: skip
def test_pixels_of_published_images_are_those_of_pillow(mode: str, form: str) -> None:
    body = _drawn(mode, (40, 30), form, **(_turned() if form == "JPEG" else {}))
    with Image.open(io.BytesIO(body)) as image:
        assert decode_rgb(body).tobytes() == image.convert("RGB").tobytes()


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_of_an_animation_is_seen(form: str) -> None:
    frames, body = (
        [Image.new("RGB", (8, 8), name) for name in ("red", "blue", "lime")],
        io.BytesIO(),
    )
    frames[0].save(body, form, save_all=True, append_images=frames[1:])
    assert decode_rgb(body.getvalue()).getpixel((4, 4)) == pytest.approx((255, 0, 0), abs=3)


@pytest.mark.parametrize(
    ("name", "size", "count"),
    [(b"zTXt", 2_000_000, 1), (b"iCCP", 2_000_000, 1), (b"zTXt", 1_000_000, 70)],
)  # Pillow has a limit for each, and one for all texts together
def test_a_png_is_read_without_its_long_texts(name: bytes, size: int, count: int) -> None:
    long = _chunk(name, b"a name\0\0" + zlib.compress(bytes(size)))
    image = _png((2, 1), depth=8, colour=0, pixels=b"\x11\x99")
    end = image.index(b"IDAT") - 4
    for body in (
        image[:end] + long * count + image[end:],
        image[:-12] + long * count + image[-12:],
    ):
        assert list(decode_rgb(body).tobytes()) == [0x11] * 3 + [0x99] * 3
    cut = image[:end] + long * count + image[end : end + 12]
    assert decoding_problem(cut) is not None


def test_a_giant_is_told_with_the_limit_and_the_way_on() -> None:
    assert decoding_problem(_png((14_000, 14_000), depth=1, colour=0, pixels=b"")) == (
        "has 14000 × 14000 pixels: at most 179 million are read, or 716 million where --resize"
        " makes images smaller"
    )
    for giant in (
        _png((40_000, 40_000), depth=1, colour=0, pixels=b""),
        b"GIF89a" + bytes([255] * 4) + bytes(3) + b"," + bytes(4) + bytes([255] * 4) + bytes(9),
    ):
        with pytest.raises(ValueError, match="has more than 716 million pixels"):
            resized_jpeg(giant, Resize(64))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_a_giant_is_made_smaller(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MOST_PIXELS", 600_000)
    body = _drawn("RGB", (1201, 903), form)
    assert "pixels: at most" in str(decoding_problem(body))
    assert decoding_problem(body, giants=True) is None
    made = decode_rgb(resized_jpeg(body, Resize(50)).body)
    assert made.size == (67, 50)
    assert made.getpixel((10, 25)) == pytest.approx((220, 30, 30), abs=6)
    assert made.getpixel((55, 25)) == pytest.approx((30, 30, 220), abs=6)


def test_an_image_that_is_too_wide_for_a_jpeg_is_told() -> None:
    with pytest.raises(ValueError, match="has a side of 70000 pixels: 65500 fit in a JPEG"):
        resized_jpeg(_drawn("L", (70_000, 2), "PNG"), Resize(2))


_CORNER = {1: (0, 0), 2: (1, 0), 3: (1, 1), 4: (0, 1), 5: (0, 0), 6: (1, 0), 7: (1, 1), 8: (0, 1)}


@pytest.mark.parametrize("orientation", _CORNER)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_orientation_is_applied_where_it_is_asked_for(orientation: int, form: str) -> None:
    image, exif, body = Image.new("RGB", (80, 48)), Image.Exif(), io.BytesIO()
    image.paste((255, 255, 255), (0, 0, 16, 16))
    exif[0x0112] = orientation
    image.save(body, form, exif=exif)
    plain = decode_rgb(body.getvalue())
    assert plain.size == (80, 48) and _white_corner(plain) == (0, 0)
    size = (48, 80) if orientation >= 5 else (80, 48)
    turned = decode_rgb(body.getvalue(), apply_orientation=True)
    assert turned.size == size and _white_corner(turned) == _CORNER[orientation]
    smaller = resized_jpeg(body.getvalue(), Resize(24), apply_orientation=True).body
    for apply_orientation in (False, True):  # nobody turns it twice
        made = decode_rgb(smaller, apply_orientation=apply_orientation)
        assert made.size == (size[0] // 2, size[1] // 2)
        assert _white_corner(made) == _CORNER[orientation]


def _white_corner(image: Image.Image) -> tuple[int, int]:
    bright = image.convert("L").point(lambda value: 255 * (value > 128)).getbbox()
    assert bright is not None
    return int(bright[0] > 0), int(bright[1] > 0)


def test_broken_exif_says_nothing_about_the_pixels() -> None:
    body = io.BytesIO()
    Image.new("RGB", (20, 10)).save(body, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff\1")
    assert decode_rgb(body.getvalue(), apply_orientation=True).size == (20, 10)


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"]),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    st.floats(0.1, 1),
)
def test_damaged_bytes_are_an_image_or_a_value_error(
    form: str, changes: list[tuple[float, int]], share: float
) -> None:
    body = bytearray(_drawn("RGB", (24, 16), form))
    for place, value in changes:
        body[int(place * len(body))] = value
    body = body[: int(share * len(body))]
    assert decoding_problem(bytes(body)) != ""


def test_a_size_is_read_of_the_kinds_that_are_decoded_alone() -> None:
    file = io.BytesIO()
    Image.new("RGB", (30, 20)).save(file, "PNG")
    assert images.shorter_side(file.getvalue()) == 20
    for form in ("ICO", "PCX", "TGA"):
        file = io.BytesIO()
        Image.new("RGB", (32, 32)).save(file, form)
        with pytest.raises(ValueError, match=r"\S"):
            images.shorter_side(file.getvalue())
