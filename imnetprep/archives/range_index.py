"""`NAME.index.json`: the ranges of an archive, so that its headers need not be walked again.

Kept beside an archive that is far away or being consumed. A wrong index cannot make a wrong
dataset: each range's own header, all names and all counts are still checked, and what it says of
a proof holds for one file. The root that it names is for people to read.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from imnetprep.archives.file import ArchiveFile
from imnetprep.archives.ranges import Range
from imnetprep.catalog.datasets import Archive, Dataset
from imnetprep.messages import ImnetprepError

SUFFIX = ".index.json"
_DAMAGE = (ValueError, TypeError, LookupError, RecursionError)
_LONGEST_PATH = 4096


def format_index(
    ranges: Sequence[Range],
    *,
    of: ArchiveFile,
    proof: Mapping[str, Any] | None = None,
    inode: int | None = None,
    root: Path | None = None,
) -> bytes:
    """The index of the archive `of`, as it is kept.

    `proof` is the record of what proved it; it holds for the file with this `inode`. `root` is the
    one that it is consumed for.
    """
    table = {"archive": of.name, "size_bytes": of.size_bytes, "proof": proof, "inode": inode}
    return _format({**table, "root": root and str(root), "ranges": ranges})


def renamed_root(body: bytes, root: Path) -> bytes:
    """An index with another root in it, and all else as it was."""
    return _format({**json.loads(body), "root": str(root)})


def _format(table: Mapping[str, Any]) -> bytes:
    return json.dumps(table).encode() + b"\n"


def parse_index(body: bytes, archive: Archive, dataset: Dataset, *, of: ArchiveFile) -> list[Range]:
    """The ranges of `archive` that the index lists. Raises ImnetprepError if it is of others."""
    size_bytes = of.size_bytes or 0
    try:
        table = json.loads(body)
        ranges = [_parse_range(*each) for each in table["ranges"]]
        is_same = (table["archive"], table["size_bytes"]) == (archive.name, size_bytes)
    except _DAMAGE as error:
        raise _wrong(archive.name, f"is damaged: {error}") from error
    ends = [0, *(each.end for each in ranges)]
    starts = [*(each.start for each in ranges), size_bytes]
    end_to_end = starts[:-1] == ends[:-1] and ends == sorted(set(ends)) and ends[-1] < size_bytes
    wnids = [each.wnid for each in ranges]
    is_fitting = set(wnids) == {None}
    if archive.form == "tar-of-tars":
        is_fitting = len(set(wnids)) == len(wnids) and set(wnids) <= dataset.label_of_wnid.keys()
    if not (is_same and ranges and end_to_end and is_fitting):
        raise _wrong(archive.name, "is of other bytes")
    return ranges


def proof_record(body: bytes, archive: str, *, inode: int) -> object:
    """What an index records as the proof of the file with this `inode`, unparsed; None: nothing.

    Raises ImnetprepError where the index is damaged.
    """
    try:
        table = json.loads(body)
        return table["proof"] if table["inode"] == inode else None
    except _DAMAGE as error:
        raise _wrong(archive, f"is damaged: {error}") from error


def parse_root(body: bytes) -> Path | None:
    """The root that the index says the archive is consumed for; None: it says none to be shown.

    Nothing may depend on it: it may have moved since, and anybody can write anything there.
    """
    try:
        root = json.loads(body)["root"]
    except _DAMAGE:
        return None
    is_plain = isinstance(root, str) and len(root) <= _LONGEST_PATH and root.isprintable()
    return Path(root) if is_plain and Path(root).is_absolute() else None


def _parse_range(start: object, end: object, wnid: object) -> Range:
    if type(start) is not int or type(end) is not int or not isinstance(wnid, str | None):
        raise ValueError(f"{[start, end, wnid]} is no range")
    return Range(start, end, wnid)


def _wrong(archive: str, problem: str) -> ImnetprepError:
    return ImnetprepError(
        f"{archive}{SUFFIX} {problem}", hint="remove it; it is made again from the archive"
    )
