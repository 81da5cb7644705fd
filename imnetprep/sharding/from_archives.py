"""Splits from the archives that they share into shards: no loose files between.

An archive here that is proved already, or that nothing can prove, is walked, and each shard reads
its bodies from it. Any other is read once, into a spool for each shard, and when it is proved each
spool is put in order.
"""

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from imnetprep.catalog.datasets import Dataset, Layout, Root, Split
from imnetprep.fs import locked
from imnetprep.manifest import SplitRecord, create_manifest, splits_in
from imnetprep.messages import ImnetprepError, Progress, removal
from imnetprep.organizing.grow import Work
from imnetprep.organizing.journal import Journal, Stage, journal_of, open_journal
from imnetprep.organizing.plan import SplitGroup
from imnetprep.proving.receipt import Proof
from imnetprep.sharding.disk_needs import proof_and_needs
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
    groups: list[tuple[SplitGroup, Proof | None]]
    needs: Needs

    def described(self) -> Iterator[PlannedSplit]:
        """As `SplitPlan.described`."""
        for group, proof in self.groups:
            way = "read once, with a spool on the disk" if proof is None else "shard by shard"
            source = f"from {group.addresses}, {way}"
            for split in group.splits:
                yield PlannedSplit(split, Layout.WEBDATASET, source, split not in group.to_do)

    def carry_out(self, progress: Progress) -> Iterator[SplitRecord]:
        """As `SplitPlan.carry_out`."""
        root = self.root
        self.needs.require(root.path, purpose=f"to make shards of {self.dataset.name}")
        with locked(root.organizing), open_journal(root.journal, Stage.SHARDS) as journal:
            create_manifest(root.manifest, self.dataset)
            self.needs.tell_time(root.organizing, progress)
            for group, proof in self.groups:
                yield from _GroupWork(group, self.sharding, journal).carry_out(proof, progress)


def plan_from_archives(
    root: Root, dataset: Dataset, sharding: Sharding, groups: Iterable[SplitGroup]
) -> ArchiveShardsPlan:
    """Look at the archives and the root; touches nothing.

    Raises as `plan_organize`, and ImnetprepError where the dataset does not list the names of a
    split, or other shards of it are there.
    """
    proved_groups, needs = [], Needs()
    for group in groups:
        proof, group_needs = proof_and_needs(group, sharding)
        proved_groups.append((group, proof))
        needs += group_needs
    return ArchiveShardsPlan(root, dataset, sharding, proved_groups, needs)


def needs_archive(root: Root, split: Split) -> bool:
    """Has `split` no class folders, and shards either not, or with something left to clear away?"""
    if split in splits_in(root, Layout.IMAGEFOLDER):
        return False
    if split not in splits_in(root, Layout.WEBDATASET):
        return True
    with journal_of(root) as journal:
        return any(journal.at(stage).origin(split) for stage in (Stage.SHARDS, Stage.SPOOL))


class _GroupWork:
    """Splits on their way from the archives that they share into shards."""

    def __init__(self, group: SplitGroup, sharding: Sharding, journal: Journal) -> None:
        self._group, self._sharding, self._root = group, sharding, group.root
        self._journal, self._spool_journal = journal, journal.at(Stage.SPOOL)
        self._folder = self._root.organizing / Stage.SPOOL
        seed, shard_size = sharding.seed, sharding.shard_size
        self._placements = {
            split: Placement(group.dataset, split, seed=seed, shard_size=shard_size)
            for split in group.splits
            if not self._is_finished(split)
        }

    def carry_out(self, proof: Proof | None, progress: Progress) -> Iterator[SplitRecord]:
        """Make the shards that are missing; yields each split of the group once it stands."""
        if proof is None:
            self._spool(progress)
        for split in self._group.splits:
            maker = self._maker(split)
            whole = maker.whole()
            if split in self._placements:
                source = self._source(self._placements[split], proof, progress)
                whole = maker.grown(source, jobs=self._group.jobs, progress=progress)
            if whole is None:
                self._clear(split)
                yield splits_in(self._root, Layout.WEBDATASET)[split]
            else:
                yield maker.place(whole, on_placed=partial(self._clear, split))

    def _is_finished(self, split: Split) -> bool:
        """Are the shards of `split` there, under their name or whole, with the same options?"""
        origin = self._journal.origin(split)
        if self._maker(split).whole() is None:
            return split not in self._group.to_do
        return origin is not None and origin.options == self._sharding.options

    def _maker(self, split: Split) -> ShardMaking:
        dataset, sharding = self._group.dataset, self._sharding
        change = sharding.change
        return ShardMaking(self._root, self._journal, dataset, split, sharding, change=change)

    def _source(self, placement: Placement, proof: Proof | None, progress: Progress) -> ShardSource:
        if proof is not None:
            (archive,) = self._group.archives
            return source_in_archive(archive, placement, proof=proof, progress=progress)
        archives = self._group.archive_names(placement.split)
        return source_in_spools(self._folder, placement, self._spool_journal, archives=archives)

    def _spool(self, progress: Progress) -> None:
        """Read the archives once, in whatever order their proofs want."""
        for split in self._placements:
            self._drop_unusable(split)
        if self._placements:
            sink = Spool(self._folder, self._placements, options=self._sharding.options)
            work = Work(self._group, self._spool_journal, sink=sink, folder=self._folder)
            work.grown(list(self._placements), progress)

    def _drop_unusable(self, split: Split) -> None:
        """Forget spools of other shards, or of which a part is lost: the archive is read again.

        Raises ImnetprepError where a part is lost of an archive that is deleted by now.
        """
        journal, folder = self._spool_journal, self._maker(split).folder
        sizes = {shard.name: shard.size_bytes for shard in self._journal.shards(split)}
        whole = journal.whole(split, dataset=self._group.dataset.fingerprint)
        spools = spool_paths(self._folder, self._placements[split])
        for name, spool in spools.items() if whole else ():
            shard = folder / name
            is_whole = shard.exists() and shard.stat().st_size == sizes.get(name)
            if is_whole or spool.exists():
                continue
            if any(archive.is_partly_deleted for archive in self._group.archives):
                raise ImnetprepError(
                    f"{shard if name in sizes else spool} is gone or has changed, and the archive"
                    " data it was made of is deleted",
                    hint="put it back if you have it; to start over,"
                    f" {removal(self._root.organizing)}; imnetprep download",
                )
            journal.forget(split)
        origin = journal.origin(split)
        if origin and origin.options != self._sharding.options:
            journal.forget(split)

    def _clear(self, split: Split) -> None:
        """The shards have their name: what they were made of may go."""
        folder = self._folder / split
        if folder.exists():
            shutil.rmtree(folder)
        self._group.end_consumption()
        self._spool_journal.forget(split)
