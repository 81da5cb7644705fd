"""`imnetprep predict`."""

import csv
import io
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imnetprep.commands import verb
from imnetprep.commands.terminal import is_json, json_option, print_note, print_result
from imnetprep.image_kinds import refuse_other_sheet
from imnetprep.messages import WrongBytes, count

if TYPE_CHECKING:  # of torch
    from imnetprep.predict import Prediction
    from imnetprep.training.checkpoint import Checkpoint

_COLUMNS = ("image", "rank", "wnid", "name", "probability")


@verb.command(short_help="Name the likeliest classes of images.")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@click.option(
    "--top", type=click.IntRange(1), default=5, show_default=True, help="Classes of each image."
)
@click.option("--csv", "as_csv", is_flag=True, help="Print a table: a row a class of an image.")
@click.option(
    "--draw",
    "out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="PNG or JPEG file to draw: each of the first 100 images, what the network sees of it, and"
    " its five likeliest classes.",
)
@click.option(
    "--masks",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Folder for the masks, as NAME.png, of a network that tells pixels apart.",
)
@verb.arch_option
@verb.device_option
@json_option
def predict(
    checkpoint: Path,
    images: tuple[str, ...],
    top: int,
    as_csv: bool,
    out: Path | None,
    masks: Path | None,
    arch: str | None,
    device: str | None,
) -> None:
    """Name the likeliest classes of each IMAGE, with their probabilities; or find its foreground.

    \b
    imnetprep predict imagenet/runs/resnet18/best.pt cat.jpg dog.png
    imnetprep predict best.pt photos --csv > photos.csv
    imnetprep predict best.pt digits/val/3 --draw threes.png
    imnetprep predict scene.pt frames --masks masks --draw masks.png
    find photos -newer last | imnetprep predict best.pt - --top 1

    IMAGE is a file, a folder, a pattern in quotes, or - for lines on stdin. A file that is no image
    is named and left out; then the exit code is 4.
    """
    if as_csv and is_json():
        verb.refuse("--json prints objects", "as_csv")
    if out:
        refuse_other_sheet("--draw", out)
    from imnetprep.image_paths import find_paths
    from imnetprep.training.runs import require_checkpoint

    require_checkpoint(checkpoint)  # before torch is loaded, which takes seconds
    paths = find_paths(images, sys.stdin)
    from imnetprep.predict import Unread, predictions
    from imnetprep.recipes.recipe import SEGMENT
    from imnetprep.reports.prediction_sheet import PredictionSheet
    from imnetprep.training.checkpoint import load_checkpoint

    state = load_checkpoint(checkpoint, arch=arch)
    if state.recipe.task == SEGMENT:
        verb.refuse("the network tells pixels apart, and names no classes", "top", "as_csv")
        _print_masks(state, paths, masks, out, device)
        return
    verb.refuse("the network names classes, and tells no pixels apart", "masks")
    sheet = PredictionSheet() if out else None
    files = unread = 0
    for each in predictions(state, paths, device=device, best=top, sheet=sheet):
        if as_csv and not files:
            print_result(_row(*_COLUMNS))
        files += 1
        if isinstance(each, Unread):
            unread += 1
            print_note(str(each)) if as_csv else print_result(str(each), **asdict(each))
        else:
            _print(each, as_csv=as_csv)
    if sheet and out and sheet.rows:
        sheet.write(out)
        surplus = files - unread - len(sheet.rows)
        rest = f"; {surplus:,} more are not drawn" if surplus else ""
        print_note(f"{out}: {count(len(sheet.rows), 'image')}{rest}")
    _refuse_unread(unread, files)


def _refuse_unread(unread: int, files: int) -> None:
    from imnetprep.images import readable_kinds

    if unread or not files:
        raise WrongBytes(
            f"{unread:,} of {count(files, 'file')} could not be read as an image",
            hint=f"{readable_kinds()} are read; the lines above say what is wrong",
        )


def _print_masks(
    state: "Checkpoint",
    paths: Iterable[Path],
    folder: Path | None,
    out: Path | None,
    device: str | None,
) -> None:
    from imnetprep.predict import Unread
    from imnetprep.predict_masks import mask_predictions
    from imnetprep.reports.mask_sheet import MaskSheet

    sheet = MaskSheet("guess") if out else None
    files = unread = 0
    for each in mask_predictions(state, paths, device=device, folder=folder, sheet=sheet):
        files += 1
        if isinstance(each, Unread):
            unread += 1
            print_result(str(each), **asdict(each))
        else:
            share = f"{each.foreground:.2%}".replace("%", " %")
            place = f"  {each.mask}" if each.mask else ""
            print_result(f"{each.image}  foreground {share}{place}", **asdict(each))
    if sheet and out and files > unread:
        sheet.write(out)
        print_note(f"{out} is drawn")
    _refuse_unread(unread, files)


def _print(prediction: "Prediction", *, as_csv: bool) -> None:
    if as_csv:
        for rank, guess in enumerate(prediction.best, 1):
            row = prediction.image, rank, guess.wnid, guess.name, f"{guess.probability:.6f}"
            print_result(_row(*row))
        return
    print_result(*prediction.lines(), **asdict(prediction))


def _row(*cells: object) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()
