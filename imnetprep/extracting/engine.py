"""An open archive: which ranges it has, which engine extracts them, and through which reader."""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

from imnetprep.archives.compression import COMPRESSED_FORMS
from imnetprep.archives.file import ArchiveFile, read_all
from imnetprep.archives.prefetch import PrefetchedFile
from imnetprep.archives.range_index import format_index, parse_index
from imnetprep.archives.ranges import Contents, Range, Section, open_section, walked_ranges
from imnetprep.catalog.datasets import Archive, Dataset, Split
from imnetprep.catalog.member_paths import MemberPaths
from imnetprep.digests import Checksum, Pieces
from imnetprep.extracting.by_range import extract_by_range, open_workers
from imnetprep.extracting.in_order import Check, extract_in_order
from imnetprep.extracting.samples import Extraction, find_samples, open_zip
from imnetprep.extracting.sink import RangeRecord, Sink
from imnetprep.fs import written_whole
from imnetprep.messages import Progress
from imnetprep.outside_files import read_file
from imnetprep.proving.readers import ChecksumReader, DigestReader, PieceReader, Reader
from imnetprep.proving.receipt import (
    DigestProof,
    NoProof,
    Proof,
    ServerChecksum,
    TorrentProof,
    choose_proof,
    proof_of_part,
)

