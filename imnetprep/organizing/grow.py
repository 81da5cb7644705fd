"""Splits that share their archives, under way: what is not done grows, what is whole is named."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from imnetprep.archives.file import ArchiveFile
from imnetprep.archives.range_index import SUFFIX, parse_index
from imnetprep.archives.ranges import Range
from imnetprep.catalog.datasets import Archive, Dataset, Layout, Root, Split
from imnetprep.extracting.find_ranges import Source
from imnetprep.extracting.sink import Sink
from imnetprep.messages import Progress, SourceFailed
from imnetprep.organizing.growth import Growth
from imnetprep.organizing.journal import Journal, Whole
from imnetprep.organizing.plan import Planned, jobs_for
from imnetprep.organizing.publish import publish_journalled, unpublished
from imnetprep.proving.archive_at import archive_at, home_of, index_path, name_consumer
from imnetprep.proving.consume import (
    ConsumedFile,
    begin_consumption,
    consumed_ranges,
    earlier_proof,
    end_consumption,
)
from imnetprep.proving.receipt import record_archive
from imnetprep.sources.places import open_archive
from imnetprep.sources.torrent import published_pieces

# That of the train archive has 60 kB.
_LARGEST_INDEX_BYTES = 16 << 20


class Work:
    """The splits of `planned`, under way in a `sink` under `growing`."""

    def __init__(
        self,
        dataset: Dataset,
        planned: Planned,
        root: Root,
        journal: Journal,
        *,
        sink: Sink,
        growing: Path,
        consume: bool,
    ) -> None:
        self._dataset, self._consume = dataset, consume
        self._splits, self._archives, self._place = planned.splits, planned.archives, planned.place
        self._root, self._journal = root, journal
        self._sink, self._growing = sink, growing

    def grown(
        self, splits: Sequence[Split], *, jobs: int | None, progress: Progress
    ) -> dict[Split, Whole]:
        """The splits that have grown whole, once all that is not done of `splits` is."""
        wholes = {split: self._whole(split) for split in self._splits}
        to_grow = [split for split in splits if not wholes[split]]
        if to_grow:
            self._grow(to_grow, jobs=jobs, progress=progress)
        return {split: whole for split in self._splits if (whole := self._whole(split))}

    def _whole(self, split: Split) -> Whole | None:
        folders = self._growing / split, self._root.split(split)
        whole = unpublished(self._journal, split, self._dataset, *folders)
        origin = self._journal.origin(split)
        return whole if origin and origin.options == self._sink.options else None

    def _grow(self, splits: Sequence[Split], *, jobs: int | None, progress: Progress) -> None:
        growth = Growth(
            self._dataset, splits, folder=self._growing, sink=self._sink, journal=self._journal
        )
        archives = [each for each in self._archives if not set(splits).isdisjoint(each.splits)]
        with ExitStack() as opened:
            sources = [self._source(archive, opened) for archive in archives]
            jobs = jobs_for(jobs, sources[0].file)
            takings = growth.grow(sources, jobs=jobs, progress=progress)
        for taking, source in zip(takings, sources, strict=True):
            kept = self._at_home and not self._consume
            if kept and taking.read_all and taking.proof != source.earlier:
                record_archive(self._root, self._path(taking.archive), taking.proof)

    def _source(self, archive: Archive, opened: ExitStack) -> Source:
        pieces = published_pieces(self._dataset.published, archive)
        path = self._path(archive)
        earlier = archive_at(archive, self._place, self._root).proof
        if self._consume:
            unit_bytes = pieces.length_bytes if pieces else 0
            root = self._root.path
            begin_consumption(path, archive, self._dataset, earlier=earlier, root=root)
            all_ranges = consumed_ranges(path, archive, self._dataset)
            consumed = ConsumedFile(path, ranges=all_ranges, unit_bytes=unit_bytes)
            opened.enter_context(closing(consumed))
            if consumed.untouched:
                name_consumer(path, root)
            return Source(
                archive,
                consumed,
                pieces=pieces,
                earlier=earlier_proof(path),
                index=index_path(path),
                released=consumed.release,
            )
        file = opened.enter_context(closing(open_archive(self._place, archive.name)))
        indexed = file.is_far and archive.form in ("tar", "tar-of-tars")
        index = index_path(self._root.archives / archive.name) if indexed else None
        ranges = None
        if index is not None and not index.exists():
            ranges = self._published_ranges(archive, file)
        return Source(archive, file, pieces=pieces, earlier=earlier, index=index, ranges=ranges)

    def _path(self, archive: Archive) -> Path:
        """The archive, if it is on this machine."""
        return Path(self._place) / archive.name

    @property
    def _at_home(self) -> bool:
        """Does the receipt speak of these archives?"""
        return home_of(self._place, self._root) is self._root

    def _published_ranges(self, archive: Archive, file: ArchiveFile) -> Sequence[Range] | None:
        """Those of the index that lies beside an archive far away, if there is one."""
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
        """Give a whole split its name, receipt and listing; a kill in between is made up."""
        names = ", ".join(each.name for each in self._archives if split in each.splits)
        publish_journalled(
            self._root,
            self._journal,
            split,
            Layout.IMAGEFOLDER,
            whole=whole,
            growing=self._growing / split,
            change=change,
            facts={"archive": names, **facts, **whole.receipt},
            on_listed=self._release_archive,
        )

    def end(self, split: Split) -> None:
        """It has its name, its manifest and its receipt: give up what it was made of."""
        self._release_archive()
        self._journal.forget(split)

    def _release_archive(self) -> None:
        if self._consume:
            end_consumption(self._path(self._archives[0]))
