"""A split in shards: which sample lies where is fixed before a byte is read.

The order is a function of dataset, split and seed (`shuffling`), the cut one of the shard size.
Where the bodies come from is another matter: `shard_task.BodyOf`.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from imnetprep.catalog.datasets import Dataset, Split
from imnetprep.digests import xxh128
from imnetprep.errors import ImnetprepError, WrongBytes, WrongUsage
from imnetprep.fs import locked, require_free, sync_folder
from imnetprep.images import Resize
from imnetprep.layouts.webdataset import (
    Index,
    framed_bytes,
    read_index,
    shard_name,
    write_index,
)
from imnetprep.manifest import (
    Manifest,
    SplitRecord,
    dataset_for,
    open_manifest,
    organized_splits,
)
from imnetprep.preparation.journal import Journal, Whole, open_journal
from imnetprep.preparation.receipts import record_split
from imnetprep.preparation.shard_task import FilesOf, ShardTask, make_shard
from imnetprep.processes import in_processes, usable_cores
from imnetprep.progress import Progress
from imnetprep.roots import Layout, Root

# Copying waits for the disk, of which more than these make no better use.
_COPYING_JOBS_AT_MOST = 8


class Sharding(NamedTuple):
    """What is asked of shards: samples in each, the seed of their order, a smaller size or none."""

    shard_size: int = 1000
    seed: int = 0
    resize: Resize | None = None


@dataclass(frozen=True)
class PlannedShards:
    """What is to be done for one split. `done`: it is there, in just such shards."""

    source: SplitRecord
    change: str | None
    done: bool


@dataclass(frozen=True)
class ShardingPlan:
    """What `carry_out_sharding` will do, and the disk space it will take at most."""

    dataset: Dataset
    sharding: Sharding
    splits: tuple[PlannedShards, ...]
    needed_bytes: int


def plan_sharding(
    root: Root, sharding: Sharding, *, dataset: str | None, splits: Sequence[Split]
) -> ShardingPlan:
    """Look at what is there and what is wanted; touches nothing.

    Raises ImnetprepError where a split is not organized yet, where other shards of it are there,
    and where something else stands in their place.
    """
    with open_manifest(root.manifest):
        known = dataset_for(root.manifest, dataset)
    planned, needed_bytes = [], 0
    for split in splits or known.splits:
        each = _plan_split(root, sharding, split)
        planned.append(each)
        if not each.done:
            _refuse_miscounted(root, known, each.source)
            needed_bytes += framed_bytes(each.source.samples, each.source.size_bytes)
            if _journal_path(root).exists():
                with open_journal(_journal_path(root)) as journal:
                    needed_bytes -= sum(shard.size_bytes for shard in journal.shards(split))
    return ShardingPlan(known, sharding, tuple(planned), max(0, needed_bytes))


def _plan_split(root: Root, sharding: Sharding, split: Split) -> PlannedShards:
    organized = organized_splits(root)
    done = organized.get((split, Layout.WEBDATASET))
    source = organized.get((split, Layout.IMAGEFOLDER), done)
    if source is None:
        raise ImnetprepError(
            f"{root.path} has no {split} split to make shards of",
            hint=f"imnetprep organize --split {split}; then the same command again",
        )
    change = str(sharding.resize) if sharding.resize else source.change
    if sharding.resize and source is not done and source.change:
        raise WrongUsage(
            f"the {split} images are not as published already: {source.change}",
            hint="resize those of a root that has them as published",
        )
    folder = root.split(split, Layout.WEBDATASET)
    if folder.exists():
        if done is None and not _whole_lies_in(folder, root, split):
            raise _in_the_way(folder)
        _refuse_other_shards(folder, sharding, change)
    return PlannedShards(source, change, done is not None)


def _refuse_miscounted(root: Root, dataset: Dataset, source: SplitRecord) -> None:
    with open_manifest(root.manifest) as manifest:
        listed = manifest.counts(source)
    wanted = dict(enumerate(dataset.counts(source.split)))
    for label in sorted(listed.keys() | wanted.keys()):
        if listed.get(label, 0) != wanted.get(label, 0):
            raise WrongBytes(
                f"the manifest lists {listed.get(label, 0):,} {source.split} images of class"
                f" {label}, and {dataset.name} has {wanted.get(label, 0):,}",
                hint="imnetprep verify says what is wrong",
            )


def _refuse_other_shards(folder: Path, sharding: Sharding, change: str | None) -> None:
    index = read_index(folder)
    there = (index.shard_size, index.seed, index.change)
    if there != (sharding.shard_size, sharding.seed, change):
        raise ImnetprepError(
            f"{folder} holds other shards: of {index.shard_size:,} samples, seed {index.seed},"
            f" {index.change or 'images as published'}",
            hint=f"mv {folder} {folder}.old; then run the same command again",
        )


def carry_out_sharding(
    plan: ShardingPlan, root: Root, *, jobs: int | None, progress: Progress
) -> Iterator[SplitRecord]:
    """Make the shards that are not there; yields every split of the plan once it stands.

    Raises WrongBytes where an image is not what the manifest says, or not one that can be resized.
    """
    require_free(root.path, plan.needed_bytes, what=f"to make shards of {plan.dataset.name}")
    most = usable_cores() if plan.sharding.resize else min(usable_cores(), _COPYING_JOBS_AT_MOST)
    with locked(root.organizing), open_journal(_journal_path(root)) as journal:
        for planned in plan.splits:
            if not planned.done:
                making = _Making(plan, planned, root, journal)
                making.place(making.grown(jobs=jobs or most, progress=progress))
            yield organized_splits(root)[planned.source.split, Layout.WEBDATASET]


def shuffling(dataset: Dataset, split: Split, seed: int) -> Callable[[int, str], bytes]:
    """A key of (label, name): sorted by it, the samples of `split` are in the order of `seed`."""
    wnids = [synset.wnid for synset in dataset.synsets]
    return lambda label, name: xxh128(
        f"{dataset.name} {split} {seed} {wnids[label]}/{name}".encode()
    )


class _Making:
    """One split on its way into shards: under `.organizing` until it is whole."""

    def __init__(
        self, plan: ShardingPlan, planned: PlannedShards, root: Root, journal: Journal
    ) -> None:
        self._dataset, self._sharding, self._planned = plan.dataset, plan.sharding, planned
        self._root, self._journal = root, journal
        self._split = planned.source.split
        self._folder = root.organizing / "shards" / self._split
        self._target = root.split(self._split, Layout.WEBDATASET)

    def grown(self, *, jobs: int, progress: Progress) -> Whole:
        """Make the shards that are not journalled, and the index last."""
        fingerprint = self._dataset.fingerprint
        with open_manifest(self._root.manifest) as manifest:
            made_of = f"{self._sharding} {manifest.fingerprint(self._planned.source)}"
            if not self._goes_on(made_of):
                self._journal.forget(self._split)
                if self._folder.exists():
                    shutil.rmtree(self._folder)
                self._journal.begin(self._split, dataset=fingerprint, archive=made_of)
            if whole := self._journal.whole(self._split, dataset=fingerprint):
                return whole
            self._folder.mkdir(parents=True, exist_ok=True)
            self._sweep()
            self._make(manifest, jobs=jobs, progress=progress)
        self._sweep()
        shards = self._journal.shards(self._split)
        words = self._sharding.seed, self._sharding.shard_size, self._planned.change
        write_index(self._folder, Index(self._dataset.name, self._split, *words, shards))
        self._journal.mark_whole({self._split: self._folder}, {})
        return Whole({}, self._folder.stat().st_ino)

    def _sweep(self) -> None:
        """What workers that were killed have left takes room, and is no shard."""
        for left in self._folder.glob(".*.tmp"):
            left.unlink(missing_ok=True)

    def _goes_on(self, made_of: str) -> bool:
        """Is what the journal says there, and made of the same images in the same way?"""
        fingerprint = self._dataset.fingerprint
        if not self._journal.has_begun(self._split, dataset=fingerprint, archive=made_of):
            return False
        if whole := self._journal.whole(self._split, dataset=fingerprint):
            return whole.lies_in(self._folder) or whole.lies_in(self._target)
        paths = [(self._folder / each.name, each) for each in self._journal.shards(self._split)]
        return all(path.exists() and path.stat().st_size == each.size_bytes for path, each in paths)

    def _make(self, manifest: Manifest, *, jobs: int, progress: Progress) -> None:
        done = self._journal.shards(self._split)
        with progress.task(
            f"shard {self._split}",
            total=self._planned.source.samples,
            unit="images",
            done=sum(shard.samples for shard in done),
        ) as bar:
            tasks = self._tasks(manifest, done={shard.name for shard in done})
            for shard, records in in_processes(make_shard, tasks, jobs=jobs):
                self._journal.add_shard(self._split, shard, records)
                bar.advance(shard.samples)

    def _tasks(self, manifest: Manifest, *, done: set[str]) -> Iterator[ShardTask]:
        source, size = self._planned.source, self._sharding.shard_size
        wnids = tuple(synset.wnid for synset in self._dataset.synsets)
        body_of = FilesOf(self._root.split(self._split, source.layout), wnids)
        key = shuffling(self._dataset, self._split, self._sharding.seed)
        samples, number = manifest.shuffled(source, key), 0
        while of_shard := list(islice(samples, size)):
            path = self._folder / shard_name(self._split, number)
            if path.name not in done:
                resize = self._sharding.resize
                yield ShardTask(path, number, number * size, of_shard, wnids, body_of, resize)
            number += 1

    def place(self, whole: Whole) -> None:
        """Give the shards their name, manifest and receipt; a kill in between is made up."""
        key = self._split, Layout.WEBDATASET
        if whole.lies_in(self._folder):
            if self._target.exists():
                raise _in_the_way(self._target)
            with open_manifest(self._root.manifest, write=True) as manifest:
                manifest.drop_split(*key)  # of a folder that is gone
            self._target.parent.mkdir(exist_ok=True)
            self._folder.rename(self._target)
            sync_folder(self._target.parent)
            sync_folder(self._root.path)
        if key not in organized_splits(self._root):
            with open_manifest(self._root.manifest, write=True) as manifest:
                samples = self._journal.samples(self._split)
                manifest.add_split(*key, samples, change=self._planned.change)
        record = organized_splits(self._root)[key]
        record_split(
            self._root,
            f"shards/{self._split}",
            made_from=self._planned.source.layout,
            seed=self._sharding.seed,
            shard_size=self._sharding.shard_size,
            **{name: value for name, value in record._asdict().items() if name != "split"},
        )
        self._journal.forget(self._split)


def _whole_lies_in(folder: Path, root: Root, split: Split) -> bool:
    """Do these shards lack only their manifest and receipt?"""
    if not _journal_path(root).exists():
        return False
    with open_manifest(root.manifest) as manifest:
        fingerprint = manifest.dataset().fingerprint
    with open_journal(_journal_path(root)) as journal:
        whole = journal.whole(split, dataset=fingerprint)
    return whole is not None and whole.lies_in(folder)


def _in_the_way(folder: Path) -> ImnetprepError:
    return ImnetprepError(
        f"{folder} is there, and the manifest knows nothing of it",
        hint=f"mv {folder} {folder}.old; then run the same command again",
    )


def _journal_path(root: Root) -> Path:
    return root.organizing / "shards.db"
