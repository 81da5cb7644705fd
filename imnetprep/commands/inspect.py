"""`imnetprep inspect`."""

from pathlib import Path

import click

from imnetprep.catalog.datasets import Layout, Root, Split
from imnetprep.commands import verb
from imnetprep.commands.terminal import json_option, print_result
from imnetprep.image_kinds import refuse_other_sheet
from imnetprep.messages import WrongUsage, count
from imnetprep.recipes.recipe import INTERPOLATIONS


@verb.command(short_help="Draw what the network sees, as a contact sheet.")
@verb.root_option
@verb.split_option(default="train")
@verb.layout_option()
@click.option(
    "--classes", type=click.IntRange(1), default=8, show_default=True, help="Number of classes."
)
@click.option(
    "--images",
    type=click.IntRange(1),
    default=4,
    show_default=True,
    help="Number of images of each class.",
)
@click.option("--image-size", type=int, help="Side of the network's input, px.  [default: 224]")
@click.option("--crop-scale", type=float, help="Smallest area of a training crop.  [default: 0.08]")
@click.option(
    "--interpolation",
    type=click.Choice(INTERPOLATIONS),
    help="Filter that resizes images.  [default: bilinear]",
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Seed of the samples and crops."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="PNG or JPEG file to write.  [default: ./inspect-SPLIT.png]",
)
@verb.dry_run_option("Pick the images, and draw nothing.")
@json_option
def inspect(
    root: Root,
    splits: tuple[Split, ...],
    layout: Layout | None,
    classes: int,
    images: int,
    image_size: int | None,
    crop_scale: float | None,
    interpolation: str | None,
    seed: int,
    out: Path | None,
    dry_run: bool,
) -> None:
    """Draw a contact sheet: each image as it lies, and beside it what the network sees of it.

    \b
    imnetprep inspect                          the train split, ./inspect-train.png
    imnetprep inspect --split val --classes 20
    imnetprep inspect --root scene --images 12 images with their masks
    """
    splits = splits or (Split.TRAIN,)
    from imnetprep.masks.pairs import has_pairs

    if Split.TRAIN not in splits:
        verb.refuse("only crops of train are random", "crop_scale")
    if out:
        refuse_other_sheet("--out", out)
    if out and len(splits) > 1:
        raise WrongUsage(f"--out {out} is one file for {len(splits)} splits", hint="leave it out")
    if has_pairs(root):
        verb.refuse(
            f"{root.path} has images with masks",
            *("layout", "classes", "image_size", "crop_scale", "interpolation", "seed"),
        )
        _draw_masks(root, splits, images, out, dry_run=dry_run)
        return
    from imnetprep.loading.loadable import require_loadable
    from imnetprep.training.runs import require_samples

    require_loadable()
    require_samples(root, splits, layout=layout)  # before torch is loaded, which takes seconds
    from imnetprep.contact_sheet import plan_contact_sheet

    for split in splits:
        path = out or Path(f"inspect-{split}.png")
        sheet = plan_contact_sheet(
            root,
            split=split,
            layout=layout,
            classes=classes,
            images=images,
            image_size=image_size,
            crop_scale=crop_scale,
            interpolation=interpolation,
            seed=seed,
        )
        if not dry_run:
            sheet.write(path)
        rows, change = sheet.rows, sheet.samples.change
        image_count = sum(len(row.indices) for row in rows)
        print_result(
            f"{path}: {count(image_count, 'image')} of {count(len(rows), 'class')}"
            + (f" ({change})" if change else "")
            + (", not drawn" if dry_run else ""),
            split=split,
            out=path,
            drawn=not dry_run,
            change=change,
            images=image_count,
            wnids=[row.synset.wnid for row in rows],
        )


def _draw_masks(
    root: Root, splits: tuple[Split, ...], images: int, out: Path | None, *, dry_run: bool
) -> None:
    from imnetprep.mask_contact_sheet import draw_masks, some_pairs

    for split in splits:
        path = out or Path(f"inspect-{split}.png")
        pairs = some_pairs(root, split, images)
        if not dry_run:
            draw_masks(pairs, path)
        print_result(
            f"{path}: {count(len(pairs), 'image')} with masks" + (", not drawn" if dry_run else ""),
            split=split,
            out=path,
            drawn=not dry_run,
            images=len(pairs),
        )
