"""A network that tells pixels apart, scored on images with masks, and its report."""

import csv
import heapq
import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from imnetprep.catalog.datasets import Root, Split
from imnetprep.devices.device import pick_place
from imnetprep.fs import written_whole
from imnetprep.masks.pairs import PairList, read_pairs
from imnetprep.masks.pixels import PixelPair
from imnetprep.messages import ImnetprepError, Progress, count
from imnetprep.outside_text import shown
from imnetprep.recipes.recipe import SEGMENT
from imnetprep.reports.mask_sheet import MaskRow, MaskSheet, mask_names, mask_png, png
from imnetprep.reports.parts import Sample, html_page, image_grid, table
from imnetprep.training.checkpoint import Checkpoint, load_checkpoint
from imnetprep.training.failures import said_in_words
from imnetprep.training.mask_data import held_out_pairs
from imnetprep.training.mask_meters import MaskScore, count_pixels
from imnetprep.training.mask_validator import MaskValidator

# No folder of pairs is called so: a report that is written to a root leaves its masks alone.
PAGE, _TABLE, _FOLDER = "report.html", "images.csv", "guesses"
_SHOWN_IMAGES = 48
_MEASURES = {
    "f_percent": "F-measure", "iou_percent": "IoU", "accuracy_percent": "pixel accuracy",
    "all_background_percent": "all background",
}  # fmt: skip


class _Row(NamedTuple):
    """An image by the share that is right: `strip` is a PNG of it, its truth and its guess."""

    f_percent: float
    number: int
    image: Path
    score: MaskScore
    strip: bytes


class MaskReport:
    """The files of `evaluate --report` for masks: each guess as it comes, then table and page."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: dict[Path, str] = {}
        self._scores: list[tuple[Path, MaskScore]] = []
        self._worst: list[_Row] = []  # a heap, the best of them first

    @property
    def files(self) -> list[Path]:
        """What is written."""
        return [self._folder / name for name in (PAGE, _TABLE, _FOLDER)]

    def begin(self, pairs: PairList) -> None:
        """Decide what the masks are called."""
        self._names = mask_names(pairs.images)

    def add(self, image: Path, pair: PixelPair, guess: NDArray[np.uint8]) -> None:
        """Write the guess, and keep a small picture of it if it is among the worst."""
        _write(self._folder / _FOLDER / self._names[image], mask_png(guess))
        counts = count_pixels(torch.from_numpy(guess).bool(), torch.from_numpy(pair.mask))
        score = MaskScore(0.0, *(int(each) for each in counts), images=1)  # type: ignore[misc]
        share, number = score.shares()["f_percent"], len(self._scores)
        self._scores.append((image, score))
        if len(self._worst) < _SHOWN_IMAGES or -share > self._worst[0][0]:
            sheet = MaskSheet("truth", "guess")
            sheet.add(MaskRow(image.name, pair.pixels, (pair.mask, guess)))
            row = _Row(-share, number, image, score, png(sheet.image()))
            push = heapq.heappush if len(self._worst) < _SHOWN_IMAGES else heapq.heapreplace
            push(self._worst, row)

    def end(self, network: str, score: MaskScore) -> None:
        """Write the table, and the page last."""
        _write(self._folder / _TABLE, self._table())
        facts = {"network": network, "images": f"{score.images:,}"}
        facts |= {title: f"{score.shares()[key]:.2f} %" for key, title in _MEASURES.items()}
        title = "Images, the worst first: as they are, in truth, as guessed"
        grid = image_grid(title, list(self._samples()), look="wide")
        _write(self._folder / PAGE, html_page("Foreground", table("Evaluation", facts) + grid))

    def _samples(self) -> Iterator[Sample]:
        for row in sorted(self._worst, reverse=True):
            shares = row.score.shares()
            text = f"F {shares['f_percent']:.2f} %, IoU {shares['iou_percent']:.2f} %"
            yield Sample(row.strip, text, row.image.name)

    def _table(self) -> bytes:
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        keys = [key for key in _MEASURES if key != "all_background_percent"]
        rows.writerow(("image", *keys))
        for image, score in self._scores:
            cells = (f"{score.shares()[key]:.3f}" for key in keys)
            rows.writerow((shown(str(image)), *cells))
        return text.getvalue().encode(errors="replace")


def evaluate_masks(
    root: Root,
    path: Path,
    *,
    arch: str | None = None,
    device: str | None = None,
    report: MaskReport | None = None,
    progress: Progress,
) -> MaskScore:
    """The checkpoint at `path` scored on the validation pairs under `root`, written to `report`.

    Where there is no val split these are the ones that the training held out. Raises ImnetprepError
    where it knows of none, or was trained on classes.
    """
    checkpoint = load_checkpoint(path, arch=arch)
    if checkpoint.recipe.task != SEGMENT:
        raise ImnetprepError(
            f"{path} names classes of images, and {root.path} has images with masks",
            hint="name a checkpoint that imnetprep train --task segment made",
        )
    pairs, place = _validation(root, checkpoint, progress), pick_place(device, 0)
    validator = MaskValidator(
        pairs, checkpoint.preprocessing, place=place, amp=checkpoint.recipe.amp
    )

    def add(at: int, pair: PixelPair, logits: NDArray[np.float32]) -> None:
        if report:
            report.add(pairs.images[at], pair, (logits > 0).astype(np.uint8))

    if report:
        report.begin(pairs)
    with said_in_words(smaller="--device cpu"):
        network = checkpoint.network(place.device)
        score = validator.score(network, progress, title="evaluate", on_mask=add)
    if report:
        report.end(checkpoint.recipe.arch, score)
    return score


def _validation(root: Root, checkpoint: Checkpoint, progress: Progress) -> PairList:
    splits, recipe = read_pairs(root.path), checkpoint.recipe
    if Split.VAL in splits:
        return splits[Split.VAL]
    train = splits[Split.TRAIN]
    if not recipe.val_fraction:
        raise ImnetprepError(
            f"{root.path} has no val split, and the training held out none",
            hint="put the pairs to be scored into val/images and val/masks of a root",
        )
    if len(train) != checkpoint.train_samples:
        raise ImnetprepError(
            f"the checkpoint is of a root with {count(checkpoint.train_samples, 'image')}, and"
            f" {root.path} has {len(train):,}: which of them it never saw cannot be told",
            hint="name the root that it was trained on by --root, or one with a val split",
        )
    places = held_out_pairs(train, recipe)
    progress.note(
        f"{root.path} has no val split: scored on the {count(len(places), 'image')} that"
        f" --val-fraction {recipe.val_fraction:g} held out"
    )
    return train.chosen(sorted(places))


def _write(path: Path, body: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as file:
        file.write(body)
