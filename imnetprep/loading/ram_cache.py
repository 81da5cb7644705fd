"""Images that are decoded once, in memory that all workers share."""

import mmap
import multiprocessing

import numpy as np

from imnetprep.pixels.transforms import Pixels

HEAD_BYTES = 8  # bytes before the pixels of an image: its height and its width


class RamCache:
    """Pixels of the images of a split, each from the first time that it is read.

    Workers that are forked share it, and lose nothing when they write one at the same time: that is
    equal. Images for which no room is left are decoded each time.
    """

    def __init__(self, images: int, size_bytes: int) -> None:
        self._pixels = np.frombuffer(mmap.mmap(-1, size_bytes), np.uint8)
        # Where each image begins, 0: nowhere; and at last where the next will begin.
        self._starts = np.frombuffer(mmap.mmap(-1, 8 * (images + 1)), np.int64)
        self._starts[images] = HEAD_BYTES
        self._lock = multiprocessing.get_context("fork").Lock()

    def get(self, index: int) -> Pixels | None:
        """The image (H, W, 3), if it is there."""
        if not (start := int(self._starts[index])):
            return None
        height, width = self._pixels[start : start + HEAD_BYTES].view(np.uint32).tolist()
        start += HEAD_BYTES
        return self._pixels[start : start + 3 * height * width].reshape(height, width, 3)

    def add(self, index: int, pixels: Pixels) -> None:
        """Keep the image (H, W, 3), where there is room for it."""
        size = -(-(HEAD_BYTES + pixels.size) // HEAD_BYTES) * HEAD_BYTES
        with self._lock:
            start = int(self._starts[-1])
            if start + size > len(self._pixels):
                return
            self._starts[-1] = start + size
        self._pixels[start : start + HEAD_BYTES].view(np.uint32)[:] = pixels.shape[:2]
        self._pixels[start + HEAD_BYTES : start + HEAD_BYTES + pixels.size] = pixels.reshape(-1)
        with self._lock:  # so that nobody sees where it is before it is there
            self._starts[index] = start
