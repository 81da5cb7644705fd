"""Which archives the splits of a dataset are taken from at a place, and whether those can be it."""

from collections.abc import Collection, Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

from imnetprep.archives.tar import FETCH_AGAIN, PLAIN_FORMS
from imnetprep.catalog.datasets import Archive, Dataset, Root, Split
from imnetprep.messages import ImnetprepError, SourceFailed, WrongBytes, WrongUsage
from imnetprep.proving.archive_at import archive_at, consumed_path, other_consumer
from imnetprep.proving.consume import require_consumable
from imnetprep.sources.places import STDIN, address_of, is_local, open_archive
from imnetprep.sources.torrent import published_pieces

# Splits and the archives that hold them.
Group = tuple[tuple[Split, ...], tuple[Archive, ...]]


def choose_archives(
    dataset: Dataset, splits: Sequence[Split], *, place: str | Path, skip: Collection[Split]
) -> tuple[str | Path, list[Group]]:
    """The place of the archives, and `splits` by the archives that they share.

    A dataset may be packed in several ways: a file that `place` names decides, or what lies there
    of the splits not to `skip`; else it is the published way. Raises ImnetprepError where a
    named file is no archive of the dataset.
    """
    file = _named_file(dataset, place)
    if file is not None:
        packaging = file.packaging
        if is_local(place):
            place = Path(place).parent
        elif len(dataset.packed(packaging)) > 1:
            place = str(place).rpartition("/")[0]
    else:
        packaging = _packaging_at(dataset, place, [each for each in splits if each not in skip])
    groups: list[Group] = []
    for split in splits:
        members, archives = [split], list(dataset.archives_of(split, packaging))
        for other in [group for group in groups if not set(group[1]).isdisjoint(archives)]:
            groups.remove(other)
            members, archives = [*other[0], *members], list(dict.fromkeys([*other[1], *archives]))
        groups.append((tuple(members), tuple(archives)))
    return place, groups


def _named_file(dataset: Dataset, place: str | Path) -> Archive | None:
    if place == STDIN:
        return None
    if is_local(place):
        if not Path(place).is_file():
            return None
        name = Path(place).name
    else:
        name = urlsplit(str(place)).path.rpartition("/")[2]
    for archive in dataset.archives:
        if archive.name == name and archive.splits:
            return archive
    if not is_local(place):
        return None
    names = ", ".join(archive.name for archive in dataset.archives if archive.splits)
    raise ImnetprepError(
        f"{dataset.name} has no archive called {name}",
        hint=f"name its --dataset, or rename it to what it is: {names}",
    )


def _packaging_at(dataset: Dataset, place: str | Path, splits: Sequence[Split]) -> str | None:
    """The first packaging of which an archive lies at `place`, else the published one."""
    packagings = dataset.packagings
    if place == STDIN or len(packagings) == 1 or not splits:
        return packagings[0]
    for packaging in packagings:
        archives = [
            each for each in dataset.packed(packaging) if not set(splits).isdisjoint(each.splits)
        ]
        if any(_is_there(place, archive.name) for archive in archives):
            return packaging
    return packagings[0]


def _is_there(place: str | Path, name: str) -> bool:
    if is_local(place):
        path = Path(place) / name
        return path.exists() or consumed_path(path).exists()
    try:
        open_archive(place, name).close()
    except SourceFailed:
        return False
    return True


def check_sizes(
    root: Root, dataset: Dataset, archives: Sequence[Archive], *, place: str | Path, consume: bool
) -> int:
    """The bytes of `archives`, as far as they are known; raises where one has a wrong size."""
    if consume:
        _require_one_tar(archives, place)
    return sum(_size_bytes(root, dataset, each, place, consume=consume) for each in archives)


def _require_one_tar(archives: Sequence[Archive], place: str | Path) -> None:
    addresses = ", ".join(address_of(place, archive.name) for archive in archives)
    hint = "leave --consume out; no copy of the archive is made"
    if not is_local(place):
        raise WrongUsage(
            f"{addresses} is not on this machine: there is nothing to consume", hint=hint
        )
    if len(archives) > 1 or archives[0].form not in PLAIN_FORMS or archives[0].split is None:
        raise WrongUsage(
            f"{addresses} cannot be consumed: only an uncompressed tar of one split can", hint=hint
        )


def _size_bytes(
    root: Root, dataset: Dataset, archive: Archive, place: str | Path, *, consume: bool
) -> int:
    pieces = published_pieces(dataset, archive)
    dataset_bytes = archive.size_bytes or (pieces.size_bytes if pieces else None)
    path = Path(place) / archive.name
    remnant = consumed_path(path)
    if consume:
        require_consumable(archive_at(archive, place, root), root, pieces=pieces)
        if remnant.exists():
            return remnant.stat().st_size
    elif remnant.exists() and not path.exists():
        other = other_consumer(path, root.path)
        hint = "there, with the options that it was begun with"
        raise ImnetprepError(
            f"{remnant} was partly deleted by an unfinished organize --consume of"
            f" {other or root.path}",
            hint=f"resume {hint if other else 'with imnetprep organize --consume'};"
            " or remove it, and imnetprep download",
        )
    with closing(open_archive(place, archive.name)) as file:
        size_bytes = file.size_bytes
    if size_bytes is not None and dataset_bytes not in (None, size_bytes):
        raise WrongBytes(
            f"{address_of(place, archive.name)} has {size_bytes:,} bytes;"
            f" {dataset.name} has {dataset_bytes:,} there",
            hint=f"--dataset NAME|FILE.toml if it is another dataset; {FETCH_AGAIN}",
        )
    return size_bytes or dataset_bytes or 0
