"""Splits made of the archives that they share: read once, every range journalled as it is written.

An engine yields the ranges; a split is whole when every class is counted.
"""

import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from imnetprep.archives.file import ArchiveFile
from imnetprep.archives.range_index import SUFFIX, parse_index
from imnetprep.archives.ranges import Range
from imnetprep.catalog.datasets import Split
from imnetprep.extracting.engine import Earlier, Extractor, Source
from imnetprep.extracting.samples import check_count, name_twice
from imnetprep.extracting.sink import Batch, RangeRecord, Sink
from imnetprep.jobs import FAR_RANGES, LOCAL_RANGES
from imnetprep.messages import Progress, SourceFailed, WrongBytes, removal
from imnetprep.organizing.journal import Journal, Origin, Whole
from imnetprep.organizing.plan import SplitGroup
from imnetprep.organizing.publish import in_the_way, unpublished
from imnetprep.proving.archive_at import ArchiveAt, index_path, name_consumer
from imnetprep.proving.consume import (
    ConsumedFile,
    begin_consumption,
    consumed_ranges,
    earlier_proof,
)
from imnetprep.proving.readers import PieceReader
from imnetprep.proving.receipt import Proof, Several, choose_proof, record_archive
from imnetprep.sources.places import open_archive
from imnetprep.sources.torrent import published_pieces

# That of the train archive has 60 kB.
_LARGEST_INDEX_BYTES = 16 << 20
# No archive is longer: the ranges of each are journalled this far from those of the next.
_MOST_BYTES = 1 << 44


