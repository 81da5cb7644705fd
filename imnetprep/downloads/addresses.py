"""What the addresses of a download name: files, by their names here, and where each can be had."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from imnetprep.archive_parts import split_of_parquet
from imnetprep.archives.file import ARCHIVE_ENDINGS, ArchiveFile, missing_archive, open_local
from imnetprep.catalog.datasets import (
    BUILT_IN,
    Archive,
    Dataset,
    Root,
    Split,
    load_dataset,
    with_labels,
)
from imnetprep.messages import ImnetprepError, WrongUsage
from imnetprep.outside_text import public_address, shown, without_credentials
from imnetprep.sources.kaggle import bundle_name
from imnetprep.sources.places import (
    STDIN,
    address_of,
    files_in,
    is_local,
    name_in,
    names_a_file,
    open_address,
    open_archive,
)
from imnetprep.synced_prefix import archives_at, dataset_at, packaging_at

_FILE = "file://"
_LONGEST_NAME_BYTES = 200
_OF_UNFINISHED = (".part", ".consumed", ".wrong", ".lock")


class Place(NamedTuple):
    """Where a file lies: in the folder `address`, called `name`; None: it is at that address."""

    address: str
    name: str | None

    @property
    def title(self) -> str:
        """The place as people would write it, without secrets."""
        if is_local(self.address):  # wherever the next command is run
            return str(Path(self.address, self.name or "").absolute())
        if self.name is not None:
            return address_of(self.address, self.name)
        return public_address(self.address)

    def open(self) -> ArchiveFile:
        """The file there. Raises ImnetprepError where it is not."""
        if self.name is not None:
            return open_archive(self.address, self.name)
        if is_local(self.address):
            return open_local(Path(self.address))
        return open_address(self.address)


@dataclass(frozen=True)
class FileRequest:
    """A file to fetch, called `name` here; None: as its server calls it.

    `archive`: what it is in the dataset; None: it is none of that. `places` have one and the same
    file.
    """

    name: str | None
    archive: Archive | None
    places: tuple[Place, ...]

    @property
    def title(self) -> str:
        """The file in a line for people."""
        return self.name or self.places[0].title


def is_safe_name(name: str) -> bool:
    """May a file in ROOT/archives be called so, whoever says it?

    It leads nowhere else, hides nothing, can be shown and kept, and is no name of ours.
    """
    is_plain = name.isprintable() and "/" not in name and not name.startswith(".")
    is_short = len(os.fsencode(name)) <= _LONGEST_NAME_BYTES
    return bool(name) and is_plain and is_short and not name.endswith(_OF_UNFINISHED)


def local_path(address: str) -> Path | None:
    """The path on this machine that `address` is, `file://` or not; None: it is of a server."""
    if address.startswith(_FILE):
        host, slash, path = address.removeprefix(_FILE).partition("/")
        if host not in ("", "localhost"):
            raise WrongUsage(
                f"{address} is a file of {host}", hint="mount it, or name a server that has it"
            )
        return Path(unquote(slash + path))
    return Path(address) if is_local(address) else None


def dataset_of_download(root: Root, name: str | None, addresses: Sequence[str]) -> Dataset:
    """The dataset called `name`, or that of `root`; else the one that the addresses speak of.

    That is what a manifest beside them says, or the built-in one that has an archive of that name;
    else ours. Raises as `dataset_at`.
    """
    if name is None and not root.manifest.exists():
        names = {_last_part(address) for address in addresses}
        for dataset in map(load_dataset, BUILT_IN):
            if not names.isdisjoint(archive.name for archive in dataset.archives):
                return dataset
    place = addresses[0] if addresses else None
    return dataset_at(root, name, place)


def file_requests(
    addresses: Sequence[str], dataset: Dataset, splits: Sequence[Split]
) -> list[FileRequest]:
    """The files that `addresses` name, each once; a folder has the archives of `splits`.

    Raises ImnetprepError where one names nothing.
    """
    requests: dict[str, FileRequest] = {}
    for address in addresses:
        for request in _requests(address, dataset, splits):
            if request.name is not None and not is_safe_name(request.name):
                raise WrongUsage(
                    f"{request.places[0].title} ends in {shown(request.name)!r}, which is no name"
                    " for a file here",
                    hint="name an address that ends in a plain name, or rename the file",
                )
            archive = request.archive
            own_splits = (archive.splits or archive.labels_of) if archive else ()
            if archive is not None and splits and set(splits).isdisjoint(own_splits):
                own = " and ".join(own_splits) or "no split"
                raise WrongUsage(
                    f"{archive.name} has {own}, not {' and '.join(splits)}",
                    hint="leave --split out, or name the archive that has it",
                )
            key = request.name or request.title
            earlier = requests.get(key, replace(request, places=()))
            places = tuple(dict.fromkeys([*earlier.places, *request.places]))
            requests[key] = replace(earlier, places=places)
    return list(requests.values())


def published_request(archive: Archive) -> FileRequest | None:
    """The archive from where its publisher has it on the web; None: nowhere."""
    if archive.url is None:
        return None
    return FileRequest(archive.name, archive, (Place(archive.url, None),))


def _requests(address: str, dataset: Dataset, splits: Sequence[Split]) -> Iterator[FileRequest]:
    if address == STDIN:
        raise WrongUsage(
            "a pipe is no address to download from", hint="imnetprep organize --archives -"
        )
    archives = {archive.name: archive for archive in dataset.published.archives}
    path = local_path(address)
    if path is not None:
        address = str(path)
    if path is not None and path.is_file():
        yield FileRequest(path.name, archives.get(path.name), (Place(address, None),))
        return
    if path is not None and not path.is_dir():
        sentence = without_credentials(missing_archive(path))
        raise ImnetprepError(sentence, hint="imnetprep sources lists what there is")
    name = None if path is not None else _file_name(address, archives)
    names = files_in(address) if name is None and path is None else None
    if names is not None and archives.keys().isdisjoint(names):
        yield from _parquet_requests(address, names, splits or dataset.splits)
    elif name is None:
        place = archives_at(address, archives)
        packaging = packaging_at(dataset.published, place, set(splits or dataset.splits))
        for split in splits or dataset.splits:
            for archive in dataset.published.archives_of(split, packaging):
                for each in with_labels(archive):
                    yield FileRequest(each.name, each, (Place(str(place), each.name),))
    else:
        yield FileRequest(name or None, archives.get(name), (Place(address, None),))


def _parquet_requests(
    address: str, names: Sequence[str], splits: Sequence[Split]
) -> Iterator[FileRequest]:
    """The parquet files of `splits` in a folder, as the hub packs images."""
    own = [name for name in names if split_of_parquet(name) in splits]
    if not own:
        raise ImnetprepError(
            f"{address} has no archive and no parquet file of {' or '.join(splits)}",
            hint="name a folder or a file of it: hf:datasets/OWNER/NAME/FOLDER",
        )
    for name in own:
        yield FileRequest(name, None, (Place(f"{address.rstrip('/')}/{name}", None),))


def _file_name(address: str, archives: dict[str, Archive]) -> str | None:
    """What the file at `address` is called, empty: its server knows; None: it is of a folder."""
    if names_a_file(address):
        return name_in(address)
    name = _last_part(address)
    is_file = name in archives or name.lower().endswith(ARCHIVE_ENDINGS)
    return name if is_file or address.startswith("kaggle:") else None


def _last_part(address: str) -> str:
    """What the file at `address` is called, as far as that says."""
    if (path := local_path(address)) is not None:
        return path.name
    if address.startswith("kaggle:") and (name := bundle_name(address)):
        return name
    if names_a_file(address):
        return name_in(address)
    return unquote(urlsplit(address).path.rpartition("/")[2])
