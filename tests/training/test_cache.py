"""--cache ram: images decoded once, and batches that stay the same."""

from contextlib import closing

import numpy as np
import pytest

from imnetprep.catalog.datasets import Root
from imnetprep.loading import cache as caching
from imnetprep.loading.cache import PixelCache, make_caches
from imnetprep.loading.loader import Loader
from imnetprep.loading.order import shuffled
from imnetprep.loading.samples import SampleList
from imnetprep.messages import ImnetprepError, Silent
from imnetprep.pixels.augmentation import Sizes, TrainTransform
from tests.training.test_loading import same, samples_of

pytestmark = pytest.mark.training


def loader_of(samples: SampleList, *, workers: int, cache: PixelCache | None) -> Loader:
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
    cache, noise = PixelCache(4, 4096), np.random.default_rng(0)
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
    cache = PixelCache(len(samples), size_bytes)
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
    loader = loader_of(samples, workers=0, cache=PixelCache(len(samples), 10_000_000))
    for epoch in range(6):
        list(loader.batches(epoch))
    assert len(numbers) == len(set(numbers))


class Notes(Silent):
    """What is noted."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


def test_what_it_takes_is_told_before(drawn: Root) -> None:
    samples, notes = samples_of(drawn), Notes()
    caches = make_caches(samples, samples, notes)
    assert caches.train and caches.val
    (line,) = notes.lines
    assert line.startswith("--cache ram takes about ")
    assert "for 120 decoded images" in line


def test_too_little_memory_is_told_before(drawn: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching, "available_memory", lambda: 500_000)
    with pytest.raises(ImnetprepError, match=r"of memory are free") as refused:
        make_caches(samples_of(drawn), samples_of(drawn), Silent(), processes=4)
    assert "--resize" in refused.value.hint
