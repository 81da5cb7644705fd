"""Validation pixels are those of torchvision's Resize and CenterCrop, to the bit."""

import os
import random
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as theirs

from imnetprep.images import decode_rgb
from imnetprep.pixels.transforms import Preprocessing, ValTransform
from imnetprep.recipes.recipe import INTERPOLATIONS

IS_WHOLE = "IMNETPREP_TEST_PARITY" in os.environ


def refuse_difference(image: Image.Image, preprocessing: Preprocessing) -> None:
    """Fail unless we see of `image` what torchvision sees."""
    mode = InterpolationMode(preprocessing.interpolation)
    whole = theirs.resize(image, preprocessing.resize, mode)
    expected = np.asarray(theirs.center_crop(whole, preprocessing.image_size))
    assert np.array_equal(ValTransform(preprocessing)(np.asarray(image)), expected), (
        image.size,
        preprocessing,
    )


def photographs_in(archive: Path) -> Iterator[bytes]:
    with tarfile.open(archive) as outer:
        for member in outer:
            body = outer.extractfile(member)
            assert body is not None
            with tarfile.open(fileobj=body) as inner:
                for each in inner:
                    file = inner.extractfile(each)
                    assert file is not None
                    yield file.read()


def test_of_photographs(real_data: Path) -> None:
    """Of a thousand one in ten; `scripts/bench parity` takes all."""
    bodies = list(photographs_in(real_data / "sample1000" / "ILSVRC2012_img_train.tar"))
    assert len(bodies) == 1000
    for body in bodies[:: 1 if IS_WHOLE else 10]:
        image = decode_rgb(body)
        for interpolation in ("bilinear", "bicubic"):
            refuse_difference(image, Preprocessing(224, 256, interpolation=interpolation))


def _drawn_sizes() -> Iterator[tuple[int, int]]:
    yield from [(1, 1), (1, 300), (300, 1), (3, 1000), (999, 1000), (256, 256)]
    yield from [(224, 224), (256, 4000), (255, 257), (500, 375), (375, 500)]
    chance = random.Random(1)
    for _ in range(30):
        yield chance.randint(1, 700), chance.randint(30, 700)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_of_odd_sizes(interpolation: str) -> None:
    for number, size in enumerate(_drawn_sizes()):
        noise = np.random.default_rng(number).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
        resize = (256, 232, 235)[number % 3]
        preprocessing = Preprocessing(224, resize, interpolation=interpolation)
        refuse_difference(Image.fromarray(noise), preprocessing)


def test_of_a_thread_takes_little_memory() -> None:
    """Whole it would be 6.5 GB; what is seen of it is near to what torchvision would see."""
    noise = np.random.default_rng(0).integers(0, 256, (1, 100_000, 3), dtype=np.uint8)
    seen = ValTransform(Preprocessing(224, 256))(noise).astype(int)
    part = Image.fromarray(noise[:, 49_990:50_010])  # as wide on both sides of the middle
    near = np.asarray(theirs.center_crop(theirs.resize(part, 256), 224)).astype(int)
    assert np.abs(seen - near).max() <= 2
