"""Splits from the archives that they share into shards: no loose files between.

An archive here that is proved already, or that nothing can prove, is walked, and each shard reads
its bodies from it. Any other is read once, into a spool for each shard, and when it is proved each
spool is put in order.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from imnetprep.catalog.datasets import Dataset, Layout, Root, Split
from imnetprep.fs import locked
from imnetprep.manifest import SplitRecord, create_manifest, splits_in
from imnetprep.messages import ImnetprepError, Progress, removal
from imnetprep.organizing.grow import Work
from imnetprep.organizing.journal import Journal, Stage, open_journal
from imnetprep.organizing.plan import SplitGroup, planned_splits
from imnetprep.proving.receipt import Proof
from imnetprep.sharding.disk_needs import ShardsNeeds
from imnetprep.sharding.make import Sharding, ShardMaking, ShardSource
from imnetprep.sharding.order import Placement
from imnetprep.sharding.spools import Spool, source_in_spools, spool_paths
from imnetprep.sharding.walk import source_in_archive
from imnetprep.split_plan import Needs, PlannedSplit


@dataclass(frozen=True)
class ArchiveShardsPlan:
    """Shards to be made of archives: a SplitPlan.

    Each group shares its archives; beside it stands the proof of an archive that is walked, None
    where they are read once, into spools.
    """

    root: Root
    dataset: Dataset
    sharding: Sharding
    groups: tuple[tuple[SplitGroup, Proof | None], ...]
    needs: Needs
    consume: bool
    jobs: int | None

    def described(self) -> Iterator[PlannedSplit]:
        """As `SplitPlan.described`."""
        for group, proof in self.groups:
            way = "read once, with a spool on the disk" if proof is None else "shard by shard"
            source = f"from {', '.join(group.addresses)}, {way}"
            for split in group.splits:
                yield PlannedSplit(split, Layout.WEBDATASET, source, group.is_organized(split))

    def carry_out(self, progress: Progress) -> Iterator[SplitRecord]:
        """As `SplitPlan.carry_out`."""
        root = self.root
        self.needs.require(root.path, purpose=f"to make shards of {self.dataset.name}")
        with locked(root.organizing), open_journal(root.journal, Stage.SHARDS) as journal:
            create_manifest(root.manifest, self.dataset)
            self.needs.tell_time(root.organizing, progress)
            for group, proof in self.groups:
                yield from _GroupWork(self, group, journal).carry_out(proof, progress)


def plan_from_archives(
    root: Root,
    dataset: Dataset,
    sharding: Sharding,
    *,
    splits: Sequence[Split],
    archives: str | None,
    consume: bool,
    jobs: int | None,
) -> ArchiveShardsPlan:
    """Look at the archives and the root; touches nothing.

    Raises as `plan_organize`, and ImnetprepError where the dataset does not list the names of a
    split, or other shards of it are there.
    """
    in_shards = frozenset(splits_in(root, Layout.WEBDATASET))
    groups, needs = [], Needs()
    for group in planned_splits(
        root, dataset, splits, archives=archives, organized_splits=in_shards
    ):
        planner = ShardsNeeds(root, dataset, sharding, group, consume=consume)
        needs += planner.needs(jobs)
        groups.append((group, planner.proof))
    return ArchiveShardsPlan(root, dataset, sharding, tuple(groups), needs, consume, jobs)


def needs_archive(root: Root, split: Split) -> bool:
    """Has `split` no class folders, and shards either not, or with something left to clear away?"""
    if split in splits_in(root, Layout.IMAGEFOLDER):
        return False
    if split not in splits_in(root, Layout.WEBDATASET):
        return True
    if not root.has_journal:
        return False
    with open_journal(root.journal) as journal:
        return any(journal.at(stage).origin(split) for stage in (Stage.SHARDS, Stage.SPOOL))


class _GroupWork:
    """Splits on their way from the archives that they share into shards."""

    def __init__(self, plan: ArchiveShardsPlan, group: SplitGroup, journal: Journal) -> None:
        self._plan, self._group, self._root = plan, group, plan.root
        self._journal, self._spool_journal = journal, journal.at(Stage.SPOOL)
        self._folder = plan.root.organizing / Stage.SPOOL
        sharding = plan.sharding
        self._placements = {
            split: Placement(
                plan.dataset, split, seed=sharding.seed, shard_size=sharding.shard_size
            )
            for split in group.splits
            if not self._is_finished(split)
        }
        self._work = Work(
            plan.dataset,
            group,
            plan.root,
            self._spool_journal,
            folder=self._folder,
            sink=Spool(self._folder, self._placements, options=sharding.options),
            consume=plan.consume,
        )

    def carry_out(self, proof: Proof | None, progress: Progress) -> Iterator[SplitRecord]:
        """Make the shards that are missing; yields each split of the group once it stands."""
        sources = self._spooled(progress) if proof is None else self._walked(proof, progress)
        for split in self._group.splits:
            maker = self._maker(split)
            whole = maker.whole()
            if split in sources:
                whole = maker.grown(sources[split], jobs=self._plan.jobs, progress=progress)
            if whole is None:
                self._clear(split)
                yield splits_in(self._root, Layout.WEBDATASET)[split]
            else:
                yield maker.place(whole, on_placed=partial(self._clear, split))

    def _is_finished(self, split: Split) -> bool:
        """Are the shards of `split` there, under their name or whole, with the same options?"""
        origin = self._journal.origin(split)
        if self._maker(split).whole() is None:
            return self._group.is_organized(split)
        return origin is not None and origin.options == self._plan.sharding.options

    def _maker(self, split: Split) -> ShardMaking:
        dataset, sharding = self._plan.dataset, self._plan.sharding
        change = sharding.change
        return ShardMaking(self._root, self._journal, dataset, split, sharding, change=change)

    def _walked(self, proof: Proof, progress: Progress) -> Mapping[Split, ShardSource]:
        (archive,), dataset = self._group.at, self._plan.dataset
        return {
            split: source_in_archive(archive, dataset, placement, proof=proof, progress=progress)
            for split, placement in self._placements.items()
        }

    def _spooled(self, progress: Progress) -> Mapping[Split, ShardSource]:
        """Read the archives once, in whatever order their proofs want."""
        for split in self._placements:
            self._drop_unusable(split)
        if self._placements:
            self._work.grown(list(self._placements), jobs=self._plan.jobs, progress=progress)
        return {
            split: source_in_spools(
                self._folder,
                split,
                placement,
                self._spool_journal,
                archives=", ".join(
                    each.name for each in self._group.archives if split in each.splits
                ),
            )
            for split, placement in self._placements.items()
        }

    def _drop_unusable(self, split: Split) -> None:
        """Forget spools of other shards, or of which a part is lost: the archive is read again.

        Raises ImnetprepError where a part is lost of an archive that is deleted by now.
        """
        journal, folder = self._spool_journal, self._maker(split).folder
        sizes = {shard.name: shard.size_bytes for shard in self._journal.shards(split)}
        whole = journal.whole(split, dataset=self._plan.dataset.fingerprint)
        spools = spool_paths(self._folder, split, self._placements[split])
        for name, spool in spools.items() if whole else ():
            shard = folder / name
            is_whole = shard.exists() and shard.stat().st_size == sizes.get(name)
            if is_whole or spool.exists():
                continue
            if any(archive.is_partly_deleted for archive in self._group.at):
                raise ImnetprepError(
                    f"{shard if name in sizes else spool} is gone or has changed, and the archive"
                    " data it was made of is deleted",
                    hint="put it back if you have it; to start over,"
                    f" {removal(self._root.organizing)}; imnetprep download",
                )
            journal.forget(split)
        origin = journal.origin(split)
        if origin and origin.options != self._plan.sharding.options:
            journal.forget(split)

    def _clear(self, split: Split) -> None:
        """The shards have their name: what they were made of may go."""
        folder = self._folder / split
        if folder.exists():
            shutil.rmtree(folder)
        self._work.end(split)
