"""Drawings of ten things of ILSVRC2012, known by their shape alone, in any colours.

Each is drawn within the unit circle, y down, and varies in its proportions. A mirror image of it
is the same thing, since training flips.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import ImageDraw

Colour = tuple[int, int, int]
Points = NDArray[np.float64]
Pair = tuple[float, float]


@dataclass(frozen=True)
class Pen:
    """Draws in the unit circle of a figure; `matrix` (2, 3) takes that to the canvas."""

    canvas: ImageDraw.ImageDraw
    matrix: Points

    def area(self, points: Points, colour: Colour) -> None:
        """Fill the polygon of `points` (N, 2)."""
        self.canvas.polygon(self._placed(points), fill=colour)

    def line(self, points: Points, colour: Colour, *, width: float) -> None:
        """Draw a line along `points` (N, 2), `width` in units of the figure."""
        scale = float(np.sqrt(abs(np.linalg.det(self.matrix[:, :2]))))
        width_px = max(1, round(width * scale))
        self.canvas.line(self._placed(points), fill=colour, width=width_px, joint="curve")

    def oval(self, centre: Pair | Points, radii: Pair, colour: Colour, *, turn: float = 0) -> None:
        """Fill an ellipse, turned by `turn` radians."""
        axes = _unit(np.array([turn, turn + np.pi / 2]))
        round_trip = _unit(np.linspace(0, 2 * np.pi, 28, endpoint=False)) * radii
        self.area(round_trip @ axes + centre, colour)

    def _placed(self, points: Points) -> list[Pair]:
        on_canvas = points @ self.matrix[:, :2].T + self.matrix[:, 2]
        return [(x, y) for x, y in on_canvas.tolist()]


@dataclass(frozen=True)
class Palette:
    """A figure's colours: `main` stands out from what is behind it, the others from `main`."""

    main: Colour
    second: Colour
    third: Colour


Figure = Callable[[Pen, Palette, np.random.Generator], None]


def goldfish(pen: Pen, palette: Palette, rng: np.random.Generator) -> None:
    """An oval body, a forked tail, two fins, an eye."""
    height = rng.uniform(0.32, 0.46)
    spread = rng.uniform(0.4, 0.6)
    pen.area(_points([(0.3, 0), (0.95, -spread), (0.75, 0), (0.95, spread)]), palette.main)
    pen.area(_points([(-0.3, -height * 0.8), (0.1, -height - 0.25), (0.3, -0.2)]), palette.main)
    pen.area(_points([(-0.1, height * 0.8), (0.15, height + 0.2), (0.25, 0.2)]), palette.main)
    for y in (-0.5 * spread, 0, 0.5 * spread):
        pen.line(_points([(0.5, 0), (0.8, y)]), palette.second, width=0.05)
    pen.oval((-0.25, 0), (0.68, height), palette.main)
    pen.oval((-0.66, -0.08), (0.1, 0.1), palette.third)
    pen.line(_arc(0.28, -0.9, 0.9, centre=(-0.55, 0)), palette.third, width=0.05)


def nautilus(pen: Pen, palette: Palette, rng: np.random.Generator) -> None:
    """A shell that winds outwards, its chambers as stripes."""
    growth = rng.uniform(0.17, 0.21)
    turns = np.linspace(0, 2 * np.pi * 2.2, 90)
    radii = np.exp(growth * (turns - turns[-1]))
    spiral = 0.95 * np.stack([radii * np.cos(turns), radii * np.sin(turns)], axis=1)
    pen.area(spiral[-42:], palette.main)
    for at in range(-38, -2, 5):
        pen.line(np.stack([spiral[at], spiral[at] * 0.45]), palette.second, width=0.06)
    pen.line(spiral, palette.third, width=0.1)


def monarch(pen: Pen, palette: Palette, rng: np.random.Generator) -> None:
    """A butterfly seen from above: four wings with spots, a body, feelers."""
    lift, width = rng.uniform(0.35, 0.65), rng.uniform(0.26, 0.34)
    for side in (-1, 1):
        pen.oval((side * 0.48, -0.32), (0.52, width + 0.08), palette.third, turn=-side * lift)
        pen.oval((side * 0.48, -0.32), (0.42, width - 0.02), palette.main, turn=-side * lift)
        pen.oval((side * 0.36, 0.38), (0.4, width + 0.03), palette.third, turn=side * (lift + 0.2))
        pen.oval((side * 0.36, 0.38), (0.3, width - 0.07), palette.main, turn=side * (lift + 0.2))
        pen.oval((side * 0.62, -0.42), (0.1, 0.08), palette.second)
        pen.line(_points([(0, -0.4), (side * 0.2, -0.85)]), palette.third, width=0.04)
    pen.oval((0, 0.02), (0.09, 0.5), palette.third)


def starfish(pen: Pen, palette: Palette, rng: np.random.Generator) -> None:
    """Five thick arms with bumps along them."""
    waist = rng.uniform(0.3, 0.42)
    angles = np.arange(10) * np.pi / 5
    radii = np.where(np.arange(10) % 2 == 0, 0.95, waist)
    pen.area(radii[:, None] * _unit(angles), palette.main)
    for arm in _unit(angles[::2]):
        pen.oval(0.9 * arm, (0.11, 0.11), palette.main)
        for out in (0.2, 0.42, 0.62):
            pen.oval(out * arm, (0.07, 0.07), palette.second)


