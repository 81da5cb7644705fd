"""The drawn dataset: ten synsets that a network learns in minutes, packed as ImageNet is."""

import io
import random
from pathlib import Path

import numpy as np
from PIL import Image

from imnetprep.catalog.datasets import Split, load_dataset
from imnetprep.messages import Progress, Silent
from imnetprep.synthetic.archives import DatasetPlan, Member, plan_dataset, write_definition
from imnetprep.synthetic.figures import FIGURES
from imnetprep.synthetic.noise import write_archives
from imnetprep.synthetic.photographs import draw_photograph

_QUALITIES = (75, 96)


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
    odd = _odd_files(plan)
    form_of = {name: form for form, names in odd.items() for name in names}
    total = classes * (train_per_class + val_per_class)
    with (progress or Silent()).task("draw", total=total, unit="images") as task:

        def member(split: Split, label: int, number: int) -> Member:
            name = plan.file_name(split, label, number)
            pixels = np.random.default_rng([seed, split == Split.VAL, label, number])
            image = draw_photograph(plan.synsets[label].wnid, pixels, side_px=side_px)
            body = _encoded(image, form_of.get(name), quality=int(pixels.integers(*_QUALITIES)))
            task.advance(1)
            return Member(name, len(body), lambda: [body])

        folder.mkdir(parents=True, exist_ok=True)
        archives = write_archives(folder, plan, member, rng=rng)
    return write_definition(folder, plan, archives, odd_files=odd)


def _odd_files(plan: DatasetPlan) -> dict[str, list[str]]:
    """The first file of the first class is the PNG, the last of the last class the CMYK."""
    split = next(iter(plan.numbers))
    numbers, last = plan.numbers[split], len(plan.synsets) - 1
    return {
        "png": [plan.file_name(split, 0, numbers[0][0])],
        "cmyk": [plan.file_name(split, last, numbers[last][-1])],
    }


def _encoded(image: Image.Image, form: str | None, *, quality: int) -> bytes:
    body = io.BytesIO()
    if form == "png":
        image.save(body, "PNG")
    else:
        image.convert("CMYK" if form == "cmyk" else "RGB").save(body, "JPEG", quality=quality)
    return body.getvalue()
