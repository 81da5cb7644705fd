"""Where archives lie, as the user names it: a folder here, or `-` for what comes in by a pipe."""

import sys
from pathlib import Path

from imnetprep.archives.file import ArchiveFile, Pipe, open_local

STDIN = "-"


def address_of(place: str | Path, name: str) -> str:
    """The archive called `name` at `place`, as people would write it."""
    return "stdin" if place == STDIN else str(Path(place) / name)


def open_archive(place: str | Path, name: str) -> ArchiveFile:
    """The archive called `name` at `place`. Raises ImnetprepError where it is not there."""
    if place == STDIN:
        return Pipe(sys.stdin.buffer, name)
    return open_local(Path(place) / name)
