"""What is read of the files: every byte where asked for, else the end if no size is known."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from imnetprep.images import decoding_problem
from imnetprep.machine import is_of_file, named
from imnetprep.manifest import SampleRecord
from imnetprep.messages import Checks, Finding

_JPEG_END = b"\xff\xd9"


class Read(NamedTuple):
    """A file to read. `record` is what the manifest says of it, where one lists it."""

    path: str
    path_in_root: str
    belongs: str
    record: SampleRecord | None


def read_findings(reads: Sequence[Finding | Read], checks: Checks) -> list[Finding]:
    """What the bytes of some files tell, among the findings that need no reading."""
    found = []
    for read in reads:
        if isinstance(read, Finding):
            found.append(read)
            continue
        try:
            with named(read.path):
                problems = list(_problems(read, checks))
        except OSError as error:
            if not is_of_file(error):
                raise
            problems = [("unreadable", f"cannot be read: {error.strerror}")]
        for kind, message in problems:
            found.append(Finding(kind, read.path_in_root, message, read.belongs))
    return found


def _problems(read: Read, checks: Checks) -> Iterator[tuple[str, str]]:
    if not checks.read_every_file:
        # Without the end marker it may still be whole: a PNG, or bytes behind the marker.
        checks = Checks(decode=not _has_end_marker(read.path))
    if checks.read_every_file:
        yield from body_problems(Path(read.path).read_bytes(), read.record, checks)


def body_problems(
    body: bytes, record: SampleRecord | None, checks: Checks
) -> Iterator[tuple[str, str]]:
    """What is wrong with an image, each as the kind of a finding and its message."""
    if checks.digests and record is not None and not record.is_right(body):
        yield "digest", f"its xxh128 is not {record.xxh128.hex()}"
    if checks.decode and (problem := decoding_problem(body)):
        # A giant may be whole: it is too large to train on, and taken anew it would be as large.
        yield "giant" if decoding_problem(body, giants=True) is None else "decode", problem


def _has_end_marker(path: str) -> bool:
    """Do a JPEG's last two bytes stand at the end? Reads no more than those."""
    handle = os.open(path, os.O_RDONLY)
    try:
        end = os.fstat(handle).st_size
        return os.pread(handle, 2, max(0, end - 2)) == _JPEG_END
    finally:
        os.close(handle)
