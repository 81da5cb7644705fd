"""Archives to class folders: one pass, restartable at any instant, whole or absent."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from imnetprep.archives.file import ArchiveFile
from imnetprep.catalog.datasets import Archive, Dataset, Split
from imnetprep.errors import ImnetprepError, SourceFailed, WrongUsage
from imnetprep.fs import locked
from imnetprep.manifest import (
    SplitRecord,
    create_manifest,
    dataset_for,
    organized_splits,
)
from imnetprep.preparation.choice import check_sizes, choose_archives
from imnetprep.preparation.consumption import (
    ConsumedFile,
    begin_consumption,
    consumed_ranges,
    end_consumption,
    index_path,
    largest_range_bytes,
    proof_before,
)
from imnetprep.preparation.growth import Growth
from imnetprep.preparation.index import SUFFIX, parse_index
from imnetprep.preparation.journal import Journal, Whole, open_journal
from imnetprep.preparation.needs import Needs
from imnetprep.preparation.ranges import Range
from imnetprep.preparation.receipts import archive_proof, record_archive
from imnetprep.preparation.standing import (
    folder_splits,
    give_name,
    refuse_strangers,
    standing,
)
from imnetprep.preparation.taking import Source
from imnetprep.processes import usable_cores
from imnetprep.progress import Progress
from imnetprep.roots import Layout, Root
from imnetprep.sources.places import STDIN, address_of, open_archive
from imnetprep.sources.torrent import published_pieces

# That of the train archive has 60 kB.
_LARGEST_INDEX_BYTES = 16 << 20
# Each job holds two pieces and a sample; more of them than this wait for the disk.
_JOBS_AT_MOST = 8
# From afar most of them wait for the network.
_JOBS_AFAR_A_CORE, _JOBS_AFAR_AT_MOST = 4, 16


@dataclass(frozen=True)
class Planned:
    """What is to be done for splits that share their archives. Those in `done` are organized."""

    splits: tuple[Split, ...]
    archives: tuple[Archive, ...]
    place: str | Path
    done: frozenset[Split]

    @property
    def addresses(self) -> list[str]:
        """The archives, as people would write them."""
        return [address_of(self.place, archive.name) for archive in self.archives]

    @property
    def to_do(self) -> tuple[Split, ...]:
        """The splits that are not done."""
        return tuple(split for split in self.splits if split not in self.done)


@dataclass(frozen=True)
class OrganizePlan:
    """What `organize` will do, and what it will take: disk space, and files on it."""

    dataset: Dataset
    planned: tuple[Planned, ...]
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
    place; WrongBytes where an archive has the wrong size; WrongUsage on a pipe for two archives.
    """
    known = dataset_for(root.manifest, dataset)
    if Split.TEST in splits:
        raise ImnetprepError(
            f"the test split of {known.name} has no labels, so no classes to sort its images by",
            hint="unpack its archive with tar; organize has --split train and --split val",
        )
    organized = folder_splits(root)
    place, groups = choose_archives(
        known, splits or known.splits, place=archives or root.archives, done=organized
    )
    planned = tuple(Planned(each, of_each, place, organized) for each, of_each in groups)
    if archives == STDIN:
        _require_one_stream(planned)
    needs = Needs()
    for each in planned:
        if each.to_do:
            needs += _check_planned(root, known, each, consume=consume, jobs=jobs)
    return OrganizePlan(known, planned, needs, consume)


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
        for planned in plan.planned:
            _Work(plan, planned, root, journal).organize(jobs=jobs, progress=progress)
            for split in planned.splits:
                yield organized_splits(root)[split, Layout.IMAGEFOLDER]


