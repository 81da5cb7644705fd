"""A table of pixels as images by class: CSV, a label and a column for each pixel of a grey square.

So Kaggle has MNIST (`train.csv`), and so people write the digits of scikit-learn.
"""

import csv
import math
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from imnetprep.catalog.datasets import Dataset, Split
from imnetprep.catalog.file_names import is_class_name
from imnetprep.images import encode_grey_png
from imnetprep.messages import ImnetprepError, Progress, WrongBytes, shell_command
from imnetprep.outside_files import open_file, open_handle
from imnetprep.own_images.tables import label_columns
from imnetprep.single_samples import SamplePlace

# What white is in a table, as its largest value says: of 0 to 1, scikit-learn's digits, bytes.
_WHITES = (1, 16, 255)
_LARGEST_SIDE_PX = 1024
_SMALLEST_SIDE_PX = 2
_BUFFER_BYTES = 1 << 20
_GZIP = b"\x1f\x8b"
_SEPARATORS = ",;\t "
_HINT = "a line has a label and the pixels of a square image, from its upper left corner"


class PixelTable(NamedTuple):
    """The images of the table at `path`, squares of `side_px`.

    `images` has the pixels of each by its class and its name, which is its number in the table;
    `white` is the value of a white one.
    """

    path: Path
    side_px: int
    white: int
    images: Mapping[str, Mapping[str, np.ndarray]]

    def require_classes(self, *, one_class: bool) -> None:
        """Raise ImnetprepError where all images are of one class, unless that is meant."""
        if len(self.images) < 2 and not one_class:
            raise ImnetprepError(
                f"all images of {self.path} are of one class, {min(self.images)!r}",
                hint="--one-class takes images that are all of one class",
            )

    def encode(self, wnid: str, name: str) -> bytes:
        """One image as a PNG, white being 255."""
        values = np.rint(self.images[wnid][name] * (255 / self.white)).astype(np.uint8)
        return encode_grey_png(values.tobytes(), self.side_px, self.side_px)


class PixelOriginals:
    """The images of a table, of which `split` of `dataset` was made: as a Retake. The manifest has
    their digests.
    """

    proof = None

    def __init__(self, dataset: Dataset, split: Split, table: PixelTable) -> None:
        self._dataset, self._split, self._table = dataset, split, table

    def found(self, labels: set[int], wants: Callable[[int, str], bool]) -> Iterator[SamplePlace]:
        """As `Retake.found`."""
        for label in sorted(labels):
            images = self._table.images.get(self._dataset.synsets[label].wnid, {})
            for name in self._dataset.names(self._split, label) or ():
                if name in images and wants(label, name):
                    yield SamplePlace(label, name, 0, images[name].size)

    def bodies(
        self, places: Sequence[SamplePlace]
    ) -> Iterator[tuple[SamplePlace, bytes | WrongBytes]]:
        """The bytes of each."""
        for each in places:
            yield each, self._table.encode(self._dataset.synsets[each.label].wnid, each.name)


def read_pixel_table(path: Path, progress: Progress) -> PixelTable:
    """The images in the table at `path`, with a header or without: then the label comes first.

    Raises ImnetprepError where it is no such table, with the line.
    """
    images = defaultdict[str, dict[str, np.ndarray]](dict)
    largest = 0.0
    with progress.task(f"read {path.name}", total=path.stat().st_size, unit="B") as task:
        lines = _lines(path, task.advance)
        number, first = next(lines, (1, []))
        label_at, is_header = _label_place(path, first)
        side_px = math.isqrt(max(0, len(first) - 1))
        if side_px**2 != len(first) - 1 or not _SMALLEST_SIDE_PX <= side_px <= _LARGEST_SIDE_PX:
            raise _bad(path, number, f"it has {len(first) - 1:,} pixels, which make no square")
        if not is_header:
            progress.note(f"{path.name} has no header: the first cell of a line is its label")
        rows = lines if is_header else chain([(number, first)], lines)
        for count, (number, cells) in enumerate(rows):
            if len(cells) != side_px**2 + 1:
                raise _bad(path, number, f"it has {len(cells):,} cells, not {side_px**2 + 1:,}")
            label = _plain_label(cells[label_at].strip())
            if not is_class_name(label):
                raise _bad(path, number, f"{label[:40]!r} is no name of a class")
            values = _values(path, number, cells[:label_at] + cells[label_at + 1 :])
            largest = max(largest, float(values.max()))
            images[label][f"{count:06}.png"] = values
    if not images:
        raise ImnetprepError(f"{path} has no images", hint=_HINT)
    white = next(white for white in _WHITES if largest <= white)
    if white != _WHITES[-1]:
        progress.note(f"{path.name}: its largest pixel is {largest:g}; {white} is taken for white")
    return PixelTable(path, side_px, white, images)


def _lines(path: Path, advance: Callable[[int], None]) -> Iterator[tuple[int, list[str]]]:
    """The cells of each line that has any, with its number from 1."""
    separator = ""
    with open_file(path) as file:
        if file.read(2) == _GZIP:
            raise ImnetprepError(f"{path} is compressed", hint=shell_command("gunzip", path))
    with os.fdopen(open_handle(path), "rb", _BUFFER_BYTES) as lines:
        for number, line in enumerate(lines, start=1):
            advance(len(line))
            try:
                text = line.decode("utf-8-sig").strip()
                separator = separator or max(_SEPARATORS, key=text.count)
                cells = next(csv.reader([text], delimiter=separator), [])
            except (UnicodeDecodeError, csv.Error) as error:
                raise _bad(path, number, str(error)) from error
            if cells:
                yield number, cells


def _label_place(path: Path, first: Sequence[str]) -> tuple[int, bool]:
    """Which cell of a line is the label, and whether the first line is a header that says so.

    Without one the label comes first.
    """
    if names := label_columns(first):
        return first.index(names[0]), True
    if _are_numbers(first[1:]):
        return 0, False
    problem = f"has no column of labels; its first is {first[0][:40]!r}" if first else "is empty"
    raise ImnetprepError(f"{path} {problem}", hint=f"call the column label; {_HINT}")


def _plain_label(label: str) -> str:
    """A label as people write it: numpy writes whole numbers as `1.0` and `1.00e+00`."""
    if re.fullmatch(r"\d+\.0*(e[+-]\d+)?", label, re.ASCII) and float(label).is_integer():
        return str(int(float(label)))
    return label


def _are_numbers(cells: Sequence[str]) -> bool:
    try:
        return bool(cells) and all(math.isfinite(float(each)) for each in cells)
    except ValueError:
        return False


def _values(path: Path, number: int, cells: Sequence[str]) -> np.ndarray:
    """The pixels of a line, as bytes where they are whole numbers."""
    try:
        with np.errstate(over="ignore"):
            values = np.array(cells, np.float32)
    except ValueError:
        bad = next(each for each in cells if not _are_numbers([each]))
        raise _bad(path, number, f"{bad[:40]!r} is no pixel") from None
    if not (values.min() >= 0 and values.max() <= _WHITES[-1]):  # nor a NaN
        raise _bad(path, number, f"a pixel is none of 0 to {_WHITES[-1]}")
    whole = values.astype(np.uint8)
    return whole if np.array_equal(whole, values) else values


def _bad(path: Path, number: int, problem: str) -> ImnetprepError:
    return ImnetprepError(f"{path}, line {number}: {problem}", hint=_HINT)
