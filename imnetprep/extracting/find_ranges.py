"""An open archive, and which ranges it has: from its index, its directory or its headers."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from imnetprep.archives.compression import COMPRESSED_FORMS
from imnetprep.archives.file import ArchiveFile, read_all
from imnetprep.archives.prefetch import PrefetchedFile
from imnetprep.archives.range_index import format_index, parse_index
from imnetprep.archives.ranges import Range, Section, open_section, plan_ranges, walked_ranges
from imnetprep.archives.tar import Stream
from imnetprep.catalog.datasets import Archive, Dataset
from imnetprep.digests import Pieces
from imnetprep.extracting.zip_ranges import Zip
from imnetprep.fs import written_whole
from imnetprep.proving.receipt import Proof


@dataclass(frozen=True)
class Source:
    """An archive that is open as `file`.

    `pieces` are those of its torrent; `earlier` is what proved it already. `index` is where its
    ranges are kept, `ranges` what is known of them already; `on_committed` gets each range
    once its samples are safe on the disk.
    """

    archive: Archive
    file: ArchiveFile
    pieces: Pieces | None = None
    earlier: Proof | None = None
    index: Path | None = None
    ranges: Sequence[Range] | None = None
    on_committed: Callable[[Range], None] | None = None

    @property
    def identity(self) -> str:
        """Which bytes these are: the torrent's, or else this very file as it is now."""
        return self.file.identity if self.pieces is None else f"torrent {self.pieces.info_hash}"


class Ranges:
    """The ranges of `source` where samples of `dataset` may lie; that may be part of what it holds.

    `spans` are those that it has, once they are found.
    """

    def __init__(self, source: Source, dataset: Dataset) -> None:
        self.source, self.dataset = source, dataset
        self._archive, self._file = source.archive, source.file
        self._zip: Zip | None = None
        self.spans = source.ranges

    @property
    def size_bytes(self) -> int:
        """How long the archive is, as far as anybody knows."""
        pieces = self.source.pieces
        size_bytes = self._file.size_bytes or self._archive.size_bytes
        return size_bytes or (pieces.size_bytes if pieces else 0)

    def want_order(self) -> bool:
        """By its form; in a pipe; or where a server would be asked for many headers."""
        one_by_one = self._file.is_far and self._archive.form == "tar" and not self._are_known
        return self._archive.form in COMPRESSED_FORMS or not self._file.seekable or one_by_one

    def find(self) -> Sequence[Range]:
        """From the index that is kept, or by walking the archive's headers; then they are kept."""
        index = self.source.index
        if (directory := self.open_zip()) is not None:
            self.spans = directory.ranges
            return self.spans
        if self.spans is None and index is not None and index.exists():
            body, whole = index.read_bytes(), self.dataset.published
            self.spans = parse_index(body, self._archive, whole, of=self._file)
        if self.spans is None:
            self.spans = self._plan()
        if index is not None and not index.exists():
            with written_whole(index) as file:
                file.write(format_index(self.spans, of=self._file))
        return self.spans

    def may_walk_ahead(self) -> bool:
        """Is it far, are its classes not known, and does no proof want to know them first?"""
        by_class = self._file.is_far and self._archive.form == "tar-of-tars"
        return by_class and self.source.pieces is None and not self._are_known

    def walk(self, file: PrefetchedFile) -> Iterator[Range]:
        """The ranges, each as soon as it is known; they are kept once all are."""
        found = []
        for each in walked_ranges(
            self._archive,
            self.dataset.published,
            size_bytes=self._seekable_bytes,
            read_at=lambda offset, length: read_all(file, offset, offset + length),
        ):
            found.append(each)
            yield each
        self.spans = found
        self.find()  # which keeps them

    def leave_out(self) -> bool:
        """Are there ranges that need not be read, for nothing of the dataset lies in them?"""
        if self.dataset is self.dataset.published or not self._file.seekable:
            return False
        by_class = self._archive.form in ("tar-of-tars", "zip")
        return by_class and not all(map(self.may_hold, self.find()))

    def may_hold(self, span: Range | Section) -> bool:
        """May samples of the dataset lie there?"""
        if self.dataset is self.dataset.published:
            return True
        if span.wnid is not None:
            return span.wnid in self.dataset.label_of_wnid
        return not isinstance(span, Range) or self._zip is None or self._zip.holds_samples(span)

    def open(self, span: Range, stream: Stream) -> Section:
        """The section of one range, from a stream that stands at its start."""
        if self._zip is not None:
            return self._zip.section(span, stream)
        return open_section(span, stream, self._archive)

    def open_zip(self) -> Zip | None:
        """The directory of a zip, read once; None for other forms."""
        if self._zip is None and self._archive.form == "zip":
            self._zip = Zip(
                self._archive, self.dataset, size_bytes=self._seekable_bytes, read_at=self._read_at
            )
        return self._zip

    @property
    def _are_known(self) -> bool:
        index = self.source.index
        return self.spans is not None or (index is not None and index.exists())

    def _plan(self) -> list[Range]:
        whole, size_bytes = self.dataset.published, self._seekable_bytes
        return plan_ranges(self._archive, whole, size_bytes=size_bytes, read_at=self._read_at)

    @property
    def _seekable_bytes(self) -> int:
        assert self._file.size_bytes is not None, "no pipe"
        return self._file.size_bytes

    def _read_at(self, offset: int, length: int) -> bytes:
        return read_all(self._file, offset, offset + length)
