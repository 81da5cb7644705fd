"""Which splits are to be made of which archives, where those lie, and what they are worth."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from imnetprep.catalog.datasets import Archive, Dataset, Root, Split
from imnetprep.jobs import LOCAL_RANGES
from imnetprep.messages import ImnetprepError, WrongUsage
from imnetprep.organizing.choose_archives import check_sizes, choose_archives
from imnetprep.organizing.journal import Stage, open_journal
from imnetprep.proving.archive_at import ArchiveAt, consumed_path, home_of
from imnetprep.proving.consume import largest_range_bytes
from imnetprep.sources.places import STDIN, is_local


@dataclass(frozen=True)
class Planned:
    """What is to be done for splits that share their archives. Those in `done` are organized."""

    splits: tuple[Split, ...]
    archives: tuple[Archive, ...]
    place: str | Path
    home: Root | None
    done: frozenset[Split]

    @property
    def at(self) -> tuple[ArchiveAt, ...]:
        """The archives where they lie."""
        return tuple(ArchiveAt(archive, self.place, self.home) for archive in self.archives)

    @property
    def addresses(self) -> list[str]:
        """The archives, as people would write them."""
        return [archive.address for archive in self.at]

    @property
    def to_do(self) -> tuple[Split, ...]:
        """The splits that are not done."""
        return tuple(split for split in self.splits if split not in self.done)


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
    home = home_of(place, root)
    planned = tuple(Planned(each, of_each, place, home, done) for each, of_each in groups)
    if archives == STDIN:
        _require_one_stream(planned)
    return planned


def _require_one_stream(planned: Sequence[Planned]) -> None:
    if sum(len(each.archives) for each in planned) != 1:
        raise WrongUsage("a pipe carries one archive", hint="say which: --split train")
    (archive,) = planned[0].archives
    if archive.form == "zip":
        raise WrongUsage(
            f"{archive.name} lists what is in it at its end, where no pipe can look first",
            hint="save it, then --archives with its folder; or s3://…, https://…",
        )


def size_in_archives(
    root: Root, dataset: Dataset, planned: Planned, splits: Sequence[Split], *, consume: bool
) -> int:
    """The bytes of `splits`, about; raises where an archive is not what it should be."""
    published, archives = dataset.published, planned.archives
    if dataset is not published:
        _check_part(dataset, planned, consume=consume)
    sizes = check_sizes(root, published, archives, place=planned.place, consume=consume)
    in_archives = {split for archive in archives for split in archive.splits}
    samples = sum(published.samples(split) for split in in_archives & set(published.splits))
    return sizes * sum(map(dataset.samples, splits)) // max(1, samples)


def _check_part(dataset: Dataset, planned: Planned, *, consume: bool) -> None:
    """A subset is made of the archives of the whole: they are to be there, and to stay."""
    whole = f"{dataset.name} is part of {dataset.published.name}"
    for archive in planned.archives:
        if consume:
            raise WrongUsage(
                f"{whole}: --consume would delete all of {archive.name} for it",
                hint="leave --consume out; the archive stays as it is",
            )
        path = Path(planned.place) / archive.name
        states = path, consumed_path(path), path.with_name(f"{path.name}.part")
        if is_local(planned.place) and not any(each.exists() for each in states):
            raise ImnetprepError(
                f"{path} is not there; {whole}, and made of its archives",
                hint="name the place of those with --archives",
            )


def in_flight_bytes(dataset: Dataset, planned: Planned, jobs: int | None) -> int:
    """What of an archive that is consumed lies on the disk twice at most."""
    (archive,) = planned.archives
    largest = largest_range_bytes(Path(planned.place) / archive.name, archive, dataset)
    return largest * LOCAL_RANGES.count(jobs)


def refuse_consumed_elsewhere(planned: Planned, root: Root, stage: Stage) -> None:
    """Raise ImnetprepError where the archive is being given up for what grows in `stage`."""
    if root.journal.exists():
        with open_journal(root.journal, stage) as journal:
            if any(journal.origin(split) is not None for split in planned.splits):
                refuse_consumed(planned, "in another --layout")


def refuse_consumed(planned: Planned, what: str) -> None:
    """Raise ImnetprepError where an archive is partly deleted, since `what` was made of it."""
    for archive in planned.at:
        if archive.is_partly_deleted:
            raise ImnetprepError(
                f"{archive.address} was partly deleted by an unfinished organize --consume,"
                f" for a split {what}",
                hint="resume with --consume and the options that it was begun with",
            )