class Work:
    """The splits of `group`, each made in a folder of its own by `sink` under `folder`."""

    def __init__(self, group: SplitGroup, journal: Journal, *, sink: Sink, folder: Path) -> None:
        self._group, self._dataset, self._root = group, group.dataset, group.root
        self._journal, self._sink, self._folder = journal, sink, folder
        self._are_same_files = False  # those that are read now, and those of earlier runs

    def grown(self, splits: Sequence[Split], progress: Progress) -> dict[Split, Whole]:
        """The splits of the group that are whole, once those of `splits` are.

        Raises WrongBytes where an archive or what is in it is not what the dataset promises.
        """
        to_make = [split for split in splits if not self._whole(split)]
        if to_make:
            archives = [
                each for each in self._group.archives if set(each.archive.splits) & set(to_make)
            ]
            with ExitStack() as stack:
                sources = [self._source(each, stack) for each in archives]
                extractors = self._begin(to_make, sources)
                for at, extractor in enumerate(extractors):
                    first = at * _MOST_BYTES
                    self._take(extractor, to_make, first=first, progress=progress)
                    # First: what is whole is not looked at again.
                    self._record_archive(archives[at], extractor)
                    if len(extractors) > 1:  # a later run does not read it again
                        end, splits = first + _MOST_BYTES - 1, extractor.splits
                        self._journal.add([RangeRecord(end, {split: {} for split in splits}, None)])
            names = ", ".join(each.archive.name for each in archives)
            for split in to_make:
                self._check_counts(split, archives=names)
            folders = {split: self._folder / split for split in to_make}
            self._journal.mark_whole(folders, facts={}, proof=_proof_of(extractors))
        return {split: whole for split in self._group.splits if (whole := self._whole(split))}

    def _whole(self, split: Split) -> Whole | None:
        folder, origin = self._root.split(split), self._journal.origin(split)
        whole = unpublished(self._journal, split, self._dataset, self._folder / split, folder)
        if not whole or (origin and origin.options == self._sink.options):
            return whole
        if whole.lies_in(folder):
            raise in_the_way(folder, self._root)
        return None

    def _source(self, at: ArchiveAt, stack: ExitStack) -> Source:
        """The archive, open for as long as `stack` is; consumed from here on, if that is asked."""
        pieces = published_pieces(self._dataset.published, at.archive)
        if self._group.consume:
            root = self._root.path
            begin_consumption(at.path, at.archive, self._dataset, earlier=at.proof, root=root)
            part = ConsumedFile(
                at.path,
                ranges=consumed_ranges(at.path, at.archive, self._dataset),
                unit_bytes=pieces.length_bytes if pieces else 0,
            )
            stack.enter_context(closing(part))
            if part.untouched:
                name_consumer(at.path, root)
            return Source(
                at.archive,
                part,
                pieces=pieces,
                earlier=earlier_proof(at.path),
                index=index_path(at.path),
                on_committed=part.release,
            )
        file = stack.enter_context(closing(at.open()))
        index = ranges = None
        if file.is_far and at.archive.form in ("tar", "tar-of-tars"):
            index = index_path(self._root.archives / at.archive.name)
            if not index.exists():
                ranges = self._published_ranges(at, file)
        return Source(at.archive, file, pieces=pieces, earlier=at.proof, index=index, ranges=ranges)

    def _published_ranges(self, at: ArchiveAt, file: ArchiveFile) -> Sequence[Range] | None:
        """The ranges in the index that lies beside an archive far away, if there is one."""
        try:
            with closing(open_archive(at.place, f"{at.archive.name}{SUFFIX}")) as index:
                if (size_bytes := index.size_bytes or 0) > _LARGEST_INDEX_BYTES:
                    return None  # not ours: the headers are walked
                body = index.read_at(0, size_bytes)
        except SourceFailed:
            return None
        return parse_index(body, at.archive, self._dataset.published, of=file)

    def _begin(self, splits: Sequence[Split], sources: Sequence[Source]) -> list[Extractor]:
        """Resume, or drop what was made of other bytes; a kill in between drops it once more."""
        made_of = "; ".join(source.identity for source in sources)
        origin = Origin(self._dataset.fingerprint, made_of, self._sink.options)
        for split in splits:
            folder = self._folder / split
            is_begun = self._journal.origin(split) == origin
            is_lost = not folder.exists() and self._journal.done(split)  # somebody removed it
            # Its folder is another one now.
            is_replaced = self._journal.whole(split, dataset=origin.dataset)
            if not is_begun or is_lost or is_replaced:
                self._discard(split)
                self._journal.begin(split, origin)
            folder.mkdir(parents=True, exist_ok=True)
            self._sink.begin(split, self._journal.samples(split))
            self._dataset.preload(split)  # once, and not by each worker
        files = "; ".join(source.file.identity for source in sources)
        self._are_same_files = {self._journal.read_from(split, files) for split in splits} == {True}
        extractors = []
        for source in sources:
            own = [split for split in splits if split in source.archive.splits]
            extractors.append(Extractor(source, own, dataset=self._dataset, sink=self._sink))
        return extractors

    def _discard(self, split: Split) -> None:
        self._journal.forget(split)
        if (self._folder / split).exists():
            shutil.rmtree(self._folder / split)

    def _take(
        self, extractor: Extractor, to_make: Sequence[Split], *, first: int, progress: Progress
    ) -> None:
        """Do all that is not done of an archive, whose ranges are journalled from `first` on.

        Raises WrongBytes on what is not the dataset's; where nobody knows which of the bytes were
        wrong, the splits `to_make` start over.
        """
        extractor.narrow_proof(progress)
        earlier = self._earlier(extractor, first)
        if _MOST_BYTES - 1 in earlier.starts:
            return  # in a run before this one
        source = extractor.source
        kind = FAR_RANGES if source.file.is_far else LOCAL_RANGES
        commits = self._journal.committer(
            self._folder,
            on_committed=lambda starts: extractor.release(start - first for start in starts),
            queue_size=1 if source.on_committed else 0,  # else the disk holds more
        )
        with ExitStack() as stack:
            jobs = kind.count(self._group.jobs)
            reader, engine = extractor.open(stack, earlier, jobs=jobs, progress=progress)
            with commits as commit, closing(engine):
                for record in engine:
                    commit(record._replace(start=first + record.start))
            try:
                reader.finish()
            except WrongBytes:
                for split in () if isinstance(reader, PieceReader) else to_make:
                    self._discard(split)
                raise

    def _earlier(self, extractor: Extractor, first: int) -> Earlier:
        """What is done for all of the splits that are in an archive."""
        starts = set.intersection(*map(self._journal.done, extractor.splits))
        checksums = self._journal.checksums(extractor.splits[0])
        span = range(first, first + _MOST_BYTES)
        return Earlier(
            {start - first for start in starts if start in span},
            {start - first: each for start, each in checksums.items() if start in span},
            lambda start: self._check_of(extractor, first + start),
            self._are_same_files,
        )

    def _check_of(self, extractor: Extractor, start: int) -> Callable[[Batch], None]:
        """What holds the batches of a range that is read again against what was written of it."""
        records = {
            split: {
                record._replace(shard=None, offset_bytes=None)
                for record in self._journal.range_samples(split, start)
            }
            for split in extractor.splits
        }

        def check(batch: Batch) -> None:
            for record in self._sink.records(batch):
                if record not in records[batch.split]:
                    archive = extractor.source.archive
                    raise WrongBytes(
                        f"{archive.name}: {record.name} is not what it was when this began",
                        hint=f"if it is another archive, {removal(self._folder)} to start over",
                    )

        return check

    def _check_counts(self, split: Split, *, archives: str) -> None:
        """Every class has its images, and each of them once."""
        labels = set(range(len(self._dataset.synsets)))
        try:
            for label, columns in self._journal.columns(split):
                labels.remove(label)
                check_count(self._dataset, split, label, columns, archives=archives)
        except ValueError as error:
            raise name_twice(archives) from error
        for label in sorted(labels):
            check_count(self._dataset, split, label, None, archives=archives)

    def _record_archive(self, at: ArchiveAt, extractor: Extractor) -> None:
        """In the receipt, if that speaks of this archive, and it was proved all through."""
        is_ours = at.home is self._root and not self._group.consume
        if is_ours and extractor.read_all and extractor.proof != extractor.source.earlier:
            record_archive(self._root, at.path, extractor.proof)
            if labels := at.archive.labels:  # which are held against their digest before
                place = at.path.with_name(labels.name)
                record_archive(self._root, place, choose_proof(labels, None))


def _proof_of(extractors: Sequence[Extractor]) -> Proof:
    if len(extractors) == 1:
        return extractors[0].proof
    return Several({each.source.archive.name: each.proof for each in extractors})
