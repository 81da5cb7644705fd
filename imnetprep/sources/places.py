"""Where archives lie, as the user names it: a folder here, a bucket, a service, or a pipe.

`SCHEMES` has every kind of address, with what opens it.
"""

import re
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from imnetprep.archives.file import ArchiveFile, Pipe, open_local
from imnetprep.messages import SourceFailed, WrongUsage
from imnetprep.outside_text import public_address
from imnetprep.sources import drive, github, hub, kaggle, storage
from imnetprep.sources.origin import Origin, web_origin

STDIN = "-"
_S3 = "s3"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(//)?")


class Scheme(NamedTuple):
    """A kind of address: what it is of, an example, and the origin of a file there; None: S3."""

    title: str
    example: str
    origin: Callable[[str], Origin] | None


def _web_origin(address: str) -> Origin:
    is_drive = drive.is_share_link(address)
    return drive.drive_origin(address) if is_drive else web_origin(address)


_WEB = Scheme("a web server", "https://example.org/archives", _web_origin)
SCHEMES: Mapping[str, Scheme] = {
    "https": _WEB,
    "http": _WEB,
    _S3: Scheme("a bucket of S3, or of another store with its API", "s3://bucket/prefix", None),
    "gs": Scheme("a bucket of Google Cloud Storage", storage.EXAMPLE, storage.storage_origin),
    "kaggle": Scheme("a competition or a dataset of Kaggle", kaggle.EXAMPLE, kaggle.kaggle_origin),
    "hf": Scheme("a repository of the Hugging Face hub", hub.EXAMPLE, hub.hub_origin),
    "gdrive": Scheme("a file of Google Drive", drive.EXAMPLE, drive.drive_origin),
    "github": Scheme("the sources or a release of GitHub", github.EXAMPLE, github.github_origin),
}
_MOST_PAGES, _LARGEST_PAGE_BYTES = 100, 16 << 20
_NAMES_A_FILE = ("gdrive", "github")
_NEEDS_SLASHES = ("https", "http", _S3, "gs")


def scheme_of(place: str | Path) -> str | None:
    """The scheme of an address, one of SCHEMES; None: it is a path on this machine, or a pipe.

    Raises WrongUsage on an address of no known scheme, and on one that is damaged.
    """
    match = _SCHEME.match(place) if isinstance(place, str) else None
    if match is None or place == STDIN:
        return None
    scheme, has_slashes = match[1].lower(), bool(match[2])
    if not has_slashes and (scheme not in SCHEMES or Path(place).exists()):
        return None
    if scheme not in SCHEMES:
        raise WrongUsage(
            f"{match[0]}… is no source of archives",
            hint=f"name a folder, {', '.join(f'{each}:' for each in SCHEMES)} or - for a pipe;"
            " imnetprep sources has an example of each",
        )
    if not has_slashes and scheme in _NEEDS_SLASHES:
        raise WrongUsage(
            f"{match[0]}… is no address: two slashes are missing",
            hint=f"{scheme}://…, as in {SCHEMES[scheme].example}",
        )
    try:
        is_web = SCHEMES[scheme] is _WEB
        is_right = not is_web or bool(urlsplit(str(place)).hostname)
    except ValueError:
        is_right = False
    if not is_right:
        public = public_address(str(place), mark="…")
        raise WrongUsage(f"{public} is no address", hint="write it anew")
    return scheme


def is_local(place: str | Path) -> bool:
    """Is it a folder on this machine? Raises WrongUsage on an address of no known scheme."""
    return place != STDIN and scheme_of(place) is None


def address_of(place: str | Path, name: str) -> str:
    """The archive called `name` at `place`, as people would write it, and without secrets."""
    if place == STDIN:
        return "stdin"
    return str(Path(place) / name) if is_local(place) else public_address(_address(place, name))


def _plain(address: str) -> str:
    """An address with its scheme as SCHEMES has it, and without the slashes that a service's has.

    Raises WrongUsage where a part of the path would lead out of what it names.
    """
    scheme, rest = str(scheme_of(address)), address.partition(":")[2]
    rest = ("//" if scheme in _NEEDS_SLASHES else "") + rest.removeprefix("//")
    if SCHEMES[scheme] is not _WEB and scheme != _S3:
        if not {".", ".."}.isdisjoint(rest.split("/")):
            raise WrongUsage(f"{scheme}:… has a part . or ..", hint="name what it leads to")
        if scheme != "gs" and "?" in rest:
            raise WrongUsage(f"{scheme}:… takes no query", hint="leave out what is behind the ?")
    return f"{scheme}:{rest}"


def _address(place: str | Path, name: str) -> str:
    """The address of the archive, with what opens it; the query of its folder is its own."""
    address = _plain(str(place))
    if names_a_file(place):
        return address
    folder, mark, query = address.partition("?")
    is_bundle = folder.startswith("kaggle:") and kaggle.bundle_name(folder) == name
    if folder.rpartition("/")[2] != name and not is_bundle:
        folder = f"{folder.removesuffix('/')}/{name}"
    return folder + mark + query


def names_a_file(place: str | Path) -> bool:
    """Is `place` an address of one file, whatever it is called?"""
    scheme = scheme_of(place)
    return scheme in _NAMES_A_FILE or (
        scheme == "https" and drive.is_share_link(_plain(str(place)))
    )


def name_in(address: str) -> str:
    """What the file at an address that `names_a_file` is called; empty: its server alone knows."""
    plain = _plain(address)
    origin = SCHEMES[plain.partition(":")[0]].origin
    return origin(plain).name if origin else ""


def open_archive(place: str | Path, name: str) -> ArchiveFile:
    """The archive called `name` at `place`; an address may also name the file.

    Raises ImnetprepError where it is not there.
    """
    if place == STDIN:
        return Pipe(sys.stdin.buffer, name)
    if is_local(place):
        return open_local(Path(place) / name)
    file = open_address(_address(place, name))
    if names_a_file(place) and file.name != name:
        file.close()
        raise SourceFailed(
            f"{address_of(place, name)} is called {file.name}, not {name}",
            hint="call it what it is in the dataset, and name its --split",
        )
    return file


def open_address(address: str) -> ArchiveFile:
    """The file at `address`, of one of SCHEMES. Raises ImnetprepError where it is not there."""
    address = _plain(address)
    origin = SCHEMES[address.partition(":")[0]].origin
    if origin is None:
        from imnetprep.s3.address import parse_s3_address
        from imnetprep.s3.object import S3Object

        return S3Object(parse_s3_address(address))
    from imnetprep.sources.web import NoRanges, WebFile
    from imnetprep.sources.web_stream import WebStream

    try:
        return WebFile(origin(address))
    except NoRanges:
        return WebStream(origin(address))


def files_in(address: str) -> list[str] | None:
    """The names of the files in a folder of the hub, which alone lists them; None elsewhere.

    Raises ImnetprepError where there is no such folder.
    """
    address = _plain(address)
    if not address.startswith("hf:"):
        return None
    from imnetprep.sources.web_stream import WebStream

    names, origin = list[str](), hub.listing_origin(address)
    for _ in range(_MOST_PAGES):
        with closing(WebStream(origin)) as page:
            names += hub.parse_listing(page.read_at(0, _LARGEST_PAGE_BYTES), address)
            url = hub.next_page(page.link)
        if url is None:
            return names
        if not url.startswith(f"{hub.site()}/"):  # the token is of that host
            raise SourceFailed(f"{address}: the hub lists on at another host", hint="name a file")
        origin = replace(origin, address=url)
    raise SourceFailed(
        f"{address} has too many files to list", hint="name a folder of it, or a file"
    )
