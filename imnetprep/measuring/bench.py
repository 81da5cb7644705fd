"""A measurement of what trains a recipe on a root: the loader, the device, both together.

`plan_bench` reads what is to be measured, `carry_out_bench` measures device after device. A
network has random weights, whatever the recipe begins with.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from imnetprep.catalog.datasets import Layout, Root, Split
from imnetprep.devices.device import Place, pick_place
from imnetprep.devices.precision import half_pays
from imnetprep.loading.loader import Loader
from imnetprep.measuring.busy_cores import busy_cores
from imnetprep.measuring.clock import INTERVALS
from imnetprep.measuring.loader_rate import LOADER_BATCH, loader_rate, page_cache_share, resize_gain
from imnetprep.measuring.machine_rates import Subject
from imnetprep.measuring.rates import Duration, Rate, Rates
from imnetprep.measuring.some_shards import fetch_some_shards
from imnetprep.measuring.step_rate import StepClock
from imnetprep.measuring.training_time import crop_sides, training_subject, training_time
from imnetprep.measuring.verdict import verdict
from imnetprep.messages import Progress, Silent, Task
from imnetprep.networks.architectures import refuse_unknown
from imnetprep.pixels.decoders import AUTO
from imnetprep.process_group.ranks import ALONE
from imnetprep.recipes.plan_recipe import plan_recipe
from imnetprep.recipes.recipe import Recipe
from imnetprep.remote_shards.place import ShardPlace
from imnetprep.samples.bad_images import BadImages
from imnetprep.samples.sample_list import SampleList
from imnetprep.training.checkpoint import Checkpoint, Classes, Position
from imnetprep.training.data import Data, read_data
from imnetprep.training.failures import said_in_words, smaller_batch
from imnetprep.training.foreign_weights import preprocessing_of
from imnetprep.training.inputs import refuse_device, refuse_window, train_order, train_transform
from imnetprep.training.origin import Origin
from imnetprep.training.plan import TrainPlan
from imnetprep.training.root_wish import root_side
from imnetprep.training.runs import Run

_CLASSES = 1000  # of a network that is measured without a dataset
# Parts of the time that a measurement takes.
_LOADER, _STEP, _END_TO_END, _VALIDATION, _GAIN = 0.2, 0.25, 0.3, 0.1, 0.15
_LOOKS = 64  # images that the page cache is asked for


@dataclass(frozen=True)
class Bench:
    """What was measured of a recipe on a device, and how long it trains there; None: unknown.

    `needed_bytes`: what a cache takes that holds all shards, where --cache-size is too small.
    """

    place: Place
    recipe: Recipe
    subject: Subject
    rates: Rates
    duration: Duration | None
    needed_bytes: int = 0

    @property
    def verdict(self) -> str:
        """What holds the training back, in words."""
        device, workers = self.place.device.type, self.place.workers
        return verdict(
            self.rates,
            device=device,
            cores=self.subject.cores,
            workers=workers,
            needed_bytes=self.needed_bytes,
        )

    def as_json(self) -> dict[str, Any]:
        """What was measured of what, the time that it makes, and the verdict."""
        return {
            "device": str(self.place.device),
            "subject": asdict(self.subject),
            "rates": self.rates.as_json(),
            "epochs": self.recipe.epochs,
            **(self.duration._asdict() if self.duration else {}),
            "verdict": self.verdict,
        }


@dataclass(frozen=True)
class BenchPlan:
    """What is measured: the `options` of a recipe on each of `places`, with the images of a root.

    `data` is None where there are none; `part` has those that are read, all or of a few shards.
    `busy_cores`: those of other programs. `fetch`: images/s in which shards came; None: none did.
    """

    root: Root
    data: Data | None
    part: Data | None
    options: Mapping[str, Any]
    places: Sequence[Place]
    busy_cores: float = 0.0
    fetch: float | None = None

    def recipe(self, place: Place) -> Recipe:
        """The recipe as a training on `place` would have it."""
        return plan_recipe(self.options, amp_pays=bool(half_pays(place.device)))


def plan_bench(
    root: Root,
    *,
    options: Mapping[str, Any],
    devices: Sequence[str | None],
    workers: int | None = None,
    decode: str = AUTO,
    layout: Layout | None = None,
    shards: ShardPlace | None = None,
    progress: Progress,
) -> BenchPlan:
    """Read what `root` holds, or the place of `shards`, and find the `devices`.

    A few shards are fetched. Raises ImnetprepError and WrongUsage.
    """
    places = [pick_place(device, workers) for device in devices]
    plan = BenchPlan(root, None, None, options, places, busy_cores())
    recipes = [plan.recipe(place) for place in places]
    refuse_unknown(recipes[0].arch)
    if not shards and not holds_dataset(root):
        return plan
    data = part = read_data(root, layout=layout, shards=shards).of(recipes[0])
    fetch = None
    for place, recipe in zip(places, recipes, strict=True):
        refuse_device(recipe, place.device, None)
    if recipes[0].shuffle_window:
        refuse_window(recipes[0], data.train)
    if shards:
        part, fetch = fetch_some_shards(data, seed=_new_seed(), progress=progress)
    return replace(plan, data=data, part=part.with_decoder(decode, Silent()), fetch=fetch)


def holds_dataset(root: Root) -> bool:
    """Is there anything that could be read? Else the device alone is measured."""
    return root.manifest.exists() or root.is_tree


def carry_out_bench(plan: BenchPlan, *, seconds: float, progress: Progress) -> Iterator[Bench]:
    """Measure each device for some `seconds`."""
    for place in plan.places:
        recipe = plan.recipe(place)
        with said_in_words(smaller=smaller_batch(recipe.batch_size, recipe.image_size)):
            yield _Measurement(plan, place, recipe, seconds).bench(progress)


def _new_seed() -> int:
    """A seed of other images than the last time, which lie in the page cache now."""
    return int(np.random.default_rng().integers(2**31))


class _Measurement:
    """One device at work on one recipe."""

    def __init__(self, plan: BenchPlan, place: Place, recipe: Recipe, seconds: float) -> None:
        self._place, self._seconds = place, seconds
        self._recipe = replace(recipe, seed=_new_seed())
        self._is_read, self._bench_plan = plan.part is not None, plan
        self._data = data = plan.part or _no_data()
        self._train = data.train
        # Its run is not begun: nothing is written.
        self._plan = TrainPlan(
            Run(plan.root.run("bench")), data, place, plan.options, ALONE, bad=BadImages(Silent())
        )
        self._checkpoint = Checkpoint(
            recipe=self._recipe,
            classes=data.classes,
            preprocessing=preprocessing_of(
                recipe, None, apply_orientation=data.train.apply_orientation
            ),
            weights={},
            optimizer={},
            position=Position(),
            sums={},
            best=None,
            train_samples=len(data.train),
            typed_arch=plan.options.get("arch"),
        )
        self._sides = sorted({crop_sides(recipe)[0], recipe.train_size})

    def bench(self, progress: Progress) -> Bench:
        recipe, device = self._recipe, self._place.device
        intervals = INTERVALS * (len(self._sides) * (1 + self._is_read) + self._is_read)
        with progress.task(f"{device}", total=intervals, unit="intervals") as task:
            rates = self._rates(task)
        data, needed_bytes = self._bench_plan.data, 0
        time = training_time(rates, recipe, data) if data else None
        if data and (supply := data.train.supply) and supply.window:
            needed_bytes = supply.needed_bytes
        subject = training_subject(recipe, self._data, self._place)
        return Bench(self._place, recipe, subject, rates, time, needed_bytes)

    def _rates(self, task: Task) -> Rates:
        numbers = self._numbers()
        is_near = self._is_read and not self._train.supply  # what was just fetched lies there
        cache = page_cache_share(self._train, numbers[:_LOOKS]) if is_near else None
        loader = self._loader_rates(task) if self._is_read else ()
        clock = StepClock(self._checkpoint, self._train, self._place)
        step_s, last = _STEP * self._seconds / len(self._sides), self._sides[-1]
        fit = clock.fit(last, seconds=step_s / INTERVALS)
        step = []
        for side in self._sides:
            task.tell(f"device alone, {side} px")
            rate = clock.alone(fit, side, seconds=step_s, on_interval=_advance(task))
            step.append(Rate(side, rate))
        if not self._is_read:
            return Rates(tuple(step), fit.images, busy_cores=self._bench_plan.busy_cores)
        task.tell("end to end")
        end_to_end, wait_share = clock.fed(
            self._loader(last, batch_size=fit.images),
            fit,
            seconds=_END_TO_END * self._seconds,
            on_interval=_advance(task),
        )
        val, validation = self._data.val, None
        if self._recipe.val and len(val):
            task.tell("validation")
            validation = clock.validation(
                val, seconds=_VALIDATION * self._seconds, estimate=end_to_end
            )
        task.tell("smaller images")
        gain = resize_gain(
            self._train,
            numbers[::-1],
            train_transform(self._sized(last)),
            side_px=root_side(self._recipe),
            seconds=_GAIN * self._seconds,
        )
        return Rates(
            tuple(step),
            fit.images,
            loader,
            end_to_end,
            wait_share,
            validation,
            gain,
            cache,
            self._bench_plan.busy_cores,
            self._bench_plan.fetch,
        )

    def _numbers(self) -> list[int]:
        """Samples in the order of the first epoch, the first of which the loader reads."""
        if not self._is_read:
            return []
        keys = train_order(self._recipe, self._train.labels)(0)
        return (keys[:10_000] % len(self._train)).tolist()

    def _loader_rates(self, task: Task) -> tuple[Rate, ...]:
        rates = []
        for side in self._sides:
            task.tell(f"loader alone, {side} px")
            rate = loader_rate(
                self._loader(side, batch_size=min(self._recipe.batch_size, LOADER_BATCH)),
                workers=self._place.workers,
                seconds=_LOADER * self._seconds / len(self._sides),
                on_interval=_advance(task),
            )
            rates.append(Rate(side, rate))
        return tuple(rates)

    def _loader(self, side_px: int, *, batch_size: int) -> Loader:
        recipe = replace(self._sized(side_px), batch_size=batch_size)
        return self._plan.sample_loader(self._data, recipe, ALONE)

    def _sized(self, side_px: int) -> Recipe:
        """The recipe with crops of `side_px` in every epoch."""
        return replace(self._recipe, train_size=side_px, first_size=side_px)


def _advance(task: Task) -> Callable[[], None]:
    return lambda: task.advance(1)


def _no_data() -> Data:
    """Classes and labels without an image."""
    wnids = tuple(f"n{number:08}" for number in range(_CLASSES))
    samples = SampleList(
        Split.TRAIN,
        Layout.IMAGEFOLDER,
        Path(),
        wnids,
        bytearray(),
        np.empty(0, np.uint32),
        np.arange(_CLASSES, dtype=np.int32),
    )
    return Data(Classes("none", wnids, wnids), samples, samples, Origin())
