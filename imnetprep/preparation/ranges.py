"""An archive as ranges of whole members: the units that are worked on, journalled and lost."""

from collections.abc import Callable
from typing import NamedTuple

from imnetprep.archives.tar import BLOCK_BYTES, FileStream, members
from imnetprep.catalog.datasets import Archive, Dataset
from imnetprep.errors import WrongBytes

# What a kill costs of a flat archive; a tar of tars has its classes.
_RUN_BYTES = 64 << 20


class Range(NamedTuple):
    """Bytes `start` to `end` of an archive. `wnid` where they are one class tar."""

    start: int
    end: int
    wnid: str | None


def plan_ranges(
    archive: Archive,
    dataset: Dataset,
    *,
    size_bytes: int,
    read_at: Callable[[int, int], bytes],
) -> list[Range]:
    """The ranges of `archive` in order, found by walking its headers; bodies are not read.

    Raises WrongBytes on a class tar that the dataset does not have, or has once and here twice.
    """
    stream = FileStream(read_at)
    starts: list[tuple[int, str | None]] = []
    seen: set[str] = set()
    for member in members(stream, name=archive.name, end=size_bytes):
        if archive.form == "tar-of-tars":
            wnid = member.name.removesuffix(".tar")
            if wnid == member.name or wnid not in dataset.label_of_wnid or wnid in seen:
                what = "a second time" if wnid in seen else f"which {dataset.name} does not have"
                raise WrongBytes(
                    f"{archive.name}: member {member.name!r}, {what}",
                    hint="name the dataset it belongs to: --dataset NAME|FILE.toml",
                )
            seen.add(wnid)
            starts.append((member.start, wnid))
        elif not starts or member.start - starts[-1][0] >= _RUN_BYTES:
            starts.append((member.start, None))
    if not starts:
        raise WrongBytes(
            f"{archive.name} has no member at its start; another program may have reserved its"
            " space and not filled it",
            hint="imnetprep download fetches what is missing of it",
        )
    tail = stream.position - BLOCK_BYTES  # where the end marker starts
    ends = [start for start, _ in starts[1:]] + [tail]
    return [Range(start, end, wnid) for (start, wnid), end in zip(starts, ends, strict=True)]
