"""Single samples taken anew: of an archive, or of the folder that images of one's own came from.

The one place where repair touches the readers of archives.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from imnetprep.archives.chunk_stream import ChunkStream
from imnetprep.archives.file import ArchiveFile, read_all
from imnetprep.archives.ranges import Range, open_section, plan_ranges
from imnetprep.archives.tar import BLOCK_BYTES, FileStream, Member, Stream, members, refused
from imnetprep.catalog.datasets import Archive, Dataset, Split
from imnetprep.extracting.sink import LARGEST_SAMPLE_BYTES
from imnetprep.images import decoding_problem
from imnetprep.messages import ImnetprepError, WrongBytes
from imnetprep.proving.readers import PieceReader, Reader
from imnetprep.proving.receipt import NoProof, Proof, choose_proof
from imnetprep.sources.torrent import published_pieces


class SamplePlace(NamedTuple):
    """A sample in the archive: its header and its body lie from `start` to `end`.

    In a folder of its own: 0 and its size.
    """

    label: int
    name: str
    start: int
    end: int


class Originals:
    """A folder with the images of one's own, by class or not: as a Retake. The manifest has their
    digests.
    """

    proof = None

    def __init__(self, dataset: Dataset, split: Split, folder: Path) -> None:
        self._dataset, self._split, self._folder = dataset, split, folder

    def found(self, labels: set[int], wants: Callable[[int, str], bool]) -> Iterator[SamplePlace]:
        """As `Retake.found`."""
        for label in sorted(labels):
            for name in self._dataset.names(self._split, label) or ():
                if wants(label, name) and (path := self._path(label, name)).is_file():
                    yield SamplePlace(label, name, 0, path.stat().st_size)

    def bodies(
        self, places: Sequence[SamplePlace]
    ) -> Iterator[tuple[SamplePlace, bytes | WrongBytes]]:
        """The bytes of each, or why they are no image: then they never were one."""
        for each in places:
            path = self._path(each.label, each.name)
            try:
                body = path.read_bytes()
                problem = decoding_problem(body, giants=True)
            except OSError as error:
                problem = f"cannot be read: {error.strerror}"
            if problem:
                yield each, WrongBytes(f"{path} {problem}", hint="mend it there, or leave it out")
            else:
                yield each, body

    def _path(self, label: int, name: str) -> Path:
        """Where the image is; where it would be by its class, if it is not there."""
        folder, wnid = self._folder, self._dataset.synsets[label].wnid
        paths = (folder / wnid / name, folder / self._split / wnid / name, folder / name)
        return next((path for path in paths if path.is_file()), paths[0])


class Retake:
    """`archive`, which holds `split`, open as `file`; `earlier` is what proved it already."""

    def __init__(
        self,
        dataset: Dataset,
        split: Split,
        archive: Archive,
        file: ArchiveFile,
        *,
        earlier: Proof | None,
    ) -> None:
        self._dataset, self._split, self._archive, self._file = dataset, split, archive, file
        if self._archive.members:
            raise ImnetprepError(
                f"{file.name} is read as a whole: no single image can be taken from it",
                hint=f"mv the {split} folder away, then imnetprep organize makes it again",
            )
        self._pieces = published_pieces(dataset, self._archive)
        proof = choose_proof(self._archive, self._pieces, earlier=earlier)
        self._is_proved = proof == earlier and not isinstance(proof, NoProof)

    @property
    def proof(self) -> str | None:
        """What proves the bytes that are given out, beside what the manifest says of them."""
        if self._pieces is not None:
            return "the torrent's pieces"
        return "the archive's receipt" if self._is_proved else None

    def found(self, labels: set[int], wants: Callable[[int, str], bool]) -> Iterator[SamplePlace]:
        """The samples of `labels` in the archive that `wants(label, name)`; bodies are not read."""
        for member, body_start, wnid in self._members(labels):
            label = self._dataset.label_of(self._split, member.name, wnid)
            fits = label is not None and wnid in (None, self._dataset.synsets[label].wnid)
            if label is None or not fits or not wants(label, member.name):
                continue
            blocks = -(-member.size_bytes // BLOCK_BYTES)
            yield SamplePlace(label, member.name, member.start, body_start + blocks * BLOCK_BYTES)

    def bodies(
        self, places: Sequence[SamplePlace]
    ) -> Iterator[tuple[SamplePlace, bytes | WrongBytes]]:
        """The proved bytes of each, or what is wrong with them."""
        reader = Reader(self._file)
        if self._pieces is not None and not self._is_proved:
            ranges = [Range(each.start, each.end, None) for each in places]
            reader = PieceReader(self._file, self._pieces, ranges, 0)
        with closing(reader):
            for each in places:
                try:
                    yield each, self._body(each, reader)
                except WrongBytes as error:
                    yield each, error

    def _body(self, place: SamplePlace, reader: Reader) -> bytes:
        """The header is read again among the proved bytes: nothing had proved it in the walk."""
        if place.end - place.start > LARGEST_SAMPLE_BYTES:
            raise self._refused(place)
        raw = b"".join(reader.chunks(place.start, place.end))
        stream = FileStream(lambda offset, length: raw[offset : offset + length])
        member = next(members(stream, name=self._archive.name, end=len(raw), marked=False), None)
        if member is None or member.name != place.name:
            raise self._refused(place)
        return bytes(stream.take(member.size_bytes))

    def _members(self, labels: set[int]) -> Iterator[tuple[Member, int, str | None]]:
        """Each member with where its body starts, and the class tar that it is in."""
        name, size_bytes = self._archive.name, self._file.size_bytes or 0
        if self._archive.form == "tar":
            stream = self._walk(0, size_bytes)
            for member in members(stream, name=name, end=size_bytes):
                yield member, stream.position, None
            return
        ranges = plan_ranges(
            self._archive, self._dataset.published, size_bytes=size_bytes, read_at=self._read_at
        )
        for each in ranges:
            if each.wnid is not None and self._dataset.label_of_wnid.get(each.wnid) in labels:
                stream = self._walk(each.start, each.end)
                for member in open_section(each, stream, self._archive).members:
                    yield member, stream.position, each.wnid

    def _walk(self, start: int, end: int) -> Stream:
        """A file here is read header by header; one far away in whole, with no trip for each."""
        if self._file.is_far:
            chunks = Reader(self._file).chunks(start, end)
            return ChunkStream(chunks, start, name=self._archive.name)
        return FileStream(self._read_at, position=start)

    def _read_at(self, offset: int, length: int) -> bytes:
        return read_all(self._file, offset, offset + length)

    def _refused(self, place: SamplePlace) -> WrongBytes:
        problem = f"{place.name!r} at byte {place.start:,} is not a sample"
        return refused(self._archive.name, problem)
