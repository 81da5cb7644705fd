"""The time of a training by the rates that its machine showed, now or at an earlier measurement."""

from typing import NamedTuple

from imnetprep.catalog.datasets import Root
from imnetprep.devices.device import Place, device_name
from imnetprep.measuring.machine_rates import Subject, read_rates, subject_of
from imnetprep.measuring.rates import Duration, Rates, duration
from imnetprep.messages import format_duration
from imnetprep.outside_text import public_address
from imnetprep.recipes.recipe import Recipe
from imnetprep.training.data import Data
from imnetprep.training.inputs import train_order, train_transform
from imnetprep.training.plan import TrainPlan


class Estimate(NamedTuple):
    """The time of a training, by a measurement `at` a time (ISO 8601) beside so many busy cores."""

    duration: Duration
    at: str
    busy_cores: float

    def __str__(self) -> str:
        """The time of an epoch and of all, and what is known of the measurement."""
        note = f", beside {self.busy_cores:.1f} busy cores" if self.busy_cores else ""
        return (
            f"an epoch takes {format_duration(self.duration.epoch_s)}, all of them"
            f" {format_duration(self.duration.total_s)}: by imnetprep bench of {self.at[:10]}{note}"
        )


def crop_sides(recipe: Recipe) -> list[int]:
    """The side of the training crops of each epoch, px."""
    sizes = train_transform(recipe).sizes
    return [sizes.at(epoch) for epoch in range(recipe.epochs)]


def training_time(
    rates: Rates, recipe: Recipe, data: Data, *, first_epoch: int = 0
) -> Duration | None:
    """The time of a training on `data` from an epoch (of 0) on; None where the rates lack a part.

    An average of the weights is validated as well. Shards that lie elsewhere come once where the
    cache holds all, else in each epoch.
    """
    val_images = len(data.val) * (1 + bool(recipe.ema)) if recipe.val else 0
    supply, fetched_epochs = data.train.supply, 0
    if supply:
        fetched_epochs = recipe.epochs if supply.window else 1
    return duration(
        rates,
        crop_sides(recipe)[first_epoch:],
        train_images=len(train_order(recipe, data.train.labels)(0)),
        val_images=val_images,
        fetched_epochs=fetched_epochs,
    )


def training_subject(recipe: Recipe, data: Data, place: Place) -> Subject:
    """What is measured where `recipe` is to be trained on `data` in that place."""
    device = f"{place.device.type} {device_name(place.device)}"
    supply = data.train.supply
    return subject_of(
        recipe,
        device=device,
        workers=place.workers,
        layout=str(data.train.layout),
        decoder="nvjpeg" if recipe.gpu_decode else data.train.decoder,
        shards=public_address(supply.place) if supply else "",
    )


def estimate(root: Root, plan: TrainPlan, recipe: Recipe, *, first_epoch: int) -> Estimate | None:
    """The time that `plan` takes from an epoch on; None where nothing like it was measured here.

    A measurement decodes an image each time, and so tells nothing of a training that keeps them.
    """
    if plan.cache_kind or not isinstance(plan.data, Data):
        return None
    data, place = plan.data, plan.place
    entry = read_rates(root, training_subject(recipe, data, place))
    time = entry and training_time(entry.rates, recipe, data, first_epoch=first_epoch)
    return Estimate(time, entry.at, entry.rates.busy_cores) if entry and time else None
