"""Which splits are to be made of which archives, where those lie, and what they are worth."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from imnetprep.catalog.datasets import Archive, Dataset, Root, Split
from imnetprep.jobs import LOCAL_RANGES
from imnetprep.messages import ImnetprepError, Progress, WrongUsage
from imnetprep.organizing.choose_archives import check_sizes, choose_archives
from imnetprep.organizing.journal import Stage, open_journal
from imnetprep.proving.archive_at import ArchiveAt, consumed_path, home_of
from imnetprep.proving.consume import largest_range_bytes
from imnetprep.sources.places import STDIN, is_local


@dataclass(frozen=True)
class SplitGroup:
    """What is to be done for splits that share their archives. Some may be organized already."""

    splits: tuple[Split, ...]
    archives: tuple[Archive, ...]
    place: str | Path
    home: Root | None
    organized_splits: frozenset[Split]

    @property
    def at(self) -> tuple[ArchiveAt, ...]:
        """The archives where they lie."""
        return tuple(ArchiveAt(archive, self.place, self.home) for archive in self.archives)

    @property
    def addresses(self) -> list[str]:
        """The archives, as people would write them."""
        return [archive.address for archive in self.at]

    def is_organized(self, split: Split) -> bool:
        """Has it its name already?"""
        return split in self.organized_splits

    @property
    def to_do(self) -> tuple[Split, ...]:
        """The splits that are not done."""
        return tuple(split for split in self.splits if not self.is_organized(split))


def planned_splits(
    root: Root,
    dataset: Dataset,
    splits: Sequence[Split],
    *,
    archives: str | None,
    organized_splits: frozenset[Split],
) -> tuple[SplitGroup, ...]:
    """`splits` by the archives that they share. Raises as `plan_organize`."""
    if Split.TEST in splits:
        raise ImnetprepError(
            f"the test split of {dataset.name} has no labels, so no classes to sort its images by",
            hint="unpack its archive with tar; organize has --split train and --split val",
        )
    place, groups = choose_archives(
        dataset.published, splits, place=archives or root.archives, skip=organized_splits
    )
    home = home_of(place, root)
    split_groups = tuple(SplitGroup(*each, place, home, organized_splits) for each in groups)
    if archives == STDIN:
        _require_one_stream(split_groups)
    return split_groups


def _require_one_stream(groups: Sequence[SplitGroup]) -> None:
    if sum(len(each.archives) for each in groups) != 1:
        raise WrongUsage("a pipe carries one archive", hint="say which: --split train")
    (archive,) = groups[0].archives
    if archive.form == "zip":
        raise WrongUsage(
            f"{archive.name} lists what is in it at its end, where no pipe can look first",
            hint="save it, then --archives with its folder; or s3://…, https://…",
        )


def size_in_archives(
    root: Root, dataset: Dataset, group: SplitGroup, splits: Sequence[Split], *, consume: bool
) -> int:
    """The bytes of `splits`, about; raises where an archive is not what it should be."""
    whole, archives = dataset.published, group.archives
    if dataset is not whole:
        _check_part(dataset, group, consume=consume)
    sizes = check_sizes(root, whole, archives, place=group.place, consume=consume)
    in_archives = {split for archive in archives for split in archive.splits}
    samples = sum(whole.samples(split) for split in in_archives & set(whole.splits))
    return sizes * sum(map(dataset.samples, splits)) // max(1, samples)


def _check_part(dataset: Dataset, group: SplitGroup, *, consume: bool) -> None:
    """A subset is made of the archives of the whole: they are to be there, and to stay."""
    whole = f"{dataset.name} is part of {dataset.published.name}"
    for archive in group.archives:
        if consume:
            raise WrongUsage(
                f"{whole}: --consume would delete all of {archive.name} for it",
                hint="leave --consume out; the archive stays as it is",
            )
        path = Path(group.place) / archive.name
        states = path, consumed_path(path), path.with_name(f"{path.name}.part")
        if is_local(group.place) and not any(each.exists() for each in states):
            raise ImnetprepError(
                f"{path} is not there; {whole}, and made of its archives",
                hint="name the place of those with --archives",
            )


def tell_kept_archives(root: Root, group: SplitGroup, progress: Progress) -> None:
    """Say which archives `--consume` leaves alone: nothing is made of them any more."""
    for archive in group.at:
        if archive.is_local and (archive.path.exists() or archive.is_partly_deleted):
            way = "; imnetprep clean --only archive removes what is not needed again"
            progress.note(
                f"{archive.address} stays: its images are organized already"
                f"{way if archive.home == root else ''}"
            )


def in_flight_bytes(dataset: Dataset, group: SplitGroup, jobs: int | None) -> int:
    """What of an archive that is consumed lies on the disk twice at most."""
    (archive,) = group.archives
    largest = largest_range_bytes(Path(group.place) / archive.name, archive, dataset)
    return largest * LOCAL_RANGES.count(jobs)


def refuse_consumed_elsewhere(group: SplitGroup, root: Root, stage: Stage) -> None:
    """Raise ImnetprepError where the archive is consumed for an unfinished split of `stage`."""
    if root.has_journal:
        with open_journal(root.journal, stage) as journal:
            if any(journal.origin(split) is not None for split in group.splits):
                refuse_consumed(group, "in another --layout")


def refuse_consumed(group: SplitGroup, description: str) -> None:
    """Raise ImnetprepError where an archive is partly deleted: a split of it has `description`."""
    for archive in group.at:
        if archive.is_partly_deleted:
            raise ImnetprepError(
                f"{archive.address} was partly deleted by an unfinished organize --consume,"
                f" for a split {description}",
                hint="resume with --consume and the options that it was begun with",
            )
