"""An archive as ranges of whole members: the units that are worked on, journalled and lost."""

from collections.abc import Callable, Iterator
from itertools import groupby
from typing import NamedTuple, Protocol

from imnetprep.archives.tar import BLOCK_BYTES, FETCH_AGAIN, FileStream, Member, Stream, members
from imnetprep.catalog.datasets import Archive, Dataset
from imnetprep.messages import WrongBytes

# What a kill costs of a flat archive; a tar of tars has its classes.
RUN_BYTES = 64 << 20


class Range(NamedTuple):
    """Bytes `start` to `end` of an archive. `wnid` where they are one class tar."""

    start: int
    end: int
    wnid: str | None


class Section(NamedTuple):
    """A range that is being read: its members; `take(size_bytes)` gives the body of the last."""

    start: int
    wnid: str | None
    members: Iterator[Member]
    take: Callable[[int], memoryview]


class Contents(Protocol):
    """The samples of an archive that lists what is in it, by ranges."""

    @property
    def ranges(self) -> list[Range]:
        """All ranges, end to end."""

    def holds_samples(self, span: Range) -> bool:
        """Does a sample start in that range?"""

    def section(self, span: Range, stream: Stream) -> Section:
        """The section of one range, from a stream that stands at its start."""

    def sections(self, stream: Stream) -> Iterator[Section]:
        """All of them, from a stream that is read from its start to its end."""


def plan_ranges(
    archive: Archive, dataset: Dataset, *, size_bytes: int, read_at: Callable[[int, int], bytes]
) -> list[Range]:
    """The ranges of `archive` in order. Raises as `walked_ranges`."""
    return list(walked_ranges(archive, dataset, size_bytes=size_bytes, read_at=read_at))


def walked_ranges(
    archive: Archive, dataset: Dataset, *, size_bytes: int, read_at: Callable[[int, int], bytes]
) -> Iterator[Range]:
    """The ranges of `archive`, each found by a walk to the header behind it; bodies are not read.

    Raises WrongBytes on a class tar that the dataset does not have, or has once and here twice.
    """
    stream = FileStream(read_at)
    wnids: set[str] = set()
    by_class, folders = archive.form == "tar-of-tars", bool(archive.members)
    start, first, wnid = 0, None, None  # what comes before the first, a folder's entry, is its
    for member in members(stream, name=archive.name, end=size_bytes, folders=folders):
        if first is not None:
            if not by_class and member.start - first < RUN_BYTES:
                continue
            yield Range(start, member.start, wnid)
            start = member.start
        first = member.start
        wnid = _wnid_of(member, archive, dataset, wnids) if by_class else None
    if first is None:
        raise _empty(archive)
    yield Range(start, stream.position - BLOCK_BYTES, wnid)  # the end marker starts there


def open_section(span: Range, stream: Stream, archive: Archive) -> Section:
    """The section of one range, from a stream that stands at its start.

    Raises WrongBytes where another class lies there than the range says.
    """
    if span.wnid is None:
        folders = bool(archive.members)
        flat = members(stream, name=archive.name, end=span.end, marked=False, folders=folders)
        return Section(span.start, None, flat, stream.take)
    outer = next(members(stream, name=archive.name, end=span.end), None)
    if outer is None or outer.name != f"{span.wnid}.tar":
        raise WrongBytes(
            f"{archive.name}: {span.wnid}.tar does not start at byte {span.start:,}",
            hint="the archive or its index has changed; remove the index and try again",
        )
    return Section(span.start, span.wnid, _inner(outer, stream, archive), stream.take)


def sections(stream: Stream, archive: Archive, dataset: Dataset, *, end: int) -> Iterator[Section]:
    """The ranges of `archive`, found while it is read from its start to its end marker.

    A section's members are to be used up before the next section. Raises as `plan_ranges`.
    """
    by_class, firsts = archive.form == "tar-of-tars", list[int]()
    wnids: set[str] = set()

    def first_of_range(member: Member) -> int:
        if by_class or not firsts or member.start - firsts[-1] >= RUN_BYTES:
            firsts.append(member.start)
        return firsts[-1]

    outer = members(stream, name=archive.name, end=end, folders=bool(archive.members))
    for first, group in groupby(outer, first_of_range):
        start = first if len(firsts) > 1 else 0
        if by_class:
            member = next(group)
            wnid = _wnid_of(member, archive, dataset, wnids)
            yield Section(start, wnid, _inner(member, stream, archive), stream.take)
        else:
            yield Section(start, None, group, stream.take)
    if not firsts:
        raise _empty(archive)


def _wnid_of(member: Member, archive: Archive, dataset: Dataset, earlier: set[str]) -> str:
    """The class of a class tar, which joins the `earlier` ones."""
    wnid = member.name.removesuffix(".tar")
    if wnid in earlier:
        raise refused_member(archive, member.name, "a second time")
    if wnid == member.name:
        raise WrongBytes(
            f"{archive.name}: member {member.name!r}, where {dataset.name} has"
            f" {dataset.synsets[0].wnid + '.tar'!r}",
            hint="if it has class folders, unpack it, and adopt the folder that holds them",
        )
    if wnid not in dataset.label_of_wnid:
        raise refused_member(archive, member.name, f"which {dataset.name} does not have")
    earlier.add(wnid)
    return wnid


def refused_member(archive: Archive, member: str, reason: str) -> WrongBytes:
    """The error for a member of `archive` that does not belong there."""
    return WrongBytes(
        f"{archive.name}: member {member!r}, {reason}",
        hint="name the dataset it belongs to: --dataset NAME|FILE.toml",
    )


def _inner(outer: Member, stream: Stream, archive: Archive) -> Iterator[Member]:
    name, end = f"{archive.name}: {outer.name}", stream.position + outer.size_bytes
    return members(stream, name=name, end=end)


def _empty(archive: Archive) -> WrongBytes:
    return WrongBytes(
        f"{archive.name} has no member at its start; another program may have reserved its"
        " space and not filled it",
        hint=FETCH_AGAIN,
    )
