"""Archives to class folders: one pass, restartable at any instant, whole or absent."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from imnetprep.catalog.datasets import Dataset, Layout, Root, Split
from imnetprep.extracting.class_folders import ClassFolders, ResizedFolders, folder_options
from imnetprep.extracting.sink import Sink
from imnetprep.fs import bytes_below, free_bytes, locked
from imnetprep.images import Resize
from imnetprep.jobs import IMAGES
from imnetprep.manifest import SplitRecord, create_manifest, splits_in
from imnetprep.messages import ImnetprepError, Progress, move_away
from imnetprep.organizing.grow import Work
from imnetprep.organizing.journal import Stage, open_journal
from imnetprep.organizing.plan import (
    SplitGroup,
    begun_splits,
    in_flight_bytes,
    planned_splits,
    refuse_consumed_elsewhere,
    size_in_archives,
    tell_kept_archives,
)
from imnetprep.organizing.publish import publish_journalled, refuse_strangers
from imnetprep.sources.part_files import PartFiles
from imnetprep.split_plan import Needs, PlannedSplit, require_distinct_names
from imnetprep.synced_prefix import dataset_at


@dataclass(frozen=True)
class OrganizePlan:
    """Class folders to be made of archives: a SplitPlan. `facts` go into each split's receipt."""

    root: Root
    dataset: Dataset
    groups: list[SplitGroup]
    needs: Needs
    resize: Resize | None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def described(self) -> Iterator[PlannedSplit]:
        """As `SplitPlan.described`."""
        for group in self.groups:
            source, to_do = f"from {group.addresses}", group.to_do
            for split in group.splits:
                yield PlannedSplit(split, Layout.IMAGEFOLDER, source, split not in to_do)

    def carry_out(self, progress: Progress) -> Iterator[SplitRecord]:
        """As `SplitPlan.carry_out`."""
        self.needs.require(self.root.path, purpose=f"to organize {self.dataset.name}")
        splits = [split for group in self.groups for split in group.splits]
        require_distinct_names(self.root, self.dataset, splits)
        with locked(self.root.organizing, forks=True), open_journal(self.root.journal) as journal:
            create_manifest(self.root.manifest, self.dataset)
            self.needs.tell_time(self.root.organizing, progress)
            for group in self.groups:
                with self._sink(group.jobs) as sink:
                    work = Work(group, journal, sink=sink, folder=self.root.organizing)
                    folders = splits_in(self.root, Layout.IMAGEFOLDER)
                    splits = [split for split in group.splits if split not in folders]
                    wholes = work.grown(splits, progress)
                for split, whole in wholes.items():
                    publish_journalled(
                        self.root,
                        journal,
                        split,
                        whole=whole,
                        workspace=self.root.organizing / split,
                        change=str(self.resize) if self.resize else None,
                        facts={
                            "archive": group.archive_names(split),
                            **self.facts,
                            **whole.receipt,
                        },
                        on_listed=group.end_consumption,
                    )
                if group.consume and not group.to_do:
                    tell_kept_archives(group, progress)
                for split in group.splits:
                    yield splits_in(self.root, Layout.IMAGEFOLDER)[split]

    @contextmanager
    def _sink(self, jobs: int | None) -> Iterator[Sink]:
        """What makes class folders: of images as published, or smaller."""
        if self.resize is None:
            yield ClassFolders(self.dataset, self.root.organizing)
            return
        folders = ResizedFolders(
            self.dataset, self.root.organizing, self.resize, jobs=IMAGES.count(jobs)
        )
        with closing(folders):
            yield folders


def plan_organize(
    root: Root,
    *,
    dataset: Dataset | str | None,
    splits: Sequence[Split],
    archives: str | None = None,
    consume: bool = False,
    resize: Resize | None = None,
    jobs: int | None = None,
    arrivals: Mapping[str, PartFiles] = MappingProxyType({}),
) -> OrganizePlan:
    """Look at the archives and the root, and change nothing. `dataset` may be part of another.

    `arrivals` are the downloads that still bring archives, by name: those are read as they come.

    Raises ImnetprepError where an archive is missing, and where something else stands in a split's
    place; WrongBytes where an archive has the wrong size; WrongUsage on a pipe for two archives.
    """
    if not isinstance(dataset, Dataset):
        dataset = dataset_at(root, dataset, archives)
    folders = splits_in(root, Layout.IMAGEFOLDER)
    splits = splits or dataset.splits
    groups = planned_splits(
        root,
        dataset,
        splits,
        folders,
        archives=archives,
        consume=consume,
        jobs=jobs,
        arrivals=arrivals,
    )
    needs = Needs()
    for group in groups:
        for split in group.splits:
            record = folders.get(split)
            if record and record.change != (str(resize) if resize else None):
                raise _other_images(root.split(split), record.change or "as published")
        if group.to_do:
            needs += _group_needs(group, resize)
    return OrganizePlan(root, dataset, groups, needs, resize)


def _other_images(folder: Path, description: str) -> ImnetprepError:
    return ImnetprepError(
        f"{folder} holds other images: {description}",
        hint=f"{move_away(folder)}; then run the same command again",
    )


def _group_needs(group: SplitGroup, resize: Resize | None) -> Needs:
    """What the splits will still take."""
    root, dataset = group.root, group.dataset
    to_grow, done_bytes = [], 0
    states = begun_splits(
        group,
        group.to_do,
        Stage.FOLDERS,
        options=folder_options(resize),
        difference="of images of another size: --resize and --quality",
    )
    for split in group.to_do:
        size_bytes, whole = states.get(split, (0, None))
        has_name = refuse_strangers(root, dataset, split)
        if has_name and split not in states:
            raise _other_images(root.split(split), "of another size")
        if not has_name and not (whole and whole.lies_in(root.organizing / split)):
            to_grow.append(split)
            done_bytes += size_bytes
    if not to_grow:
        return Needs()
    refuse_consumed_elsewhere(group, Stage.SPOOL)
    size_bytes = size_in_archives(group, to_grow)
    files = sum(dataset.samples(split) for split in to_grow)
    disk_bytes = to_write = max(0, size_bytes - done_bytes)
    if group.consume:
        disk_bytes = min(to_write, in_flight_bytes(group))
    if disk_bytes > free_bytes(root.path):  # what is written and not journalled is written over
        present_bytes = sum(bytes_below(root.organizing / split) for split in to_grow)
        disk_bytes = max(0, disk_bytes - max(0, present_bytes - done_bytes))
    done_files = files * done_bytes // max(1, size_bytes)
    return Needs(to_write, max(0, files - done_files), disk_bytes)
