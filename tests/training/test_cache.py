"""--cache: images decoded once, and batches that stay the same."""

from collections.abc import Iterator
from contextlib import closing, contextmanager

import numpy as np
import pytest
import torch

from imnetprep.catalog.datasets import Root
from imnetprep.loading import caches
from imnetprep.loading.caches import DEVICE, RAM, CachePlan, Caches, free_bytes
from imnetprep.loading.device_cache import DeviceCache
from imnetprep.loading.loader import Loader
from imnetprep.loading.order import in_turn, shuffled
from imnetprep.loading.ram_cache import RamCache
from imnetprep.messages import ImnetprepError, Progress, Silent, Task
from imnetprep.pixels.augmentation import Sizes, TrainTransform
from imnetprep.pixels.transforms import Preprocessing, ValTransform
from imnetprep.process_group.ranks import Ranks
from imnetprep.samples.sample_list import SampleList
from imnetprep.training.plan import plan_training
from tests.conftest import Run as RunCommand
from tests.training.test_loading import same, samples_of

pytestmark = pytest.mark.training

CPU, VAL = torch.device("cpu"), ValTransform(Preprocessing(32, 36))


def loader_of(samples: SampleList, *, workers: int, cache: RamCache | None) -> Loader:
    return Loader(
        samples,
        TrainTransform(Sizes(32, 32), 0.2, seed=5),
        order=shuffled(len(samples), batch_size=8, seed=5),
        batch_size=8,
        workers=workers,
        pin_memory=False,
        cache=cache,
    )


def test_an_image_comes_back_as_it_was() -> None:
    cache, noise = RamCache(4, 4096), np.random.default_rng(0)
    images = [noise.integers(0, 256, (7, width, 3), dtype=np.uint8) for width in (1, 5, 30)]
    assert cache.get(0) is None
    for index, image in enumerate(images):
        cache.add(index, image)
    for index, image in enumerate(images):
        copy = cache.get(index)
        assert copy is not None
        assert np.array_equal(copy, image)
    cache.add(3, np.zeros((40, 40, 3), np.uint8))
    assert cache.get(3) is None, "there was no room for it"


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("size_bytes", [10_000, 10_000_000])
def test_batches_are_those_without_a_cache(drawn: Root, workers: int, size_bytes: int) -> None:
    """Also where a part of the images alone has room."""
    samples = samples_of(drawn)
    cache = RamCache(len(samples), size_bytes)
    plain = loader_of(samples, workers=0, cache=None)
    with closing(loader_of(samples, workers=workers, cache=cache)) as loader:
        for epoch in range(3):
            assert same(list(loader.batches(epoch)), list(plain.batches(epoch)))
    images = sum(cache.get(index) is not None for index in range(len(samples)))
    assert images == len(samples) if size_bytes > 10_000 else 0 < images < len(samples)


def test_an_image_is_read_once(drawn: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = samples_of(drawn)
    numbers: list[int] = []
    read = SampleList.read

    def counting(self: SampleList, index: int) -> bytes:
        numbers.append(index)
        return read(self, index)

    monkeypatch.setattr(SampleList, "read", counting)
    loader = loader_of(samples, workers=0, cache=RamCache(len(samples), 10_000_000))
    for epoch in range(6):
        list(loader.batches(epoch))
    assert len(numbers) == len(set(numbers))


class Notes(Silent):
    """What is noted."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


def caches_of(kind: str, samples: SampleList, progress: Progress, *, processes: int = 1) -> Caches:
    return CachePlan(kind, CPU, processes, free_bytes(kind, CPU)).caches(
        (samples, TrainTransform(Sizes(32, 32), 0.2, seed=5)), (samples, VAL), progress
    )


@pytest.mark.parametrize("kind", [RAM, DEVICE])
def test_what_it_takes_is_told_before(drawn: Root, kind: str) -> None:
    samples, notes = samples_of(drawn), Notes()
    made = caches_of(kind, samples, notes)
    assert made.train and made.val
    assert notes.lines[0].startswith(f"--cache {kind} takes about ")
    assert "for 120 images" in notes.lines[0]


def test_too_little_memory_is_told_before(drawn: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "available_memory", lambda: 500_000)
    with pytest.raises(ImnetprepError, match=r"of memory are free") as refused:
        caches_of(RAM, samples_of(drawn), Silent(), processes=4)
    assert "--resize" in refused.value.hint


class Titles(Silent):
    """The titles of tasks."""

    def __init__(self) -> None:
        self.titles: list[str] = []

    @contextmanager
    def task(self, title: str, *, total: int, unit: str, initial: int = 0) -> Iterator[Task]:
        self.titles.append(title)
        yield self


def test_a_plan_reads_no_image_to_the_device(drawn: Root) -> None:
    progress = Titles()
    options = {"arch": "mlp-small", "image_size": 32}
    plan = plan_training(
        drawn, options=options, run="a", device="cpu", cache=DEVICE, progress=progress
    )
    plan, start = plan.begin(progress)
    assert progress.titles == []
    with closing(plan.loader(start.recipe, Ranks())) as loader:
        next(loader.batches(0))
    assert progress.titles == ["train images to cpu"]


def test_validation_images_are_cut_once(drawn: Root) -> None:
    samples = samples_of(drawn)
    made = [caches_of(kind, samples, Silent()).val for kind in (RAM, DEVICE)]
    plain, *others = (
        Loader(
            samples, VAL, order=in_turn(len(samples)), batch_size=7, workers=0, pin_memory=False,
            cache=cache,
        )
        for cache in (None, *made)
    )  # fmt: skip
    for loader in others:
        for _ in range(2):
            assert same(list(loader.batches(0)), list(plain.batches(0)))
    assert isinstance(made[0], RamCache)
    kept = made[0].get(0)
    assert kept is not None and kept.shape == (32, 32, 3)


@pytest.mark.parametrize("ranks", [Ranks(), Ranks(1, 2)])
def test_batches_are_made_on_the_device_as_by_workers(drawn: Root, ranks: Ranks) -> None:
    samples = samples_of(drawn)
    transform = TrainTransform(Sizes(24, 40, 0, 4), 0.2, seed=5, erase=0.5)
    cache = DeviceCache(samples, transform, CPU, Silent(), expected_bytes=99)
    plain, ours = (
        Loader(
            samples, transform, order=shuffled(len(samples), batch_size=8, seed=5, repeats=2),
            batch_size=8, workers=0, pin_memory=False, share=ranks.slice, cache=each,
        )
        for each in (None, cache)
    )  # fmt: skip
    for epoch in (0, 2, 4):
        assert same(list(ours.batches(epoch)), list(plain.batches(epoch)))
    assert same(list(ours.batches(1, first_step=3)), list(plain.batches(1, first_step=3)))


def test_crops_that_no_device_makes_are_refused(root: Root, here: RunCommand) -> None:
    words = ["train", "--root", root.path, "--cache", "device", "--device", "cpu", "--run", "a"]
    for option, choice in (("--augment", "trivial"), ("--interpolation", "lanczos")):
        done = here(*words, option, choice)
        assert done.returncode == 2
        assert f"cannot make {option} {choice}, which runs on the CPU" in done.stderr
        assert "Hint: --cache ram" in done.stderr
    assert "needs no workers" in here(*words, "--workers", 2).stderr
    assert not root.run("a").exists()
