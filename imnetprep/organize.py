"""Archives to class folders: one pass, restartable at any instant, whole or absent."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from imnetprep.archives.file import ArchiveFile
from imnetprep.catalog.datasets import Archive, Dataset, Split
from imnetprep.errors import ImnetprepError, SourceFailed, WrongBytes, WrongUsage
from imnetprep.fs import locked, sync_folder
from imnetprep.manifest import (
    SplitRecord,
    create_manifest,
    dataset_for,
    open_manifest,
    organized_splits,
)
from imnetprep.preparation.consumption import (
    ConsumedFile,
    begin_consumption,
    consumed_path,
    consumed_ranges,
    end_consumption,
    index_path,
    largest_range_bytes,
    proof_before,
    require_consumable,
)
from imnetprep.preparation.growth import Growth
from imnetprep.preparation.index import SUFFIX, parse_index
from imnetprep.preparation.journal import Journal, Whole, open_journal
from imnetprep.preparation.needs import Needs
from imnetprep.preparation.ranges import Range
from imnetprep.preparation.receipts import archive_proof, record_archive, record_split
from imnetprep.processes import usable_cores
from imnetprep.progress import Progress
from imnetprep.roots import Layout, Root
from imnetprep.sources.places import STDIN, address_of, is_local, open_archive
from imnetprep.sources.torrent import published_pieces

# Each job holds two pieces and a sample; more of them than this wait for the disk.
_JOBS_AT_MOST = 8
# From afar most of them wait for the network.
_JOBS_AFAR_A_CORE, _JOBS_AFAR_AT_MOST = 4, 16


@dataclass(frozen=True)
class PlannedSplit:
    """What is to be done for one split. `done`: it is organized; else its archive is at `place`."""

    split: Split
    archive: Archive
    place: str | Path
    done: bool

    @property
    def address(self) -> str:
        """The archive, as people would write it."""
        return address_of(self.place, self.archive.name)


@dataclass(frozen=True)
class OrganizePlan:
    """What `organize` will do, and what it will take: disk space, and files on it."""

    dataset: Dataset
    splits: tuple[PlannedSplit, ...]
    needs: Needs
    consume: bool


def plan_organize(
    root: Root,
    *,
    dataset: str | None,
    splits: Sequence[Split],
    archives: str | None = None,
    consume: bool = False,
    jobs: int | None = None,
) -> OrganizePlan:
    """Look at what is there and what is wanted; touches nothing.

    Raises ImnetprepError where an archive is missing, and where something else stands in a split's
    place; WrongBytes where an archive has the wrong size; WrongUsage on a pipe for two splits.
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
            archives or root.archives,
            (split, Layout.IMAGEFOLDER) in organized,
        )
        for split in splits or known.splits
    ]
    if archives == STDIN and len(planned) != 1:
        raise WrongUsage("a pipe carries one archive", hint="say which: --split train")
    needs = Needs()
    for each in planned:
        if not each.done:
            needs += _check_planned(root, known, each, consume=consume, jobs=jobs)
    return OrganizePlan(known, tuple(planned), needs, consume)


def carry_out_organize(
    plan: OrganizePlan, root: Root, *, jobs: int | None, progress: Progress
) -> Iterator[SplitRecord]:
    """Organize what is not done; yields every split of the plan once it stands under its name.

    Raises ImnetprepError where there is no room, and WrongBytes where an archive is not what the
    dataset promises.
    """
    plan.needs.require(root.path, what=f"to organize {plan.dataset.name}")
    with locked(root.organizing), open_journal(_journal_path(root)) as journal:
        create_manifest(root.manifest, plan.dataset)
        plan.needs.tell_time(root.organizing, progress)
        for planned in plan.splits:
            whole = journal.whole(planned.split, dataset=plan.dataset.fingerprint)
            key = planned.split, Layout.IMAGEFOLDER
            if key not in organized_splits(root) or whole is not None:
                work = _Work(plan, planned, root, journal)
                work.organize(jobs=jobs, progress=progress)
            yield organized_splits(root)[key]


