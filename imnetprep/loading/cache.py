"""Images that are decoded once, in memory that all workers share."""

import mmap
import multiprocessing
from typing import NamedTuple

import numpy as np

from imnetprep.jobs import available_memory
from imnetprep.loading.samples import SampleList
from imnetprep.messages import ImnetprepError, Progress, WrongBytes, count, format_bytes
from imnetprep.pixels.transforms import Pixels

_LOOKS = 64  # images whose size is measured
_HEAD = 8  # bytes before the pixels of an image: its height and its width
# Of the measured mean, for a set whose images differ; pages that nobody writes take no memory.
_SPARE, _LEAST_BYTES = 1.5, 1 << 26
_SHARE = 0.8  # of the memory that is available


class PixelCache:
    """Decoded images of a split, each from the first time that it is read.

    Workers that are forked share it, and lose nothing when they write one at the same time: that is
    equal. Images for which no room is left are decoded each time.
    """

    def __init__(self, images: int, size_bytes: int) -> None:
        self._pixels = np.frombuffer(mmap.mmap(-1, size_bytes), np.uint8)
        # Where each image begins, 0: nowhere; and at last where the next will begin.
        self._starts = np.frombuffer(mmap.mmap(-1, 8 * (images + 1)), np.int64)
        self._starts[images] = _HEAD
        self._lock = multiprocessing.get_context("fork").Lock()

    def get(self, index: int) -> Pixels | None:
        """The image (H, W, 3), if it is there."""
        if not (start := int(self._starts[index])):
            return None
        height, width = self._pixels[start : start + _HEAD].view(np.uint32).tolist()
        start += _HEAD
        return self._pixels[start : start + 3 * height * width].reshape(height, width, 3)

    def add(self, index: int, pixels: Pixels) -> None:
        """Keep the image (H, W, 3), where there is room for it."""
        size = -(-(_HEAD + pixels.size) // _HEAD) * _HEAD
        with self._lock:
            start = int(self._starts[-1])
            if start + size > len(self._pixels):
                return
            self._starts[-1] = start + size
        self._pixels[start : start + _HEAD].view(np.uint32)[:] = pixels.shape[:2]
        self._pixels[start + _HEAD : start + _HEAD + pixels.size] = pixels.reshape(-1)
        with self._lock:  # so that nobody sees where it is before it is there
            self._starts[index] = start


class Caches(NamedTuple):
    """The caches of the two splits of a training; None: none."""

    train: PixelCache | None = None
    val: PixelCache | None = None


def make_caches(
    train: SampleList, val: SampleList, progress: Progress, *, processes: int = 1
) -> Caches:
    """Caches for the images of both, in each of so many `processes` on this machine.

    What they take is measured on some images, and told. Raises ImnetprepError where memory has no
    room for it.
    """
    sizes = [_decoded_bytes(samples) for samples in (train, val)]
    total, available = processes * sum(sizes), available_memory()
    images = count(len(train) + len(val), "decoded image")
    if total > _SHARE * available:
        raise ImnetprepError(
            f"--cache ram would take about {format_bytes(total)} for {images}, and"
            f" {format_bytes(available)} of memory are free",
            hint="leave out --cache, or train on smaller images: imnetprep organize --resize",
        )
    progress.note(
        f"--cache ram takes about {format_bytes(total)} for {images};"
        f" {format_bytes(available)} of memory are free"
    )
    return Caches(*(
        PixelCache(len(samples), int(_SPARE * size_bytes) + _LEAST_BYTES)
        for samples, size_bytes in zip((train, val), sizes, strict=True)
    ))  # fmt: skip


def _decoded_bytes(samples: SampleList) -> int:
    sizes: list[int] = []
    for index in samples.spread(_LOOKS):
        try:
            sizes.append(_HEAD + samples.pixels(index).size)
        except WrongBytes:
            continue  # told where it is trained on
    return round(len(samples) * sum(sizes) / max(len(sizes), 1))
