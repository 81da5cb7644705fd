"""An organized split in shards too: made of its class folders, each image compared on the way."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from imnetprep.catalog.datasets import Dataset, Layout, Root, Split
from imnetprep.fs import locked, require_free
from imnetprep.layouts.webdataset import framed_bytes, read_index
from imnetprep.manifest import SplitRecord, dataset_for, open_manifest, organized_splits
from imnetprep.messages import ImnetprepError, Progress, WrongBytes, WrongUsage, move_away
from imnetprep.organizing.journal import Journal, Stage, open_journal
from imnetprep.organizing.publish import in_the_way
from imnetprep.sharding.make import Sharding, ShardMaking, ShardSource
from imnetprep.sharding.order import shuffling
from imnetprep.sharding.shard_task import FilesOf


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
            if root.journal.exists():
                with open_journal(root.journal, Stage.SHARDS) as journal:
                    needed_bytes -= sum(shard.size_bytes for shard in journal.shards(split))
    return ShardingPlan(known, sharding, tuple(planned), max(0, needed_bytes))


def _plan_split(root: Root, sharding: Sharding, split: Split) -> PlannedShards:
    organized = organized_splits(root)
    done = organized.get((split, Layout.WEBDATASET))
    source = organized.get((split, Layout.IMAGEFOLDER), done)
    if source is None:
        raise ImnetprepError(
            f"{root.path} has no {split} split to make shards of",
            hint=f"imnetprep organize --split {split} --layout imagefolder;"
            " then the same command again",
        )
    change = str(sharding.resize) if sharding.resize else source.change
    if sharding.resize and source is not done and source.change:
        raise WrongUsage(
            f"the {split} images are not as published already: {source.change}",
            hint="resize those of a root that has them as published",
        )
    folder = root.split(split, Layout.WEBDATASET)
    if folder.exists():
        if done is None and not whole_shards_lie_in(folder, root, split):
            raise in_the_way(folder, root)
        refuse_other_shards(folder, sharding, change)
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


def refuse_other_shards(folder: Path, sharding: Sharding, change: str | None) -> None:
    """Raise ImnetprepError unless the shards in `folder` are just those that are wanted."""
    index = read_index(folder)
    there = (index.shard_size, index.seed, index.change)
    if there != (sharding.shard_size, sharding.seed, change):
        raise ImnetprepError(
            f"{folder} holds other shards: of {index.shard_size:,} samples, seed {index.seed},"
            f" {index.change or 'images as published'}",
            hint=f"{move_away(folder)}; then run the same command again",
        )


def carry_out_sharding(
    plan: ShardingPlan, root: Root, *, jobs: int | None, progress: Progress
) -> Iterator[SplitRecord]:
    """Make the shards that are not there; yields every split of the plan once it stands.

    Raises WrongBytes where an image is not what the manifest says, or not one that can be resized.
    """
    require_free(root.path, plan.needed_bytes, purpose=f"to make shards of {plan.dataset.name}")
    with locked(root.organizing), open_journal(root.journal, Stage.SHARDS) as journal:
        for planned in plan.splits:
            if planned.done:
                journal.forget(planned.source.split)  # a kill may have come before that
            else:
                _make(plan, planned, root, journal, jobs=jobs, progress=progress)
            yield organized_splits(root)[planned.source.split, Layout.WEBDATASET]


def _make(
    plan: ShardingPlan,
    planned: PlannedShards,
    root: Root,
    journal: Journal,
    *,
    jobs: int | None,
    progress: Progress,
) -> None:
    dataset, sharding, held = plan.dataset, plan.sharding, planned.source
    making = ShardMaking(root, journal, dataset, held.split, sharding, change=planned.change)
    wnids = tuple(synset.wnid for synset in dataset.synsets)
    key = shuffling(dataset, held.split, sharding.seed)
    with open_manifest(root.manifest) as manifest:
        source = ShardSource(
            samples=held.samples,
            made_of=manifest.fingerprint(held),
            shuffled=lambda: manifest.shuffled(held, key),
            body_of=FilesOf(root.split(held.split, held.layout), wnids),
            facts={"made_from": held.layout},
            proof=None,
        )
        whole = making.grown(source, jobs=jobs, progress=progress)
    making.place(whole)


def whole_shards_lie_in(folder: Path, root: Root, split: Split) -> bool:
    """Do the shards in `folder` lack only their manifest and receipt?"""
    if not root.journal.exists():
        return False
    with open_manifest(root.manifest) as manifest:
        fingerprint = manifest.dataset().fingerprint
    with open_journal(root.journal, Stage.SHARDS) as journal:
        whole = journal.whole(split, dataset=fingerprint)
    return whole is not None and whole.lies_in(folder)
