"""Where archives lie, as the user names it: a folder here, a bucket, a web server, or a pipe."""

import re
import sys
from pathlib import Path
from urllib.parse import urlsplit

from imnetprep.archives.file import ArchiveFile, Pipe, open_local
from imnetprep.messages import WrongUsage

STDIN = "-"
_S3, _WEB = "s3://", ("https://", "http://")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_local(place: str | Path) -> bool:
    """Is it a folder on this machine? Raises WrongUsage on an address of no known scheme."""
    if place == STDIN or str(place).startswith((_S3, *_WEB)):
        return False
    if isinstance(place, str) and (scheme := _SCHEME.match(place)):
        raise WrongUsage(
            f"{scheme[0]}… is no source of archives",
            hint="name a folder, s3://BUCKET/PREFIX, https://…, or - for a pipe",
        )
    return True


def address_of(place: str | Path, name: str) -> str:
    """The archive called `name` at `place`, as people would write it."""
    if place == STDIN:
        return "stdin"
    text = str(place)
    if is_local(place):
        return str(Path(place) / name)
    path = urlsplit(text).path
    return text if path.endswith(f"/{name}") else f"{text.removesuffix('/')}/{name}"


def open_archive(place: str | Path, name: str) -> ArchiveFile:
    """The archive called `name` at `place`; a web address or an object may also name the file.

    Raises ImnetprepError where it is not there.
    """
    address = address_of(place, name)
    if place == STDIN:
        return Pipe(sys.stdin.buffer, name)
    if address.startswith(_S3):
        from imnetprep.s3.address import parse_s3_address
        from imnetprep.s3.object import S3Object

        return S3Object(parse_s3_address(address))
    if address.startswith(_WEB):
        from imnetprep.sources.https import HttpFile

        return HttpFile(address)
    return open_local(Path(address))
