"""Splits from nothing to whole: one archive after the other, and at the end every class counted."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from imnetprep.catalog.datasets import Dataset, Split
from imnetprep.extracting.find_ranges import Source
from imnetprep.extracting.samples import check_count, name_twice
from imnetprep.extracting.sink import Sink
from imnetprep.messages import Progress
from imnetprep.organizing.journal import Journal, Origin
from imnetprep.organizing.take_archive import MOST_BYTES, Taking
from imnetprep.proving.receipt import Proof, Several


class Growth:
    """`splits` of `dataset` that grow in `sink` under `folder`, each in a folder of its own there.

    Those whose archives are the same grow together, so that each archive is read once.
    """

    def __init__(
        self,
        dataset: Dataset,
        splits: Sequence[Split],
        *,
        folder: Path,
        sink: Sink,
        journal: Journal,
    ) -> None:
        self._dataset, self._sink, self._journal = dataset, sink, journal
        self._folders = {split: folder / split for split in splits}
        self._folder = folder
        self._archives = ""

    def grow(self, sources: Sequence[Source], *, jobs: int, progress: Progress) -> list[Taking]:
        """Do all that is not done and mark the splits as whole; tells how each archive was taken.

        Raises WrongBytes where an archive or what is in it is not what the dataset promises.
        """
        self._archives = ", ".join(source.archive.name for source in sources)
        made_of = "; ".join(source.identity for source in sources)
        for split in self._folders:
            self._begin(split, made_of)
            self._sink.begin(split, self._journal.samples(split))
            self._dataset.preload(split)  # once, and not by each worker
        takings = [
            Taking(
                self._dataset,
                tuple(self._folders),
                source=source,
                sink=self._sink,
                folder=self._folder,
                journal=self._journal,
                first=at * MOST_BYTES,
                discard=self._discard_all,
            )
            for at, source in enumerate(sources)
        ]
        for taking in takings:
            taking.take(jobs=jobs, progress=progress)
            if len(takings) > 1:
                taking.mark_taken()
        for split in self._folders:
            self._check_counts(split)
        self._journal.mark_whole(self._folders, facts={}, proof=_proof_of(takings))
        return takings

    def _begin(self, split: Split, made_of: str) -> None:
        """Go on, or drop what was made of other bytes; a kill in between drops it once more."""
        dataset = self._dataset.fingerprint
        origin = Origin(dataset, made_of, self._sink.options)
        begun = self._journal.origin(split) == origin
        if begun and not self._folders[split].exists() and self._journal.done(split):
            begun = False  # somebody removed what had grown
        if self._journal.whole(split, dataset=dataset):
            begun = False  # so it was whole, and its folder is another one now
        if not begun:
            self._discard(split)
            self._journal.begin(split, origin)
        self._folders[split].mkdir(parents=True, exist_ok=True)

    def _discard_all(self) -> None:
        for split in self._folders:
            self._discard(split)

    def _discard(self, split: Split) -> None:
        self._journal.forget(split)
        if self._folders[split].exists():
            shutil.rmtree(self._folders[split])

    def _check_counts(self, split: Split) -> None:
        """Every class has its images, and each of them once."""
        labels = set(range(len(self._dataset.synsets)))
        try:
            for label, columns in self._journal.columns(split):
                labels.remove(label)
                check_count(self._dataset, split, label, columns, archives=self._archives)
        except ValueError as error:
            raise name_twice(self._archives) from error
        for label in sorted(labels):
            check_count(self._dataset, split, label, None, archives=self._archives)


def _proof_of(takings: Sequence[Taking]) -> Proof:
    if len(takings) == 1:
        return takings[0].proof
    return Several({taking.archive.name: taking.proof for taking in takings})
