"""The likeliest classes of single images, by a checkpoint."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from imnetprep.images import decode_rgb, readable_kinds
from imnetprep.loading.transforms import Normaliser, ValTransform
from imnetprep.messages import ImnetprepError
from imnetprep.outside_files import read_file
from imnetprep.training.checkpoint import load_checkpoint
from imnetprep.training.device import pick_device
from imnetprep.training.failures import said_in_words


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


def predictions(
    path: Path,
    images: Sequence[Path],
    *,
    arch: str | None = None,
    device: str | None = None,
    best: int = 5,
) -> Iterator[Prediction]:
    """The `best` classes of each of `images`, by the checkpoint at `path`.

    Raises ImnetprepError on a file that is no image, after those before it.
    """
    checkpoint = load_checkpoint(path, arch=arch)
    place = pick_device(device)
    model = checkpoint.network(place).eval()
    preprocessing, classes = checkpoint.preprocessing, checkpoint.classes
    normaliser = Normaliser(preprocessing, place)
    transform = ValTransform(preprocessing)
    for image in images:
        plain = _decoded(image, apply_orientation=preprocessing.apply_orientation)
        pixels = torch.from_numpy(transform(plain).copy())[None]
        with torch.inference_mode(), said_in_words(smaller="--device cpu"):
            shares = model(normaliser.normalised(pixels)).float().softmax(dim=1)[0]
            top = shares.topk(min(best, len(shares)))
        pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
        guesses = tuple(Guess(classes.wnids[at], classes.names[at], share) for at, share in pairs)
        yield Prediction(image, guesses)


def _decoded(path: Path, *, apply_orientation: bool) -> Image.Image:
    try:
        return decode_rgb(read_file(path), apply_orientation=apply_orientation)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        hint = f"leave it out, or name an image: {readable_kinds()} are read"
        raise ImnetprepError(f"{path}: {reason}", hint=hint) from error
