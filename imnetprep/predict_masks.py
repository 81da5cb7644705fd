"""The foreground of single images, by a checkpoint that tells pixels apart."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from imnetprep.devices.device import pick_device
from imnetprep.fs import written_whole
from imnetprep.jobs import FILES
from imnetprep.machine import is_of_file
from imnetprep.masks.pixels import Mask, read_image
from imnetprep.messages import ImnetprepError, WrongUsage
from imnetprep.pixels.transforms import Pixels
from imnetprep.predict import Unread
from imnetprep.reports.mask_sheet import MaskRow, MaskSheet, mask_names, mask_png
from imnetprep.training.checkpoint import Checkpoint
from imnetprep.training.failures import said_in_words
from imnetprep.training.mask_view import logits_of


@dataclass(frozen=True)
class MaskPrediction:
    """An image, how much of it is foreground (0 to 1), and the file of its mask; None: none."""

    image: Path
    foreground: float
    mask: Path | None


def mask_predictions(
    checkpoint: Checkpoint,
    images: Iterable[Path],
    *,
    device: str | None = None,
    folder: Path | None = None,
    sheet: MaskSheet | None = None,
) -> Iterator[MaskPrediction | Unread]:
    """The foreground of each of `images`, in their order.

    `folder` gets the masks as NAME.png, foreground white. `sheet` gets the images that it has room
    for. Raises WrongUsage, before anything is done, where a mask is there already.
    """
    images = list(images)
    names = mask_names(images) if folder else {}
    for name in names.values():
        if folder and (folder / name).exists():  # it may be one that was drawn by hand
            raise WrongUsage(f"{folder / name} is there already", hint="--masks of another folder")
    place = pick_device(device)
    model = checkpoint.network(place).eval()
    for image, pixels in FILES.in_threads(_read, images, jobs=None):
        if isinstance(pixels, str):
            yield Unread(image, pixels)
            continue
        with torch.inference_mode(), said_in_words(smaller="--device cpu"):
            logits = logits_of(model, pixels, checkpoint.preprocessing, place)
        mask = (logits[0, 0] > 0).to(torch.uint8).cpu().numpy()
        if sheet is not None:
            sheet.add(MaskRow(image.name, pixels, (mask,)))
        path = None if folder is None else _written(folder / names[image], mask)
        yield MaskPrediction(image, float(np.mean(mask)), path)


def _read(image: Path) -> tuple[Path, Pixels | str]:
    try:
        return image, read_image(image)
    except (ImnetprepError, OSError) as error:
        if isinstance(error, OSError) and not is_of_file(error):
            raise
        return image, getattr(error, "strerror", None) or str(error).removeprefix(f"{image} ")


def _written(path: Path, mask: Mask) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as file:
        file.write(mask_png(mask))
    return path
