"""A contact sheet of images with masks: each image, and its foreground tinted."""

from pathlib import Path

from imnetprep.catalog.datasets import Root, Split
from imnetprep.masks.pairs import PairList, read_pairs
from imnetprep.masks.pixels import read_pair
from imnetprep.messages import ImnetprepError
from imnetprep.reports.mask_sheet import MaskRow, MaskSheet


def some_pairs(root: Root, split: Split, number: int) -> PairList:
    """A `number` of pairs of the split under `root`, evenly over all. Raises ImnetprepError."""
    splits = read_pairs(root.path)
    if split not in splits:
        raise ImnetprepError(
            f"{root.path} has no {split} split of images with masks", hint=f"--split {Split.TRAIN}"
        )
    pairs, total = splits[split], len(splits[split])
    return pairs.chosen([at * total // min(number, total) for at in range(min(number, total))])


def draw_masks(pairs: PairList, out: Path) -> None:
    """Draw the pairs to `out`. Raises WrongBytes where one is not to be read."""
    sheet = MaskSheet("foreground")
    for image, mask in zip(pairs.images, pairs.masks, strict=True):
        pair = read_pair(image, mask)
        sheet.add(MaskRow(f"{image.name} · {mask.name}", pair.pixels, (pair.mask,)))
    sheet.write(out)
