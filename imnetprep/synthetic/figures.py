"""Drawings of ten things of ILSVRC2012, known by their shape alone, in any colours.

Each lies within the circle of radius 100, y down. A mirror image of it is the same thing, since
training flips.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import ImageDraw

Colour = tuple[int, int, int]
Points = NDArray[np.float64]

# Shapes from back to front: a colour, a kind, and points: the corners of an area, the points along
# a line, or the centre of an oval and its two half axes.
FIGURES: Mapping[str, str] = {
    # goldfish
    "n01443537": "main area 20 0 95 -50 75 0 95 50; main area -30 -30 10 -64 30 -20;"
    "main oval -25 0 68 0 0 40; detail oval -66 -8 10 0 0 10; detail line -32 -32 -25 0 -32 32",
    # chambered nautilus
    "n01968897": "main oval -5 -5 85 0 0 80; main area 0 0 80 0 98 62 10 75;"
    "detail line 80 0 98 62 10 75; detail oval 15 5 36 0 0 32; main oval 20 8 22 0 0 19;"
    "detail line -18 20 -65 45; detail line -22 0 -88 -10; detail line -8 -18 -52 -66;"
    "detail line 15 -25 15 -80",
    # monarch
    "n02279972": "main oval -48 -32 45 22 -16 33; main oval 48 -32 45 -22 16 33;"
    "main oval -36 38 37 -18 13 27; main oval 36 38 37 18 -13 27; detail oval -62 -42 12 0 0 10;"
    "detail oval 62 -42 12 0 0 10; detail oval -42 42 10 0 0 8; detail oval 42 42 10 0 0 8;"
    "detail oval 0 2 10 0 0 50; detail line -20 -85 0 -40 20 -85",
    # starfish
    "n02317335": "main area 0 -95 22 -31 90 -29 36 12 56 77 0 38 -56 77 -36 12 -90 -29 -22 -31;"
    "detail oval 0 -50 7 0 0 7; detail oval 48 -15 7 0 0 7; detail oval 29 40 7 0 0 7;"
    "detail oval -29 40 7 0 0 7; detail oval -48 -15 7 0 0 7",
    # analog clock
    "n02708093": "detail oval 0 0 95 0 0 95; main oval 0 0 80 0 0 80; detail line 0 -74 0 -60;"
    "detail line 0 74 0 60; detail line -74 0 -60 0; detail line 74 0 60 0;"
    "detail line 0 -52 0 0 36 22",
    # envelope
    "n03291819": "main area -92 -58 92 -58 92 58 -92 58; detail line -92 -58 0 12 92 -58;"
    "detail line -92 58 -25 0; detail line 92 58 25 0",
    # hammer
    "n03481172": "main area -11 -60 11 -60 15 98 -15 98; detail line 0 45 0 95;"
    "main area -62 -86 -62 -42 -40 -42 -30 -50 20 -48 68 -30 74 -40 45 -72 20 -80 -30 -78 -40 -86;"
    "detail line -51 -84 -51 -44",
    # umbrella
    "n04507155": "detail line 0 -98 0 80 8 92 20 92 28 80; main area -96 0 -89 -35 -68 -62 -37 -81"
    " 0 -87 37 -81 68 -62 89 -35 96 0 72 -10 48 0 24 -10 0 0 -24 -10 -48 0 -72 -10;"
    "detail line -48 0 -30 -50 0 -87 30 -50 48 0",
    # traffic light
    "n06874185": "main area -38 -95 38 -95 38 95 -38 95; detail oval 0 -60 24 0 0 24;"
    "detail oval 0 0 24 0 0 24; detail oval 0 60 24 0 0 24",
    # daisy
    "n11939491": "main oval 0 0 95 0 0 17; main oval 0 0 77 56 -10 14; main oval 0 0 29 90 -16 5;"
    "main oval 0 0 -29 90 -16 -5; main oval 0 0 -77 56 -10 -14; detail oval 0 0 28 0 0 28",
}
_ROUND = np.linspace(0, 2 * np.pi, 28, endpoint=False)
_CIRCLE = np.stack([np.cos(_ROUND), np.sin(_ROUND)], axis=1)


def draw_figure(
    canvas: ImageDraw.ImageDraw, wnid: str, matrix: Points, colours: Mapping[str, Colour]
) -> None:
    """Draw the thing called `wnid`; `matrix` (3, 2) takes (x, y, 1) to the canvas."""
    for shape in FIGURES[wnid].split(";"):
        colour, kind, *numbers = shape.split()
        points = np.array(numbers, dtype=np.float64).reshape(-1, 2)
        if kind == "oval":
            points = _CIRCLE @ points[1:] + points[0]
        places = [(x, y) for x, y in (points @ matrix[:2] + matrix[2]).tolist()]
        if kind == "line":
            width_px = round(8 * np.linalg.norm(matrix[0]))
            canvas.line(places, fill=colours[colour], width=width_px, joint="curve")
        else:
            canvas.polygon(places, fill=colours[colour])
