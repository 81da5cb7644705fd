"""Which torrents have the archives of a dataset, and which of their files are wanted."""

import re
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from imnetprep.catalog.datasets import Archive, Dataset, Root, Split
from imnetprep.downloads.addresses import local_path
from imnetprep.messages import ImnetprepError, WrongBytes, WrongUsage
from imnetprep.outside_files import read_file
from imnetprep.outside_text import public_address
from imnetprep.sources.part_files import PartFiles, read_record, record_path
from imnetprep.sources.places import open_address
from imnetprep.sources.torrent import Magnet, Torrent, parse_magnet, read_torrent

MAGNET = "magnet:"
_LARGEST_BYTES = 64 << 20


def is_torrent(address: str) -> bool:
    """Is `address` that of a .torrent file, here or on a server?"""
    path = re.split("[?#]", address)[0] if "://" in address else address
    return not address.startswith(MAGNET) and path.lower().endswith(".torrent")


def torrent_at(address: str) -> Torrent:
    """The torrent in the .torrent file at `address`. Raises ImnetprepError where there is none."""
    path = local_path(address)
    if path is not None:
        return read_torrent(read_file(path))
    with closing(open_address(address)) as file:
        body = file.read_at(0, _LARGEST_BYTES + 1)
    if len(body) > _LARGEST_BYTES:
        raise WrongBytes(
            f"{public_address(address)} is larger than any .torrent file",
            hint="name the address of the .torrent, or its magnet link",
        )
    try:
        return read_torrent(body)
    except ImnetprepError as error:
        raise ImnetprepError(f"{public_address(address)}: {error}", hint=error.hint) from error


def published_torrent(dataset: Dataset, archive: Archive) -> Torrent | Magnet:
    magnet = parse_magnet(archive.magnet) if archive.magnet else None
    if archive.torrent is not None:
        return read_torrent(dataset.published.read(archive.torrent), magnet=magnet)
    if magnet is not None:
        return magnet
    labels = "; it has no labels: organize and train leave it alone"
    raise ImnetprepError(
        f"{dataset.name} names no torrent for {archive.name}"
        f"{labels if archive.split is Split.TEST else ''}",
        hint=(f"it is published at {archive.url}; " if archive.url else "")
        + "with a torrent of your own: --magnet URI or --torrent FILE",
    )


def with_metadata(source: Torrent | Magnet, dataset: Dataset, root: Root) -> Torrent | Magnet:
    """The torrent of a magnet link, where the dataset or the record of an earlier run has it."""
    if isinstance(source, Torrent):
        return source
    bodies = [dataset.published.read(each.torrent) for each in dataset.archives if each.torrent]
    if record := read_record(record_path(root.archives, source.info_hash)):
        bodies.append(record.torrent.body)
    torrents = (read_torrent(body, magnet=source) for body in bodies)
    return next((each for each in torrents if each.info_hash == source.info_hash), source)


def parts_of(
    torrents: Sequence[Torrent],
    dataset: Dataset,
    folder: Path,
    *,
    to_fetch: Sequence[str],
    present: Sequence[str],
) -> list[PartFiles]:
    """The parts, in `folder`, of each archive `to_fetch`.

    Raises WrongUsage on a torrent that nothing is left for. One of archives that are `present` is
    none such: the same command resumes.
    """
    downloads, rest = [], set(to_fetch)
    names = {*to_fetch, *present}
    for torrent in torrents:
        archives = _archives_in(torrent, dataset)
        if names.isdisjoint(archives.values()):
            raise WrongUsage(
                f"torrent {torrent.info_hash} is not used: it has {', '.join(archives.values())},"
                " which --split leaves out or another torrent has",
                hint="leave out its --magnet or --torrent",
            )
        names.difference_update(archives.values())
        files = {index: folder / name for index, name in archives.items() if name in rest}
        rest.difference_update(archives.values())
        if files:
            downloads.append(PartFiles(torrent, files))
    if rest:
        raise ImnetprepError(
            f"none of the torrents has {', '.join(sorted(rest))}",
            hint="name one that has it, or just the splits that you want: --split NAME",
        )
    return downloads


def _archives_in(torrent: Torrent, dataset: Dataset) -> dict[int, str]:
    """The archives of `dataset` in `torrent`, by file index. The folders in its names are dropped.

    Raises WrongBytes where a file has an archive's name and not its size, and where none is an
    archive of the dataset.
    """
    archives = {archive.name: archive for archive in dataset.archives}
    found = {file.index: file.name for file in torrent.files if file.name in archives}
    hint = "name the dataset it belongs to: --dataset NAME|FILE.toml"
    for file in torrent.files:
        size_bytes = archives[file.name].size_bytes if file.name in archives else None
        if size_bytes not in (None, file.size_bytes):
            raise WrongBytes(
                f"the torrent's {file.name} has {file.size_bytes:,} bytes;"
                f" {dataset.name} has {size_bytes:,} there",
                hint=hint,
            )
    if not found:
        contents = ", ".join(file.name for file in torrent.files[:3])
        raise WrongBytes(
            f"torrent {torrent.info_hash} has {contents}; {dataset.name} has {', '.join(archives)}",
            hint=hint,
        )
    return found
