"""Where archives lie, as the user names it: a folder here, a bucket, a web server, or a pipe."""

import re
import sys
from pathlib import Path
from urllib.parse import urlsplit

from imnetprep.archives.file import ArchiveFile, Pipe, open_local
from imnetprep.messages import WrongUsage
from imnetprep.outside_text import public_address

STDIN = "-"
_S3, _WEB = "s3://", ("https://", "http://")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_local(place: str | Path) -> bool:
    """Is it a folder on this machine? Raises WrongUsage on an address of no known scheme."""
    if place == STDIN:
        return False
    if str(place).startswith((_S3, *_WEB)):
        try:
            urlsplit(str(place))
        except ValueError as error:
            public = public_address(str(place), mark="…")
            raise WrongUsage(f"{public} is no address: {error}", hint="write it anew") from error
        return False
    if isinstance(place, str) and (scheme := _SCHEME.match(place)):
        raise WrongUsage(
            f"{scheme[0]}… is no source of archives",
            hint="name a folder, s3://BUCKET/PREFIX, https://…, or - for a pipe",
        )
    return True


def address_of(place: str | Path, name: str) -> str:
    """The archive called `name` at `place`, as people would write it, and without secrets."""
    if place == STDIN:
        return "stdin"
    return str(Path(place) / name) if is_local(place) else public_address(_address(place, name))


def _address(place: str | Path, name: str) -> str:
    """The address of the archive, with what opens it; the query of its folder is its own."""
    folder, mark, query = str(place).partition("?")
    if not folder.endswith(f"/{name}"):
        folder = f"{folder.removesuffix('/')}/{name}"
    return folder + mark + query


def open_archive(place: str | Path, name: str) -> ArchiveFile:
    """The archive called `name` at `place`; a web address or an object may also name the file.

    Raises ImnetprepError where it is not there.
    """
    if place == STDIN:
        return Pipe(sys.stdin.buffer, name)
    if is_local(place):
        return open_local(Path(place) / name)
    address = _address(place, name)
    if address.startswith(_S3):
        from imnetprep.s3.address import parse_s3_address
        from imnetprep.s3.object import S3Object

        return S3Object(parse_s3_address(address))
    from imnetprep.sources.web import WebFile, web_origin

    return WebFile(web_origin(address))
