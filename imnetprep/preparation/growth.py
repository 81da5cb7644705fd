"""A split from nothing to whole: range after range into `.organizing`, journalled as it goes."""

import shutil
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from pathlib import Path
from typing import Any

from imnetprep.catalog.datasets import Dataset, Split
from imnetprep.digests import Pieces
from imnetprep.errors import WrongBytes
from imnetprep.manifest import SampleRecord
from imnetprep.preparation.extraction import Extraction
from imnetprep.preparation.journal import Journal, Whole, committer
from imnetprep.preparation.proof import ProvedReader, Reader, choose_proof, open_reader
from imnetprep.preparation.ranges import Range, plan_ranges
from imnetprep.preparation.receipts import file_state
from imnetprep.progress import Progress, Task
from imnetprep.units import count


class Growth:
    """One split of `dataset` that grows under `folder` from the archive at `path`."""

    def __init__(
        self, dataset: Dataset, split: Split, *, path: Path, folder: Path, journal: Journal
    ) -> None:
        self.dataset, self.split, self.folder = dataset, split, folder
        self.archive = dataset.archive(split)
        self._path, self._journal = path, journal
        self.read_all = False  # has `grow` itself proved every byte of the file at `path`?

    def grow(
        self,
        *,
        pieces: Pieces | None,
        before: Mapping[str, Any] | None,
        jobs: int,
        progress: Progress,
    ) -> Whole:
        """Do all that is not done and mark the split as whole.

        `pieces` are those of the archive's torrent; `before` says how the file was proved before.
        Raises WrongBytes where the archive or what is in it is not what the dataset promises.
        """
        self._begin(self._identity(pieces))
        self.dataset.preload(self.split)  # once, and not by each worker
        ranges = self._plan()
        done = self._journal.done(self.split)
        proof = choose_proof(self.archive, pieces, before)
        reader = open_reader(
            self._path, proof=proof, before=before, pieces=pieces, ranges=ranges, done=done
        )
        self.read_all = not (done and reader.parallel)
        with (
            closing(reader),
            progress.task(
                f"organize {self.split}",
                total=sum(each.end - each.start for each in ranges),
                unit="B",
                done=sum(each.end - each.start for each in ranges if each.start in done),
            ) as task,
        ):
            to_do = [each for each in ranges if each.start not in done]
            self._extract(to_do, reader, jobs=jobs if reader.parallel else 1, task=task)
            self._finish(reader)
        self._check_counts()
        return self._journal.mark_whole(self.split, proof, self.folder)

    def _begin(self, archive: str) -> None:
        """Go on, or drop what grew from other bytes; a kill in between drops it once more."""
        dataset = self.dataset.fingerprint
        if not self._journal.has_begun(self.split, dataset=dataset, archive=archive):
            self._discard()
            self._journal.begin(self.split, dataset=dataset, archive=archive)
        self.folder.mkdir(parents=True, exist_ok=True)

    def _discard(self) -> None:
        self._journal.forget(self.split)
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def _identity(self, pieces: Pieces | None) -> str:
        """Which bytes these are: the torrent's, or else this very file as it is now."""
        if pieces is not None:
            return f"torrent {pieces.info_hash}"
        return f"{self.archive.name} {file_state(self._path)}"

    def _plan(self) -> list[Range]:
        with closing(ProvedReader(self._path)) as file:
            return plan_ranges(
                self.archive, self.dataset, size_bytes=file.size_bytes, read_at=file.read_at
            )

    def _finish(self, reader: Reader) -> None:
        try:
            reader.finish()
        except WrongBytes:
            if not reader.parallel:  # nobody knows which of the bytes were wrong
                self._discard()
            raise

    def _extract(self, to_do: Sequence[Range], reader: Reader, *, jobs: int, task: Task) -> None:
        extraction = Extraction(
            self.archive, self.split, dataset=self.dataset, folder=self.folder, reader=reader
        )
        lock = threading.Lock()
        under_way: dict[Future[list[SampleRecord]], Range] = {}

        def told(amount: int) -> None:
            with lock:
                task.advance(amount)

        def collect(*, until: int) -> None:
            while len(under_way) > until:
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    each, samples = under_way.pop(future), future.result()
                    if each.wnid is not None:
                        label = self.dataset.label_of_wnid[each.wnid]
                        self._check_count(label, [sample.name for sample in samples])
                    give(each, samples)

        with (
            committer(self._journal, self.split, self.folder) as give,
            ThreadPoolExecutor(jobs) as workers,
        ):
            try:
                for each in to_do:
                    collect(until=jobs - 1)
                    under_way[workers.submit(extraction.extract, each, told)] = each
                collect(until=0)
            finally:
                extraction.cancelled.set()

    def _check_counts(self) -> None:
        found = self._journal.counts(self.split)
        for label, wanted in enumerate(self.dataset.counts(self.split)):
            if found.get(label, 0) != wanted:
                self._check_count(label, self._journal.names(self.split, label))

    def _check_count(self, label: int, names: Sequence[str]) -> None:
        wanted = self.dataset.counts(self.split)[label]
        if len(names) == wanted:
            return
        known = set(names)
        missing = [
            name for name in self.dataset.names(self.split, label) or () if name not in known
        ]
        named = f"; missing: {', '.join(missing[:3])}" if missing else ""
        named += f" and {len(missing) - 3:,} more" if len(missing) > 3 else ""
        wnid = self.dataset.synsets[label].wnid
        raise WrongBytes(
            f"{self.archive.name}: {wnid} has {count(len(names), 'image')}, not {wanted:,}{named}",
            hint=f"this is not the whole {self.dataset.name}; fetch the archive again",
        )
