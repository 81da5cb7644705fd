"""The loader: worker processes that read images, and live as long as it does."""

import gc
import os
import signal
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from multiprocessing import active_children
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, dataloader

from imnetprep.loading.batches import Batch, BatchArrays, BatchDataset, Failure
from imnetprep.loading.device_cache import DeviceCache
from imnetprep.loading.gpu_decoder import EncodedBatch, EncodedDataset, GpuDecoder
from imnetprep.loading.order import KeyBatches, Order
from imnetprep.loading.ram_cache import RamCache
from imnetprep.loading.slots import Slots
from imnetprep.messages import ImnetprepError, WrongBytes, count
from imnetprep.pixels.transforms import Transform
from imnetprep.processes import end_with_the_parent
from imnetprep.samples.bad_images import BadImages
from imnetprep.samples.sample_list import SampleList
from imnetprep.samples.substitution import Substitution

_start_thread = Queue._start_thread  # type: ignore[attr-defined]
_GRACE_S = 30  # for the parent to save after a SIGTERM to all
UNHEARD_EXIT_CODE = 75

# Else an iterator whose workers could not all be started tells a traceback when it is dropped.
dataloader._MultiProcessingDataLoaderIter._shutdown = True
dataloader._MultiProcessingDataLoaderIter._workers_status = defaultdict(bool)  # type: ignore[assignment]


class Loader:
    """Reads the samples of a split in batches, by workers that live as long as it does.

    `batch_size`, `steps` and `images` are of whole batches, where `share` reads a part of each.
    An image that cannot be read is an error, or with `bad` noted there and left out; with
    `replaces_bad` the next one of its class takes its place. `cache`: where decoded images stay.
    `gpu_decoder`: what decodes them in place of the workers.
    """

    def __init__(
        self,
        samples: SampleList,
        transform: Transform,
        *,
        order: Order,
        batch_size: int,
        workers: int,
        pin_memory: bool,
        share: Callable[[Tensor], Tensor] | None = None,
        bad: BadImages | None = None,
        replaces_bad: bool = False,
        cache: RamCache | DeviceCache | None = None,
        gpu_decoder: GpuDecoder | None = None,
    ) -> None:
        self.samples, self.batch_size, self._bad = samples, batch_size, bad
        self.unread: set[int] = set()  # samples that could not be read, in the pass under way
        self.steps = -(-len(order(0)) // batch_size)
        self.images = len(order(0))
        self._device_cache = cache if isinstance(cache, DeviceCache) else None
        self._gpu_decoder = gpu_decoder
        # What is on the device is read once, each shard when it is needed.
        supply = None if self._device_cache else samples.supply
        lag = 2 * workers * batch_size  # of batches that workers have
        self._prefetch = supply.read_ahead(lag=lag) if supply else None
        self._keys = KeyBatches(order, batch_size, share, follow=self._follow if supply else None)
        self._workers: set[BaseProcess] = set()
        is_forked = workers > 0 and sys.platform == "linux"
        images = batch_size if share is None else len(share(torch.arange(batch_size)))
        has_slots = is_forked and gpu_decoder is None
        slots = Slots(workers, 3 * transform.side_px**2 * images) if has_slots else None
        self._substitution = Substitution(
            samples, skips_bad=bad is not None, replaces_bad=replaces_bad
        )
        self._loader: DataLoader[Batch | BatchArrays | EncodedBatch | Failure] = _quietly(
            DataLoader,
            EncodedDataset(samples)
            if gpu_decoder
            else BatchDataset(
                self._substitution,
                transform,
                cache=cache if isinstance(cache, RamCache) else None,
                slots=slots,
            ),
            batch_sampler=self._keys,
            collate_fn=_unchanged,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=pin_memory,
            worker_init_fn=_live_as_long_as_the_parent,
            multiprocessing_context="fork" if is_forked else None,
        )

    def images_of(self, step: int) -> int:
        """How many images the whole batch of `step` has."""
        return min(self.batch_size, self.images - step * self.batch_size)

    def _follow(self, keys: Tensor) -> Callable[[int], None]:
        assert self._prefetch is not None and self.samples.places is not None
        return self._prefetch.follow(self.samples.places.shards[keys.numpy() % len(self.samples)])

    def close(self) -> None:
        """End the workers now, not when the last reference is gone; also those of half a start."""
        if (iterator := self._loader._iterator) is not None:
            iterator._shutdown_workers()  # type: ignore[attr-defined]
        for worker in self._workers:
            worker.kill()
        if self._prefetch:
            self._prefetch.close()

    def batches(self, epoch: int, *, first_step: int = 0) -> Iterator[Batch]:
        """The batches of `epoch` from `first_step` on; workers are started now, not by the first.

        Raises ImnetprepError where they cannot be, and the iterator WrongBytes on a bad image.
        """
        self._keys.epoch, self._keys.first_step = epoch, first_step
        if self._device_cache:
            self.unread.clear()
            return map(self._whole, self._device_cache.batches(self._keys, self._substitution))
        earlier = set(active_children())
        try:
            batches = _quietly(iter, self._loader)
        except OSError as error:
            raise ImnetprepError(
                f"workers that read images cannot be started: {error.strerror}",
                hint="--workers 0 needs none; fewer --workers need less memory and /dev/shm, and"
                " fewer files and processes (ulimit -n, ulimit -u)",
            ) from error
        finally:
            self._workers |= set(active_children()) - earlier
        self.unread.clear()
        if self._gpu_decoder:
            batches = self._gpu_decoder.batches(batches, self._substitution)
        return map(self._whole, batches)

    def require_some(self, *, read: int, left_out: int) -> None:
        """Raise WrongBytes where not one image of a pass could be read; each is `read` or not."""
        assert read + left_out == self.images
        if not read:
            raise WrongBytes(
                f"none of {count(left_out, f'{self.samples.split} image')} can be read",
                hint="imnetprep verify --decode says why",
            )

    def _whole(self, batch: Batch | BatchArrays | Failure) -> Batch:
        if isinstance(batch, ImnetprepError | OSError):
            raise batch
        if batch.bad and self._bad is not None:
            self._bad.add(batch.bad.values())
            self.unread.update(batch.bad)
        return batch.batch() if isinstance(batch, BatchArrays) else batch


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
    gc.freeze()  # a collection would write to, and so copy, each page with an object of the parent
    signal.set_wakeup_fd(-1)  # which is the parent's
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_GRACE_S))
    # It would tell a traceback and drop the batch, which the parent then waits for without end.
    Queue._on_queue_feeder_error = staticmethod(_end_unheard)  # type: ignore[attr-defined]
    Queue._start_thread = _start_feeder  # type: ignore[attr-defined]
    end_with_the_parent()  # by a thread; where none can start, torch sends that by the queue


def _start_feeder(queue: "Queue[Any]") -> None:
    """Start the thread that sends batches, or end without a traceback where none can start."""
    try:
        _start_thread(queue)
    except (RuntimeError, MemoryError):
        os._exit(UNHEARD_EXIT_CODE)


def _end_unheard(_error: Exception, _batch: object) -> None:
    os._exit(UNHEARD_EXIT_CODE)
