"""The likeliest classes of single images, by a checkpoint."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from imnetprep.devices.device import pick_device
from imnetprep.jobs import FILES
from imnetprep.machine import is_of_file
from imnetprep.messages import ImnetprepError
from imnetprep.outside_files import read_file
from imnetprep.pixels.decoders import decode_pixels
from imnetprep.pixels.transforms import Normaliser, Pixels, ValTransform, network_view
from imnetprep.reports.prediction_sheet import Pair, PredictionSheet, small_pair
from imnetprep.training.checkpoint import Checkpoint, Classes
from imnetprep.training.failures import said_in_words

_BATCH = 32  # images that go through the network together


@dataclass(frozen=True)
class Guess:
    """A class and how likely the network holds it, from 0 to 1."""

    wnid: str
    name: str
    probability: float

    @property
    def label(self) -> str:
        """`n01440764  tench`; a class of one's own has no other name."""
        return self.wnid if self.wnid == self.name else f"{self.wnid}  {self.name}"


@dataclass(frozen=True)
class Prediction:
    """The best classes of an image, the likeliest first."""

    image: Path
    best: tuple[Guess, ...]

    def lines(self) -> list[str]:
        """The image, and a line a class, for people."""
        texts = (f"  {each.probability:8.2%}  {each.label}" for each in self.best)
        return [str(self.image), *(text.replace("%", " %", 1) for text in texts)]

    def __str__(self) -> str:
        return "\n".join(self.lines())


@dataclass(frozen=True)
class Unread:
    """A file that is no image, and why."""

    image: Path
    problem: str

    def __str__(self) -> str:
        return f"left out: {self.image} {self.problem}"


class Predictor:
    """A network on its device, which is asked for the likeliest classes of crops."""

    def __init__(self, checkpoint: Checkpoint, *, device: str | None) -> None:
        place = pick_device(device)
        self.preprocessing, self.classes = checkpoint.preprocessing, checkpoint.classes
        self.crop = ValTransform(checkpoint.preprocessing)
        self._network = checkpoint.network(place).eval()
        self._normaliser = Normaliser(checkpoint.preprocessing, place)

    def guesses(self, crops: Sequence[Pixels], *, best: int) -> list[tuple[Guess, ...]]:
        """The `best` classes of each crop (S, S, 3), the likeliest first."""
        if not crops:
            return []
        with torch.inference_mode(), said_in_words(smaller="--device cpu"):
            batch = torch.from_numpy(np.stack(crops))
            logits = self._network(self._normaliser.normalised(batch))
            shares = logits.float().softmax(dim=1).cpu()
        return [_guesses(row, self.classes, best) for row in shares]


def predictions(
    checkpoint: Checkpoint,
    images: Iterable[Path],
    *,
    device: str | None = None,
    best: int = 5,
    sheet: PredictionSheet | None = None,
) -> Iterator[Prediction | Unread]:
    """The `best` classes of each of `images`, in their order, by `checkpoint`.

    `sheet` gets a row of each that it has room for.
    """
    predictor = Predictor(checkpoint, device=device)
    preprocessing = predictor.preprocessing

    def read(image: Path) -> tuple[Path, Pair | None, Pixels | str]:
        plain = _decoded(image, apply_orientation=preprocessing.apply_orientation)
        if isinstance(plain, str):
            return image, None, plain
        crop = predictor.crop(plain)
        has_room = sheet is not None and sheet.has_room
        pair = small_pair(plain, network_view(crop, preprocessing)) if has_room else None
        return image, pair, crop

    readings = FILES.in_threads(read, images, jobs=None)
    while batch := list(islice(readings, _BATCH)):
        crops = [each for _, _, each in batch if not isinstance(each, str)]
        rows = iter(predictor.guesses(crops, best=best))
        for image, pair, each in batch:
            if isinstance(each, str):
                yield Unread(image, each)
                continue
            prediction = Prediction(image, next(rows))
            if sheet is not None and pair is not None:
                name = "/".join(image.parts[-2:])  # its folder is often its class
                sheet.add(name, pair, [(g.label, g.probability) for g in prediction.best])
            yield prediction


def _guesses(shares: Tensor, classes: Classes, best: int) -> tuple[Guess, ...]:
    top = shares.topk(min(best, len(shares)))
    pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    return tuple(Guess(classes.wnids[at], classes.names[at], share) for at, share in pairs)


def _decoded(path: Path, *, apply_orientation: bool) -> Pixels | str:
    """The image at `path`, or why there is none."""
    try:
        return decode_pixels(read_file(path), apply_orientation=apply_orientation)
    except (ImnetprepError, OSError, ValueError) as error:
        if isinstance(error, OSError) and not is_of_file(error):
            raise
        return getattr(error, "strerror", None) or str(error).removeprefix(f"{path} ")
