"""Splits made of the archives that they share: read once, every class counted, then named."""

import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from imnetprep.archives.file import ArchiveFile
from imnetprep.archives.range_index import SUFFIX, parse_index
from imnetprep.archives.ranges import Range
from imnetprep.catalog.datasets import Archive, Dataset, Layout, Root, Split
from imnetprep.extracting.engine import Source
from imnetprep.extracting.samples import check_count, name_twice
from imnetprep.extracting.sink import Sink
from imnetprep.jobs import FAR_RANGES, LOCAL_RANGES
from imnetprep.messages import Progress, SourceFailed
from imnetprep.organizing.journal import Journal, Origin, Whole
from imnetprep.organizing.plan import SplitGroup
from imnetprep.organizing.publish import in_the_way, publish_journalled, unpublished
from imnetprep.organizing.take_archive import MOST_BYTES, Intake
from imnetprep.proving.archive_at import archive_at, home_of, index_path, name_consumer
from imnetprep.proving.consume import (
    ConsumedFile,
    begin_consumption,
    consumed_ranges,
    earlier_proof,
    end_consumption,
)
from imnetprep.proving.receipt import Proof, Several, record_archive
from imnetprep.sources.places import open_archive
from imnetprep.sources.torrent import published_pieces

# That of the train archive has 60 kB.
_LARGEST_INDEX_BYTES = 16 << 20


