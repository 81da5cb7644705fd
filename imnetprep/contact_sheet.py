"""A contact sheet: samples of some classes, each as it lies and as the network sees it."""

import random
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from imnetprep.catalog.datasets import Layout, Root, Split, Synset
from imnetprep.fs import written_whole
from imnetprep.manifest import open_manifest
from imnetprep.messages import WrongUsage, count
from imnetprep.pixels.transforms import Preprocessing, Transform, ValTransform, network_view
from imnetprep.recipes.plan_recipe import plan_recipe
from imnetprep.recipes.recipe import Recipe
from imnetprep.reports.drawing import (
    CELL_PX,
    FAINT,
    GAP_PX,
    INK,
    PAPER,
    drawable,
    fitted,
    paste_pair,
)
from imnetprep.samples.sample_list import SampleList, read_samples
from imnetprep.training.inputs import train_transform

_PAIR_GAP_PX, _MARGIN_PX = 18, 20
_LABEL_PX, _HEADER_PX = 190, 88
_PAIR_PX = 2 * CELL_PX + GAP_PX + _PAIR_GAP_PX
_WIDEST_PX = 30_000


@dataclass(frozen=True)
class Row:
    """A class and the samples of it that are shown."""

    synset: Synset
    samples: int
    indices: tuple[int, ...]


@dataclass(frozen=True)
class ContactSheet:
    """Samples that were picked, and how the network sees them."""

    rows: list[Row]
    samples: SampleList
    dataset: str
    recipe: Recipe

    def write(self, out: Path) -> None:
        """Draw the sheet to `out`: a JPEG where its name says so, else a PNG."""
        sheet = _draw(self)
        form = "JPEG" if out.suffix.lower() in (".jpg", ".jpeg") else "PNG"
        with written_whole(out) as file:
            sheet.save(file, format=form, optimize=True, quality=90)


def plan_contact_sheet(
    root: Root,
    *,
    split: Split,
    layout: Layout | None = None,
    classes: int,
    images: int,
    image_size: int | None = None,
    crop_scale: float | None = None,
    interpolation: str | None = None,
    seed: int = 0,
) -> ContactSheet:
    """A sheet of `classes` × `images` samples of `split`, or fewer where there are not as many.

    Raises WrongUsage on a sheet too large to look at.
    """
    if images * _PAIR_PX > _WIDEST_PX or classes * CELL_PX > _WIDEST_PX:
        raise WrongUsage(
            f"{classes} classes × {images} images is too large a sheet",
            hint="--classes 200 and --images 80 at most",
        )
    options = {
        "image_size": image_size,
        "crop_scale": crop_scale,
        "interpolation": interpolation,
        "seed": seed,
    }
    recipe = plan_recipe(options, amp_pays=False)
    with open_manifest(root.manifest) as manifest:
        dataset, synsets = manifest.dataset().name, manifest.synsets()
        samples = read_samples(manifest, split, root, layout=layout)
    rows = pick_rows(samples, synsets, classes=classes, images=images, seed=seed)
    return ContactSheet(rows, samples, dataset, recipe)


def pick_rows(
    samples: SampleList, synsets: Sequence[Synset], *, classes: int, images: int, seed: int
) -> list[Row]:
    """Classes and samples by lot, the same for the same `seed`, in the order of labels."""
    chance = random.Random(f"contact sheet {seed}")  # noqa: S311
    ranges = []
    for synset in synsets:
        start, end = (bisect_left(samples.labels, synset.label + step) for step in (0, 1))
        if start < end:
            ranges.append((synset, range(start, end)))
    picks = chance.sample(ranges, min(classes, len(ranges)))
    rows = []
    for synset, of_class in sorted(picks, key=lambda pair: pair[0].label):
        indices = chance.sample(of_class, min(images, len(of_class)))
        rows.append(Row(synset, len(of_class), tuple(sorted(indices))))
    return rows


def _draw(sheet: ContactSheet) -> Image.Image:
    rows, samples, split = sheet.rows, sheet.samples, sheet.samples.split
    columns = max(len(row.indices) for row in rows)
    width = 2 * _MARGIN_PX + _LABEL_PX + columns * _PAIR_PX - _PAIR_GAP_PX
    height = _HEADER_PX + len(rows) * (CELL_PX + GAP_PX) + _MARGIN_PX
    paper = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(paper)
    title = ", ".join(filter(None, (sheet.dataset, split, samples.change)))
    _draw_header(draw, width, columns=columns, lines=(title, _explained(split, sheet.recipe)))
    for number, row in enumerate(rows):
        top = _HEADER_PX + number * (CELL_PX + GAP_PX)
        _draw_label(draw, row, top)
        for column, index in enumerate(row.indices):
            paste_pair(paper, pictures(samples, index, sheet.recipe), _left(column), top)
    return paper


def pictures(samples: SampleList, index: int, recipe: Recipe) -> tuple[Image.Image, Image.Image]:
    """A sample as it lies, and as the network sees it: of train in the first epoch, else validated.

    Raises WrongBytes on an image that cannot be read.
    """
    preprocessing = Preprocessing(
        recipe.image_size, recipe.val_resize, interpolation=recipe.interpolation
    )
    transform: Transform = ValTransform(preprocessing)
    if samples.split is Split.TRAIN:
        transform = train_transform(recipe)
    pixels = samples.pixels(index)
    crop = transform(pixels, epoch=0, index=index)
    return Image.fromarray(pixels), Image.fromarray(network_view(crop, preprocessing))


def _explained(split: Split, recipe: Recipe) -> str:
    side = f"{recipe.image_size} px square"  # the built-in font has no ×
    if split is Split.TRAIN:
        areas = f"{recipe.crop_scale:.0%} to 100% of the area".replace("%", " %")
        return f"left as it lies, right a training crop of {areas}, {side}, seed {recipe.seed}"
    return f"left as it lies, right as validated: short side {recipe.val_resize} px, centre {side}"


def _draw_header(
    draw: ImageDraw.ImageDraw, width: int, *, columns: int, lines: tuple[str, str]
) -> None:
    room = width - 2 * _MARGIN_PX
    large, small = ImageFont.load_default(19), ImageFont.load_default(12)
    draw.text((_MARGIN_PX, 12), fitted(lines[0], large, room), fill=INK, font=large)
    draw.text((_MARGIN_PX, 40), fitted(lines[1], small, room), fill=FAINT, font=small)
    for column in range(columns):
        for half, caption in enumerate(("image", "network sees")):
            middle = _left(column) + half * (CELL_PX + GAP_PX) + CELL_PX / 2
            draw.text((middle, _HEADER_PX - 8), caption, fill=FAINT, font=small, anchor="ms")


def _draw_label(draw: ImageDraw.ImageDraw, row: Row, top: int) -> None:
    synset, room = row.synset, _LABEL_PX - 14
    words = synset.words.split(", ") if synset.name != synset.words else []
    lines = (
        (synset.name, 17, INK),
        (", ".join(words[1:]), 12, FAINT),
        (synset.wnid if synset.wnid != synset.name else "", 13, INK),
        (count(row.samples, "image"), 12, FAINT),
    )
    down = top + 34
    for text, size_px, colour in lines:
        if text:
            text, font = drawable(text, size_px)
            draw.text((_MARGIN_PX, down), fitted(text, font, room), fill=colour, font=font)
            down += size_px + 9


def _left(column: int) -> int:
    return _MARGIN_PX + _LABEL_PX + column * _PAIR_PX
