"""Shards of a split, of its class folders or straight from its archive: no loose files between."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from imnetprep.catalog.datasets import Dataset, Layout, Root, Split
from imnetprep.manifest import SplitRecord, splits_in
from imnetprep.messages import Progress, WrongUsage
from imnetprep.organizing.plan import SplitGroup, planned_splits, tell_kept_archives
from imnetprep.sharding.from_archives import needs_archive, plan_from_archives
from imnetprep.sharding.from_folders import FolderShardsPlan, plan_from_folders
from imnetprep.sharding.make import Sharding
from imnetprep.split_plan import Needs, PlannedSplit, SplitPlan
from imnetprep.synced_prefix import dataset_at


@dataclass(frozen=True)
class ShardsPlan:
    """Shards to be made: a SplitPlan of one for class folders, and one for archives.

    Nothing will be made of the archives of `finished_groups`, though they were to be consumed.
    """

    root: Root
    dataset: Dataset
    plans: list[SplitPlan]
    finished_groups: list[SplitGroup]

    @property
    def needs(self) -> Needs:
        """As `SplitPlan.needs`."""
        return sum((plan.needs for plan in self.plans), Needs())

    def described(self) -> Iterator[PlannedSplit]:
        """As `SplitPlan.described`."""
        for plan in self.plans:
            yield from plan.described()

    def carry_out(self, progress: Progress) -> Iterator[SplitRecord]:
        """As `SplitPlan.carry_out`."""
        self.needs.require(self.root.path, purpose=f"to make shards of {self.dataset.name}")
        for group in self.finished_groups:
            tell_kept_archives(group, progress)
        for plan in self.plans:
            yield from plan.carry_out(progress)


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
    """Look at class folders and archives; touches nothing. Class folders come first.

    Raises as `plan_organize`, and ImnetprepError where other shards are there, or the dataset does
    not list the names of a split that has no class folders.
    """
    whole = dataset_at(root, dataset, archives)
    of_archives = [split for split in splits or whole.splits if needs_archive(root, split)]
    of_folders = [split for split in splits or whole.splits if split not in of_archives]
    planned_groups = partial(
        planned_splits, root, whole, archives=archives, consume=consume, jobs=jobs
    )
    plans: list[SplitPlan] = []
    finished_groups: list[SplitGroup] = []
    if of_folders:
        plan = plan_from_folders(root, whole, sharding, splits=of_folders, jobs=jobs)
        if (archives or consume) and not of_archives:
            _refuse_archives(plan)
        plans.append(plan)
        old_splits = [each.source.split for each in plan.splits if each.is_finished]
        if consume and old_splits:
            finished_groups = planned_groups(old_splits, ())
    if of_archives:
        groups = planned_groups(of_archives, splits_in(root, Layout.WEBDATASET))
        plans.append(plan_from_archives(root, whole, sharding, groups))
    return ShardsPlan(root, whole, plans, finished_groups)


def _refuse_archives(plan: FolderShardsPlan) -> None:
    """Raise WrongUsage where an archive was named, and no shard will be made of it."""
    for shards in plan.splits:
        if not shards.is_finished:
            raise WrongUsage(
                f"the {shards.source.split} shards are made of class folders: no archive is read",
                hint="leave out --archives and --consume",
            )
