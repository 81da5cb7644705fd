"""A split on its way into shards, wherever its bodies come from: shard by shard, each whole."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from imnetprep.catalog.datasets import Dataset, Layout, Root, Split
from imnetprep.digests import xxh128
from imnetprep.images import Resize, resized_jpeg
from imnetprep.jobs import IMAGES, SHARDS
from imnetprep.layouts.webdataset import (
    Index,
    Shard,
    read_index,
    shard_name,
    write_index,
    write_shard,
)
from imnetprep.manifest import SampleRecord, SplitRecord
from imnetprep.messages import Progress, WrongBytes
from imnetprep.organizing.journal import Journal, Origin, Stage, Whole
from imnetprep.organizing.publish import publish_journalled, unpublished
from imnetprep.processes import in_processes
from imnetprep.proving.receipt import Proof

# The published bytes of a sample, or WrongBytes; a value that another process can be given. A
# sample whose digest is empty gets that of its body.
BodyOf = Callable[[SampleRecord], bytes]
# A sample as it goes into a shard, with its bytes there; ValueError where it is no image.
Prepare = Callable[[SampleRecord], tuple[SampleRecord, bytes]]


class Sharding(NamedTuple):
    """What is asked of shards: samples in each, the seed of their order, a smaller size or none."""

    shard_size: int = 1000
    seed: int = 0
    resize: Resize | None = None

    @property
    def options(self) -> Mapping[str, Any]:
        """What shards and spools are made with."""
        return {**self._asdict(), "resize": self.resize and self.resize._asdict()}

    @property
    def change(self) -> str | None:
        """What is done to images as published; None: nothing."""
        return str(self.resize) if self.resize else None

    def jobs(self, jobs: int | None) -> int:
        """How many make shards at once, if nobody says."""
        return (IMAGES if self.resize else SHARDS).count(jobs)


@dataclass(frozen=True)
class ShardSource:
    """Where the samples of a split come from.

    `made_of` is the same for two only if they are the same images, to the byte; `records` gives the
    samples in the order of the shards, and `body_of` the bytes of each. `facts` and `proof` go into
    the receipt; `on_shard` is called with each shard that is safe on the disk.
    """

    samples: int
    made_of: str
    records: Callable[[], Iterator[SampleRecord]]
    body_of: BodyOf
    facts: Mapping[str, Any]
    proof: Proof | None
    on_shard: Callable[[Shard], None] = lambda _: None


class ShardTask(NamedTuple):
    """Shard `number` of these samples, to be written to `path`."""

    path: Path
    number: int
    samples: Sequence[SampleRecord]


def make_shard(
    task: ShardTask, *, shard_size: int, wnids: Sequence[str], prepare: Prepare
) -> tuple[Shard, list[SampleRecord]]:
    """Write it, whole or not at all; a record for each sample says what came to lie where.

    Raises WrongBytes where an image is not as listed, or not one that can be made smaller.
    """
    path, number, samples = task
    first_key = number * shard_size

    def prepared(sample: SampleRecord) -> tuple[SampleRecord, bytes]:
        try:
            return prepare(sample)
        except ValueError as error:
            raise not_as_listed(Path(wnids[sample.label], sample.name), str(error)) from error

    bodies = map(prepared, samples)
    return write_shard(path, bodies, number=number, first_key=first_key, wnids=wnids)


def _prepared(
    sample: SampleRecord, *, body_of: BodyOf, resize: Resize | None, apply_orientation: bool
) -> tuple[SampleRecord, bytes]:
    body = body_of(sample)
    if not sample.xxh128:
        sample = sample._replace(xxh128=xxh128(body))
    if resize is None:
        return sample, body
    image, change = resized_jpeg(body, resize, apply_orientation=apply_orientation)
    if change is None:
        return sample, body
    return SampleRecord(sample.label, sample.name, len(image), xxh128(image), change), image


def not_as_listed(image: Path, problem: str) -> WrongBytes:
    """The error for an image that is not what the manifest says, or cannot be made smaller."""
    return WrongBytes(
        f"{image}: {problem}",
        hint="imnetprep verify --layout imagefolder --digests --decode names every such image",
    )


class ShardMaking:
    """The shards of `split`: under `.organizing` until they are whole.

    `change` is what will have been done to the images, None: nothing.
    """

    def __init__(
        self,
        root: Root,
        journal: Journal,
        dataset: Dataset,
        split: Split,
        sharding: Sharding,
        *,
        change: str | None,
    ) -> None:
        self._root, self._journal, self._dataset, self._split = root, journal, dataset, split
        self._sharding, self._change = sharding, change
        self.folder = root.organizing / Stage.SHARDS / split

    def whole(self) -> Whole | None:
        """The shards, if they lack no more than their name, their manifest or their receipt.

        The index says what was done to the images: no option tells it of shards of class folders.
        """
        target = self._root.split(self._split, Layout.WEBDATASET)
        whole = unpublished(self._journal, self._split, self._dataset, self.folder, target)
        if whole is None:
            return None
        try:
            index = read_index(self.folder if whole.lies_in(self.folder) else target)
        except WrongBytes:
            return None
        return whole if index.change == self._change else None

    def grown(self, source: ShardSource, *, jobs: int | None, progress: Progress) -> Whole:
        """Make the shards that are not journalled, and the index last."""
        origin = Origin(self._dataset.fingerprint, source.made_of, self._sharding.options)
        if not self._goes_on(origin):
            self._journal.forget(self._split)
            if self.folder.exists():
                shutil.rmtree(self.folder)
            self._journal.begin(self._split, origin)
        if whole := self.whole():
            return whole
        self.folder.mkdir(parents=True, exist_ok=True)
        self._sweep()
        self._make(source, jobs=self._sharding.jobs(jobs), progress=progress)
        self._sweep()
        shards = self._journal.shards(self._split)
        words = self._sharding.seed, self._sharding.shard_size, self._change
        write_index(self.folder, Index(self._dataset.name, self._split, *words, shards))
        facts, proof = source.facts, source.proof
        self._journal.mark_whole({self._split: self.folder}, facts=facts, proof=proof)
        return Whole(facts, proof, self.folder.stat().st_ino)

    def _sweep(self) -> None:
        """What workers that were killed have left takes room, and is no shard."""
        for path in self.folder.glob(".*.tmp"):
            path.unlink(missing_ok=True)

    def _goes_on(self, origin: Origin) -> bool:
        """Is what the journal says there, and made of the same images in the same way?"""
        if self._journal.origin(self._split) != origin:
            return False
        if self._journal.whole(self._split, dataset=origin.dataset):
            return self.whole() is not None
        paths = [(self.folder / each.name, each) for each in self._journal.shards(self._split)]
        return all(path.exists() and path.stat().st_size == each.size_bytes for path, each in paths)

    def _make(self, source: ShardSource, *, jobs: int, progress: Progress) -> None:
        shards = self._journal.shards(self._split)
        for shard in shards:
            source.on_shard(shard)  # a kill may have come between the journal and that
        with progress.task(
            f"shard {self._split}",
            total=source.samples,
            unit="images",
            initial=sum(shard.samples for shard in shards),
        ) as bar:
            prepare = partial(
                _prepared,
                body_of=source.body_of,
                resize=self._sharding.resize,
                apply_orientation=self._dataset.orientation_applied,
            )
            make = partial(
                make_shard,
                shard_size=self._sharding.shard_size,
                wnids=tuple(synset.wnid for synset in self._dataset.synsets),
                prepare=prepare,
            )
            tasks = self._tasks(source, skip={shard.name for shard in shards})
            for shard, records in in_processes(make, tasks, jobs=jobs):
                self._journal.add_shard(self._split, shard, records)
                source.on_shard(shard)
                bar.advance(shard.samples)

    def _tasks(self, source: ShardSource, *, skip: set[str]) -> Iterator[ShardTask]:
        samples, number = source.records(), 0
        while of_shard := list(islice(samples, self._sharding.shard_size)):
            path = self.folder / shard_name(self._split, number)
            if path.name not in skip:
                yield ShardTask(path, number, of_shard)
            number += 1

    def place(self, whole: Whole, *, on_placed: Callable[[], None] = lambda: None) -> SplitRecord:
        """Publish the shards; `on_placed` is the `on_listed` of `publish_journalled`."""
        shard_size, seed, _ = self._sharding
        return publish_journalled(
            self._root,
            self._journal,
            self._split,
            whole=whole,
            workspace=self.folder,
            change=self._change,
            facts={**whole.receipt, "seed": seed, "shard_size": shard_size},
            on_listed=on_placed,
        )
