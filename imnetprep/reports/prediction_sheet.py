"""A sheet of predictions: each image, what the network saw of it, and its likeliest classes."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from imnetprep.fs import written_whole
from imnetprep.reports.drawing import (
    CELL_PX,
    FAINT,
    GAP_PX,
    INK,
    PAPER,
    TRAY,
    drawable,
    fitted,
    paste_pair,
)

_MARGIN_PX, _HEADER_PX, _ROW_GAP_PX = 20, 40, 14
_BARS_PX, _BAR_PX, _LINE_PX = 360, 8, 26
_BAR, _BEST_BAR = "#9db4d3", "#2f6db5"
_MOST_GUESSES = 5  # beside an image
_MOST_ROWS = 100

Pixels = NDArray[np.uint8]
Pair = tuple[Image.Image, Image.Image]


class Row(NamedTuple):
    """An image and what the network saw of it, with classes and how likely it held each, 0 to 1."""

    name: str
    image: Image.Image
    view: Image.Image
    guesses: Sequence[tuple[str, float]]


class PredictionSheet:
    """The first images that are predicted, small, each in a row with its classes."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    @property
    def has_room(self) -> bool:
        """May it have another row?"""
        return len(self.rows) < _MOST_ROWS

    def add(self, name: str, pair: Pair, guesses: Sequence[tuple[str, float]]) -> None:
        """Add an image with the network's view of it, and what is predicted, if there is room."""
        if self.has_room:
            self.rows.append(Row(name, *pair, guesses))

    def write(self, out: Path) -> None:
        """Draw the rows to `out`: a JPEG where its name says so, else a PNG."""
        bars_at = _MARGIN_PX + 2 * CELL_PX + GAP_PX + _MARGIN_PX
        step = CELL_PX + _ROW_GAP_PX
        size = bars_at + _BARS_PX + _MARGIN_PX, _HEADER_PX + len(self.rows) * step + _MARGIN_PX
        paper = Image.new("RGB", size, PAPER)
        draw = ImageDraw.Draw(paper)
        small = ImageFont.load_default(12)
        for half, caption in enumerate(("image", "network sees")):
            middle = _MARGIN_PX + half * (CELL_PX + GAP_PX) + CELL_PX / 2
            draw.text((middle, _HEADER_PX - 8), caption, fill=FAINT, font=small, anchor="ms")
        for number, row in enumerate(self.rows):
            top = _HEADER_PX + number * step
            paste_pair(paper, (row.image, row.view), _MARGIN_PX, top)
            _draw_bars(draw, row, bars_at, top)
        form = "JPEG" if out.suffix.lower() in (".jpg", ".jpeg") else "PNG"
        with written_whole(out) as file:
            paper.save(file, format=form, optimize=True, quality=90)


def small_pair(pixels: Pixels, view: Pixels) -> Pair:
    """An image and the network's view of it, (H, W, 3) each, as small as they are drawn."""
    return _small(pixels), _small(view)


def _small(pixels: Pixels) -> Image.Image:
    image = Image.fromarray(pixels)
    image.thumbnail((2 * CELL_PX, 2 * CELL_PX))
    return image


def _draw_bars(draw: ImageDraw.ImageDraw, row: Row, start: int, top: int) -> None:
    text, font = drawable(row.name, 13)
    draw.text((start, top), fitted(text, font, _BARS_PX), fill=FAINT, font=font)
    for at, (label, probability) in enumerate(row.guesses[:_MOST_GUESSES]):
        down = top + 20 + at * _LINE_PX
        text, font = drawable(label, 13)
        share = f"{probability:.1%}".replace("%", " %")
        draw.text((start, down), fitted(text, font, _BARS_PX - 60), fill=INK, font=font)
        draw.text(
            (start + _BARS_PX, down), share, fill=INK, font=ImageFont.load_default(13), anchor="ra"
        )
        bar_top = down + 16
        draw.rectangle((start, bar_top, start + _BARS_PX, bar_top + _BAR_PX), fill=TRAY)
        end = start + round(_BARS_PX * probability)
        colour = _BAR if at else _BEST_BAR
        draw.rectangle((start, bar_top, max(start, end), bar_top + _BAR_PX), fill=colour)
