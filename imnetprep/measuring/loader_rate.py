"""What the loader alone gives, and what it would give on smaller images."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from itertools import count

from imnetprep.images import Resize, resized_jpeg
from imnetprep.loading.batches import Batch
from imnetprep.loading.loader import Loader
from imnetprep.measuring.clock import median_rate
from imnetprep.measuring.rates import Gain
from imnetprep.outside_files import open_handle
from imnetprep.pixels.decoders import decode_pixels
from imnetprep.pixels.transforms import Transform
from imnetprep.samples.sample_list import SampleList

# Images in a batch of the loader alone: the rate is the same, and intervals end sooner.
LOADER_BATCH = 16
_LEAST_IMAGES, _TRIES = 4, 2


def loader_rate(
    loader: Loader, *, workers: int, seconds: float, on_interval: Callable[[], None]
) -> float:
    """Images/s of `loader`, which is closed, once its workers have begun."""
    with closing(loader):
        batches = endless(loader)
        for _ in range(warm_up(workers)):
            next(batches)
        return median_rate(
            lambda: len(next(batches).labels), seconds=seconds, on_interval=on_interval
        )


def warm_up(workers: int) -> int:
    """How many batches are not counted: each worker makes two ahead while it starts."""
    return 2 * workers + 1


def endless(loader: Loader) -> Iterator[Batch]:
    """The batches of epoch after epoch."""
    for epoch in count():
        yield from loader.batches(epoch)


def page_cache_share(samples: SampleList, numbers: Sequence[int]) -> float | None:
    """The share of the samples `numbers` of which the first page lies in the page cache.

    None where the system does not say.
    """
    flag = getattr(os, "RWF_NOWAIT", None)  # Linux
    hits = 0
    try:
        for number in numbers if flag is not None else ():
            offset = int(samples.places.offsets[number]) if samples.places else 0
            handle = open_handle(samples.path(number))
            try:
                with suppress(BlockingIOError):  # it would have to be read
                    os.preadv(handle, [bytearray(1)], offset, flag or 0)
                    hits += 1
            finally:
                os.close(handle)
    except OSError:
        return None
    return hits / len(numbers) if flag is not None and numbers else None


def resize_gain(
    samples: SampleList,
    numbers: Sequence[int],
    transform: Transform,
    *,
    side_px: int,
    seconds: float,
) -> Gain | None:
    """How much faster one core decodes and crops the samples `numbers` if `--resize` made them.

    As many of them as `seconds` allow; each is timed twice, and the shorter time counts. None where
    none can be read.
    """
    end_s, original_s, smaller_s, images = time.perf_counter() + seconds, 0.0, 0.0, 0

    def shortest_s(body: bytes, number: int) -> float:
        times = []
        for _ in range(_TRIES):
            begun_s = time.perf_counter()
            (crop,) = transform.crops(0, [number])
            pixels = decode_pixels(
                body,
                decoder=samples.decoder,
                apply_orientation=samples.apply_orientation,
                rows=crop.rows,
            )
            crop.cut(pixels)
            times.append(time.perf_counter() - begun_s)
        return min(times)

    for number in numbers:
        if images >= _LEAST_IMAGES and time.perf_counter() > end_s:
            break
        with suppress(OSError, ValueError):  # an image that a training would skip
            body = samples.read(number)
            smaller = resized_jpeg(
                body, Resize(side_px), apply_orientation=samples.apply_orientation
            )
            times_s = shortest_s(body, number), shortest_s(smaller.body, number)
            original_s, smaller_s = original_s + times_s[0], smaller_s + times_s[1]
            images += 1
    return Gain(side_px, original_s / smaller_s, images) if images else None
