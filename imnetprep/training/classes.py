"""The classes of a root against those that the outputs of a network stand for."""

from pathlib import Path

from imnetprep.catalog.datasets import Dataset
from imnetprep.messages import ImnetprepError, WrongUsage, shell_command
from imnetprep.recipes.recipe import SEGMENT
from imnetprep.training.checkpoint import Checkpoint, Classes


def classes_of(dataset: Dataset) -> Classes:
    """The classes of `dataset`, in the order of their labels."""
    synsets = dataset.synsets
    return Classes(
        dataset.name,
        tuple(synset.wnid for synset in synsets),
        tuple(synset.name for synset in synsets),
    )


def refuse_masks(checkpoint: Checkpoint, path: Path) -> None:
    """Raise WrongUsage where the network of `checkpoint` tells pixels apart."""
    if checkpoint.recipe.task == SEGMENT:
        raise WrongUsage(
            f"{path} tells the pixels of images apart, and names no classes",
            hint=f"{shell_command('imnetprep', 'predict', path)} IMAGE --masks DIR",
        )


def refuse_other_classes(classes: Classes, root_classes: Classes, *, checkpoint: str) -> None:
    """Raise ImnetprepError unless output k of the network stands for class k of the root."""
    wnids = root_classes.wnids
    if classes.wnids == wnids:
        return
    hint = "take the root that it was trained on, by --root"
    if len(classes.wnids) != len(wnids):
        difference = f"{len(classes.wnids)} classes and the root has {len(wnids)}"
    else:
        at = next(at for at, wnid in enumerate(wnids) if wnid != classes.wnids[at])
        difference = f"class {at} {classes.wnids[at]} where the root has {wnids[at]}"
    raise ImnetprepError(
        f"{checkpoint} was trained on {classes.dataset}: it has {difference}", hint=hint
    )
