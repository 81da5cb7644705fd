"""A split made of other folders, class by class: links or copies, resumed at the class."""

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from imnetprep.catalog.datasets import Dataset, Layout, Root, Split
from imnetprep.extracting.sink import RangeRecord
from imnetprep.fs import hard_link, locked
from imnetprep.jobs import FILES
from imnetprep.layouts.imagefolder import make_class_folder, write_sample
from imnetprep.manifest import SampleRecord, SplitRecord, create_manifest, packed, splits_in
from imnetprep.messages import ImnetprepError, Progress, count, move_away, removal
from imnetprep.organizing.journal import (
    Journal,
    Origin,
    Stage,
    UnfinishedSplit,
    open_journal,
    read_unfinished,
)
from imnetprep.organizing.publish import in_the_way, publish_journalled, unpublished
from imnetprep.proving.receipt import Proof, read_receipt
from imnetprep.split_plan import Needs, PlannedSplit, require_distinct_names

_LINKS = "hard links"
PIXELS = "pixels of a table"  # as the receipt calls files that are drawn of one
# Makes one class in its folder, and tells its samples. Called in a thread.
MakeClass = Callable[[Path], Sequence[SampleRecord]]


@dataclass(frozen=True)
class FolderSource:
    """What `split` is made of: each label with what makes its class folder.

    `made_of` differs where the files would. `facts` and `proof` go into the receipt, `change` is
    what was done to the images.
    """

    split: Split
    made_of: str
    classes: Callable[[], Iterable[tuple[int, MakeClass]]]
    facts: Mapping[str, Any]
    proof: Proof | None
    change: str | None


@dataclass(frozen=True)
class FoldersPlan:
    """Splits to be made of the images in `folders`, as links or copies: a SplitPlan.

    `sizes` has what the copies of each split to be made take, 0 for links.
    """

    root: Root
    dataset: Dataset
    folders: Mapping[Split, Path]
    source_of: Callable[[Split], FolderSource]
    sizes: Mapping[Split, int]
    jobs: int | None

    @property
    def needs(self) -> Needs:
        """As `SplitPlan.needs`."""
        growths: dict[str, UnfinishedSplit] = {}
        with suppress(sqlite3.DatabaseError):  # who opens the journal says what is wrong with it
            splits = read_unfinished(self.root.journal)
            growths = {each.split: each for each in splits if each.stage is Stage.FOLDERS}
        needs = Needs()
        for split, size_bytes in self.sizes.items():
            files = 1 + sum(map(bool, self.dataset.counts(split)))  # folders; a link is no file
            files += self.dataset.samples(split) if size_bytes else 0
            if growth := growths.get(split):
                files -= 1 + growth.ranges + (growth.samples if size_bytes else 0)
                size_bytes -= growth.size_bytes
            left_bytes = max(0, size_bytes)
            needs += Needs(left_bytes, max(0, files), left_bytes)
        return needs

    def described(self) -> Iterator[PlannedSplit]:
        """As `SplitPlan.described`."""
        records = splits_in(self.root, Layout.IMAGEFOLDER)
        for split, folder in self.folders.items():
            source = f"{count(self.dataset.samples(split), 'image')} of {folder}"
            yield PlannedSplit(split, Layout.IMAGEFOLDER, source, split in records)

    def carry_out(self, progress: Progress) -> Iterator[SplitRecord]:
        """As `SplitPlan.carry_out`. An interruption costs the classes in flight."""
        self.needs.require(self.root.path, purpose=f"to organize {self.dataset.name}")
        require_distinct_names(self.root, self.dataset, self.folders)
        with locked(self.root.organizing), open_journal(self.root.journal) as journal:
            create_manifest(self.root.manifest, self.dataset)
            for split in self.folders:
                self._organize(self.source_of(split), journal, progress)
                yield splits_in(self.root, Layout.IMAGEFOLDER)[split]

    def _organize(self, source: FolderSource, journal: Journal, progress: Progress) -> None:
        """Make the split of `source` unless it is organized."""
        split, dataset, origin = source.split, self.dataset, self._origin(source)
        workspace, folder = self.root.organizing / split, self.root.split(split)
        whole = unpublished(journal, split, dataset, workspace, folder, origin=origin)
        if whole is None and split not in splits_in(self.root, Layout.IMAGEFOLDER):
            if folder.exists():
                raise in_the_way(folder, self.root)
            self._grow(source, workspace, journal, progress)
            whole = unpublished(journal, split, dataset, workspace, origin=origin)
        if whole is not None:
            publish_journalled(
                self.root,
                journal,
                split,
                whole=whole,
                workspace=workspace,
                change=source.change,
                facts=whole.receipt,
            )

    def _grow(
        self, source: FolderSource, workspace: Path, journal: Journal, progress: Progress
    ) -> None:
        split, dataset = source.split, self.dataset
        self._begin(source, workspace, journal)
        labels, wnids = journal.done(split), set[str]()
        with (
            progress.task(f"organize {split}", total=dataset.samples(split), unit="images") as task,
            journal.committer(workspace) as commit,
        ):

            def tasks() -> Iterator[tuple[int, Callable[[], Sequence[SampleRecord]]]]:
                for label, make in source.classes():
                    wnid = dataset.synsets[label].wnid
                    wnids.add(wnid)
                    if label not in labels:
                        yield label, partial(_make_class, make, workspace, wnid)
                    else:
                        task.advance(dataset.counts(split)[label])

            for label, records in FILES.in_threads(_carry_out, tasks(), jobs=self.jobs):
                commit(RangeRecord(label, {split: packed(records)}, None))
                task.advance(len(records))
        _refuse_others(workspace, wnids)
        journal.mark_whole({split: workspace}, facts=source.facts, proof=source.proof)

    def _begin(self, source: FolderSource, workspace: Path, journal: Journal) -> None:
        """Resume, or drop what grew of something else: links must not lead writers to its files."""
        split, earlier, origin = source.split, journal.origin(source.split), self._origin(source)
        is_whole = journal.whole(split, dataset=origin.dataset) is not None
        if earlier != origin or is_whole or not workspace.exists():
            if earlier is not None and workspace.exists():
                shutil.rmtree(workspace)
            journal.forget(split)
            journal.begin(split, origin)
        workspace.mkdir(parents=True, exist_ok=True)

    def _origin(self, source: FolderSource) -> Origin:
        """What a split is made of; the options are of no sink: archives never pass for folders."""
        return Origin(self.dataset.fingerprint, source.made_of, {"files": "of other folders"})


