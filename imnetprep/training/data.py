"""Samples to batches: listed from the manifest, put in order, read and cropped by workers.

The order is a function of (seed, epoch). A million samples are one string of names and two flat
arrays, which workers share by fork: an object a sample would be copied page by page.
"""

import os
import signal
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import active_children
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, dataloader, get_worker_info

from imnetprep.catalog.datasets import Layout, Root, Split
from imnetprep.images import decode_rgb
from imnetprep.layouts.table import LAYOUTS
from imnetprep.machine import is_of_file
from imnetprep.manifest import Manifest, SampleRecord, require_split
from imnetprep.messages import ImnetprepError, WrongBytes
from imnetprep.processes import end_with_the_parent
from imnetprep.training.transforms import Transform, mixed_seed

_GRACE_S = 30  # for the parent to save after a SIGTERM to all
UNHEARD_EXIT_CODE = 75
_SHM = Path("/dev/shm")  # where torch puts what processes share, on Linux  # noqa: S108

# Else an iterator whose workers could not all be started tells a traceback when it is dropped.
dataloader._MultiProcessingDataLoaderIter._shutdown = True
dataloader._MultiProcessingDataLoaderIter._workers_status = defaultdict(bool)  # type: ignore[assignment]


class Places(NamedTuple):
    """Where samples lie in shards: number, offset and size of each, (N,)."""

    shards: NDArray[np.uint32]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]


@dataclass(frozen=True)
class SampleList:
    """The samples of a split: `names`, each with a NUL, where these are (N,), and labels (N,).

    `places` are theirs in shards, None where each is a file. `change` is what was done to the
    images before they came to lie here, None: nothing. `apply_orientation`: turn them as their
    EXIF says.
    """

    split: Split
    layout: Layout
    folder: Path
    wnids: tuple[str, ...]
    names: bytearray
    ends: NDArray[np.uint32]
    labels: NDArray[np.int32]
    places: Places | None = None
    change: str | None = None
    apply_orientation: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        """The file name of the sample, as it was published."""
        start = int(self.ends[index - 1]) + 1 if index else 0
        return self.names[start : int(self.ends[index])].decode()

    def path(self, index: int) -> Path:
        """The file that the sample is, or lies in."""
        return LAYOUTS[self.layout].sample_path(*self._place(index))

    def read(self, index: int) -> bytes:
        """The encoded image. Raises OSError."""
        return LAYOUTS[self.layout].read_sample(*self._place(index))

    def decode(self, index: int) -> Image.Image:
        """The image as RGB. Raises WrongBytes where it cannot be read, OSError where none can."""
        try:
            return decode_rgb(self.read(index), apply_orientation=self.apply_orientation)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and not is_of_file(error):
                error.filename = str(self.path(index))
                raise
            sample = LAYOUTS[self.layout].describe_sample(*self._place(index))
            reason = getattr(error, "strerror", None) or error
            raise WrongBytes(
                f"{sample}: {reason}", hint="imnetprep verify --decode names every such image"
            ) from error

    def _place(self, index: int) -> tuple[Path, SampleRecord, str]:
        """What a layout needs to find the sample: of a file no size, of none its digest."""
        label, shard, offset_bytes, size_bytes = int(self.labels[index]), None, None, 0
        if self.places:
            shard, offset_bytes, size_bytes = (int(column[index]) for column in self.places)
        sample = SampleRecord(
            label, self.name(index), size_bytes, b"", shard=shard, offset_bytes=offset_bytes
        )
        return self.folder, sample, self.wnids[label]


def read_samples(
    manifest: Manifest, split: Split, root: Root, *, layout: Layout | None = None
) -> SampleList:
    """The samples of `split` by label, then name, whatever the layout they lie in.

    Raises ImnetprepError where there are none, WrongUsage where two layouts are there and none
    is named.
    """
    record = require_split(manifest, root, split, layout=layout)
    wnids = tuple(synset.wnid for synset in manifest.synsets())
    # They grow in place: parts that are joined at the end are held twice.
    names, shards, offsets, sizes = (bytearray() for _ in range(4))
    ends, counts = [np.empty(0, np.uint32)], np.zeros(len(wnids), np.int64)
    for label, columns in manifest.columns(record):
        if label in range(len(wnids)):
            within = np.flatnonzero(np.frombuffer(columns.names, np.uint8) == 0)
            ends.append((len(names) + within).astype(np.uint32))
            counts[label] += columns.samples
            names += columns.names
            if record.layout.in_shards:
                shards += columns.shards
                offsets += columns.offsets
                sizes += columns.sizes
    labels = np.repeat(np.arange(len(wnids), dtype=np.int32), counts)
    if len(labels) != record.samples:
        raise WrongBytes(
            f"{manifest.path} counts {record.samples} {split} samples and lists {len(labels)}",
            hint="imnetprep verify says what is wrong",
        )
    places = Places(
        np.frombuffer(shards, "<u4"), np.frombuffer(offsets, "<i8"), np.frombuffer(sizes, "<i8")
    )
    return SampleList(
        split,
        record.layout,
        root.split(split, record.layout),
        wnids,
        names,
        np.concatenate(ends),
        labels,
        places if record.layout.in_shards else None,
        record.change,
        manifest.dataset().orientation_applied,
    )


class Batch(NamedTuple):
    """Pixels (B, S, S, 3) of uint8 and labels (B,) of int64."""

    pixels: Tensor
    labels: Tensor


