"""What a root of images and masks has to train on, as `data.Data` is for classes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from imnetprep.catalog.datasets import Root, Split
from imnetprep.devices.device import Place
from imnetprep.jobs import FILES
from imnetprep.loading.order import mixed_seed, one_batch, shuffled
from imnetprep.masks.loader import PairLoader
from imnetprep.masks.pairs import PairList, read_pairs
from imnetprep.masks.pixels import BACKGROUND, FOREGROUND, read_pair
from imnetprep.messages import ImnetprepError, Progress, WrongBytes, WrongUsage, count
from imnetprep.networks.mask_networks import STRIDE_PX
from imnetprep.pixels.decoders import PILLOW
from imnetprep.process_group.ranks import Ranks
from imnetprep.recipes.recipe import Recipe, option_of
from imnetprep.training.checkpoint import Checkpoint, Classes
from imnetprep.training.mask_objective import MaskObjective
from imnetprep.training.mask_validator import MaskValidator
from imnetprep.training.origin import Origin, SplitOrigin, commit_of_checkout

_NAMES = ("background", "foreground")
MASK_CLASSES = Classes("images with masks", _NAMES, _NAMES)
_LAYOUT = "images and masks"


@dataclass(frozen=True)
class MaskData:
    """The pairs of a root; where it has no val split `val` is empty, and a seed splits train."""

    train: PairList
    val: PairList
    origin: Origin
    classes: Classes = MASK_CLASSES
    lack: None = None
    decoder: str = PILLOW
    apply_orientation: bool = True

    def of(self, recipe: Recipe) -> "MaskData":
        """What `recipe` trains and validates on. Raises ImnetprepError where that is too little."""
        train, val = self.train, self.val
        if not recipe.val:
            val = val.chosen(())
        elif recipe.val_fraction:
            places = held_out_pairs(self.train, recipe)
            train = self.train.chosen([at for at in range(len(self.train)) if at not in places])
            val = self.train.chosen(sorted(places))
        if recipe.val and not recipe.val_fraction and not len(val):
            raise ImnetprepError(
                "there is no val split, and --val-fraction 0 holds nothing out",
                hint="--val-fraction 0.2, or --no-val",
            )
        if not len(train) or (recipe.val and not len(val)):
            raise ImnetprepError(
                "one image with its mask is too few to validate on", hint="--no-val"
            )
        return replace(self, train=train, val=val)

    def examine(self, progress: Progress) -> None:
        """Read all masks and images once, so that no epoch ends at a bad one.

        Raises WrongBytes on the first, and where train has one side alone.
        """
        pixels = np.zeros(2, np.int64)
        for pairs in (self.train, self.val):
            paths = list(zip(pairs.images, pairs.masks, strict=True))
            with progress.task(f"look at {pairs.split}", total=len(paths), unit="images") as task:
                for mask in FILES.in_threads(lambda pair: read_pair(*pair).mask, paths, jobs=None):
                    if pairs is self.train:
                        pixels += [np.sum(mask == side) for side in (BACKGROUND, FOREGROUND)]
                    task.advance(1)
        for name, number in zip(_NAMES, pixels, strict=True):
            if not number:
                raise WrongBytes(
                    f"no mask of {count(len(self.train), 'training image')} has a pixel of {name}",
                    hint="white (255) is foreground, black (0) background: imnetprep inspect",
                )

    def loader(self, recipe: Recipe, place: Place, ranks: Ranks) -> PairLoader:
        """The training batches, of which each rank reads its slice."""
        order = shuffled(len(self.train), batch_size=recipe.batch_size, seed=recipe.seed)
        if recipe.one_batch:
            order = one_batch(order, batch_size=recipe.batch_size)
        return PairLoader(
            self.train,
            order=order,
            batch_size=recipe.batch_size,
            longest_px=recipe.image_size,
            interpolation=recipe.interpolation,
            multiple_px=STRIDE_PX,
            mirror_seed=mixed_seed(recipe.seed, "mirror") if recipe.mirror else None,
            share=ranks.slice,
            threads=max(1, place.workers),
        )

    def validator(self, checkpoint: Checkpoint, place: Place, ranks: Ranks) -> MaskValidator:
        """What scores a network on the validation pairs."""
        amp = checkpoint.recipe.amp
        return MaskValidator(self.val, checkpoint.preprocessing, place=place, amp=amp, ranks=ranks)

    def objective(self, checkpoint: Checkpoint, device: torch.device) -> MaskObjective:
        """The loss that is descended."""
        return MaskObjective(checkpoint, device)


def read_mask_data(root: Root) -> MaskData:
    """The pairs under `root`. Raises ImnetprepError where there are none."""
    splits = read_pairs(root.path)
    if Split.TRAIN not in splits:
        raise ImnetprepError(
            f"{root.path} has a val split of images with masks, and no train split",
            hint="imnetprep evaluate --root scores a network on it",
        )
    train = splits[Split.TRAIN]
    val = splits.get(Split.VAL, PairList(Split.VAL))
    parts = {str(split): SplitOrigin(len(pairs), _LAYOUT) for split, pairs in splits.items()}
    return MaskData(train, val, Origin(commit=commit_of_checkout(), splits=parts))


def held_out_pairs(pairs: PairList, recipe: Recipe) -> frozenset[int]:
    """The pairs that --val-fraction holds out, by the seed: at least one, and not all."""
    generator = torch.Generator().manual_seed(mixed_seed(recipe.seed, "held out"))
    order: Sequence[int] = torch.randperm(len(pairs), generator=generator).tolist()
    number = max(1, round(recipe.val_fraction * len(pairs)))
    return frozenset(order[: min(number, len(pairs) - 1)])


def refuse_for_masks(**options: object) -> None:
    """Raise WrongUsage where an option is given that images with masks do not have."""
    for name, value in options.items():
        if value:
            raise WrongUsage(
                f"{option_of(name)} is of images by class, and these have masks",
                hint=f"leave out {option_of(name)}",
            )
