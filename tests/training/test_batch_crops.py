"""Crops that are made many at once: to the pixel those that are made one by one."""

import random

import numpy as np
import pytest
import torch

from imnetprep.pixels.augmentation import Outline, Sizes, TrainTransform, resized
from imnetprep.pixels.batch_crops import Images, batch_crops
from imnetprep.pixels.transforms import Pixels

pytestmark = pytest.mark.training


def noise(*sizes: tuple[int, int]) -> tuple[list[Pixels], Images]:
    """Images of these heights and widths, and the same end to end."""
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    pixels = torch.from_numpy(np.concatenate([image.reshape(-1, 3) for image in images]))
    areas = [image.shape[0] * image.shape[1] for image in images]
    starts = torch.tensor([sum(areas[:number]) for number in range(len(areas))])
    return images, Images(pixels, starts, torch.tensor([image.shape[1] for image in images]))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("side_px", [17, 32, 224])
def test_each_length_is_scaled_as_alone(interpolation: str, side_px: int) -> None:
    lengths = range(1, 400, 3)
    images, joined = noise(*((length, 5) for length in lengths))
    outlines = [Outline((0, 0, 5, length), False, 0, None) for length in lengths]
    crops = batch_crops(joined, range(len(images)), outlines, side_px, interpolation).numpy()
    for image, crop in zip(images, crops, strict=True):
        assert np.array_equal(crop, resized(image, side_px, interpolation)), image.shape


@pytest.mark.parametrize("options", [{}, {"interpolation": "bicubic"}, {"erase": 0.5}])
def test_crops_of_a_recipe_are_those_made_alone(options: dict[str, object]) -> None:
    chance = random.Random(0)
    sizes = [(chance.randint(1, 120), chance.randint(1, 120)) for _ in range(70)]
    images, joined = noise(*sizes)
    transform = TrainTransform(Sizes(32, 32), 0.08, 0, **options)  # type: ignore[arg-type]
    numbers = [chance.randrange(70) for _ in range(150)]
    alone = [transform(images[number], epoch=2, index=key) for key, number in enumerate(numbers)]
    outlines = [
        crop.outline(*sizes[number])
        for crop, number in zip(transform.crops(2, range(150)), numbers, strict=True)
    ]
    crops = batch_crops(joined, numbers, outlines, 32, transform.interpolation)
    assert np.array_equal(crops.numpy(), np.stack(alone))
    assert batch_crops(joined, [], [], 32, transform.interpolation).shape == (0, 32, 32, 3)
