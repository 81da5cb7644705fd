"""Masks to look at: images with their foreground tinted, and sheets of them."""

import io
from collections.abc import Iterable, Sequence
from itertools import chain, count
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from imnetprep.fs import written_whole
from imnetprep.reports.drawing import FAINT, GAP_PX, PAPER, drawable, fitted

_CELL_PX, _MARGIN_PX, _HEADER_PX, _NAME_PX = 240, 16, 30, 20
_MOST_ROWS = 100
_FOREGROUND, _VOID = (194, 69, 45), (250, 200, 60)  # red, and yellow for what does not count
_GREY_OF_VOID = 128  # in a file of a mask, where foreground is white
_TINT = 0.55

Bytes = NDArray[np.uint8]


class MaskRow(NamedTuple):
    """An image (H, W, 3) and masks of it (H, W) of 0, 1 and 255 for void; None: there is none."""

    name: str
    pixels: Bytes
    masks: Sequence[Bytes | None]


def tinted(pixels: Bytes, mask: Bytes) -> Bytes:
    """The image (H, W, 3) with the foreground of its mask (H, W) red, and what is void yellow."""
    image = pixels.astype(np.float32)
    for value, colour in ((1, _FOREGROUND), (255, _VOID)):
        spots = mask == value
        image[spots] += _TINT * (np.array(colour, np.float32) - image[spots])
    return image.round().astype(np.uint8)


def mask_names(images: Iterable[Path]) -> dict[Path, str]:
    """The name of the file of each mask: that of its image, with a number where two have one."""
    names: dict[Path, str] = {}
    files = set[str]()
    for path in dict.fromkeys(images):
        numbers = chain((path.stem,), (f"{path.stem}-{number}" for number in count(2)))
        name = next(name for name in numbers if name not in files)
        files.add(name)
        names[path] = f"{name}.png"
    return names


def mask_png(mask: Bytes) -> bytes:
    """A mask (H, W) as a grey PNG: foreground white, background black, void between."""
    values = np.zeros(mask.shape, np.uint8)
    values[mask == 1], values[mask == 255] = 255, _GREY_OF_VOID
    return png(Image.fromarray(values))


def png(image: Image.Image | Bytes) -> bytes:
    """An image, or pixels (H, W, 3), as PNG."""
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, "PNG")
    return file.getvalue()


class MaskSheet:
    """Images in rows, each beside its masks, which have these `titles`."""

    def __init__(self, *titles: str) -> None:
        self._titles = ("image", *titles)
        self._rows: list[tuple[str, list[Image.Image | None]]] = []

    @property
    def has_room(self) -> bool:
        """May it have another row?"""
        return len(self._rows) < _MOST_ROWS

    def add(self, row: MaskRow) -> None:
        """Add a row, small, if there is room."""
        if self.has_room:
            views = [row.pixels, *(None if mask is None else tinted(row.pixels, mask)
                                   for mask in row.masks)]  # fmt: skip
            self._rows.append(
                (row.name, [None if view is None else _small(view) for view in views])
            )

    def image(self) -> Image.Image:
        """The sheet."""
        columns, step = len(self._titles), _CELL_PX + GAP_PX
        heights = [max(view.height for view in views if view) + _NAME_PX for _, views in self._rows]
        size = 2 * _MARGIN_PX + columns * step - GAP_PX, _HEADER_PX + sum(heights) + _MARGIN_PX
        paper = Image.new("RGB", size, PAPER)
        draw = ImageDraw.Draw(paper)
        for column, title in enumerate(self._titles):
            middle = _MARGIN_PX + column * step + _CELL_PX / 2
            font = ImageFont.load_default(13)
            draw.text((middle, _HEADER_PX - 8), title, fill=FAINT, font=font, anchor="ms")
        top = _HEADER_PX
        for (name, views), height in zip(self._rows, heights, strict=True):
            for column, view in enumerate(views):
                if view:
                    paper.paste(view, (_MARGIN_PX + column * step, top))
            text, font = drawable(name, 12)
            place = _MARGIN_PX, top + height - _NAME_PX + 3
            draw.text(place, fitted(text, font, columns * step), fill=FAINT, font=font)
            top += height
        return paper

    def write(self, out: Path) -> None:
        """Draw the sheet to `out`: a JPEG where its name says so, else a PNG."""
        form = "JPEG" if out.suffix.lower() in (".jpg", ".jpeg") else "PNG"
        with written_whole(out) as file:
            self.image().save(file, format=form, optimize=True, quality=90)


def _small(pixels: Bytes) -> Image.Image:
    image = Image.fromarray(pixels)
    image.thumbnail((_CELL_PX, _CELL_PX))
    return image
