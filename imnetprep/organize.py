"""Archives to class folders: one pass, restartable at any instant, whole or absent."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imnetprep.catalog.datasets import Dataset, Layout, Root, Split
from imnetprep.extracting.class_folders import ClassFolders, ResizedFolders, folder_options
from imnetprep.extracting.sink import Sink
from imnetprep.fs import bytes_below, free_bytes, locked
from imnetprep.images import Resize
from imnetprep.jobs import IMAGES
from imnetprep.manifest import SplitRecord, create_manifest, dataset_for, splits_in
from imnetprep.messages import ImnetprepError, Progress, move_away
from imnetprep.organizing.grow import Work
from imnetprep.organizing.journal import Journal, Stage, Whole, open_journal
from imnetprep.organizing.plan import (
    SplitGroup,
    in_flight_bytes,
    planned_splits,
    refuse_consumed,
    refuse_consumed_elsewhere,
    size_in_archives,
    tell_kept_archives,
)
from imnetprep.organizing.publish import refuse_strangers
from imnetprep.split_plan import Needs, PlannedSplit


@dataclass(frozen=True)
class OrganizePlan:
    """Class folders to be made of archives: a SplitPlan. `facts` go into each split's receipt."""

    root: Root
    dataset: Dataset
    groups: tuple[SplitGroup, ...]
    needs: Needs
    consume: bool
    resize: Resize | None
    jobs: int | None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def described(self) -> Iterator[PlannedSplit]:
        """As `SplitPlan.described`."""
        for each in self.groups:
            source = f"from {', '.join(each.addresses)}"
            for split in each.splits:
                yield PlannedSplit(split, Layout.IMAGEFOLDER, source, each.is_organized(split))

    def carry_out(self, progress: Progress) -> Iterator[SplitRecord]:
        """As `SplitPlan.carry_out`."""
        self.needs.require(self.root.path, purpose=f"to organize {self.dataset.name}")
        with locked(self.root.organizing, forks=True), open_journal(self.root.journal) as journal:
            create_manifest(self.root.manifest, self.dataset)
            self.needs.tell_time(self.root.organizing, progress)
            for group in self.groups:
                with _work(self, group, journal) as work:
                    folders = splits_in(self.root, Layout.IMAGEFOLDER)
                    splits = [split for split in group.splits if split not in folders]
                    wholes = work.grown(splits, jobs=self.jobs, progress=progress)
                for split, whole in wholes.items():
                    change = str(self.resize) if self.resize else None
                    work.publish(split, whole, change=change, facts=self.facts)
                if self.consume and not group.to_do:
                    tell_kept_archives(self.root, group, progress)
                for split in group.splits:
                    yield splits_in(self.root, Layout.IMAGEFOLDER)[split]


def plan_organize(
    root: Root,
    *,
    dataset: str | None,
    splits: Sequence[Split],
    archives: str | None = None,
    consume: bool = False,
    resize: Resize | None = None,
    jobs: int | None = None,
) -> OrganizePlan:
    """Look at the archives and the root, and change nothing.

    Raises ImnetprepError where an archive is missing, and where something else stands in a split's
    place; WrongBytes where an archive has the wrong size; WrongUsage on a pipe for two archives.
    """
    return plan_dataset(
        root,
        dataset_for(root.manifest, dataset),
        splits=splits,
        archives=archives,
        consume=consume,
        resize=resize,
        jobs=jobs,
    )


def plan_dataset(
    root: Root,
    dataset: Dataset,
    *,
    splits: Sequence[Split],
    archives: str | None = None,
    consume: bool = False,
    resize: Resize | None = None,
    jobs: int | None = None,
) -> OrganizePlan:
    """Plan `dataset`, which may be part of a published one. Raises as `plan_organize`."""
    groups = planned_splits(
        root,
        dataset,
        splits or dataset.splits,
        archives=archives,
        organized_splits=frozenset(splits_in(root, Layout.IMAGEFOLDER)),
    )
    needs = Needs()
    for each in groups:
        for split in each.splits:
            if each.is_organized(split):
                _refuse_other_size(root, split, resize)
        if each.to_do:
            needs += _group_needs(root, dataset, each, consume=consume, resize=resize, jobs=jobs)
    return OrganizePlan(root, dataset, groups, needs, consume, resize, jobs)


def _refuse_other_size(root: Root, split: Split, resize: Resize | None) -> None:
    change = splits_in(root, Layout.IMAGEFOLDER)[split].change
    if change != (str(resize) if resize else None):
        raise _other_images(root.split(split), change or "as published")


def _other_images(folder: Path, description: str) -> ImnetprepError:
    return ImnetprepError(
        f"{folder} holds other images: {description}",
        hint=f"{move_away(folder)}; then run the same command again",
    )


@contextmanager
def _work(plan: OrganizePlan, group: SplitGroup, journal: Journal) -> Iterator[Work]:
    """The splits of archives that they share, made as class folders: as published, or smaller."""
    folder = plan.root.organizing
    with ExitStack() as stack:
        sink: Sink = ClassFolders(plan.dataset, folder)
        if plan.resize is not None:
            jobs = IMAGES.count(plan.jobs)
            folders = ResizedFolders(plan.dataset, folder, plan.resize, jobs=jobs)
            sink = stack.enter_context(closing(folders))
        yield Work(
            plan.dataset, group, plan.root, journal, sink=sink, folder=folder, consume=plan.consume
        )


def _group_needs(
    root: Root,
    dataset: Dataset,
    group: SplitGroup,
    *,
    consume: bool,
    resize: Resize | None,
    jobs: int | None,
) -> Needs:
    """What the splits will still take."""
    wholes: dict[Split, Whole | None] = {}
    bytes_by_split: dict[Split, int] = {}
    if root.has_journal:
        with open_journal(root.journal) as journal:
            for split in group.to_do:
                origin = journal.origin(split)
                if origin is None:
                    continue
                if origin.options == folder_options(resize):
                    wholes[split] = journal.whole(split, dataset=dataset.fingerprint)
                    bytes_by_split[split] = journal.size_bytes(split)
                else:
                    refuse_consumed(group, "of images of another size: --resize and --quality")
    to_grow = []
    for split in group.to_do:
        whole = wholes.get(split)
        has_name = refuse_strangers(root, dataset, split)
        if has_name and split not in wholes:
            raise _other_images(root.split(split), "of another size")
        if not has_name and not (whole and whole.lies_in(root.organizing / split)):
            to_grow.append(split)
    if not to_grow:
        return Needs()
    refuse_consumed_elsewhere(group, root, Stage.SPOOL)
    size_bytes = size_in_archives(root, dataset, group, to_grow, consume=consume)
    files = sum(dataset.samples(split) for split in to_grow)
    journal_bytes = sum(bytes_by_split.get(split, 0) for split in to_grow)
    disk_bytes = to_write = max(0, size_bytes - journal_bytes)
    if consume:
        disk_bytes = min(to_write, in_flight_bytes(dataset, group, jobs))
    if disk_bytes > free_bytes(root.path):  # what is written and not journalled is written over
        present_bytes = sum(bytes_below(root.organizing / split) for split in to_grow)
        disk_bytes = max(0, disk_bytes - max(0, present_bytes - journal_bytes))
    done_files = files * journal_bytes // max(1, size_bytes)
    return Needs(to_write, max(0, files - done_files), disk_bytes)