class Work:
    """The splits of `group`, each made in a folder of its own by a `sink` under `folder`.

    Their archives are the same: each is read once, for all splits that are not whole.
    """

    def __init__(
        self,
        dataset: Dataset,
        group: SplitGroup,
        root: Root,
        journal: Journal,
        *,
        sink: Sink,
        folder: Path,
        consume: bool,
    ) -> None:
        self._dataset, self._consume = dataset, consume
        self._splits, self._archives, self._place = group.splits, group.archives, group.place
        self._root, self._journal = root, journal
        self._sink, self._folder = sink, folder

    def grown(
        self, splits: Sequence[Split], *, jobs: int | None, progress: Progress
    ) -> dict[Split, Whole]:
        """The splits that are whole, once those of `splits` are.

        Raises WrongBytes where an archive or what is in it is not what the dataset promises.
        """
        to_make = [split for split in splits if not self._whole(split)]
        if to_make:
            archives = [each for each in self._archives if set(each.splits) & set(to_make)]
            with ExitStack() as stack:
                sources = [self._source(archive, stack) for archive in archives]
                intakes = self._begin_intakes(to_make, sources)
                jobs = (FAR_RANGES if sources[0].file.is_far else LOCAL_RANGES).count(jobs)
                for intake in intakes:
                    intake.take(jobs=jobs, progress=progress)
                    if len(intakes) > 1:
                        intake.mark_taken()
            names = ", ".join(archive.name for archive in archives)
            for split in to_make:
                self._check_counts(split, archives=names)
            folders = {split: self._folder / split for split in to_make}
            self._journal.mark_whole(folders, facts={}, proof=_proof_of(intakes))
            self._record_archives(intakes)
        return {split: whole for split in self._splits if (whole := self._whole(split))}

    def _whole(self, split: Split) -> Whole | None:
        folder, origin = self._root.split(split), self._journal.origin(split)
        whole = unpublished(self._journal, split, self._dataset, self._folder / split, folder)
        if not whole or (origin and origin.options == self._sink.options):
            return whole
        if whole.lies_in(folder):
            raise in_the_way(folder, self._root)
        return None

    def _begin_intakes(self, splits: Sequence[Split], sources: Sequence[Source]) -> list[Intake]:
        made_of = "; ".join(source.identity for source in sources)
        for split in splits:
            self._begin(split, made_of)
            self._sink.begin(split, self._journal.samples(split))
            self._dataset.preload(split)  # once, and not by each worker

        def discard() -> None:
            for split in splits:
                self._discard(split)

        return [
            Intake(
                self._dataset,
                splits,
                source=source,
                sink=self._sink,
                folder=self._folder,
                journal=self._journal,
                first=at * MOST_BYTES,
                discard=discard,
            )
            for at, source in enumerate(sources)
        ]

    def _begin(self, split: Split, made_of: str) -> None:
        """Resume, or drop what was made of other bytes; a kill in between drops it once more."""
        dataset, folder = self._dataset.fingerprint, self._folder / split
        origin = Origin(dataset, made_of, self._sink.options)
        is_begun = self._journal.origin(split) == origin
        is_lost = not folder.exists() and self._journal.done(split)  # somebody removed it
        is_replaced = self._journal.whole(split, dataset=dataset)  # its folder is another one now
        if not is_begun or is_lost or is_replaced:
            self._discard(split)
            self._journal.begin(split, origin)
        folder.mkdir(parents=True, exist_ok=True)

    def _discard(self, split: Split) -> None:
        self._journal.forget(split)
        if (self._folder / split).exists():
            shutil.rmtree(self._folder / split)

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

    def _record_archives(self, intakes: Sequence[Intake]) -> None:
        """In the receipt, if that speaks of these archives: each that was proved all through."""
        if self._consume or home_of(self._place, self._root) is not self._root:
            return
        for intake in intakes:
            extractor, source = intake.extractor, intake.extractor.source
            if extractor.read_all and extractor.proof != source.earlier:
                record_archive(self._root, self._path(source.archive), extractor.proof)

    def _source(self, archive: Archive, stack: ExitStack) -> Source:
        pieces = published_pieces(self._dataset.published, archive)
        path = self._path(archive)
        earlier = archive_at(archive, self._place, self._root).proof
        if self._consume:
            unit_bytes = pieces.length_bytes if pieces else 0
            root = self._root.path
            begin_consumption(path, archive, self._dataset, earlier=earlier, root=root)
            spans = consumed_ranges(path, archive, self._dataset)
            part = ConsumedFile(path, ranges=spans, unit_bytes=unit_bytes)
            stack.enter_context(closing(part))
            if part.untouched:
                name_consumer(path, root)
            return Source(
                archive,
                part,
                pieces=pieces,
                earlier=earlier_proof(path),
                index=index_path(path),
                on_committed=part.release,
            )
        file = stack.enter_context(closing(open_archive(self._place, archive.name)))
        has_index = file.is_far and archive.form in ("tar", "tar-of-tars")
        index = index_path(self._root.archives / archive.name) if has_index else None
        ranges = None
        if index is not None and not index.exists():
            ranges = self._published_ranges(archive, file)
        return Source(archive, file, pieces=pieces, earlier=earlier, index=index, ranges=ranges)

    def _path(self, archive: Archive) -> Path:
        """The archive, if it is on this machine."""
        return Path(self._place) / archive.name

    def _published_ranges(self, archive: Archive, file: ArchiveFile) -> Sequence[Range] | None:
        """The ranges in the index that lies beside an archive far away, if there is one."""
        try:
            with closing(open_archive(self._place, f"{archive.name}{SUFFIX}")) as index:
                if (size_bytes := index.size_bytes or 0) > _LARGEST_INDEX_BYTES:
                    return None  # not ours: the headers are walked
                body = index.read_at(0, size_bytes)
        except SourceFailed:
            return None
        return parse_index(body, archive, self._dataset.published, of=file)

    def publish(
        self, split: Split, whole: Whole, *, change: str | None, facts: Mapping[str, Any]
    ) -> None:
        """Give a whole split its name, receipt and listing; a rerun makes up for a kill between."""
        names = ", ".join(each.name for each in self._archives if split in each.splits)
        publish_journalled(
            self._root,
            self._journal,
            split,
            Layout.IMAGEFOLDER,
            whole=whole,
            workspace=self._folder / split,
            change=change,
            facts={"archive": names, **facts, **whole.receipt},
            on_listed=self._release_archive,
        )

    def end(self, split: Split) -> None:
        """Delete what a split was made of that has its name, its manifest and its receipt."""
        self._release_archive()
        self._journal.forget(split)

    def _release_archive(self) -> None:
        if self._consume:
            end_consumption(self._path(self._archives[0]))


def _proof_of(intakes: Sequence[Intake]) -> Proof:
    extractors = [intake.extractor for intake in intakes]
    if len(extractors) == 1:
        return extractors[0].proof
    return Several({each.source.archive.name: each.proof for each in extractors})