class _Work:
    """The splits of a plan that share their archives, under way."""

    def __init__(self, plan: OrganizePlan, planned: Planned, root: Root, journal: Journal) -> None:
        self._dataset, self._consume = plan.dataset, plan.consume
        self._splits, self._archives, self._place = planned.splits, planned.archives, planned.place
        self._root, self._journal = root, journal

    def organize(self, *, jobs: int | None, progress: Progress) -> None:
        """Whatever is not done of them."""
        there = folder_splits(self._root)
        wholes = {split: self._whole(split) for split in self._splits}
        to_grow = [split for split in self._splits if not wholes[split] and split not in there]
        if to_grow:
            self._grow(to_grow, jobs=jobs, progress=progress)
        for split in self._splits:
            if (whole := self._whole(split)) is not None:
                self._give_name(split, whole)

    def _whole(self, split: Split) -> Whole | None:
        return standing(self._root, self._journal, split, self._dataset)

    def _grow(self, splits: Sequence[Split], *, jobs: int | None, progress: Progress) -> None:
        growth = Growth(self._dataset, splits, folder=self._root.organizing, journal=self._journal)
        archives = [each for each in self._archives if not set(splits).isdisjoint(each.splits)]
        with ExitStack() as opened:
            sources = [self._source(archive, opened) for archive in archives]
            jobs = _jobs(jobs, sources[0].file)
            takings = growth.grow(sources, jobs=jobs, progress=progress)
        for taking, source in zip(takings, sources, strict=True):
            kept = self._at_home and not self._consume
            if kept and taking.read_all and taking.proof != source.before:
                record_archive(self._root, self._path(taking.archive), taking.proof)

    def _source(self, archive: Archive, opened: ExitStack) -> Source:
        pieces = published_pieces(self._dataset, archive)
        path = self._path(archive)
        before = archive_proof(self._root, path) if self._at_home else None
        if self._consume:
            unit_bytes = pieces.length_bytes if pieces else 0
            begin_consumption(path, archive, self._dataset, before=before)
            all_ranges = consumed_ranges(path, archive, self._dataset)
            consumed = ConsumedFile(path, ranges=all_ranges, unit_bytes=unit_bytes)
            opened.enter_context(closing(consumed))
            return Source(
                archive,
                consumed,
                pieces=pieces,
                before=proof_before(path),
                index=index_path(path),
                released=consumed.release,
            )
        file = opened.enter_context(closing(open_archive(self._place, archive.name)))
        indexed = file.far and archive.form in ("tar", "tar-of-tars")
        index = index_path(self._root.archives / archive.name) if indexed else None
        ranges = None
        if index is not None and not index.exists():
            ranges = self._published_ranges(archive, file)
        return Source(archive, file, pieces=pieces, before=before, index=index, ranges=ranges)

    def _path(self, archive: Archive) -> Path:
        """The archive, if it is on this machine."""
        return Path(self._place) / archive.name

    @property
    def _at_home(self) -> bool:
        """Does the receipt speak of these archives?"""
        return self._place == self._root.archives

    def _published_ranges(self, archive: Archive, file: ArchiveFile) -> Sequence[Range] | None:
        """Those of the index that lies beside an archive far away, if there is one."""
        try:
            with closing(open_archive(self._place, f"{archive.name}{SUFFIX}")) as index:
                if (size_bytes := index.size_bytes or 0) > _LARGEST_INDEX_BYTES:
                    return None  # not ours: the headers are walked
                body = index.read_at(0, size_bytes)
        except SourceFailed:
            return None
        return parse_index(body, archive, self._dataset, of=file)

    def _give_name(self, split: Split, whole: Whole) -> None:
        """Give a whole split its name, manifest and receipt; a kill in between is made up."""
        names = ", ".join(each.name for each in self._archives if split in each.splits)
        give_name(self._root, self._journal, split, whole, archive=names)
        if self._consume:
            end_consumption(self._path(self._archives[0]))
        self._journal.forget(split)


def _jobs(jobs: int | None, file: ArchiveFile) -> int:
    if file.far:
        return jobs or min(_JOBS_AFAR_A_CORE * usable_cores(), _JOBS_AFAR_AT_MOST)
    return jobs or min(usable_cores(), _JOBS_AT_MOST)


def _require_one_stream(planned: Sequence[Planned]) -> None:
    if sum(len(each.archives) for each in planned) != 1:
        raise WrongUsage("a pipe carries one archive", hint="say which: --split train")
    (archive,) = planned[0].archives
    if archive.form == "zip":
        raise WrongUsage(
            f"{archive.name} lists what is in it at its end, where no pipe can look first",
            hint="save it, then --archives with its folder; or s3://…, https://…",
        )


def _check_planned(
    root: Root, dataset: Dataset, planned: Planned, *, consume: bool, jobs: int | None
) -> Needs:
    """What the splits will still take."""
    wholes: dict[Split, Whole | None] = {}
    done_bytes: dict[Split, int] = {}
    if _journal_path(root).exists():
        with open_journal(_journal_path(root)) as journal:
            for split in planned.to_do:
                wholes[split] = journal.whole(split, dataset=dataset.fingerprint)
                done_bytes[split] = journal.size_bytes(split)
    to_grow = []
    for split in planned.to_do:
        whole = wholes.get(split)
        named = refuse_strangers(root, dataset, split)
        if not named and not (whole and whole.lies_in(root.organizing / split)):
            to_grow.append(split)
    if not to_grow:
        return Needs()
    sizes = check_sizes(root, dataset, planned.archives, place=planned.place, consume=consume)
    in_archives = {split for archive in planned.archives for split in archive.splits}
    files_there = sum(dataset.samples(split) for split in in_archives & set(dataset.splits))
    files = sum(dataset.samples(split) for split in to_grow)
    size_bytes = sizes * files // max(1, files_there)
    done = sum(done_bytes.get(split, 0) for split in to_grow)
    to_write = max(0, size_bytes - done)
    disk_bytes = to_write
    if consume:
        (archive,) = planned.archives
        largest = largest_range_bytes(Path(planned.place) / archive.name, archive, dataset)
        disk_bytes = min(to_write, largest * (jobs or min(usable_cores(), _JOBS_AT_MOST)))
    done_files = files * done // max(1, size_bytes)
    return Needs(to_write, max(0, files - done_files), disk_bytes)


def _journal_path(root: Root) -> Path:
    return root.organizing / "journal.db"
