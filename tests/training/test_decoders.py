"""Decoders: one result, whoever decodes; and the pick of the fastest."""

import io
from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np
import pytest
from PIL import Image

from imnetprep.images import decode_rgb
from imnetprep.messages import ImnetprepError
from imnetprep.pixels import decoders
from imnetprep.pixels.augmentation import Sizes, TrainTransform, resized
from imnetprep.pixels.decoders import PILLOW, decode_pixels, pick_decoder, read_header
from imnetprep.pixels.transforms import Pixels, pillow_filter

pytestmark = pytest.mark.training

LIBRARIES = ("simplejpeg", "torchcodec")


def _photograph(width: int = 61, height: int = 47) -> Image.Image:
    """Not noise, which no JPEG keeps: gradients with an edge."""
    y, x = np.mgrid[:height, :width].astype(float)
    planes = (x * 4, y * 5, 128 + 100 * np.sin(x / 5) * (y > height / 2))
    return Image.fromarray(np.stack(planes, axis=2).clip(0, 255).astype(np.uint8))


def _saved(image: Image.Image, form: str = "JPEG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def _turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return _saved(_photograph(), exif=exif)


def _bodies() -> Mapping[str, bytes]:
    image, whole = _photograph(), _saved(_photograph())
    return {
        "baseline": whole,
        "progressive": _saved(image, progressive=True),
        "no subsampling": _saved(image, subsampling="4:4:4", quality=97),
        "half subsampling": _saved(image, subsampling="4:2:2"),
        "restarts": _saved(image, restart_marker_rows=1),
        "grey": _saved(image.convert("L")),
        "RGB inside": _saved(image, keep_rgb=True),
        "one pixel": _saved(_photograph(1, 1)),
        "one row": _saved(_photograph(300, 1)),
        "upright EXIF": _turned(1),
        "turned": _turned(6),
        "mirrored": _turned(2),
        "upside down": _turned(3),
        "CMYK": _saved(image.convert("CMYK")),
        "PNG": _saved(image, "PNG"),
        "WebP": _saved(image, "WEBP", lossless=True),
        "16 bits": _saved(Image.fromarray(np.arange(900, dtype=np.uint16).reshape(30, 30)), "PNG"),
        "more behind its end": whole + b"more",
        "no end": whole[:-2],
        "cut": whole[: len(whole) // 2],
        "cut, then its end": whole[: len(whole) // 2] + b"\xff\xd9",
        "damaged": whole[:-200] + bytes(198) + b"\xff\xd9",
        "only a head": whole[:100],
        "nothing": b"",
    }


def _answer(body: bytes, decoder: str, *, turn: bool) -> Pixels | str:
    try:
        return decode_pixels(body, decoder=decoder, apply_orientation=turn)
    except (ValueError, OSError) as error:
        return str(error)


@pytest.mark.parametrize("decoder", LIBRARIES)
@pytest.mark.parametrize("turn", [False, True])
def test_pixels_and_problems_are_those_of_pillow(decoder: str, turn: bool) -> None:
    for name, body in _bodies().items():
        expected, answer = (_answer(body, each, turn=turn) for each in (PILLOW, decoder))
        if isinstance(expected, str):
            assert answer == expected, name
        else:
            image = decode_rgb(body, apply_orientation=turn)
            assert isinstance(answer, np.ndarray), name
            assert answer.flags.writeable, name
            assert np.array_equal(answer, np.asarray(image)), name


def _first(rows: int, _height: int, _width: int) -> int:
    return rows


def test_the_upper_rows_are_right_however_few_are_decoded() -> None:
    for name, body in _bodies().items():
        whole = _answer(body, PILLOW, turn=False)
        if isinstance(whole, str):
            continue
        for end in {1, 7, 8, 15, 16, 17, 30, 46, 47} & set(range(len(whole) + 1)):
            pixels = decode_pixels(body, decoder="simplejpeg", rows=partial(_first, end))
            assert pixels.shape == whole.shape, name
            assert np.array_equal(pixels[:end], whole[:end]), (name, end)
    tall = _saved(_photograph(40, 3000))
    pixels = decode_pixels(tall, decoder="simplejpeg", rows=partial(_first, 100))
    assert not np.array_equal(pixels, decode_pixels(tall)), "the rest was left out"


def test_a_crop_looks_at_no_row_below_its_own() -> None:
    image = np.asarray(_photograph(120, 90))
    for index in range(200):
        transform = TrainTransform(Sizes(32, 32), 0.08, 0)
        (crop,) = transform.crops(0, [index])
        expected = transform(image, epoch=0, index=index)
        part = image.copy()
        part[crop.rows(90, 120) :] = 0
        assert np.array_equal(crop.cut(part), expected)


def test_only_plain_files_go_to_other_libraries() -> None:
    plain = {name for name, body in _bodies().items() if read_header(body)}
    damaged = {"cut, then its end", "damaged"}  # by whose header nothing is wrong
    assert plain - damaged == {
        "baseline", "progressive", "no subsampling", "half subsampling", "restarts", "grey",
        "RGB inside", "one pixel", "one row", "upright EXIF",
    }  # fmt: skip


def test_any_header_is_read_to_an_answer() -> None:
    whole = _saved(_photograph())
    for at in range(2, 400):
        for value in (0x00, 0xC3, 0xE1, 0xFF):
            changed = bytearray(whole)
            changed[at] = value
            read_header(bytes(changed))


def test_the_fastest_is_picked_and_all_are_measured() -> None:
    bodies = [_saved(_photograph(400, 300))] * 4
    pick = pick_decoder("auto", [b"", _turned(6), *bodies])
    assert set(pick.rates) == {PILLOW, *LIBRARIES}
    assert pick.rates[pick.decoder] == max(pick.rates.values())
    assert str(pick).startswith(pick.decoder)
    assert pick_decoder("torchcodec", bodies).decoder == "torchcodec"
    assert pick_decoder("auto", [_saved(_photograph(), "PNG")]).decoder == PILLOW
    assert pick_decoder(PILLOW, bodies) == pick_decoder(PILLOW, [])


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A library whose pixels are a level off, and one that does not load."""

    def lighter(body: bytes) -> Pixels:
        return (np.asarray(Image.open(io.BytesIO(body)).convert("RGB")) | 1).astype(np.uint8)

    def missing() -> decoders.Decode:
        raise ImportError("made for another torch")

    libraries = {"lighter": lambda: lighter, "missing": missing}
    monkeypatch.setattr(decoders, "_LIBRARIES", libraries)
    decoders._library.cache_clear()
    yield
    decoders._library.cache_clear()


@pytest.mark.usefixtures("foreign")
def test_a_library_of_other_pixels_is_left_out_and_refused_by_name() -> None:
    bodies = [_saved(_photograph())] * 3
    pick = pick_decoder("auto", bodies)
    assert pick.decoder == PILLOW
    assert set(pick.rates) == {PILLOW}
    with pytest.raises(ImnetprepError, match="other pixels than Pillow"):
        pick_decoder("lighter", bodies)
    with pytest.raises(ImnetprepError, match="missing is not installed") as refused:
        pick_decoder("missing", bodies)
    assert "--decode auto" in refused.value.hint


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_a_crop_is_resized_as_by_pillow(interpolation: str) -> None:
    image = _photograph(300, 200)
    for size in ((300, 200), (40, 30), (9, 160)):
        part = np.asarray(image)[: size[1], : size[0]]
        kernel = pillow_filter(interpolation)
        expected = np.asarray(Image.fromarray(part).resize((64, 64), kernel)).astype(int)
        ours = resized(np.array(part), 64, interpolation)
        assert np.abs(ours - expected).max() <= 1
        mirrored = resized(np.array(part), 64, interpolation, mirror=True)
        assert np.array_equal(mirrored, ours[:, ::-1])
