"""Curves as inline SVG: axes with round numbers, and as many points as a screen can show."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

Point = tuple[float, float]

_WIDTH, _HEIGHT = 460, 250
_WEST, _EAST, _NORTH, _SOUTH = 52, 10, 26, 30  # margins, px
_MOST_POINTS, _MOST_DOTS = 500, 40


@dataclass(frozen=True)
class Curve:
    """Points under a name; `look` is a CSS class of the page: train, val, thin or dotted."""

    name: str
    points: Sequence[Point]
    look: str


def chart(
    title: str, curves: Sequence[Curve], *, low: float | None = None, unit: str = "epoch"
) -> str:
    """Curves over epochs, or another `unit`; `low`: the first value of the axis, else the least."""
    groups = [(curve, _finite(curve.points)) for curve in curves]
    points = [point for _, group in groups for point in group]
    if not points:
        return f"<figure><figcaption>{escape(title)}</figcaption><p>no number yet</p></figure>"
    xs = _ticks(0, max(1, *(x for x, _ in points)), whole=True)
    ys = _ticks(min(y for _, y in points) if low is None else low, max(y for _, y in points))
    parts = [_axes(xs, ys)]
    for curve, group in groups:
        if group:
            path = " ".join(f"{_x(x, xs):.1f},{_y(y, ys):.1f}" for x, y in group)
            parts.append(f'<polyline class="{curve.look}" points="{path}"/>')
            if len(group) < _MOST_DOTS and "thin" not in curve.look:
                parts += [
                    f'<circle class="{curve.look}" cx="{_x(x, xs):.1f}" cy="{_y(y, ys):.1f}"'
                    f' r="2.2"><title>{escape(curve.name)} {y:.4g}, {unit} {x:.4g}</title></circle>'
                    for x, y in group
                ]
    names = "".join(
        f'<span class="{curve.look}">{escape(curve.name)}</span>'
        for curve, group in groups
        if curve.name and group
    )
    return (
        f"<figure><figcaption>{escape(title)} {names}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{"".join(parts)}</svg></figure>'
    )


def _finite(points: Sequence[Point]) -> list[Point]:
    """The points that can be drawn, thinned out; the last one stays."""
    points = [point for point in points if all(map(math.isfinite, point))]
    stride = -(-len(points) // _MOST_POINTS)
    return points[:: stride or 1] + (points[-1:] if stride > 1 else [])


def _ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Two to nine round numbers around `low` and `high`."""
    span = max(high - low, abs(high) / 100) or 1.0  # less is rounding
    size = 10 ** math.floor(math.log10(span / 4))
    step = size * next(factor for factor in (1, 2, 5, 10) if span / (size * factor) <= 6)
    step = max(1, round(step)) if whole else step
    first = math.floor(low / step)
    return [number * step for number in range(first, max(first + 1, math.ceil(high / step)) + 1)]


def _axes(xs: Sequence[float], ys: Sequence[float]) -> str:
    step = min(b - a for a, b in pairwise(ys))
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    lines = [
        f'<line x1="{_WEST}" x2="{_WIDTH - _EAST}" y1="{_y(y, ys):.1f}" y2="{_y(y, ys):.1f}"/>'
        f'<text x="{_WEST - 6}" y="{_y(y, ys) + 4:.1f}" text-anchor="end">{y:.{digits}f}</text>'
        for y in ys
    ]
    lines += [
        f'<text x="{_x(x, xs):.1f}" y="{_HEIGHT - 8}" text-anchor="middle">{x:g}</text>' for x in xs
    ]
    return "".join(lines)


def _x(value: float, ticks: Sequence[float]) -> float:
    share = (value - ticks[0]) / (ticks[-1] - ticks[0])
    return _WEST + share * (_WIDTH - _WEST - _EAST)


def _y(value: float, ticks: Sequence[float]) -> float:
    share = (value - ticks[0]) / (ticks[-1] - ticks[0])
    return _HEIGHT - _SOUTH - share * (_HEIGHT - _NORTH - _SOUTH)
