"""The network to score: a checkpoint of ours, or weights that another program saved."""

from pathlib import Path

from imnetprep.catalog.datasets import DEFAULT, Dataset, load_dataset
from imnetprep.messages import ImnetprepError, count
from imnetprep.recipes.plan_recipe import plan_recipe
from imnetprep.training.checkpoint import (
    Checkpoint,
    Classes,
    Position,
    is_checkpoint,
    load_checkpoint,
)
from imnetprep.training.classes import classes_of, refuse_masks
from imnetprep.training.foreign_weights import (
    first_weights,
    format_names,
    pixel_options,
    preprocessing_of,
    read_weights,
)


def open_checkpoint(
    path: Path, *, arch: str | None, dataset: Dataset, apply_orientation: bool
) -> Checkpoint:
    """The checkpoint at `path`; with `arch` also weights of another program.

    Their outputs stand for the classes of `dataset`, or where that is a part of ilsvrc2012, for
    all of those: whichever they fit. Raises ImnetprepError where a tensor of the network is
    missing, or of another shape.
    """
    if arch is None or is_checkpoint(path):
        checkpoint = load_checkpoint(path, arch=arch)
        refuse_masks(checkpoint, path)
        return checkpoint
    weights = read_weights(str(path), arch)
    recipe = plan_recipe(pixel_options(weights, {"arch": arch}), amp_pays=False)
    own = classes_of(dataset)
    for classes in (own, *_wholes(own)):
        tensors, fit = first_weights(recipe, classes, weights)
        if not fit.misfits + fit.gaps:
            break
    else:
        tensors, fit = first_weights(recipe, own, weights)
        raise ImnetprepError(
            f"{path} has no {format_names(fit.misfits + fit.gaps)} as {arch} has it for"
            f" {count(len(own.wnids), 'class')}",
            hint="--root of the classes that the weights are of; --arch of their network",
        )
    preprocessing = preprocessing_of(recipe, weights, apply_orientation=apply_orientation)
    return Checkpoint(
        recipe=recipe, classes=classes, preprocessing=preprocessing, weights=tensors,
        optimizer={}, position=Position(), sums={}, best=None, train_samples=0, typed_arch=arch,
    )  # fmt: skip


def _wholes(classes: Classes) -> list[Classes]:
    """The classes of ilsvrc2012, where `classes` are some of them."""
    whole = classes_of(load_dataset(DEFAULT))
    return [whole] if set(classes.wnids) < set(whole.wnids) else []
