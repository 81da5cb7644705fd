"""An organized split in shards too: made of its class folders, each image compared on the way."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from imnetprep.catalog.datasets import Dataset, Layout, Root, Split
from imnetprep.fs import locked
from imnetprep.layouts.webdataset import framed_bytes
from imnetprep.manifest import SampleRecord, SplitRecord, open_manifest, splits_in
from imnetprep.messages import Progress, WrongBytes, WrongUsage, count
from imnetprep.organizing.journal import Journal, Stage, open_journal
from imnetprep.outside_files import read_file
from imnetprep.sharding.disk_needs import has_shards, shard_bytes
from imnetprep.sharding.make import Sharding, ShardMaking, ShardSource, not_as_listed
from imnetprep.sharding.order import shuffling
from imnetprep.split_plan import Needs, PlannedSplit


class FolderShards(NamedTuple):
    """The shards of one split of class folders, and whether just such shards are there."""

    source: SplitRecord
    change: str | None
    is_finished: bool


@dataclass(frozen=True)
class FolderShardsPlan:
    """Shards to be made of class folders: a SplitPlan."""

    root: Root
    dataset: Dataset
    sharding: Sharding
    splits: tuple[FolderShards, ...]
    needs: Needs
    jobs: int | None

    def described(self) -> Iterator[PlannedSplit]:
        """As `SplitPlan.described`."""
        for source, _, is_finished in self.splits:
            images = f"of {count(source.samples, 'image')}"
            yield PlannedSplit(source.split, Layout.WEBDATASET, images, is_finished)

    def carry_out(self, progress: Progress) -> Iterator[SplitRecord]:
        """As `SplitPlan.carry_out`. WrongBytes also on an image that cannot be made smaller."""
        root = self.root
        self.needs.require(root.path, purpose=f"to make shards of {self.dataset.name}")
        with locked(root.organizing), open_journal(root.journal, Stage.SHARDS) as journal:
            for shards in self.splits:
                split = shards.source.split
                if shards.is_finished:
                    journal.forget(split)  # a kill may have come before that
                else:
                    _make(self, shards, journal, progress)
                journal.at(Stage.SPOOL).forget(split)  # an archive was begun before the folders
                shutil.rmtree(root.organizing / Stage.SPOOL / split, ignore_errors=True)
                yield splits_in(root, Layout.WEBDATASET)[split]


def plan_from_folders(
    root: Root, dataset: Dataset, sharding: Sharding, *, splits: Sequence[Split], jobs: int | None
) -> FolderShardsPlan:
    """Look at the class folders, and at shards of them; touches nothing.

    Raises ImnetprepError where a split is not organized yet, where other shards of it are there,
    and where something else stands in their place.
    """
    plans, needed_bytes = [], 0
    for split in splits:
        shards = _plan_split(root, dataset, sharding, split)
        plans.append(shards)
        if not shards.is_finished:
            _refuse_miscounted(root, dataset, shards.source)
            needed_bytes += framed_bytes(shards.source.samples, shards.source.size_bytes)
            needed_bytes -= shard_bytes(root, split)
    needs = Needs(disk_bytes=max(0, needed_bytes))
    return FolderShardsPlan(root, dataset, sharding, tuple(plans), needs, jobs)


def _plan_split(root: Root, dataset: Dataset, sharding: Sharding, split: Split) -> FolderShards:
    shards = splits_in(root, Layout.WEBDATASET).get(split)
    source = splits_in(root, Layout.IMAGEFOLDER).get(split) or shards
    assert source is not None
    change = sharding.change or source.change
    if sharding.resize and source.layout is Layout.IMAGEFOLDER and source.change:
        raise WrongUsage(
            f"the {split} images are not as published already: {source.change}",
            hint="resize those of a root that has them as published",
        )
    has_shards(root, dataset, split, sharding, change=change)
    return FolderShards(source, change, shards is not None)


def _refuse_miscounted(root: Root, dataset: Dataset, source: SplitRecord) -> None:
    with open_manifest(root.manifest) as manifest:
        listed_counts = manifest.counts(source)
    counts = dict(enumerate(dataset.counts(source.split)))
    for label in sorted(listed_counts.keys() | counts.keys()):
        if listed_counts.get(label, 0) != counts.get(label, 0):
            raise WrongBytes(
                f"the manifest lists {listed_counts.get(label, 0):,} {source.split} images of class"
                f" {label}, and {dataset.name} has {counts.get(label, 0):,}",
                hint="imnetprep verify says what is wrong",
            )


def _make(
    plan: FolderShardsPlan, shards: FolderShards, journal: Journal, progress: Progress
) -> None:
    root, dataset, sharding, record = plan.root, plan.dataset, plan.sharding, shards.source
    maker = ShardMaking(root, journal, dataset, record.split, sharding, change=shards.change)
    key = shuffling(dataset, record.split, sharding.seed)
    wnids = tuple(synset.wnid for synset in dataset.synsets)
    with open_manifest(root.manifest) as manifest:
        source = ShardSource(
            samples=record.samples,
            made_of=manifest.fingerprint(record),
            records=lambda: manifest.shuffled(record, key),
            body_of=partial(_listed_body, root.split(record.split, record.layout), wnids),
            facts={"made_from": record.layout},
            proof=None,
        )
        whole = maker.grown(source, jobs=plan.jobs, progress=progress)
    maker.place(whole)


def _listed_body(folder: Path, wnids: Sequence[str], sample: SampleRecord) -> bytes:
    """The body of `sample` in the class folders in `folder`, compared with its digest."""
    path = folder / wnids[sample.label] / sample.name
    try:
        body = read_file(path)
    except FileNotFoundError:
        raise not_as_listed(path, "is not there") from None
    if not sample.is_right(body):
        raise not_as_listed(path, f"its xxh128 is not {sample.xxh128.hex()}")
    return body