class _Arrays(NamedTuple):
    """A batch as arrays, which are sent through a pipe: shared memory has no room for it."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def batch(self) -> Batch:
        return Batch(torch.from_numpy(self.pixels), torch.from_numpy(self.labels))


class _Keys(NamedTuple):
    """The samples that a worker is asked for, and the epoch whose crops it makes."""

    epoch: int
    indices: list[int]


class _Images(Dataset[Batch | _Arrays | WrongBytes | OSError]):
    """Batches by their keys, or the first image that cannot be read: one that is raised in a worker
    would lose its type.
    """

    def __init__(self, samples: SampleList, transform: Transform) -> None:
        self._samples, self._transform = samples, transform
        self._shares, self._has_shared = True, False

    def __getitems__(self, keys: _Keys) -> Batch | _Arrays | WrongBytes | OSError:
        try:
            pixels = [
                self._transform(self._samples.decode(index), epoch=keys.epoch, index=index)
                for index in keys.indices
            ]
        except (WrongBytes, OSError) as error:
            return error
        arrays = _Arrays(np.stack(pixels), self._samples.labels[keys.indices].astype(np.int64))
        return arrays.batch() if get_worker_info() is None else self._in_shared_memory(arrays)

    def _in_shared_memory(self, arrays: _Arrays) -> Batch | _Arrays:
        """A worker's batch in shared memory, of which a container may have 64 MB: two batches."""
        if self._shares and _has_room(arrays):
            batch = arrays.batch()
            try:
                if not self._has_shared:
                    DupFd(0)  # by its like the parent gets what is shared; raises where it cannot
                    self._has_shared = True
                for tensor in batch:
                    tensor.share_memory_()  # type: ignore[no-untyped-call]
                return batch
            except (OSError, RuntimeError):
                self._shares = False  # each try leaves an empty file
                for path in _SHM.glob(f"torch_{os.getpid()}_*"):
                    path.unlink(missing_ok=True)
        return arrays


def _has_room(arrays: _Arrays) -> bool:
    try:
        status = os.statvfs(_SHM)
    except OSError:
        return True  # as on macOS, which says it when it is tried
    size_bytes = arrays.pixels.nbytes + arrays.labels.nbytes
    return status.f_bavail * status.f_frsize >= size_bytes + 2 * status.f_frsize


Order = Callable[[int], Tensor]


def shuffled(samples: int, *, batch_size: int, seed: int) -> Order:
    """A new order in each epoch; whole batches only, if there is at least one.

    A last batch of a few images would bend BatchNorm's running statistics.
    """
    whole = samples // batch_size * batch_size or samples

    def order(epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(mixed_seed(seed, epoch, "order"))
        return torch.randperm(samples, generator=generator)[:whole]

    return order


def in_turn(samples: int) -> Order:
    """Each sample once, in the manifest's order, whatever the epoch."""
    return lambda _epoch: torch.arange(samples)


class _KeyBatches:
    """The batches of keys of one epoch, from a step on: set before each pass."""

    def __init__(self, order: Order, batch_size: int) -> None:
        self._order, self._batch_size = order, batch_size
        self.epoch = self.first_step = 0

    def __iter__(self) -> Iterator[_Keys]:
        for part in torch.split(self._order(self.epoch), self._batch_size)[self.first_step :]:
            yield _Keys(self.epoch, part.tolist())


class Loader:
    """Reads the samples of a split in batches, by workers that live as long as it does."""

    def __init__(
        self,
        samples: SampleList,
        transform: Transform,
        *,
        order: Order,
        batch_size: int,
        workers: int,
        pin_memory: bool,
    ) -> None:
        self.samples, self.batch_size = samples, batch_size
        self.steps = -(-len(order(0)) // batch_size)
        self.images = len(order(0))
        self._keys = _KeyBatches(order, batch_size)
        self._workers: set[BaseProcess] = set()
        self._loader: DataLoader[Batch | _Arrays | WrongBytes | OSError] = _quietly(
            DataLoader,
            _Images(samples, transform),
            batch_sampler=self._keys,
            collate_fn=_unchanged,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=pin_memory,
            worker_init_fn=_live_as_long_as_the_parent,
            multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
        )

    def close(self) -> None:
        """End the workers now, not when the last reference is gone; also those of half a start."""
        if (iterator := self._loader._iterator) is not None:
            iterator._shutdown_workers()  # type: ignore[attr-defined]
        for worker in self._workers:
            worker.kill()

    def batches(self, epoch: int, *, first_step: int = 0) -> Iterator[Batch]:
        """The batches of `epoch` from `first_step` on. Raises WrongBytes on a bad image."""
        self._keys.epoch, self._keys.first_step = epoch, first_step
        earlier = set(active_children())
        try:
            batches = _quietly(iter, self._loader)
        except OSError as error:
            raise ImnetprepError(
                f"workers that read images cannot be started: {error.strerror}",
                hint="--workers 0 needs none; fewer --workers need less of /dev/shm, and fewer"
                " files and processes (ulimit -n, ulimit -u)",
            ) from error
        finally:
            self._workers |= set(active_children()) - earlier
        for batch in batches:
            if isinstance(batch, WrongBytes | OSError):
                raise batch
            yield batch.batch() if isinstance(batch, _Arrays) else batch


def _quietly(make: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call `make` without the loader's warning about more --workers than cores: the user chose."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make(*arguments, **options)


def _unchanged(batch: Any) -> Any:
    return batch


def _live_as_long_as_the_parent(_worker: int) -> None:
    """Let a worker survive signals to the whole group: the parent saves, then ends its workers.

    Workers end at once with a parent that is gone: they hold its lock on the run.
    """
    signal.set_wakeup_fd(-1)  # which is the parent's
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_GRACE_S))
    end_with_the_parent()
    # It would tell a traceback and drop the batch, which the parent then waits for without end.
    Queue._on_queue_feeder_error = staticmethod(_end_unheard)  # type: ignore[attr-defined]


def _end_unheard(_error: Exception, _batch: object) -> None:
    os._exit(UNHEARD_EXIT_CODE)
