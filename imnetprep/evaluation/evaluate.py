"""A checkpoint, or weights of another program, scored on the validation split of a root."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

from imnetprep.catalog.datasets import Layout, Root, Split
from imnetprep.evaluation.network import open_checkpoint
from imnetprep.loading.listing import open_listing
from imnetprep.messages import Progress
from imnetprep.training.classes import classes_of, refuse_other_classes
from imnetprep.training.device import pick_place
from imnetprep.training.failures import said_in_words
from imnetprep.training.meters import Score
from imnetprep.training.validator import Validator


def evaluate(
    root: Root,
    path: Path,
    *,
    arch: str | None = None,
    device: str | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    layout: Layout | None = None,
    progress: Progress,
) -> Score:
    """The score of the checkpoint at `path` on the validation split under `root`.

    `arch`: the network of weights that another program saved, or the function of the user's own
    that makes the checkpoint's. Raises ImnetprepError if its classes are not those of the root.
    """
    place = pick_place(device, workers)
    with open_listing(root, layout=layout) as listing:
        classes = classes_of(listing.dataset)
        samples = listing.samples(Split.VAL)
    checkpoint = open_checkpoint(
        path, arch=arch, classes=classes, apply_orientation=samples.apply_orientation
    )
    batch_size = batch_size or checkpoint.recipe.batch_size
    refuse_other_classes(checkpoint.classes, classes, checkpoint=str(path))
    validator = Validator(
        replace(samples, apply_orientation=checkpoint.preprocessing.apply_orientation),
        checkpoint.preprocessing,
        place=place,
        batch_size=batch_size,
        amp=checkpoint.recipe.amp,
    )
    smaller = f"--batch-size {batch_size // 2}" if batch_size > 1 else "--device cpu"
    with closing(validator), said_in_words(smaller=smaller):
        return validator.score(checkpoint.network(place.device), progress, title="evaluate")