class _Work:
    """One split of a plan, under way."""

    def __init__(
        self, plan: OrganizePlan, planned: PlannedSplit, root: Root, journal: Journal
    ) -> None:
        self._dataset, self._consume = plan.dataset, plan.consume
        self._split, self._archive, self._place = planned.split, planned.archive, planned.place
        self._root, self._journal = root, journal
        self._growing = root.organizing / planned.split

    @property
    def _path(self) -> Path:
        """The archive, if it is on this machine."""
        return Path(self._place) / self._archive.name

    def organize(self, *, jobs: int | None, progress: Progress) -> None:
        """Whatever is not done of it."""
        whole = self._journal.whole(self._split, dataset=self._dataset.fingerprint)
        home = self._root.split(self._split)
        if whole and not (whole.lies_in(self._growing) or whole.lies_in(home)):
            self._journal.forget(self._split)  # somebody removed what had grown
            whole = None
        if whole is None:
            whole = self._grow(jobs=jobs, progress=progress)
        self._give_name(whole)

    def _grow(self, *, jobs: int | None, progress: Progress) -> Whole:
        pieces = published_pieces(self._dataset, self._archive)
        before = archive_proof(self._root, self._path) if self._at_home else None
        if self._consume:
            unit_bytes = pieces.length_bytes if pieces else 0
            begin_consumption(self._path, self._archive, self._dataset, before=before)
            before = proof_before(self._path)
            ranges = consumed_ranges(self._path, self._archive, self._dataset)
            with closing(ConsumedFile(self._path, ranges=ranges, unit_bytes=unit_bytes)) as file:
                growth = self._growth(file, index_path(self._path), released=file.release)
                return growth.grow(
                    pieces=pieces, before=before, jobs=_jobs(jobs, file), progress=progress
                )
        with closing(open_archive(self._place, self._archive.name)) as file:
            far = index_path(self._root.archives / self._archive.name) if file.far else None
            growth = self._growth(file, far)
            whole = growth.grow(
                pieces=pieces, before=before, jobs=_jobs(jobs, file), progress=progress
            )
        if self._at_home and growth.read_all and whole.proof != before:
            record_archive(self._root, self._path, whole.proof)
        return whole

    @property
    def _at_home(self) -> bool:
        """Does the receipt speak of this archive?"""
        return self._place == self._root.archives

    def _growth(
        self,
        file: ArchiveFile,
        index: Path | None,
        *,
        released: Callable[[Range], None] | None = None,
    ) -> Growth:
        return Growth(
            self._dataset,
            self._split,
            file=file,
            folder=self._growing,
            journal=self._journal,
            index=index,
            ranges=self._published_ranges(file) if index and not index.exists() else None,
            released=released,
        )

    def _published_ranges(self, file: ArchiveFile) -> Sequence[Range] | None:
        """Those of the index that lies beside an archive far away, if there is one."""
        try:
            with closing(open_archive(self._place, f"{self._archive.name}{SUFFIX}")) as index:
                body = index.read_at(0, index.size_bytes or 0)
        except SourceFailed:
            return None
        return parse_index(body, self._archive, self._dataset, of=file)

    def _give_name(self, whole: Whole) -> None:
        """Give a whole split its name, manifest and receipt; a kill in between is made up."""
        split, root = self._split, self._root
        key = split, Layout.IMAGEFOLDER
        if whole.lies_in(self._growing):
            with open_manifest(root.manifest, write=True) as manifest:
                manifest.drop_split(*key)  # of a folder that is gone
            self._growing.rename(root.split(split))
            sync_folder(root.path)
        if key not in organized_splits(root):
            with open_manifest(root.manifest, write=True) as manifest:
                manifest.add_split(*key, self._journal.samples(split))
        record = organized_splits(root)[key]
        record_split(
            root,
            split,
            archive=self._archive.name,
            proof=whole.proof,
            layout=record.layout,
            samples=record.samples,
            size_bytes=record.size_bytes,
        )
        if self._consume:
            end_consumption(self._path)
        self._journal.forget(split)


def _jobs(jobs: int | None, file: ArchiveFile) -> int:
    if file.far:
        return jobs or min(_JOBS_AFAR_A_CORE * usable_cores(), _JOBS_AFAR_AT_MOST)
    return jobs or min(usable_cores(), _JOBS_AT_MOST)


def _check_planned(
    root: Root, dataset: Dataset, planned: PlannedSplit, *, consume: bool, jobs: int | None
) -> Needs:
    """What the split will still take."""
    whole: Whole | None = None
    done_bytes = done_files = 0
    if _journal_path(root).exists():
        with open_journal(_journal_path(root)) as journal:
            whole = journal.whole(planned.split, dataset=dataset.fingerprint)
            done_bytes = journal.size_bytes(planned.split)
    folder = root.split(planned.split)
    if whole and whole.lies_in(folder):
        return Needs()  # only its manifest and receipt are missing
    if folder.exists():
        raise ImnetprepError(
            f"{folder} is there, and {root.manifest.name} knows nothing of it",
            hint=f"mv {folder} {folder}.old; or, if it is {dataset.name} already,"
            " imnetprep verify --adopt",
        )
    if whole and whole.lies_in(root.organizing / planned.split):
        return Needs()
    size_bytes = _size_bytes(root, dataset, planned, consume=consume)
    files = dataset.samples(planned.split)
    done_files = files * done_bytes // max(1, size_bytes)
    to_write = max(0, size_bytes - done_bytes)
    disk_bytes = to_write
    if consume:
        path = Path(planned.place) / planned.archive.name
        largest = largest_range_bytes(path, planned.archive, dataset)
        disk_bytes = min(to_write, largest * (jobs or min(usable_cores(), _JOBS_AT_MOST)))
    return Needs(to_write, max(0, files - done_files), disk_bytes)


def _size_bytes(root: Root, dataset: Dataset, planned: PlannedSplit, *, consume: bool) -> int:
    """The archive's, as far as anybody knows; raises where it is not what it should be."""
    archive, pieces = planned.archive, published_pieces(dataset, planned.archive)
    promised = archive.size_bytes or (pieces.size_bytes if pieces else None)
    path = Path(planned.place) / archive.name
    consumed = consumed_path(path)
    if consume and is_local(planned.place):
        before = archive_proof(root, path) if planned.place == root.archives else None
        if consumed.exists():
            return consumed.stat().st_size
        require_consumable(path, archive, pieces=pieces, before=before)
    elif consume:
        raise WrongUsage(
            f"{planned.address} is not on this machine: there is nothing to consume",
            hint="leave --consume out; no copy of the archive is made",
        )
    elif consumed.exists() and not path.exists():
        raise ImnetprepError(
            f"{consumed} has been given up in part, for {root.organizing}",
            hint="go on with imnetprep organize --consume; or remove it and download again",
        )
    with closing(open_archive(planned.place, archive.name)) as file:
        size_bytes = file.size_bytes
    if size_bytes is not None and promised not in (None, size_bytes):
        raise WrongBytes(
            f"{planned.address} has {size_bytes:,} bytes; {dataset.name} has {promised:,} there",
            hint="if it is cut short, imnetprep download completes it;"
            " if it is another dataset, name that: --dataset NAME|FILE.toml",
        )
    return size_bytes or promised or 0


def _journal_path(root: Root) -> Path:
    return root.organizing / "journal.db"
