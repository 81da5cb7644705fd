"""Archives to class folders: one pass, restartable at any instant, whole or absent."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imnetprep.archives.file import ArchiveFile
from imnetprep.catalog.datasets import Archive, Dataset, Split
from imnetprep.errors import ImnetprepError, SourceFailed, WrongUsage
from imnetprep.fs import bytes_below, free_bytes, locked
from imnetprep.images import Resize
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
    consumed_path,
    consumed_ranges,
    end_consumption,
    index_path,
    largest_range_bytes,
    proof_before,
)
from imnetprep.preparation.extraction import Sink
from imnetprep.preparation.folders import ClassFolders, ResizedFolders
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
from imnetprep.sources.places import STDIN, address_of, is_local, open_archive
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
    """What `organize` will do, and what it will take: disk space, and files on it.

    `facts` are for the receipt of each split.
    """

    dataset: Dataset
    planned: tuple[Planned, ...]
    needs: Needs
    consume: bool
    resize: Resize | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


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
    """Look at what is there and what is wanted; touches nothing.

    Raises ImnetprepError where an archive is missing, and where something else stands in a split's
    place; WrongBytes where an archive has the wrong size; WrongUsage on a pipe for two archives.
    """
    known = dataset_for(root.manifest, dataset)
    return plan_dataset(
        root, known, splits=splits, archives=archives, consume=consume, resize=resize, jobs=jobs
    )


def plan_dataset(
    root: Root,
    known: Dataset,
    *,
    splits: Sequence[Split],
    archives: str | None = None,
    consume: bool = False,
    resize: Resize | None = None,
    jobs: int | None = None,
) -> OrganizePlan:
    """The same, of the dataset `known` or part of it. Raises as `plan_organize`."""
    planned = planned_splits(
        root, known, splits or known.splits, archives=archives, done=folder_splits(root)
    )
    needs = Needs()
    for each in planned:
        for split in each.splits:
            if split in each.done:
                _refuse_other_size(root, split, resize)
        if each.to_do:
            needs += _check_planned(root, known, each, consume=consume, resize=resize, jobs=jobs)
    return OrganizePlan(known, planned, needs, consume, resize)


def planned_splits(
    root: Root,
    known: Dataset,
    splits: Sequence[Split],
    *,
    archives: str | None,
    done: frozenset[Split],
) -> tuple[Planned, ...]:
    """The splits that are wanted, by the archives that they share. Raises as `plan_organize`."""
    if Split.TEST in splits:
        raise ImnetprepError(
            f"the test split of {known.name} has no labels, so no classes to sort its images by",
            hint="unpack its archive with tar; organize has --split train and --split val",
        )
    place, groups = choose_archives(
        known.published, splits, place=archives or root.archives, done=done
    )
    planned = tuple(Planned(each, of_each, place, done) for each, of_each in groups)
    if archives == STDIN:
        _require_one_stream(planned)
    return planned


def _refuse_other_size(root: Root, split: Split, resize: Resize | None) -> None:
    change = organized_splits(root)[split, Layout.IMAGEFOLDER].change
    if change != (str(resize) if resize else None):
        raise _other_images(root.split(split), change or "as published")


def _other_images(folder: Path, what: str) -> ImnetprepError:
    return ImnetprepError(
        f"{folder} holds other images: {what}",
        hint=f"mv {folder} {folder}.old; then run the same command again",
    )


def carry_out_organize(
    plan: OrganizePlan, root: Root, *, jobs: int | None, progress: Progress
) -> Iterator[SplitRecord]:
    """Organize what is not done; yields every split of the plan once it stands under its name.

    Raises ImnetprepError where there is no room, and WrongBytes where an archive is not what the
    dataset promises.
    """
    plan.needs.require(root.path, what=f"to organize {plan.dataset.name}")
    with (
        locked(root.organizing, forks=True),
        open_journal(root.journal) as journal,
    ):
        create_manifest(root.manifest, plan.dataset)
        plan.needs.tell_time(root.organizing, progress)
        for planned in plan.planned:
            with _sink(plan, root, jobs) as sink:
                work = Work(plan, planned, root, journal, sink=sink, growing=root.organizing)
                there = folder_splits(root)
                to_grow = [each for each in planned.splits if each not in there]
                wholes = work.grown(to_grow, jobs=jobs, progress=progress)
            for split, whole in wholes.items():
                work.give_name(split, whole)
            for split in planned.splits:
                yield organized_splits(root)[split, Layout.IMAGEFOLDER]


@contextmanager
def _sink(plan: OrganizePlan, root: Root, jobs: int | None) -> Iterator[Sink]:
    """Where samples go: class folders, of images as published or made smaller."""
    if plan.resize is None:
        yield ClassFolders(plan.dataset, root.organizing)
        return
    jobs = jobs or usable_cores()
    with closing(ResizedFolders(plan.dataset, root.organizing, plan.resize, jobs=jobs)) as resized:
        yield resized


class Work:
    """The splits of a plan that share their archives, under way in a `sink` under `growing`."""

    def __init__(
        self,
        plan: OrganizePlan,
        planned: Planned,
        root: Root,
        journal: Journal,
        *,
        sink: Sink,
        growing: Path,
    ) -> None:
        self._dataset, self._consume, self._resize = plan.dataset, plan.consume, plan.resize
        self._facts = plan.facts
        self._splits, self._archives, self._place = planned.splits, planned.archives, planned.place
        self._root, self._journal = root, journal
        self._sink, self._growing = sink, growing

    def grown(
        self, splits: Sequence[Split], *, jobs: int | None, progress: Progress
    ) -> dict[Split, Whole]:
        """The splits that have grown whole, once all that is not done of `splits` is."""
        wholes = {split: self._whole(split) for split in self._splits}
        to_grow = [split for split in splits if not wholes[split]]
        if to_grow:
            self._grow(to_grow, jobs=jobs, progress=progress)
        return {split: whole for split in self._splits if (whole := self._whole(split))}

    def _whole(self, split: Split) -> Whole | None:
        growing = self._growing / split
        whole = standing(self._root, self._journal, split, self._dataset, growing=growing)
        return whole if self._journal.made_as(split) == self._sink.made_as else None

    def _grow(self, splits: Sequence[Split], *, jobs: int | None, progress: Progress) -> None:
        growth = Growth(
            self._dataset, splits, folder=self._growing, sink=self._sink, journal=self._journal
        )
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
        pieces = published_pieces(self._dataset.published, archive)
        path = self._path(archive)
        home = home_of(self._place)
        before = None if home is None else archive_proof(home, path)
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
        return home_of(self._place) == self._root

    def _published_ranges(self, archive: Archive, file: ArchiveFile) -> Sequence[Range] | None:
        """Those of the index that lies beside an archive far away, if there is one."""
        try:
            with closing(open_archive(self._place, f"{archive.name}{SUFFIX}")) as index:
                if (size_bytes := index.size_bytes or 0) > _LARGEST_INDEX_BYTES:
                    return None  # not ours: the headers are walked
                body = index.read_at(0, size_bytes)
        except SourceFailed:
            return None
        return parse_index(body, archive, self._dataset.published, of=file)

    def give_name(self, split: Split, whole: Whole) -> None:
        """Give a whole split its name, manifest and receipt; a kill in between is made up."""
        names = ", ".join(each.name for each in self._archives if split in each.splits)
        change = str(self._resize) if self._resize else None
        facts = {"archive": names, **self._facts}
        give_name(self._root, self._journal, split, whole, change=change, **facts)
        self.end(split)

    def end(self, split: Split) -> None:
        """It has its name, its manifest and its receipt: give up what it was made of."""
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
    root: Root,
    dataset: Dataset,
    planned: Planned,
    *,
    consume: bool,
    resize: Resize | None,
    jobs: int | None,
) -> Needs:
    """What the splits will still take."""
    wholes: dict[Split, Whole | None] = {}
    done_bytes: dict[Split, int] = {}
    if root.journal.exists():
        with open_journal(root.journal) as journal:
            for split in planned.to_do:
                made_as = journal.made_as(split)
                if made_as == (repr(resize) if resize else ""):
                    wholes[split] = journal.whole(split, dataset=dataset.fingerprint)
                    done_bytes[split] = journal.size_bytes(split)
                elif made_as is not None:
                    refuse_consumed(planned, "of images of another size: --resize and --quality")
    to_grow = []
    for split in planned.to_do:
        whole = wholes.get(split)
        named = refuse_strangers(root, dataset, split)
        if named and split not in wholes:
            raise _other_images(root.split(split), "of another size")
        if not named and not (whole and whole.lies_in(root.organizing / split)):
            to_grow.append(split)
    if not to_grow:
        return Needs()
    refuse_consumed_elsewhere(planned, root.spool_journal)
    size_bytes = size_in_archives(root, dataset, planned, to_grow, consume=consume)
    files = sum(dataset.samples(split) for split in to_grow)
    done = sum(done_bytes.get(split, 0) for split in to_grow)
    disk_bytes = to_write = max(0, size_bytes - done)
    if consume:
        disk_bytes = min(to_write, in_flight_bytes(dataset, planned, jobs))
    if disk_bytes > free_bytes(root.path):  # what is written and not journalled is written over
        lying = sum(bytes_below(root.organizing / split) for split in to_grow)
        disk_bytes = max(0, disk_bytes - max(0, lying - done))
    done_files = files * done // max(1, size_bytes)
    return Needs(to_write, max(0, files - done_files), disk_bytes)


def size_in_archives(
    root: Root, dataset: Dataset, planned: Planned, splits: Sequence[Split], *, consume: bool
) -> int:
    """The bytes of `splits`, about; raises where an archive is not what it should be."""
    published, archives = dataset.published, planned.archives
    sizes = check_sizes(root, published, archives, place=planned.place, consume=consume)
    in_archives = {split for archive in archives for split in archive.splits}
    samples = sum(published.samples(split) for split in in_archives & set(published.splits))
    return sizes * sum(map(dataset.samples, splits)) // max(1, samples)


def in_flight_bytes(dataset: Dataset, planned: Planned, jobs: int | None) -> int:
    """What of an archive that is consumed lies on the disk twice at most."""
    (archive,) = planned.archives
    largest = largest_range_bytes(Path(planned.place) / archive.name, archive, dataset)
    return largest * (jobs or min(usable_cores(), _JOBS_AT_MOST))


def refuse_consumed_elsewhere(planned: Planned, journal: Path) -> None:
    """Raise ImnetprepError where the archive is being given up for the layout of that journal."""
    if journal.exists():
        with open_journal(journal) as other:
            if any(other.grows_from(split) is not None for split in planned.splits):
                refuse_consumed(planned, "in another --layout")


def refuse_consumed(planned: Planned, what: str) -> None:
    """Raise ImnetprepError where an archive is given up in part, for `what` has grown of it."""
    for archive in planned.archives:
        consumed = consumed_path(Path(planned.place) / archive.name)
        if is_local(planned.place) and consumed.exists():
            raise ImnetprepError(
                f"{consumed} has been given up in part, for a split {what}",
                hint="go on with --consume and the words with which that was begun",
            )


def home_of(place: str | Path) -> Root | None:
    """The root whose archives lie in that folder, if one's do: its receipt speaks of them."""
    home = Root(Path(place).parent)
    return home if is_local(place) and Path(place) == home.archives else None
