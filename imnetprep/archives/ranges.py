"""An archive as ranges of whole members: the units that are worked on, journalled and lost."""

from collections.abc import Callable, Iterator
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


class Bodies(Protocol):
    """Where the bodies of a section's members are taken from."""

    def take(self, length: int) -> memoryview:
        """The body of the member at hand, of `length` bytes."""


class Section(NamedTuple):
    """A range that is being read: its members, the body of each to be taken before the next."""

    start: int
    wnid: str | None
    members: Iterator[Member]
    bodies: Bodies


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
    classes = _Classes(archive, dataset)
    by_class, folders = archive.form == "tar-of-tars", bool(archive.members)
    start, first, wnid = 0, None, None  # what comes before the first, a folder's entry, is its
    for member in members(stream, name=archive.name, end=size_bytes, folders=folders):
        if first is not None:
            if not by_class and member.start - first < RUN_BYTES:
                continue
            yield Range(start, member.start, wnid)
            start = member.start
        first, wnid = member.start, classes.wnid_of(member) if by_class else None
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
        return Section(span.start, None, flat, stream)
    outer = next(members(stream, name=archive.name, end=span.end), None)
    if outer is None or outer.name != f"{span.wnid}.tar":
        raise WrongBytes(
            f"{archive.name}: {span.wnid}.tar does not start at byte {span.start:,}",
            hint="the archive or its index has changed; remove the index and try again",
        )
    return Section(span.start, span.wnid, _inner(outer, stream, archive), stream)


def sections(stream: Stream, archive: Archive, dataset: Dataset, *, end: int) -> Iterator[Section]:
    """The ranges of `archive`, found while it is read from its start to its end marker.

    A section's members are to be used up before the next section. Raises as `plan_ranges`.
    """
    outer = members(stream, name=archive.name, end=end, folders=bool(archive.members))
    if archive.form == "tar-of-tars":
        classes = _Classes(archive, dataset)
        for member in outer:
            start = member.start if classes.wnids else 0
            wnid = classes.wnid_of(member)
            yield Section(start, wnid, _inner(member, stream, archive), stream)
        found = bool(classes.wnids)
    else:
        first = next(outer, None)
        found, start = first is not None, 0
        while first is not None:
            run = _Run(first, outer)
            yield Section(start, None, iter(run), stream)
            first = run.next_first
            start = first.start if first else start
    if not found:
        raise _empty(archive)


class _Run:
    """The members of a flat archive from `first` on, as many as make a range."""

    def __init__(self, first: Member, rest: Iterator[Member]) -> None:
        self._first, self._rest = first, rest
        self.next_first: Member | None = None

    def __iter__(self) -> Iterator[Member]:
        yield self._first
        for member in self._rest:
            if member.start - self._first.start >= RUN_BYTES:
                self.next_first = member
                return
            yield member


class _Classes:
    """The class tars met so far."""

    def __init__(self, archive: Archive, dataset: Dataset) -> None:
        self._archive, self._dataset = archive, dataset
        self.wnids: set[str] = set()

    def wnid_of(self, member: Member) -> str:
        wnid = member.name.removesuffix(".tar")
        if wnid == member.name or wnid not in self._dataset.label_of_wnid or wnid in self.wnids:
            stranger = f"which {self._dataset.name} does not have"
            problem = "a second time" if wnid in self.wnids else stranger
            raise WrongBytes(
                f"{self._archive.name}: member {member.name!r}, {problem}",
                hint="name the dataset it belongs to: --dataset NAME|FILE.toml",
            )
        self.wnids.add(wnid)
        return wnid


def _inner(outer: Member, stream: Stream, archive: Archive) -> Iterator[Member]:
    name, end = f"{archive.name}: {outer.name}", stream.position + outer.size_bytes
    return members(stream, name=name, end=end)


def _empty(archive: Archive) -> WrongBytes:
    return WrongBytes(
        f"{archive.name} has no member at its start; another program may have reserved its"
        " space and not filled it",
        hint=FETCH_AGAIN,
    )
