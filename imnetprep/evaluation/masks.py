"""A network that tells pixels apart, scored on images with masks, and its report."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imnetprep.catalog.datasets import Root, Split
from imnetprep.devices.device import pick_place
from imnetprep.fs import written_whole
from imnetprep.masks.pairs import PairList, read_pairs
from imnetprep.masks.pixels import BACKGROUND, FOREGROUND, Mask, PixelPair
from imnetprep.messages import ImnetprepError, Progress, count
from imnetprep.outside_text import shown
from imnetprep.recipes.recipe import SEGMENT
from imnetprep.reports.mask_sheet import MaskRow, MaskSheet, mask_png, png
from imnetprep.reports.parts import Sample, html_page, image_grid, table
from imnetprep.training.checkpoint import Checkpoint, load_checkpoint
from imnetprep.training.failures import said_in_words
from imnetprep.training.mask_data import held_out_pairs
from imnetprep.training.mask_meters import MaskScore
from imnetprep.training.mask_validator import MaskValidator

PAGE = "report.html"
_SHOWN_IMAGES = 48


@dataclass(frozen=True)
class MaskGuess:
    """What was guessed of an image that has a mask; `score` counts its pixels alone."""

    image: Path
    pair: PixelPair
    guess: Mask
    score: MaskScore


@dataclass(frozen=True)
class MaskEvaluation:
    """The score of all pixels, and of each image what was guessed."""

    network: str
    score: MaskScore
    guesses: tuple[MaskGuess, ...]


def evaluate_masks(
    root: Root,
    path: Path,
    *,
    arch: str | None = None,
    device: str | None = None,
    progress: Progress,
) -> MaskEvaluation:
    """The checkpoint at `path` scored on the validation pairs under `root`.

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
    guesses: list[MaskGuess] = []

    def keep(at: int, pair: PixelPair, logits: NDArray[np.float32]) -> None:
        guess = (logits > 0).astype(np.uint8)
        guesses.append(MaskGuess(pairs.images[at], pair, guess, _counted(guess, pair.mask)))

    with said_in_words(smaller="--device cpu"):
        network = checkpoint.network(place.device)
        score = validator.score(network, progress, title="evaluate", on_mask=keep)
    return MaskEvaluation(checkpoint.recipe.arch, score, tuple(guesses))


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
    places = held_out_pairs(train, recipe)
    if len(train) != checkpoint.train_samples:
        raise ImnetprepError(
            f"the checkpoint is of a root with {count(checkpoint.train_samples, 'image')}, and"
            f" {root.path} has {len(train):,}: which of them it never saw cannot be told",
            hint="name the root that it was trained on by --root, or one with a val split",
        )
    progress.note(
        f"{root.path} has no val split: scored on the {count(len(places), 'image')} that"
        f" --val-fraction {recipe.val_fraction:g} held out"
    )
    return train.chosen(sorted(places))


def _counted(guess: Mask, truth: Mask) -> MaskScore:
    cases = [(guess == side) & (truth == real) for side, real in (
        (FOREGROUND, FOREGROUND), (FOREGROUND, BACKGROUND),
        (BACKGROUND, FOREGROUND), (BACKGROUND, BACKGROUND),
    )]  # fmt: skip
    right, surplus, lack, rest = (int(each.sum()) for each in cases)
    return MaskScore(0.0, right, surplus, lack, rest, images=1)


def write_mask_report(evaluation: MaskEvaluation, folder: Path) -> list[Path]:
    """Write a page, a table of images, and each guess as a mask; the page last."""
    worst = sorted(evaluation.guesses, key=_share)
    names = mask_names([each.image for each in evaluation.guesses])
    bodies = {f"masks/{names[each.image]}": mask_png(each.guess) for each in evaluation.guesses}
    bodies["images.csv"] = _table(worst)
    bodies[PAGE] = _page(evaluation, worst)
    for name, body in bodies.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with written_whole(folder / name) as file:
            file.write(body)
    return [folder / PAGE, folder / "images.csv", folder / "masks"]


def _share(guess: MaskGuess) -> float:
    return guess.score.shares()["f_percent"]


def mask_names(images: list[Path]) -> dict[Path, str]:
    """The name of the file of each mask: that of its image, with a number where two have one."""
    names: dict[Path, str] = {}
    for path in dict.fromkeys(images):
        name, number = f"{path.stem}.png", 1
        while name in names.values():
            number += 1
            name = f"{path.stem}-{number}.png"
        names[path] = name
    return names


def _table(guesses: list[MaskGuess]) -> bytes:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("image", "f_percent", "iou_percent", "accuracy_percent"))
    for each in guesses:
        shares = each.score.shares()
        cells = (f"{shares[name]:.3f}" for name in ("f_percent", "iou_percent", "accuracy_percent"))
        rows.writerow((shown(str(each.image)), *cells))
    return text.getvalue().encode(errors="replace")


def _page(evaluation: MaskEvaluation, worst: list[MaskGuess]) -> bytes:
    score = evaluation.score
    facts = {
        "network": evaluation.network,
        "images": f"{score.images:,}",
        **{name: f"{value:.2f} %" for name, value in (
            ("F-measure", score.shares()["f_percent"]), ("IoU", score.shares()["iou_percent"]),
            ("pixel accuracy", score.shares()["accuracy_percent"]),
            ("all background", score.shares()["all_background_percent"]),
        )},
    }  # fmt: skip
    title = "Images, the worst first: as they are, in truth, as guessed"
    grid = image_grid(title, list(_strips(worst[:_SHOWN_IMAGES])), look="wide")
    return html_page("Foreground", table("Evaluation", facts) + grid)


def _strips(guesses: list[MaskGuess]) -> Iterator[Sample]:
    for each in guesses:
        sheet = MaskSheet("truth", "guess")
        sheet.add(MaskRow(each.image.name, each.pair.pixels, (each.pair.mask, each.guess)))
        yield Sample(png(sheet.image()), str(each.score).partition("  loss")[0], each.image.name)