Engine = Generator[RangeRecord, None, None]


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

    `spans` are those that it has, once they are found; `paths` learns where samples are, if they
    have paths.
    """

    def __init__(self, source: Source, dataset: Dataset, paths: MemberPaths | None) -> None:
        self.source, self.dataset, self._paths = source, dataset, paths
        self._archive, self._file = source.archive, source.file
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
        if self.directory is not None:
            self.spans = self.directory.ranges
            return self.spans
        if self.spans is None and index is not None and index.exists():
            body, whole = read_file(index), self.dataset.published
            self.spans = parse_index(body, self._archive, whole, of=self._file)
        if self.spans is None:
            self.spans = list(self._walked(self._file))
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
        for each in self._walked(file):
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
        if isinstance(span, Section) or self.directory is None:
            return True
        return self.directory.holds_samples(span)

    @cached_property
    def directory(self) -> Contents | None:
        """The directory of a zip or the rows of parquet, read once; None for other forms."""
        if self._archive.form == "parquet":
            from imnetprep.archives.parquet import ParquetFiles, Rows

            assert isinstance(self._file, ParquetFiles), "nothing else is opened for this form"
            return Rows(self._file, self.dataset.published, self._archive.splits[0])
        if self._archive.form != "zip":
            return None
        assert self._paths is not None, "a zip has members"
        return open_zip(self._file, self._archive, self.dataset, self._paths)

    @property
    def _are_known(self) -> bool:
        index = self.source.index
        return self.spans is not None or (index is not None and index.exists())

    def _walked(self, file: ArchiveFile) -> Iterator[Range]:
        assert file.size_bytes is not None, "no pipe"
        return walked_ranges(
            self._archive,
            self.dataset.published,
            size_bytes=file.size_bytes,
            read_at=lambda offset, length: read_all(file, offset, offset + length),
        )


class Earlier(NamedTuple):
    """What runs before have written of an archive: where its ranges start, their checksums, what
    holds the batches of a range against them, and whether all came from the file that is open now.
    """

    starts: Set[int]
    checksums: Mapping[int, Checksum]
    check_of: Callable[[int], Check]
    is_same_file: bool


class Extractor:
    """Extracts the samples of `splits` from `source` to `sink`."""

    def __init__(
        self, source: Source, splits: Sequence[Split], *, dataset: Dataset, sink: Sink
    ) -> None:
        self.source, self.splits = source, splits
        self._title = f"organize {' and '.join(splits)}"
        self._archive, self._file = source.archive, source.file
        self._extraction = Extraction(self._archive, splits, dataset=dataset, sink=sink)
        self._ranges = Ranges(source, dataset, self._extraction.paths)
        self.proof = choose_proof(
            self._archive, source.pieces, earlier=source.earlier, checksum=self._file.checksum
        )
        self.read_all = False  # is every byte of the file proved, by this run or those before it?

    def narrow_proof(self, progress: Progress) -> None:
        """Settle for what proves part of the archive, where no more of it need be read."""
        if self._ranges.leave_out():
            self.proof = proof_of_part(self.proof, earlier=self.source.earlier)
            if isinstance(self.proof, NoProof) and self._archive.digests:
                progress.note(f"{self._archive.name} is not verified: {self.proof.reason}")

    def open(
        self, stack: ExitStack, earlier: Earlier, *, jobs: int, progress: Progress
    ) -> tuple[Reader, Engine]:
        """The engine that yields all but the `earlier` ranges, and its reader, to be finished.

        Both are open for as long as `stack` is.
        """
        by_digest = isinstance(self.proof, DigestProof) and self.proof != self.source.earlier
        in_order = by_digest or self._ranges.want_order()
        open_engine = self._open_in_order if in_order else self._open_by_range
        return open_engine(stack, earlier, jobs=jobs, progress=progress)

    def release(self, starts: Iterable[int]) -> None:
        """The ranges that start there are safe on the disk."""
        if self.source.on_committed is not None and self._ranges.spans is not None:
            ranges = {each.start: each for each in self._ranges.spans}
            for start in starts:
                self.source.on_committed(ranges[start])

    def _open_in_order(
        self, stack: ExitStack, earlier: Earlier, *, jobs: int, progress: Progress
    ) -> tuple[Reader, Engine]:
        self.release(earlier.starts)  # a kill may have come between the journal and the release
        reader = stack.enter_context(closing(self._open_reader(self._file, None, earlier)))
        self.read_all = True
        sink = self._extraction.sink
        sink.open_to_threads()
        total = self._ranges.size_bytes
        task = stack.enter_context(progress.task(self._title, total=total, unit="B"))
        return reader, extract_in_order(
            self._extraction,
            self._file,
            reader,
            directory=self._ranges.directory,
            may_hold=self._ranges.may_hold,
            jobs=jobs * sink.threads_per_job,
            check_of=lambda start: earlier.check_of(start) if start in earlier.starts else None,
            on_bytes=task.advance,
        )

    def _open_by_range(
        self, stack: ExitStack, earlier: Earlier, *, jobs: int, progress: Progress
    ) -> tuple[Reader, Engine]:
        spans: Iterable[Range]
        if not earlier.starts and self._ranges.may_walk_ahead():
            file = stack.enter_context(closing(PrefetchedFile(self._file)))
            spans, reader = self._ranges.walk(file), self._open_reader(file, (), earlier)
            total = rest = self._ranges.size_bytes
            self.read_all = True
        else:
            ranges = self._ranges.find()
            paths = self._extraction.paths
            if paths is not None and not paths.has_samples and self._ranges.directory is None:
                find_samples(self._file, self._archive, paths)
            possible = [each for each in ranges if self._ranges.may_hold(each)]
            spans = to_read = [each for each in possible if each.start not in earlier.starts]
            self.release(earlier.starts)  # as above
            tail = ranges[-1].end if ranges else 0
            reader = self._open_reader(self._file, to_read, earlier, tail=tail)
            total, rest = (
                sum(each.end - each.start for each in group) for group in (possible, to_read)
            )
            is_same = not earlier.starts or earlier.is_same_file
            self.read_all = is_same and len(possible) == len(ranges)
        stack.enter_context(closing(reader))
        # Before the task, which may have a thread.
        directory = self._ranges.directory
        section_of = (
            directory.section if directory else partial(open_section, archive=self._archive)
        )
        workers = stack.enter_context(open_workers(self._extraction, reader, section_of, jobs=jobs))
        task = progress.task(self._title, total=total, unit="B", initial=total - rest)
        on_bytes = stack.enter_context(task).advance
        # What is done is to make room first, if it is released.
        queue_size = workers.jobs if self.source.on_committed is None else 0
        return reader, extract_by_range(
            workers, reader, spans, queue_size=queue_size, on_bytes=on_bytes
        )

    def _open_reader(
        self, file: ArchiveFile, ranges: Sequence[Range] | None, earlier: Earlier, *, tail: int = 0
    ) -> Reader:
        """The reader that establishes the proof while it reads, or a plain one.

        `ranges` are those that will be asked for and `tail` where the last of the archive's ends;
        None: all will be read in order.
        """
        proof, pieces, in_order = self.proof, self.source.pieces, ranges is None
        if proof == self.source.earlier:
            return Reader(file, in_order=in_order)
        if isinstance(proof, TorrentProof) and pieces is not None:
            return PieceReader(file, pieces, ranges, tail)
        if isinstance(proof, DigestProof):
            return DigestReader(file, proof)
        if isinstance(proof, ServerChecksum) and file.checksum is not None:
            checksums = {} if in_order else earlier.checksums
            return ChecksumReader(file, file.checksum, checksums, in_order=in_order)
        return Reader(file, in_order=in_order)
