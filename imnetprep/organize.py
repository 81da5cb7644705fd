"""Archives to class folders: one pass, restartable at any instant, whole or absent."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from imnetprep.catalog.datasets import Archive, Dataset, Split
from imnetprep.digests import Pieces
from imnetprep.errors import ImnetprepError, WrongBytes
from imnetprep.fs import locked, require_free, sync_folder
from imnetprep.manifest import (
    SplitRecord,
    create_manifest,
    dataset_for,
    open_manifest,
    organized_splits,
)
from imnetprep.preparation.growth import Growth
from imnetprep.preparation.journal import Journal, Whole, open_journal
from imnetprep.preparation.receipts import archive_proof, record_archive, record_split
from imnetprep.processes import usable_cores
from imnetprep.progress import Progress
from imnetprep.roots import Layout, Root
from imnetprep.sources.torrent import pieces_of

# Each job holds two pieces and a sample; more of them than this wait for the disk.
_JOBS_AT_MOST = 8


@dataclass(frozen=True)
class PlannedSplit:
    """What is to be done for one split. `done`: it is organized; else `path` is its archive."""

    split: Split
    archive: Archive
    path: Path
    done: bool


@dataclass(frozen=True)
class OrganizePlan:
    """What `organize` will do, and the disk space it will take."""

    dataset: Dataset
    splits: tuple[PlannedSplit, ...]
    needed_bytes: int


def plan_organize(
    root: Root, *, dataset: str | None, splits: Sequence[Split], archives: Path | None
) -> OrganizePlan:
    """Look at what is there and what is wanted; touches nothing.

    Raises ImnetprepError where an archive is missing, where there is no room, and where something
    else stands in a split's place; WrongBytes where an archive has the wrong size.
    """
    known = dataset_for(root.manifest, dataset)
    if Split.TEST in splits:
        raise ImnetprepError(
            f"the test split of {known.name} has no labels, so no classes to sort its images by",
            hint="unpack its archive with tar; organize has --split train and --split val",
        )
    organized = organized_splits(root)
    planned = [
        PlannedSplit(
            split,
            known.archive(split),
            (archives or root.archives) / known.archive(split).name,
            (split, Layout.IMAGEFOLDER) in organized,
        )
        for split in splits or known.splits
    ]
    needed_bytes = 0
    for each in planned:
        if not each.done:
            needed_bytes += _check_planned(root, known, each)
    return OrganizePlan(known, tuple(planned), needed_bytes)


def carry_out_organize(
    plan: OrganizePlan, root: Root, *, jobs: int | None, progress: Progress
) -> Iterator[SplitRecord]:
    """Organize what is not done; yields every split of the plan once it stands under its name.

    Raises WrongBytes where an archive is not what the dataset promises.
    """
    require_free(root.path, plan.needed_bytes, what=f"to organize {plan.dataset.name}")
    with locked(root.organizing), open_journal(_journal_path(root)) as journal:
        create_manifest(root.manifest, plan.dataset)
        for planned in plan.splits:
            whole = journal.whole(planned.split, dataset=plan.dataset.fingerprint)
            key = planned.split, Layout.IMAGEFOLDER
            if key not in organized_splits(root) or whole is not None:
                _organize_split(plan.dataset, planned, root, journal, jobs=jobs, progress=progress)
            yield organized_splits(root)[key]


def _organize_split(
    dataset: Dataset,
    planned: PlannedSplit,
    root: Root,
    journal: Journal,
    *,
    jobs: int | None,
    progress: Progress,
) -> None:
    folder = root.organizing / planned.split
    whole = journal.whole(planned.split, dataset=dataset.fingerprint)
    if whole and not (whole.lies_in(folder) or whole.lies_in(root.split(planned.split))):
        journal.forget(planned.split)  # somebody removed what had grown
        whole = None
    if whole is None:
        growth = Growth(dataset, planned.split, path=planned.path, folder=folder, journal=journal)
        before = archive_proof(root, planned.path)
        whole = growth.grow(
            pieces=_published_pieces(dataset, planned.archive),
            before=before,
            jobs=jobs or min(usable_cores(), _JOBS_AT_MOST),
            progress=progress,
        )
        at_home = planned.path.parent == root.archives
        if at_home and growth.read_all and whole.proof != before:
            record_archive(root, planned.path, whole.proof)
    _place(planned, whole, root, journal)


def _place(planned: PlannedSplit, whole: Whole, root: Root, journal: Journal) -> None:
    """Give a whole split its name, its manifest and its receipt; a kill in between is made up."""
    split, folder = planned.split, root.organizing / planned.split
    if whole.lies_in(folder):
        with open_manifest(root.manifest, write=True) as manifest:
            manifest.drop_split(split, Layout.IMAGEFOLDER)  # of a folder that is gone
        folder.rename(root.split(split))
        sync_folder(root.path)
    if (split, Layout.IMAGEFOLDER) not in organized_splits(root):
        with open_manifest(root.manifest, write=True) as manifest:
            manifest.add_split(split, Layout.IMAGEFOLDER, journal.samples(split))
    record = organized_splits(root)[split, Layout.IMAGEFOLDER]
    record_split(
        root,
        split,
        archive=planned.archive.name,
        proof=whole.proof,
        layout=record.layout,
        samples=record.samples,
        size_bytes=record.size_bytes,
    )
    journal.forget(split)


def _check_planned(root: Root, dataset: Dataset, planned: PlannedSplit) -> int:
    """What the split will still take from the disk."""
    size_bytes = done_bytes = 0
    whole: Whole | None = None
    if _journal_path(root).exists():
        with open_journal(_journal_path(root)) as journal:
            whole = journal.whole(planned.split, dataset=dataset.fingerprint)
            done_bytes = journal.size_bytes(planned.split)
    folder = root.split(planned.split)
    if whole and whole.lies_in(folder):
        return 0  # only its manifest and receipt are missing
    if folder.exists():
        raise ImnetprepError(
            f"{folder} is there, and {root.manifest.name} knows nothing of it",
            hint=f"mv {folder} {folder}.old; then run the same command again",
        )
    if whole and whole.lies_in(root.organizing / planned.split):
        return 0
    try:
        size_bytes = planned.path.stat().st_size
    except FileNotFoundError:
        part = planned.path.with_name(f"{planned.path.name}.part")
        raise ImnetprepError(
            f"{planned.path} is {'not whole yet' if part.exists() else 'not there'}",
            hint="imnetprep download, or --archives DIR where the archives are",
        ) from None
    promised = planned.archive.size_bytes
    if promised is None and (pieces := _published_pieces(dataset, planned.archive)):
        promised = pieces.size_bytes
    if promised is not None and size_bytes != promised:
        raise WrongBytes(
            f"{planned.path} has {size_bytes:,} bytes; {dataset.name} has {promised:,} there",
            hint="if it is cut short, imnetprep download completes it;"
            " if it is another dataset, name that: --dataset NAME|FILE.toml",
        )
    return max(0, size_bytes - done_bytes)


def _published_pieces(dataset: Dataset, archive: Archive) -> Pieces | None:
    """The digests of the pieces of the archive's own torrent, where the dataset has it."""
    return None if archive.torrent is None else pieces_of(dataset.read(archive.torrent))


def _journal_path(root: Root) -> Path:
    return root.organizing / "journal.db"
