"""A drawn photograph: a figure before a cluttered ground, in some light, with noise."""

import colorsys

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from imnetprep.synthetic.figures import FIGURES, Colour, Palette, Pen, Points

_FINER = 2  # drawn this many times larger: that is what makes edges smooth


def draw_photograph(wnid: str, rng: np.random.Generator, *, side_px: int) -> Image.Image:
    """An RGB image of the thing called `wnid`, its shorter side around `side_px`.

    Place, size, turn, colours, ground, clutter, light and noise are independent of what it shows:
    only the shape tells.
    """
    width, height = _size(rng, side_px)
    large = (width * _FINER, height * _FINER)
    ground_is_bright = bool(rng.random() < 0.5)
    image = _ground(rng, (width, height), bright=ground_is_bright).resize(large)
    _clutter(ImageDraw.Draw(image), rng, large, bright=ground_is_bright)

    layer = Image.new("RGBA", large)
    pen = Pen(ImageDraw.Draw(layer), _placement(rng, large))
    FIGURES[wnid](pen, _palette(rng, bright=not ground_is_bright), rng)
    _cast_shadow(image, layer, rng)
    image.paste(layer, mask=layer)
    _blades(ImageDraw.Draw(image), rng, large)

    image = image.reduce(_FINER)
    if rng.random() < 0.3:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.8)))
    return _developed(image, rng)


def _size(rng: np.random.Generator, side_px: int) -> tuple[int, int]:
    shorter = side_px * rng.uniform(0.85, 1.25)
    longer = shorter * rng.choice([1, 1.25, 1.33, 1.5], p=[0.15, 0.2, 0.45, 0.2])
    sides = (round(longer), round(shorter))
    return sides if rng.random() < 0.7 else sides[::-1]


def _placement(rng: np.random.Generator, size: tuple[int, int]) -> Points:
    """The matrix (2, 3) from the unit circle to a random place, size, turn and slant."""
    shorter = min(size)
    radius = shorter * rng.uniform(0.34, 0.46)
    turn = rng.uniform(-0.4, 0.4)
    slant = np.array([[1, rng.uniform(-0.15, 0.15)], [0, rng.uniform(0.82, 1.1)]])
    turn_and_slant = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ slant
    matrix = turn_and_slant * ([-1, 1] if rng.random() < 0.5 else [1, 1])
    free = shorter * 0.5 - radius
    middle = np.array(size) / 2 + rng.uniform(-free, free, size=2)
    return np.concatenate([radius * matrix, middle[:, None]], axis=1)


def _colour(rng: np.random.Generator, *, bright: bool) -> Colour:
    value = rng.uniform(0.72, 1.0) if bright else rng.uniform(0.08, 0.36)
    saturation = rng.uniform(0.05, 0.5) if bright else rng.uniform(0.1, 0.9)
    red, green, blue = colorsys.hsv_to_rgb(rng.random(), saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _palette(rng: np.random.Generator, *, bright: bool) -> Palette:
    return Palette(
        main=_colour(rng, bright=bright),
        second=_colour(rng, bright=not bright),
        third=_colour(rng, bright=not bright),
    )


def _ground(rng: np.random.Generator, size: tuple[int, int], *, bright: bool) -> Image.Image:
    """Clouds of two colours, coarse and fine."""
    mix = np.zeros((size[1], size[0]), dtype=np.float32)
    for cells, weight in ((2, 0.5), (5, 0.3), (13, 0.2)):
        grid = Image.fromarray(rng.random((cells, cells), dtype=np.float32))
        mix += weight * np.asarray(grid.resize(size, Image.Resampling.BICUBIC))
    mix = np.clip((mix - 0.5) * rng.uniform(1, 3) + 0.5, 0, 1)[..., None]
    colour, second_colour = (np.array(_colour(rng, bright=bright), np.float32) for _ in range(2))
    return Image.fromarray((colour * mix + second_colour * (1 - mix)).astype(np.uint8))


def _clutter(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, size: tuple[int, int], *, bright: bool
) -> None:
    """Stones, sticks and frames behind the figure, most of them as bright as the ground."""
    for _ in range(rng.integers(1, 6)):
        colour = _colour(rng, bright=bright ^ bool(rng.random() < 0.15))
        x, y = rng.uniform(-0.1, 1.1, size=2) * size
        radius = min(size) * rng.uniform(0.03, 0.2)
        kind = rng.integers(3)
        if kind == 0:
            corners = rng.uniform(-radius, radius, size=(rng.integers(3, 7), 2)).tolist()
            draw.polygon([(x + dx, y + dy) for dx, dy in corners], fill=colour)
        elif kind == 1:
            flat = radius * rng.uniform(0.4, 1)
            draw.ellipse((x - radius, y - flat, x + radius, y + flat), fill=colour)
        else:
            dx, dy = rng.uniform(-3 * radius, 3 * radius, size=2)
            draw.line((x, y, x + dx, y + dy), fill=colour, width=int(rng.integers(2, 12)))


def _cast_shadow(image: Image.Image, layer: Image.Image, rng: np.random.Generator) -> None:
    radius = min(image.size) * 0.02
    dx, dy = (int(offset) for offset in rng.uniform(-3 * radius, 3 * radius, size=2))
    strength = rng.uniform(0.2, 0.7)
    shadow = layer.getchannel("A").filter(ImageFilter.BoxBlur(radius))
    mask = Image.new("L", image.size)
    mask.paste(shadow.point(lambda alpha: alpha * strength), (dx, dy))
    image.paste((0, 0, 0), mask=mask)


def _blades(draw: ImageDraw.ImageDraw, rng: np.random.Generator, size: tuple[int, int]) -> None:
    """A few thin blades in front, as of grass."""
    for _ in range(rng.integers(0, 4)):
        x, lean = rng.uniform(0, size[0]), rng.uniform(-0.2, 0.2) * size[0]
        top = rng.uniform(0.3, 1) * size[1]
        colour = _colour(rng, bright=bool(rng.random() < 0.5))
        draw.line((x, size[1], x + lean, top), fill=colour, width=int(rng.integers(2, 6)))


def _developed(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Light that falls from one side, exposure, a cast of colour, the sensor's noise."""
    pixels = np.asarray(image, np.float32)
    height, width = pixels.shape[:2]
    x, y = rng.uniform(-0.35, 0.35, size=2)
    across = np.linspace(-x, x, width, dtype=np.float32)
    down = np.linspace(-y, y, height, dtype=np.float32)[:, None]
    light = (1 + across + down) * rng.uniform(0.7, 1.2)
    cast = rng.uniform(0.88, 1.1, size=3).astype(np.float32)
    noise = rng.standard_normal((height, width, 1), dtype=np.float32) * rng.uniform(2, 10)
    exposure = pixels * light[..., None] * cast + noise
    return Image.fromarray(np.clip(exposure, 0, 255).astype(np.uint8))
