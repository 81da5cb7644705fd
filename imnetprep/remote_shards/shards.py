"""The shards of one split that lie elsewhere: what each must hold, and how a sample is read.

The manifest is believed and nothing else is: a shard counts once each image in it has its digest.
"""

import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imnetprep.catalog.datasets import Layout, Split
from imnetprep.digests import running_xxh128, xxh128
from imnetprep.fs import read_range
from imnetprep.layouts.webdataset import shard_name
from imnetprep.machine import explain, named
from imnetprep.manifest import SampleRecord
from imnetprep.messages import SourceFailed, WrongBytes, WrongUsage, count, format_bytes
from imnetprep.outside_files import open_handle
from imnetprep.remote_shards.cache import Cache
from imnetprep.remote_shards.cache_folder import reading
from imnetprep.remote_shards.read_ahead import ReadAhead
from imnetprep.samples.sample_list import Fetch, Places
from imnetprep.sources.places import address_of, open_archive

_CHUNK_BYTES = 1 << 20
_TRIES = 2
_LARGEST_BYTES = 1 << 50  # of a shard that somebody else may have listed
_LEAST_SHARDS = 4  # in a cache: three that are in use, and one that is fetched


class WrongShard(SourceFailed):
    """A shard is not what the manifest says. Not WrongBytes: no image of it may be skipped."""

    exit_code = WrongBytes.exit_code


