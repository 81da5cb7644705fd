"""Shards of a split, of its class folders or straight from its archive: no loose files between.

An archive here that is proved already, or that nothing can prove, is read shard by shard. Any other
is read once, into a spool for each shard, and when it is proved each spool is put in order.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from imnetprep.archives.file import open_local
from imnetprep.catalog.datasets import Dataset, Layout, Root, Split
from imnetprep.extracting.class_folders import ClassFolders
from imnetprep.extracting.sink import Sink
from imnetprep.fs import locked
from imnetprep.layouts.webdataset import shard_name
from imnetprep.manifest import SplitRecord, create_manifest, dataset_for, splits_in
from imnetprep.messages import ImnetprepError, Progress, WrongUsage, count, removal
from imnetprep.organizing.grow import Work
from imnetprep.organizing.journal import Journal, Stage, Whole, open_journal
from imnetprep.organizing.plan import SplitGroup, planned_splits
from imnetprep.proving.receipt import Proof
from imnetprep.sharding.disk_needs import ShardsNeeds
from imnetprep.sharding.from_archive import ArchiveBodies, BodyPlaces
from imnetprep.sharding.from_folders import ShardingPlan, carry_out_sharding, plan_sharding
from imnetprep.sharding.from_spools import Spool, SpooledBodies, spool_path
from imnetprep.sharding.make import Sharding, ShardMaking, ShardSource
from imnetprep.sharding.order import Placement
from imnetprep.split_plan import Needs, PlannedSplit


class FromArchive(NamedTuple):
    """Splits that are made of the archives that they share.

    `proof`: that of an archive that can be read shard by shard; None where they are read once, into
    spools.
    """

    planned: SplitGroup
    proof: Proof | None


@dataclass(frozen=True)
class ShardsPlan:
    """Shards to be made of class folders and of archives: a SplitPlan."""

    root: Root
    dataset: Dataset
    sharding: Sharding
    of_folders: ShardingPlan | None
    of_archives: tuple[FromArchive, ...]
    archive_needs: Needs
    consume: bool
    jobs: int | None

    @property
    def needs(self) -> Needs:
        """As `SplitPlan.needs`."""
        folder_bytes = self.of_folders.needed_bytes if self.of_folders else 0
        return self.archive_needs + Needs(disk_bytes=folder_bytes)

    def described(self) -> Iterator[PlannedSplit]:
        """As `SplitPlan.described`."""
        for each in self.of_folders.splits if self.of_folders else ():
            source = f"of {count(each.source.samples, 'image')}"
            yield PlannedSplit(each.source.split, Layout.WEBDATASET, source, each.done)
        for planned, proof in self.of_archives:
            way = "read once, with a spool on the disk" if proof is None else "shard by shard"
            source = f"from {', '.join(planned.addresses)}, {way}"
            for split in planned.splits:
                yield PlannedSplit(split, Layout.WEBDATASET, source, planned.is_organized(split))

    def carry_out(self, progress: Progress) -> Iterator[SplitRecord]:
        """As `SplitPlan.carry_out`."""
        root, jobs = self.root, self.jobs
        self.archive_needs.require(root.path, purpose=f"to make shards of {self.dataset.name}")
        if self.of_folders is not None:
            yield from carry_out_sharding(self.of_folders, root, jobs=jobs, progress=progress)
            _drop_spools(root, [each.source.split for each in self.of_folders.splits])
        if not self.of_archives:
            return
        with (
            locked(root.organizing),
            open_journal(root.journal, Stage.SHARDS) as journal,
        ):
            create_manifest(root.manifest, self.dataset)
            self.archive_needs.tell_time(root.organizing, progress)
            for each in self.of_archives:
                work = _Work(self, each, root, journal)
                yield from work.organize(jobs=jobs, progress=progress)


def plan_organize_shards(
    root: Root,
    sharding: Sharding,
    *,
    dataset: str | None,
    splits: Sequence[Split],
    archives: str | None = None,
    consume: bool = False,
    jobs: int | None = None,
) -> ShardsPlan:
    """Look at what is there and what is wanted; touches nothing. Class folders come first.

    Raises as `plan_organize` and `plan_sharding`, and ImnetprepError where the dataset does not
    list the names of a split that has no class folders.
    """
    known = dataset_for(root.manifest, dataset)
    wanted = splits or known.splits
    from_archives = [split for split in wanted if _needs_archive(root, split)]
    folders = [split for split in wanted if split not in from_archives]
    of_folders = None
    if folders:
        of_folders = plan_sharding(root, sharding, dataset=dataset, splits=folders)
        if (archives or consume) and not from_archives:
            _refuse_archives(of_folders)
    found: list[FromArchive] = []
    needs = Needs()
    if from_archives:
        organized = frozenset(splits_in(root, Layout.WEBDATASET))
        for each in planned_splits(
            root, known, from_archives, archives=archives, organized_splits=organized
        ):
            planner = ShardsNeeds(root, known, sharding, each, consume=consume)
            needs += planner.needs(jobs)
            found.append(FromArchive(each, planner.proof))
    return ShardsPlan(root, known, sharding, of_folders, tuple(found), needs, consume, jobs)


def _refuse_archives(plan: ShardingPlan) -> None:
    """Raise WrongUsage where an archive was named, and no shard will be made of it."""
    for each in plan.splits:
        if not each.done:
            raise WrongUsage(
                f"the {each.source.split} shards are made of class folders: no archive is read",
                hint="leave out --archives and --consume",
            )


def _needs_archive(root: Root, split: Split) -> bool:
    """Has it no class folders, and shards either not, or with something left to clear away?"""
    if split in splits_in(root, Layout.IMAGEFOLDER):
        return False
    if split not in splits_in(root, Layout.WEBDATASET):
        return True
    if not root.journal.exists():
        return False
    with open_journal(root.journal) as journal:
        return any(journal.at(stage).origin(split) for stage in (Stage.SHARDS, Stage.SPOOL))


def _drop_spools(root: Root, splits: Sequence[Split]) -> None:
    """What was spooled of splits that have been made of class folders since."""
    with locked(root.organizing), open_journal(root.journal, Stage.SPOOL) as spooled:
        for split in splits:
            spooled.forget(split)
            shutil.rmtree(root.organizing / Stage.SPOOL / split, ignore_errors=True)


class _Work:
    """Splits on their way from the archives that they share into shards."""

    def __init__(self, plan: ShardsPlan, each: FromArchive, root: Root, journal: Journal) -> None:
        self._plan, self._planned, self._proof, self._root = plan, each.planned, each.proof, root
        self._spooled, self._journal = journal.at(Stage.SPOOL), journal
        self._sharding, self._folder = plan.sharding, root.organizing / Stage.SPOOL

    def organize(self, *, jobs: int | None, progress: Progress) -> Iterator[SplitRecord]:
        """Whatever is not done of them."""
        to_make = [split for split in self._planned.splits if not self._is_made(split)]
        placements = {split: self._placement(split) for split in to_make}
        wholes: dict[Split, Whole] = {}
        if to_make and self._proof is None:
            wholes = self._spool(placements, jobs=jobs, progress=progress)
        for split in self._planned.splits:
            making = self._making(split)
            whole = making.whole()
            if split in placements:
                if self._proof is None:
                    source = self._spooled_source(placements[split], split, wholes[split].proof)
                else:
                    source = self._walk(placements[split], self._proof, progress=progress)
                whole = making.grown(source, jobs=jobs, progress=progress)
            if whole is None:
                self._clear(split)
                yield splits_in(self._root, Layout.WEBDATASET)[split]
            else:
                yield making.place(whole, placed=partial(self._clear, split))

    def _is_made(self, split: Split) -> bool:
        """Are its shards there, under their name or whole, and made in this way?"""
        origin = self._journal.origin(split)
        if self._making(split).whole() is None:
            return self._planned.is_organized(split)
        return origin is not None and origin.options == self._sharding.options

    def _making(self, split: Split) -> ShardMaking:
        resize = self._sharding.resize
        change = str(resize) if resize else None
        dataset = self._plan.dataset
        return ShardMaking(self._root, self._journal, dataset, split, self._sharding, change=change)

    def _placement(self, split: Split) -> Placement:
        size, seed = self._sharding.shard_size, self._sharding.seed
        return Placement(self._plan.dataset, split, seed=seed, shard_size=size)

    def _spool(
        self, placements: Mapping[Split, Placement], *, jobs: int | None, progress: Progress
    ) -> dict[Split, Whole]:
        """Read the archives once, in whatever order their proofs want; gives the whole spools."""
        for split, placement in placements.items():
            spools = self._spools(split, placement)
            self._refuse_lost(split, spools)
            self._drop_unusable(split, spools)
        sink = Spool(self._folder, placements, options=self._sharding.options)
        return self._work(sink).grown(list(placements), jobs=jobs, progress=progress)

    def _spools(self, split: Split, placement: Placement) -> dict[str, Path]:
        """The spool of each shard by the shard's name."""
        return {
            shard_name(split, number): spool_path(self._folder, split, number)
            for number in range(-(-len(placement) // placement.shard_size))
        }

    def _spooled_source(
        self, placement: Placement, split: Split, proof: Proof | None
    ) -> ShardSource:
        spools, origin = self._spools(split, placement), self._spooled.origin(split)
        assert origin is not None
        return ShardSource(
            samples=len(placement),
            made_of=origin.made_of,
            shuffled=lambda: self._spooled.ranked(split, placement.rank),
            body_of=SpooledBodies(self._folder, split),
            facts={"archive": self._archives_of(split)},
            proof=proof,
            used=lambda shard: spools[shard.name].unlink(missing_ok=True),
        )

    def _archives_of(self, split: Split) -> str:
        return ", ".join(each.name for each in self._planned.archives if split in each.splits)

    def _refuse_lost(self, split: Split, spools: Mapping[str, Path]) -> None:
        """Of an archive that has been given up nothing is dropped for one part that is lost."""
        whole = self._spooled.whole(split, dataset=self._plan.dataset.fingerprint)
        if not whole or not any(each.is_partly_deleted for each in self._planned.at):
            return  # what is not whole yet reads the archive itself, which tells what it gave up
        made = {each.name: each.size_bytes for each in self._journal.shards(split)}
        folder = self._making(split).folder
        for name, spool in spools.items():
            path = folder / name
            is_made = path.exists() and path.stat().st_size == made.get(name)
            if not is_made and not spool.exists():
                raise ImnetprepError(
                    f"{path if name in made else spool} is gone or has changed, and the archive"
                    " data it was made of is deleted",
                    hint="put it back if you have it; to start over,"
                    f" {removal(self._root.organizing)}; imnetprep download",
                )

    def _drop_unusable(self, split: Split, spools: Mapping[str, Path]) -> None:
        """What was spooled for other shards, or went into shards that somebody has removed."""
        origin = self._spooled.origin(split)
        made = {each.name for each in self._journal.shards(split)}
        folder = self._making(split).folder
        made = {name for name in made if (folder / name).exists()}
        whole = self._spooled.whole(split, dataset=self._plan.dataset.fingerprint)
        lost = whole and any(not path.exists() for name, path in spools.items() if name not in made)
        if lost or (origin and origin.options != self._sharding.options):
            self._spooled.forget(split)

    def _walk(self, placement: Placement, proof: Proof, *, progress: Progress) -> ShardSource:
        """Find each body in the archive; each shard then reads its own."""
        (archive,) = self._planned.archives
        path = Path(self._planned.place) / archive.name
        with closing(open_local(path)) as file:
            places = BodyPlaces(file, archive, self._plan.dataset, placement)
            places.find(progress)
            return ShardSource(
                samples=len(placement),
                made_of=file.identity,
                shuffled=places.samples,
                body_of=ArchiveBodies(path, file.identity),
                facts={"archive": archive.name},
                proof=proof,
            )

    def _work(self, sink: Sink) -> Work:
        return Work(
            self._plan.dataset,
            self._planned,
            self._root,
            self._spooled,
            folder=self._folder,
            sink=sink,
            consume=self._plan.consume,
        )

    def _clear(self, split: Split) -> None:
        """The shards have their name: what they were made of may go."""
        folder = self._folder / split
        if folder.exists():
            shutil.rmtree(folder)
        self._work(ClassFolders(self._plan.dataset, self._folder)).end(split)
