"""The samples of a split, listed from the manifest, whatever the layout they lie in.

A million samples are one string of names and flat arrays, which workers share by fork: an object a
sample would be copied page by page.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from imnetprep.catalog.datasets import Layout, Root, Split
from imnetprep.layouts.table import LAYOUTS, LayoutModule
from imnetprep.machine import is_of_file
from imnetprep.manifest import Manifest, SampleRecord, require_split
from imnetprep.messages import Progress, WrongBytes
from imnetprep.pixels.decoders import PILLOW, Rows, decode_pixels, pick_decoder
from imnetprep.pixels.transforms import Pixels

_MEASURED_IMAGES = 64


class Places(NamedTuple):
    """Where samples lie in shards: number, offset and size of each, (N,)."""

    shards: NDArray[np.uint32]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]

    def chosen(self, choice: NDArray[np.bool_] | NDArray[np.intp]) -> "Places":
        """The places of a mask (N,), or of numbers in their order."""
        return Places(self.shards[choice], self.offsets[choice], self.sizes[choice])

    def order(self) -> NDArray[np.intp]:
        """The numbers of the samples as they lie, shard by shard (N,)."""
        return np.lexsort((self.offsets, self.shards))


class Prefetch(Protocol):
    """Fetches what a loader is about to read."""

    def follow(self, shards: NDArray[np.uint32]) -> Callable[[int], None]:
        """Begin an epoch whose keys lie in these `shards` (M,).

        The function that is returned hears the position of each batch before that is read.
        """

    def close(self) -> None:
        """Fetch no more."""


class Fetch(NamedTuple):
    """Shards that were fetched, by number: the share that absent ones are of all bytes, and the
    seconds that these took.
    """

    shards: list[int]
    share: float
    seconds: float


class Supply(LayoutModule, Protocol):
    """How samples are read whose shards lie elsewhere."""

    @property
    def place(self) -> str:
        """Where they lie, as it was typed."""

    @property
    def window(self) -> int:
        """How many shards a new training shuffles together; 0: all.

        Raises WrongUsage where too few fit.
        """

    @property
    def needed_bytes(self) -> int:
        """What a cache takes that holds all of a training."""

    def fetch_some(self, limit: int, *, seed: int) -> Fetch:
        """Fetch so many shards at random, first those that are absent. Raises SourceFailed."""

    def described(self, window: int) -> str:
        """What people read of it, where samples are shuffled among `window` shards; 0: all."""

    def require_window(self, window: int) -> None:
        """Raise WrongUsage where a `window` of so many shards does not fit."""

    def read_ahead(self, *, lag: int) -> Prefetch:
        """What fetches shards before they are needed, by whoever has `lag` keys under way."""


@dataclass(frozen=True)
class SampleList:
    """The samples of a split: `names`, each with a NUL, where these are (N,), and labels (N,).

    `places` are theirs in shards, None where each is a file. `change` is what was done to the
    images before they came to lie here, None: nothing. `apply_orientation`: turn them as their
    EXIF says. `decoder`: the library that decodes them. `supply`: what reads them where their
    shards lie elsewhere.
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
    decoder: str = PILLOW
    supply: Supply | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        """The file name of the sample, as it was published."""
        start = int(self.ends[index - 1]) + 1 if index else 0
        return self.names[start : int(self.ends[index])].decode()

    def path(self, index: int) -> Path:
        """The file that the sample is, or lies in."""
        return self._module.sample_path(*self._place(index))

    def read(self, index: int) -> bytes:
        """The encoded image. Raises OSError."""
        return self._module.read_sample(*self._place(index))

    def pixels(self, index: int, rows: Rows | None = None) -> Pixels:
        """The image as RGB (H, W, 3), right in as many of its `rows` as `decode_pixels` says.

        Raises WrongBytes where it cannot be read, OSError where none can.
        """
        try:
            return decode_pixels(
                self.read(index),
                decoder=self.decoder,
                apply_orientation=self.apply_orientation,
                rows=rows,
            )
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and not is_of_file(error):
                error.filename = str(self.path(index))
                raise
            sample = self._module.describe_sample(*self._place(index))
            reason = getattr(error, "strerror", None) or error
            raise WrongBytes(
                f"{sample}: {reason}", hint="imnetprep verify --decode names every such image"
            ) from error

    def with_decoder(self, option: str, progress: Progress) -> "SampleList":
        """The samples, decoded as `pick_decoder` says for `option` and some images of all."""
        pick = pick_decoder(option, self._some_bodies())
        if len(pick.rates) > 1:
            progress.note(f"decoder {pick.decoder}; images/s on one core: {pick}")
        return replace(self, decoder=pick.decoder)

    def _some_bodies(self) -> Iterator[bytes]:
        for index in self.spread(_MEASURED_IMAGES):
            with suppress(OSError, ValueError):  # told where it is trained on
                yield self.read(index)

    def spread(self, limit: int) -> list[int]:
        """The numbers of at most `limit` samples, evenly over all; over one shard where those lie
        elsewhere, which holds images of all classes.
        """
        numbers = np.arange(len(self))
        if self.supply and self.places and len(self):
            numbers = np.flatnonzero(self.places.shards == self.places.shards[0])
        return list(map(int, numbers[:: -(-len(numbers) // limit) or 1]))

    def chosen(self, mask: NDArray[np.bool_]) -> "SampleList":
        """The samples of `mask` (N,), in their order."""
        sizes = np.diff(self.ends, prepend=np.uint32(0)) + (np.arange(len(self)) == 0)
        names = np.frombuffer(self.names, np.uint8)[np.repeat(mask, sizes)]
        return replace(
            self,
            names=bytearray(names),
            ends=(np.cumsum(sizes[mask]) - 1).astype(np.uint32),
            labels=self.labels[mask],
            places=self.places and self.places.chosen(mask),
        )

    @property
    def order(self) -> NDArray[np.intp] | None:
        """The order (N,) in which a pass over all reads a shard at a time; None: any will do."""
        return self.places.order() if self.supply and self.supply.window and self.places else None

    @property
    def _module(self) -> LayoutModule:
        return self.supply or LAYOUTS[self.layout]

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
