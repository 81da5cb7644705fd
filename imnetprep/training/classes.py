"""The classes of a root against those that the outputs of a network stand for."""

from imnetprep.catalog.datasets import Dataset
from imnetprep.messages import ImnetprepError
from imnetprep.training.checkpoint import Classes


def classes_of(dataset: Dataset) -> Classes:
    """The classes of `dataset`, in the order of their labels."""
    synsets = dataset.synsets
    return Classes(
        dataset.name,
        tuple(synset.wnid for synset in synsets),
        tuple(synset.name for synset in synsets),
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
