"""The drawn dataset: ten synsets that a network learns in minutes, packed as ImageNet is."""

import colorsys
import io
import random
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from imnetprep.catalog.datasets import Split, load_dataset
from imnetprep.messages import Progress, Silent
from imnetprep.synthetic.archives import plan_dataset, write_dataset
from imnetprep.synthetic.figures import FIGURES, Colour, Points, draw_figure

_QUALITIES = (75, 96)
_FINER = 2  # drawn this many times larger: that is what makes edges smooth


def draw_dataset(
    folder: Path,
    *,
    classes: int = 10,
    train_per_class: int = 120,
    val_per_class: int = 30,
    side_px: int = 88,
    seed: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Draw both archives and write `drawn.toml`, their definition; returns its path.

    Up to ten `classes`, real wnids with drawings for photographs: JPEGs of many sizes, shorter
    side around `side_px`. As in ILSVRC2012, one image is a PNG named .JPEG and one a CMYK JPEG;
    the definition lists them as its odd files. The same arguments give the same bytes.
    """
    rng = random.Random(seed)  # noqa: S311 - a seed for the same bytes again, not a secret
    ilsvrc2012 = load_dataset("ilsvrc2012")
    plan = plan_dataset(
        [ilsvrc2012.synsets[ilsvrc2012.label_of_wnid[wnid]] for wnid in sorted(FIGURES)[:classes]],
        name="drawn",
        title="Drawings, packed as ImageNet is",
        train_per_class=train_per_class,
        val_per_class=val_per_class,
        rng=rng,
    )
    split, numbers = next(iter(plan.numbers.items()))
    png = plan.file_name(split, 0, numbers[0][0])
    cmyk = plan.file_name(split, len(numbers) - 1, numbers[-1][-1])
    total = classes * (train_per_class + val_per_class)
    with (progress or Silent()).task("draw", total=total, unit="images") as task:

        def draw(split: Split, label: int, number: int) -> bytes:
            name = plan.file_name(split, label, number)
            pixels = np.random.default_rng([seed, split == Split.VAL, label, number])
            image = draw_photograph(plan.synsets[label].wnid, pixels, side_px=side_px)
            image = image.convert("CMYK") if name == cmyk else image
            quality = int(pixels.integers(*_QUALITIES))
            body = io.BytesIO()
            image.save(body, "PNG" if name == png else "JPEG", quality=quality)
            task.advance(1)
            return body.getvalue()

        odd_files = {"png": [png], "cmyk": [cmyk]}
        return write_dataset(folder, plan, draw, rng=rng, odd_files=odd_files)


def draw_photograph(wnid: str, rng: np.random.Generator, *, side_px: int) -> Image.Image:
    """An RGB image of the thing called `wnid`, its shorter side around `side_px`.

    Place, size, turn, colours, ground, clutter, light and noise are independent of what it shows:
    only the shape tells.
    """
    shorter = side_px * rng.uniform(0.85, 1.25)
    sides = round(shorter * rng.uniform(1, 1.5)), round(shorter)
    width, height = sides if rng.random() < 0.7 else sides[::-1]
    is_bright = bool(rng.random() < 0.5)
    image = _ground(rng, (width * _FINER, height * _FINER), bright=is_bright)
    colours = {"main": _colour(rng, bright=not is_bright), "detail": _colour(rng, bright=is_bright)}
    draw_figure(ImageDraw.Draw(image), wnid, _placement(rng, image.size), colours)
    light = rng.uniform(0.7, 1.2)
    noise = rng.standard_normal((height, width, 1)) * rng.uniform(2, 10)
    exposure = np.asarray(image.reduce(_FINER)) * light + noise
    return Image.fromarray(np.clip(exposure, 0, 255).astype(np.uint8))


def _ground(rng: np.random.Generator, size: tuple[int, int], *, bright: bool) -> Image.Image:
    """Clouds between two colours, and ovals scattered over them, most of them as bright."""
    colours = np.array([_colour(rng, bright=bright) for _ in range(2)])
    mix = rng.random((6, 6, 1))
    clouds = Image.fromarray((colours[0] * mix + colours[1] * (1 - mix)).astype(np.uint8))
    image = clouds.resize(size, Image.Resampling.BICUBIC)
    for _ in range(rng.integers(1, 6)):
        colour = _colour(rng, bright=bright ^ bool(rng.random() < 0.15))
        x, y = rng.uniform(-0.1, 1.1, size=2) * size
        across, down = min(size) * rng.uniform(0.03, 0.2, size=2)
        box = (x - across, y - down, x + across, y + down)
        ImageDraw.Draw(image).ellipse(box, fill=colour)
    return image


def _placement(rng: np.random.Generator, size: tuple[int, int]) -> Points:
    """The matrix (3, 2) from the circle of a figure to a random place, size, turn and slant."""
    radius = min(size) * rng.uniform(0.34, 0.46)
    turn = rng.uniform(-0.4, 0.4)
    slant = np.array([[1, 0], [rng.uniform(-0.15, 0.15), rng.uniform(0.82, 1.1)]])
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    free = min(size) / 2 - radius
    middle = np.array(size) / 2 + rng.uniform(-free, free, size=2)
    return np.vstack([slant @ rotation * radius / 100, middle])


def _colour(rng: np.random.Generator, *, bright: bool) -> Colour:
    value = rng.uniform(0.72, 1.0) if bright else rng.uniform(0.08, 0.36)
    saturation = rng.uniform(0.05, 0.5) if bright else rng.uniform(0.1, 0.9)
    red, green, blue = colorsys.hsv_to_rgb(rng.random(), saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)