def analog_clock(pen: Pen, palette: Palette, rng: np.random.Generator) -> None:
    """A rim, a face with ticks, two hands at any time of the day."""
    pen.oval((0, 0), (0.95, 0.95), palette.second)
    pen.oval((0, 0), (rng.uniform(0.76, 0.84), 0.8), palette.main)
    for tick in _unit(np.arange(12) * np.pi / 6):
        pen.line(np.stack([0.6 * tick, 0.74 * tick]), palette.third, width=0.07)
    for length, width in ((0.38, 0.13), (0.58, 0.08)):
        hand = _unit(np.array(rng.uniform(0, 2 * np.pi)))
        pen.line(np.stack([-0.1 * hand, length * hand]), palette.third, width=width)


def envelope(pen: Pen, palette: Palette, rng: np.random.Generator) -> None:
    """A rectangle whose flap makes a V, and at times a seal."""
    height = rng.uniform(0.5, 0.64)
    corners = _points([(-0.92, -height), (0.92, -height), (0.92, height), (-0.92, height)])
    tip = rng.uniform(0.0, 0.2)
    pen.area(corners, palette.main)
    for side in (-1, 1):
        fold = _points([(side * 0.92, height), (side * 0.15, tip * 0.5)])
        pen.line(fold, palette.second, width=0.05)
    flap = _points([(-0.92, -height), (0, tip), (0.92, -height)])
    pen.line(flap, palette.third, width=0.09)
    pen.line(np.concatenate([corners, corners[:2]]), palette.third, width=0.05)
    if rng.random() < 0.5:
        pen.oval((0, tip), (0.12, 0.12), palette.second)


def hammer(pen: Pen, palette: Palette, rng: np.random.Generator) -> None:
    """A long handle, a head across it with a claw at one end."""
    half = rng.uniform(0.08, 0.12)
    handle = [(-half, -0.6), (half, -0.6), (half * 1.4, 0.98), (-half * 1.4, 0.98)]
    pen.area(_points(handle), palette.main)
    pen.line(_points([(0, 0.45), (0, 0.95)]), palette.second, width=0.2)
    head = [(-0.62, -0.86), (-0.62, -0.42), (-0.4, -0.42), (-0.3, -0.5), (0.2, -0.48), (0.68, -0.3),
            (0.74, -0.4), (0.45, -0.72), (0.2, -0.8), (-0.3, -0.78), (-0.4, -0.86)]  # fmt: skip
    pen.area(_points(head), palette.main)
    pen.line(_points([(-0.51, -0.84), (-0.51, -0.44)]), palette.third, width=0.06)
    pen.line(_points([(-0.15, -0.43), (0.15, -0.43)]), palette.third, width=0.07)


def umbrella(pen: Pen, palette: Palette, rng: np.random.Generator) -> None:
    """A dome of panels, a shaft with a crook."""
    rise = rng.uniform(0.6, 0.85)
    crook = _arc(0.14, np.pi, 0, centre=(0.14, 0.8))
    shaft = np.concatenate([_points([(0, -0.1)]), crook])
    pen.line(shaft, palette.third, width=0.09)
    dome = _arc(1, np.pi, 2 * np.pi) * [0.96, rise]
    edge = np.linspace(0.96, -0.96, 41)
    scallops = np.stack([edge, -0.1 * np.abs(np.sin((edge / 0.96 + 1) * 2 * np.pi))], axis=1)
    pen.area(np.concatenate([dome, scallops]), palette.main)
    for x in (-0.48, 0.48):
        pen.line(_arc(1, -np.pi / 2, 0) * [x, rise], palette.second, width=0.05)
    pen.line(_points([(0, -rise), (0, 0)]), palette.second, width=0.05)
    pen.line(_points([(0, -rise), (0, -rise - 0.14)]), palette.third, width=0.07)


def traffic_light(pen: Pen, palette: Palette, rng: np.random.Generator) -> None:
    """Three lamps in a tall box, one of them lit."""
    half = rng.uniform(0.32, 0.42)
    box = _points([(-half, -0.95), (half, -0.95), (half, 0.95), (-half, 0.95)])
    pen.area(box, palette.main)
    pen.line(np.concatenate([box, box[:2]]), palette.third, width=0.06)
    lit = rng.integers(3)
    for lamp, y in enumerate((-0.6, 0.0, 0.6)):
        pen.oval((0, y), (0.25, 0.25), palette.third)
        if lamp == lit:
            pen.oval((0, y), (0.19, 0.19), palette.second)


def daisy(pen: Pen, palette: Palette, rng: np.random.Generator) -> None:
    """Thin petals around a disc."""
    petals = int(rng.integers(9, 15))
    for angle in np.arange(petals) * 2 * np.pi / petals:
        centre = 0.62 * _unit(angle)
        pen.oval(centre, (0.36, 1.15 / petals), palette.main, turn=float(angle))
    pen.oval((0, 0), (rng.uniform(0.24, 0.32), 0.28), palette.second)


FIGURES: Mapping[str, Figure] = {
    "n01443537": goldfish,
    "n01968897": nautilus,
    "n02279972": monarch,
    "n02317335": starfish,
    "n02708093": analog_clock,
    "n03291819": envelope,
    "n03481172": hammer,
    "n04507155": umbrella,
    "n06874185": traffic_light,
    "n11939491": daisy,
}


def _points(pairs: list[Pair]) -> Points:
    return np.array(pairs, dtype=np.float64)


def _unit(angles: Points) -> Points:
    """The points (..., 2) of the unit circle at `angles` (...)."""
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def _arc(radius: float, start: float, end: float, *, centre: Pair = (0, 0)) -> Points:
    return radius * _unit(np.linspace(start, end, 24)) + centre
