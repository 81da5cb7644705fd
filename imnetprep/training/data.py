"""What a root of images by class has to train and to validate on."""

from dataclasses import dataclass, replace

from imnetprep.catalog.datasets import Layout, Root, Split
from imnetprep.manifest import NoSplit
from imnetprep.messages import ImnetprepError, Progress
from imnetprep.recipes.recipe import Recipe
from imnetprep.remote_shards.place import ShardPlace, listing_of
from imnetprep.samples.held_out import held_out
from imnetprep.samples.sample_list import SampleList
from imnetprep.training.checkpoint import Classes
from imnetprep.training.classes import classes_of
from imnetprep.training.origin import Origin, read_origin


@dataclass(frozen=True)
class Data:
    """What the root has to train on; without a val split `val` is empty, and `lack` says so."""

    classes: Classes
    train: SampleList
    val: SampleList
    origin: Origin
    lack: ImnetprepError | None = None

    def of(self, recipe: Recipe) -> "Data":
        """What `recipe` trains and validates on. Raises ImnetprepError where it lacks a split."""
        if recipe.val and not recipe.val_fraction:
            if self.lack:
                raise self.lack
            return self
        mask = held_out(self.train, recipe.val_fraction)
        if recipe.val and not mask.any():
            raise ImnetprepError("each class has one image: none can be held out", hint="--no-val")
        train = self.train.chosen(~mask) if recipe.val else self.train
        return replace(self, train=train, val=self.train.chosen(mask))

    def with_decoder(self, option: str, progress: Progress) -> "Data":
        """The data, decoded as `SampleList.with_decoder` says."""
        train = self.train.with_decoder(option, progress)
        return replace(self, train=train, val=replace(self.val, decoder=train.decoder))

    @property
    def apply_orientation(self) -> bool:
        """Are images turned as their EXIF says?"""
        return self.train.apply_orientation

    @property
    def decoder(self) -> str:
        """The library that decodes."""
        return self.train.decoder


def read_data(
    root: Root, *, layout: Layout | None = None, shards: ShardPlace | None = None
) -> Data:
    """What `root` has to train on, or the place of `shards`.

    Raises ImnetprepError where there is no train split.
    """
    with listing_of(root, layout=layout, shards=shards) as listing:
        classes = classes_of(listing.dataset)
        train = listing.samples(Split.TRAIN)
        lack = None
        try:
            val = listing.samples(Split.VAL)
        except NoSplit as error:
            val, lack = train.chosen(held_out(train, 0)), error
            lack.hint += "; --no-val trains without, --val-fraction 0.1 holds out a tenth of train"
    home = Root(shards.cache.folder) if shards else root  # which has no receipt
    return Data(classes, train, val, read_origin(home, (train,) if lack else (train, val)), lack)
