"""The network to score: a checkpoint of ours, or weights that another program saved."""

from pathlib import Path

from imnetprep.messages import ImnetprepError, count
from imnetprep.recipes.plan_recipe import plan_recipe
from imnetprep.training.checkpoint import (
    Checkpoint,
    Classes,
    Position,
    is_checkpoint,
    load_checkpoint,
)
from imnetprep.training.foreign_weights import (
    first_weights,
    format_names,
    pixel_options,
    preprocessing_of,
    read_weights,
)


def open_checkpoint(
    path: Path, *, arch: str | None, classes: Classes, apply_orientation: bool
) -> Checkpoint:
    """The checkpoint at `path`; with `arch` also weights of another program, for these classes.

    Raises ImnetprepError where a tensor of the network is missing, or of another shape.
    """
    if arch is None or is_checkpoint(path):
        return load_checkpoint(path, arch=arch)
    weights = read_weights(str(path), arch)
    recipe = plan_recipe(pixel_options(weights, {"arch": arch}), amp_pays=False)
    tensors, fit = first_weights(recipe, classes, weights)
    if gaps := fit.misfits + fit.gaps:
        raise ImnetprepError(
            f"{path} has no {format_names(gaps)} as {arch} has it for"
            f" {count(len(classes.wnids), 'class')}",
            hint="--root of the classes that the weights are of; --arch of their network",
        )
    preprocessing = preprocessing_of(recipe, weights, apply_orientation=apply_orientation)
    return Checkpoint(
        recipe=recipe, classes=classes, preprocessing=preprocessing, weights=tensors,
        optimizer={}, position=Position(), sums={}, best=None, train_samples=0, typed_arch=arch,
    )  # fmt: skip