def _carry_out(
    task: tuple[int, Callable[[], Sequence[SampleRecord]]],
) -> tuple[int, Sequence[SampleRecord]]:
    label, make = task
    return label, make()


def _make_class(make: MakeClass, workspace: Path, wnid: str) -> Sequence[SampleRecord]:
    folder = make_class_folder(workspace, wnid)
    records = make(folder)
    _refuse_others(folder, {record.name for record in records})
    return records


def _refuse_others(folder: Path, names: Set[str]) -> None:
    if strangers := set(os.listdir(folder)) - names:  # noqa: PTH208 names, not paths
        raise ImnetprepError(
            f"{folder} holds what does not belong to the split: {min(strangers)}",
            hint=f"{removal(folder)}; then run the same command again",
        )


def file_kind(*, copy: bool) -> str:
    """What the receipt calls the files of a split."""
    return "copies" if copy else _LINKS


def refuse_links(root: Root, splits: Iterable[Split]) -> None:
    """Raise ImnetprepError where one of these organized splits has hard links, and no copies."""
    records = read_receipt(root)["splits"]
    folders = [root.split(each) for each in splits if records.get(each, {}).get("files") == _LINKS]
    if folders:
        moves = "; ".join(map(move_away, folders))
        raise ImnetprepError(
            f"{' and '.join(map(str, folders))} hold hard links already, and no copies",
            hint=f"{moves}; then run the same command again",
        )


def link_or_copy(path: Path, place: Path, body: bytes | None) -> None:
    """Make `place` a hard link to `path`, or a file of its own with `body`, whatever lies there."""
    if body is None:
        hard_link(path, place)
        return
    place.unlink(missing_ok=True)  # it may be a link
    write_sample(str(place.parent), place.name, body)
