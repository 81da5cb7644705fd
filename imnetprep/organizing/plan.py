"""Which splits are to be made of which archives, where those lie, and what they are worth."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from imnetprep.archive_parts import (
    archive_in_parts,
    folder_of_parts,
    holds_class_folders,
    refuse_class_tar,
)
from imnetprep.archives.file import missing_archive
from imnetprep.archives.tar import FETCH_AGAIN, PLAIN_FORMS
from imnetprep.catalog.datasets import Archive, Dataset, Root, Split
from imnetprep.jobs import LOCAL_RANGES
from imnetprep.messages import ImnetprepError, Progress, WrongBytes, WrongUsage
from imnetprep.organizing.journal import Stage, Whole, journal_of
from imnetprep.proving.archive_at import ArchiveAt, consumed_path, home_of, other_consumer
from imnetprep.proving.consume import end_consumption, largest_range_bytes, require_consumable
from imnetprep.sources.part_files import PartFiles
from imnetprep.sources.places import STDIN, is_local, names_a_file
from imnetprep.sources.torrent import published_pieces
from imnetprep.synced_prefix import archives_at, packaging_at

# By form: no digest is of what others packed again; unpacked, names and counts say what it is.
_PACKED_AGAIN = {
    "tar-of-tars": "if others packed it again, unpack it: --archives takes the folder of class"
    " tars, by names and counts; ",
    "tar": "if others packed it again, unpack it to DIR/SPLIT: imnetprep repair --root DIR sorts"
    " it by name, and imnetprep adopt DIR takes it by names and counts; ",
}


@dataclass(frozen=True)
class SplitGroup:
    """Splits of `dataset` that share their archives, to be made under `root` if not organized.

    `dataset` may be part of a published one, whose archives these are. `consume`: the archive is
    deleted while it is read. `jobs`: how many are asked for.
    """

    root: Root
    dataset: Dataset
    splits: Sequence[Split]
    organized_splits: Collection[Split]
    archives: Sequence[ArchiveAt]
    consume: bool
    jobs: int | None

    @property
    def to_do(self) -> list[Split]:
        """The splits that are not organized."""
        return [split for split in self.splits if split not in self.organized_splits]

    @property
    def addresses(self) -> str:
        """The archives, as people would write them."""
        return ", ".join(each.address for each in self.archives)

    def archive_names(self, split: Split) -> str:
        """The names of the archives that hold `split`."""
        archives = [each.archive for each in self.archives]
        return ", ".join(each.name for each in archives if split in each.splits)

    def end_consumption(self) -> None:
        """Remove what `consume` left of the archive, when what is made of it has its name."""
        if self.consume:
            end_consumption(self.archives[0].path)


def planned_splits(
    root: Root,
    dataset: Dataset,
    splits: Sequence[Split],
    organized_splits: Collection[Split],
    *,
    archives: str | None,
    consume: bool,
    jobs: int | None,
    arrivals: Mapping[str, PartFiles] = MappingProxyType({}),
) -> list[SplitGroup]:
    """`splits` by the archives that they share. Raises as `plan_organize`.

    `arrivals` are the downloads that still bring archives, by name.

    A dataset may be packed in several ways: a file that `archives` names decides, or what lies
    there of the splits that are not organized; else it is the published way.
    """
    if Split.TEST in splits:
        raise ImnetprepError(
            f"the test split of {dataset.name} has no labels, so no classes to sort its images by",
            hint="unpack its archive with tar; organize has --split train and --split val",
        )
    whole, place = dataset.published, folder_of_parts(archives or root.archives)
    if file := _named_file(whole, place):
        packaging = file.packaging
        if is_local(place):
            place = Path(place).parent
        elif len(whole.packed(packaging)) > 1:
            address, mark, query = str(place).partition("?")
            place = address.rpartition("/")[0] + mark + query
    else:
        names = (each.name for each in whole.archives if not set(splits).isdisjoint(each.splits))
        place = archives_at(place, names)
        packaging = packaging_at(whole, place, set(splits) - set(organized_splits))
    folder = Path(place).parent if is_local(place) and Path(place).is_file() else place
    home = home_of(folder, root)
    groups: list[tuple[list[Split], list[ArchiveAt]]] = []
    for split in splits:
        members, places = [split], archive_in_parts(dataset, split, place)
        if not places and (whole.archives or split not in organized_splits):
            archives_of = whole.archives_of(split, packaging)
            places = [
                ArchiveAt(each, folder, home, arrival=arrivals.get(each.name))
                for each in archives_of
            ]
        for other in [group for group in groups if not set(group[1]).isdisjoint(places)]:
            groups.remove(other)
            members, places = [*other[0], *members], list(dict.fromkeys([*other[1], *places]))
        groups.append((members, places))
    if place == STDIN or names_a_file(place):
        _require_one([at for _, places in groups for at in places], is_pipe=place == STDIN)
    return [
        SplitGroup(root, dataset, members, organized_splits, places, consume, jobs)
        for members, places in groups
    ]


def _named_file(dataset: Dataset, place: str | Path) -> Archive | None:
    """The archive that `place` is; None: a place of archives, or one that was packed again.

    Raises ImnetprepError on another file.
    """
    if not is_local(place):
        name = urlsplit(str(place)).path.rpartition("/")[2]
    elif Path(place).is_file():
        name = Path(place).name
    else:
        return None
    archives = [archive for archive in dataset.archives if archive.splits]
    for archive in archives:
        if archive.name == name:
            return archive
        if archive.labels is not None and archive.labels.name == name:
            raise WrongUsage(
                f"{name} has the labels of {archive.name}, and no images",
                hint="name the folder where both are",
            )
    if not is_local(place):
        return None
    if any(holds_class_folders(dataset, split, Path(place)) for split in dataset.splits):
        return None
    refuse_class_tar(dataset, Path(place))
    raise ImnetprepError(
        f"{dataset.name} has no archive called {name}",
        hint="name its --dataset, or rename it to what it is: "
        + ", ".join(archive.name for archive in archives),
    )


def _require_one(archives: Sequence[ArchiveAt], *, is_pipe: bool) -> None:
    name = "a pipe" if is_pipe else "an address of one file"
    if len(archives) != 1:
        raise WrongUsage(f"{name} carries one archive", hint="say which: --split train")
    archive = archives[0].archive
    if archive.labels:
        raise WrongUsage(
            f"{name} is not enough for {archive.name}: its labels are in {archive.labels.name}",
            hint="put both in a folder, and name that with --archives",
        )
    if archive.form == "zip" and is_pipe:
        raise WrongUsage(
            f"{archive.name} lists what is in it at its end, where no pipe can look first",
            hint="save it, then --archives with its folder; or s3://…, https://…",
        )


def size_in_archives(group: SplitGroup, splits: Sequence[Split]) -> int:
    """The bytes of `splits`, about; raises where an archive is not what it should be."""
    dataset, whole = group.dataset, group.dataset.published
    if dataset is not whole:
        _check_part(group)
    if group.consume:
        _require_one_tar(group)
    size_bytes = sum(_size_bytes(group, each) for each in group.archives)
    in_archives = {split for each in group.archives for split in each.archive.splits}
    samples = sum(whole.samples(split) for split in in_archives & set(whole.splits))
    return size_bytes * sum(map(dataset.samples, splits)) // max(1, samples)


def _check_part(group: SplitGroup) -> None:
    """A subset is made of the archives of the whole: they are to be there, and to stay."""
    whole = f"{group.dataset.name} is part of {group.dataset.published.name}"
    for each in group.archives:
        if group.consume:
            raise WrongUsage(
                f"{whole}: --consume would delete all of {each.archive.name} for it",
                hint="leave --consume out; the archive stays as it is",
            )
        states = each.path, consumed_path(each.path), each.path.with_name(f"{each.path.name}.part")
        if each.is_local and not each.parts and not any(path.exists() for path in states):
            raise ImnetprepError(
                f"{missing_archive(each.path)}; {whole}, and made of its archives",
                hint="name the place of those with --archives",
            )


def _require_one_tar(group: SplitGroup) -> None:
    (first, *rest), hint = group.archives, "leave --consume out; no copy of the archive is made"
    if not first.is_local:
        raise WrongUsage(
            f"{group.addresses} is not on this machine: there is nothing to consume", hint=hint
        )
    if rest or first.parts or first.archive.form not in PLAIN_FORMS or first.archive.split is None:
        raise WrongUsage(
            f"{group.addresses} cannot be consumed: only an uncompressed tar of one split can",
            hint=hint,
        )


def _size_bytes(group: SplitGroup, at: ArchiveAt) -> int:
    """The bytes of an archive, as far as they are known; raises where its size is wrong."""
    dataset, root, remnant = group.dataset.published, group.root, consumed_path(at.path)
    pieces = published_pieces(dataset, at.archive)
    if group.consume:
        require_consumable(at, root, pieces=pieces)
        if remnant.exists():
            return remnant.stat().st_size
    elif at.is_partly_deleted and not at.path.exists():
        other = other_consumer(at.path, root.path)
        hint = "there, with the options that it was begun with"
        raise ImnetprepError(
            f"{remnant} was partly deleted by an unfinished organize --consume of"
            f" {other or root.path}",
            hint=f"resume {hint if other else 'with imnetprep organize --consume'};"
            " or remove it, and imnetprep download",
        )
    with closing(at.open()) as file:
        size_bytes = file.size_bytes
    dataset_bytes = at.archive.size_bytes or (pieces.size_bytes if pieces else None)
    if size_bytes is not None and dataset_bytes not in (None, size_bytes):
        advice = _PACKED_AGAIN.get(at.archive.form or "", "")
        raise WrongBytes(
            f"{at.address} has {size_bytes:,} bytes; {dataset.name} has {dataset_bytes:,} there, so"
            " nothing verifies these",
            hint=f"--dataset NAME|FILE.toml if it is another dataset; {advice}{FETCH_AGAIN}",
        )
    return size_bytes or dataset_bytes or 0


def tell_kept_archives(group: SplitGroup, progress: Progress) -> None:
    """Say which archives `consume` leaves alone: nothing is made of them any more.

    Archives of another packaging may lie beside those of the group.
    """
    archives = {
        ArchiveAt(archive, at.place, at.home)
        for archive in group.dataset.published.archives
        for at in group.archives[:1]
        if not set(group.splits).isdisjoint(archive.splits)
    }
    for each in [*group.archives, *sorted(archives - {*group.archives}, key=lambda at: at.address)]:
        if each.is_local and (each.path.exists() or each.is_partly_deleted):
            way = "; imnetprep clean --only archive removes what is not needed again"
            progress.note(
                f"{each.address} stays: its images are organized already"
                f"{way if each.home == group.root else ''}"
            )


def in_flight_bytes(group: SplitGroup) -> int:
    """What of an archive that is consumed lies on the disk twice at most."""
    (at,) = group.archives
    largest = largest_range_bytes(at.path, at.archive, group.dataset)
    return largest * LOCAL_RANGES.count(group.jobs)


def begun_splits(
    group: SplitGroup,
    splits: Sequence[Split],
    stage: Stage,
    *,
    options: Mapping[str, Any],
    difference: str,
) -> dict[Split, tuple[int, Whole | None]]:
    """Each of `splits` that was begun in `stage` with `options`: its bytes, and it if it is whole.

    Raises ImnetprepError where an archive is partly deleted for one with a `difference` in options.
    """
    states = {}
    with journal_of(group.root, stage) as journal:
        for split in splits:
            origin = journal.origin(split)
            if origin is not None and origin.options == options:
                whole = journal.whole(split, dataset=group.dataset.fingerprint)
                states[split] = journal.size_bytes(split), whole
            elif origin is not None:
                _refuse_consumed(group, difference)
    return states


def refuse_consumed_elsewhere(group: SplitGroup, stage: Stage) -> None:
    """Raise ImnetprepError where the archive is consumed for an unfinished split of `stage`."""
    with journal_of(group.root, stage) as journal:
        if any(journal.origin(split) is not None for split in group.splits):
            _refuse_consumed(group, "in another --layout")


def _refuse_consumed(group: SplitGroup, description: str) -> None:
    """Raise ImnetprepError where an archive is partly deleted: a split of it has `description`."""
    for each in group.archives:
        if each.is_partly_deleted:
            raise ImnetprepError(
                f"{each.address} was partly deleted by an unfinished organize --consume,"
                f" for a split {description}",
                hint="resume with --consume and the options that it was begun with",
            )