@dataclass(frozen=True, eq=False)
class RemoteShards:
    """The shards of `split` at `place`, read by way of a cache, as a `LayoutModule` reads.

    The samples are sorted as they lie, each with its digest (N, 16): those of shard n are from
    `starts[n]` to `starts[n + 1]`. `sizes_bytes` (R,) are up to the end of the last image, and
    `names` theirs in the cache, of which each content has its own. `other_bytes`: what the split
    takes that is read in turn with this one.
    """

    place: str
    split: Split
    cache: Cache
    places: Places
    digests: NDArray[np.uint8]
    starts: NDArray[np.int64]
    sizes_bytes: NDArray[np.int64]
    names: tuple[str, ...]
    other_bytes: int

    def __len__(self) -> int:
        return len(self.sizes_bytes)

    @property
    def size_bytes(self) -> int:
        """What all of them take."""
        return int(self.sizes_bytes.sum())

    @property
    def needed_bytes(self) -> int:
        """What a cache takes that holds all of them, and the split that is read in turn."""
        return self.size_bytes + self.other_bytes

    @property
    def window(self) -> int:
        """How many shards a new training shuffles together: three quarters of the cache; 0: all.

        Raises WrongUsage where the cache is too small for any.
        """
        limit_bytes, largest_bytes = self.cache.limit_bytes, int(self.sizes_bytes.max())
        if self.needed_bytes <= limit_bytes:
            return 0
        if limit_bytes < _LEAST_SHARDS * largest_bytes:
            raise WrongUsage(
                f"a cache of {format_bytes(limit_bytes)} is too small for shards of up to"
                f" {format_bytes(largest_bytes)}: it has to hold {_LEAST_SHARDS}",
                hint=f"--cache-size {_typed(_LEAST_SHARDS * largest_bytes)} or more",
            )
        return limit_bytes // largest_bytes * 3 // 4

    def require_window(self, window: int) -> None:
        """Raise WrongUsage where the cache does not hold what a `window` of so many shards uses."""
        shards = min(window + 1, len(self)) if window else len(self)
        needed_bytes = int(np.sort(self.sizes_bytes)[-shards:].sum())
        if needed_bytes > self.cache.limit_bytes:
            raise WrongUsage(
                f"images are shuffled among {count(window or len(self), 'shard')}, which take"
                f" {format_bytes(needed_bytes)}, and the cache may take"
                f" {format_bytes(self.cache.limit_bytes)}",
                hint=f"--cache-size {_typed(needed_bytes)}; or a smaller --shuffle-window, in"
                " another run",
            )

    def described(self, window: int) -> str:
        """What people read of it, where samples are shuffled among `window` shards; 0: all."""
        title = address_of(self.place, f"{Layout.WEBDATASET.parent}/{self.split}")
        return (
            f"{count(len(self), 'shard')} of {title}, {format_bytes(self.size_bytes)}, come by way"
            f" of {self.cache.folder}, {format_bytes(self.cache.limit_bytes)} at most;"
            f" images are shuffled among {window or 'all'} of them"
        )

    def sample_path(self, _folder: Path, sample: SampleRecord, _wnid: str) -> Path:
        """As `LayoutModule.sample_path`: in the cache."""
        return self.cache.folder / self.names[sample.shard or 0]

    def read_sample(self, _folder: Path, sample: SampleRecord, _wnid: str) -> bytes:
        """As `LayoutModule.read_sample`. Raises SourceFailed where its shard cannot be fetched."""
        try:  # first, since all else costs as much as the read
            handle = open_handle(f"{self.cache.folder}/{self.names[sample.shard or 0]}")
        except FileNotFoundError:
            handle = self._open(sample.shard or 0)
        try:
            return read_range(handle, sample.size_bytes, sample.offset_bytes or 0)
        finally:
            os.close(handle)

    def _open(self, number: int) -> int:
        """The handle of a shard, which is fetched where it is absent. Raises SourceFailed."""
        with self._failures():
            return self.cache.open(
                self.names[number], int(self.sizes_bytes[number]), partial(self._fill, number)
            )

    def describe_sample(self, _folder: Path, sample: SampleRecord, _wnid: str) -> str:
        """As `LayoutModule.describe_sample`."""
        return f"{self._address(sample.shard or 0)}: {sample.name}"

    def read_ahead(self, *, lag: int) -> ReadAhead:
        """What fetches shards before they are needed, by whoever has `lag` keys under way."""
        return ReadAhead(
            self._fetch_ahead,
            self.sizes_bytes,
            self.cache.limit_bytes,
            lag=lag,
            lock=reading(self.cache.folder),
        )

    def fetch_some(self, limit: int, *, seed: int) -> Fetch:
        """As `Supply.fetch_some`: side by side, by what fetches ahead of a training."""
        numbers = np.random.default_rng(seed).permutation(len(self)).tolist()
        present = {each for each in numbers if (self.cache.folder / self.names[each]).exists()}
        shards = sorted(numbers, key=lambda number: number in present)[:limit]
        absent = [number for number in shards if number not in present]
        for number in present.intersection(shards):
            self.cache.touch(self.names[number])
        begun_s = time.perf_counter()
        with closing(self.read_ahead(lag=0)) as read_ahead:
            read_ahead.follow(np.array(absent, np.uint32))(0)
            for number in absent:
                os.close(self._open(number))
        share = float(self.sizes_bytes[absent].sum() / self.size_bytes)
        return Fetch(shards, share, time.perf_counter() - begun_s)

    def _fetch_ahead(self, number: int, in_use: Callable[[], Iterable[int]]) -> None:
        """Fetch a shard unless it is there, or somebody is at it. Raises as `Cache.open`."""
        name, size_bytes = self.names[number], int(self.sizes_bytes[number])
        if not self.cache.touch(name):
            handle = self.cache.fetch(
                name,
                size_bytes,
                partial(self._fill, number),
                wait=False,
                in_use=lambda: [self.names[each] for each in in_use()],
            )
            if handle is not None:
                os.close(handle)

    def _samples(self, number: int) -> slice:
        return slice(int(self.starts[number]), int(self.starts[number + 1]))

    def _address(self, number: int) -> str:
        return address_of(self.place, self._path(number))

    def _path(self, number: int) -> str:
        return f"{Layout.WEBDATASET.parent}/{self.split}/{shard_name(self.split, number)}"

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Whatever keeps a shard from coming is a SourceFailed, for which a run is saved."""
        try:
            with named(self.cache.folder):
                yield
        except WrongBytes as error:
            raise WrongShard(str(error), hint=error.hint) from error
        except OSError as error:
            sentence, hint = explain(error) or (str(error), "look at the disk")
            hint = hint.replace("--root", "--cache-dir")
            raise SourceFailed(sentence, hint=hint) from error

    def _fill(self, number: int, handle: int) -> None:
        """Write a shard into an open file. Raises WrongShard where it is not the one."""
        for _ in range(_TRIES):
            self._copy(number, handle)
            images = self._wrong_images(number, handle)
            if not images:
                return
        raise WrongShard(
            f"{self._address(number)} is not what the manifest says: {count(images, 'image')} of"
            f" {int(self.starts[number + 1] - self.starts[number]):,} differ",
            hint="push it anew, with --replace, from a root that is right",
        )

    def _copy(self, number: int, handle: int) -> None:
        with closing(open_archive(self.place, self._path(number))) as file:
            at, size_bytes = 0, min(int(self.sizes_bytes[number]), file.size_bytes or 0)
            for chunk in file.chunks(0, size_bytes, _CHUNK_BYTES):
                while len(chunk):
                    length = os.pwrite(handle, chunk, at)
                    at, chunk = at + length, chunk[length:]

    def _wrong_images(self, number: int, handle: int) -> int:
        """How many images in the file have not the digest of the manifest."""
        samples = self._samples(number)
        places = zip(self.places.offsets[samples], self.places.sizes[samples], strict=True)
        bodies = (read_range(handle, int(size), int(offset)) for offset, size in places)
        pairs = zip(bodies, self.digests[samples], strict=True)
        return sum(xxh128(body) != digest.tobytes() for body, digest in pairs)


def read_shards(
    place: str, split: Split, cache: Cache, *, places: Places, digests: bytes, other_bytes: int
) -> RemoteShards:
    """The shards that hold samples at `places`, in any order, with their digests.

    Raises WrongBytes where one holds none, or ends beyond all that a disk holds.
    """
    order = places.order()
    sorted_places = places.chosen(order)
    numbers, starts = np.unique(sorted_places.shards, return_index=True)
    if len(numbers) != int(numbers[-1]) + 1 or int(places.offsets.max()) > _LARGEST_BYTES:
        raise WrongBytes(
            f"{address_of(place, 'manifest.db')} is damaged: no {split} shards are as it says",
            hint="push it anew, with --replace, from a root that is right",
        )
    starts = np.append(starts, len(order))
    sizes_bytes = np.maximum.reduceat(sorted_places.offsets + sorted_places.sizes, starts[:-1])
    rows = np.frombuffer(digests, np.uint8).reshape(-1, 16)[order]
    names = list[str]()
    for number, (start, end) in enumerate(itertools.pairwise(starts.tolist())):
        digest = running_xxh128()
        for column in (sorted_places.offsets, sorted_places.sizes, rows):
            digest.update(column[start:end].tobytes())
        names.append(f"{split}-{number:06}-{digest.hexdigest()}.tar")
    return RemoteShards(
        place, split, cache, sorted_places, rows, starts, sizes_bytes, tuple(names), other_bytes
    )


def _typed(size_bytes: int) -> str:
    """At least so many bytes, as --cache-size takes them."""
    return f"{-(-size_bytes // 10**6)}MB"
