"""One archive to samples on the disk, its ranges journalled as an engine yields them."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from imnetprep.catalog.datasets import Dataset, Split
from imnetprep.extracting.engine import Earlier, Extractor, Source
from imnetprep.extracting.sink import Batch, RangeRecord, Sink
from imnetprep.messages import Progress, WrongBytes, removal
from imnetprep.organizing.journal import Journal
from imnetprep.proving.readers import PieceReader, Reader

# No archive is longer: the ranges of each are journalled this far from those of the next.
MOST_BYTES = 1 << 44


class Intake:
    """The samples of `splits` in one archive, written to `sink`, which lies under `folder`.

    Its ranges are journalled from `first` on. `discard` drops all that was made, where nobody
    knows which of the bytes were wrong.
    """

    def __init__(
        self,
        dataset: Dataset,
        splits: Sequence[Split],
        *,
        source: Source,
        sink: Sink,
        folder: Path,
        journal: Journal,
        first: int,
        discard: Callable[[], None],
    ) -> None:
        self._splits = [split for split in splits if split in source.archive.splits]
        self._folder, self._journal, self._first = folder, journal, first
        self._discard, self._sink = discard, sink
        self.extractor = Extractor(source, self._splits, dataset=dataset, sink=sink)

    def take(self, *, jobs: int, progress: Progress) -> None:
        """Do all that is not done. Raises WrongBytes on what is not the dataset's."""
        self.extractor.narrow_proof(progress)
        earlier = self._earlier()
        if MOST_BYTES - 1 in earlier.starts:
            return  # in a run before this one
        commits = self._journal.committing(
            self._folder,
            on_committed=self._release,
            queue_size=1 if self.extractor.source.on_committed else 0,  # else the disk holds more
        )
        with ExitStack() as stack:
            reader, engine = self.extractor.open(stack, earlier, jobs=jobs, progress=progress)
            with commits as commit, closing(engine):
                for record in engine:
                    commit(record._replace(start=self._first + record.start))
            self._finish(reader)

    def mark_taken(self) -> None:
        """Journal that all of it is done: a later run does not read it again."""
        end = self._first + MOST_BYTES - 1
        self._journal.add([RangeRecord(end, {split: {} for split in self._splits}, None)])

    def _earlier(self) -> Earlier:
        """What is done for all of the splits."""
        starts = set.intersection(*map(self._journal.done, self._splits))
        checksums = self._journal.checksums(self._splits[0])
        span = range(self._first, self._first + MOST_BYTES)
        return Earlier(
            {start - self._first for start in starts if start in span},
            {start - self._first: each for start, each in checksums.items() if start in span},
            self._check_of,
        )

    def _finish(self, reader: Reader) -> None:
        try:
            reader.finish()
        except WrongBytes:
            if not isinstance(reader, PieceReader):  # nobody knows which of the bytes were wrong
                self._discard()
            raise

    def _release(self, starts: Iterable[int]) -> None:
        self.extractor.release(start - self._first for start in starts)

    def _check_of(self, start: int) -> Callable[[Batch], None]:
        """What holds the batches of a range that is read again against what was written of it."""
        records = {
            split: {
                record._replace(shard=None, offset_bytes=None)
                for record in self._journal.range_samples(split, self._first + start)
            }
            for split in self._splits
        }

        def check(batch: Batch) -> None:
            for record in self._sink.records(batch):
                if record not in records[batch.split]:
                    archive = self.extractor.source.archive
                    raise WrongBytes(
                        f"{archive.name}: {record.name} is not what it was when this began",
                        hint=f"if it is another archive, {removal(self._folder)} to start over",
                    )

        return check
