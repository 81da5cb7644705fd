"""Carrying out a pull: objects to files, proved as they are written, whole or absent.

A file gets its name after a sync that covers it. The shards of a split grow out of sight under
`.organizing` and get their folder when all of them are there.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from imnetprep.archives.file import file_state
from imnetprep.catalog.datasets import Dataset
from imnetprep.fs import (
    allocated_bytes,
    existing_folder,
    require_free,
    sync_file_system,
    sync_folder,
)
from imnetprep.messages import ImnetprepError
from imnetprep.proving.receipt import record_archives
from imnetprep.sync.bucket_manifest import Fetched, read_fetched
from imnetprep.sync.fetching import Fetching, part_path
from imnetprep.sync.jobs import side_by_side
from imnetprep.sync.journal import Known
from imnetprep.sync.keys import MANIFEST, What, is_busy, what_of
from imnetprep.sync.objects import ask_for_unknown, known_there, pieces_of
from imnetprep.sync.plan import Action, Step, SyncPlan, value_of
from imnetprep.sync.pulled_splits import Splits
from imnetprep.sync.push import Moved, read_known
from imnetprep.sync.survey import Survey
from imnetprep.sync.work import Work

_SECONDS_BETWEEN_SYNCS = 2.0
_JOBS_FOR_ONE = 4


class Pull:
    """A pull at work. Its `splits` get their folders when all has come."""

    def __init__(self, plan: SyncPlan, work: Work, dataset: Dataset | None) -> None:
        self._plan, self._work, self._dataset = plan, work, dataset
        self._root, self._bucket, self._journal = work.root, work.bucket, work.journal
        self._address = plan.survey.address
        self._open: set[Fetching] = set()
        self._landed: list[Fetching] = []
        self.splits = Splits(plan, work.root)

    def moved(self, jobs: int) -> Iterator[Moved]:
        """Fetch all that is to be fetched, and put it in its place."""
        steps = self._plan.of(Action.FETCH)
        for each in map(self._compared, self._plan.of(Action.COMPARE)):
            if each.action is Action.KEEP and self._plan.replace:
                steps.append(each.step)
            else:
                yield each
        ask_for_unknown(
            self._plan.survey, (step.path for step in steps), self._bucket, self._journal
        )
        self._require_free(steps)
        synced_at = time.monotonic()
        try:
            units = self._units(steps)
            for fetching in side_by_side(units, jobs=jobs, stopped=self._work.flow.stopped):
                if fetching is not None:
                    self._landed.append(fetching)
                if time.monotonic() - synced_at > _SECONDS_BETWEEN_SYNCS:
                    yield from self._settle()
                    synced_at = time.monotonic()
            yield from self._settle()
        finally:
            for fetching in list(self._open):
                fetching.close()

    def _require_free(self, steps: Iterable[Step]) -> None:
        """Raise ImnetprepError unless each disk has room for what it is to take."""
        wanted = dict[int, tuple[Path, int]]()
        for step in steps:
            folder = existing_folder(self.splits.place(step).parent)
            _, before = wanted.get(folder.stat().st_dev, (folder, 0))
            wanted[folder.stat().st_dev] = folder, before + self._missing_bytes(step)
        for folder, size_bytes in wanted.values():
            require_free(folder, size_bytes, purpose="what is to be fetched")

    def _missing_bytes(self, step: Step) -> int:
        place = self.splits.place(step)
        there = allocated_bytes(part_path(place))
        if place != self._root.path / step.path:
            there += allocated_bytes(place)
        return max(0, step.size_bytes - there)

    def _compared(self, step: Step) -> Moved:
        """Read a file of the same size, to know whether its bytes are the same."""
        wanted = known_there(self._plan.survey, step.path, self._bucket, self._journal)
        path = self._root.path / step.path
        state = file_state(path)
        assert wanted is not None, "it was asked for when this was planned"
        known = read_known(path, wanted, self._work.flow)
        if file_state(path) == state:
            self._journal.keep_file(step.path, state, known)
        same = known.whole == wanted.whole
        return Moved(step, Action.SKIP if same else Action.KEEP, known, step.etag)

    def _units(self, steps: Iterable[Step]) -> Iterator[Callable[[], Fetching | None]]:
        for step in steps:
            wanted = known_there(self._plan.survey, step.path, self._bucket, self._journal)
            if self._is_there(step, wanted):
                self._work.flow.skipped(step.size_bytes)
                continue
            fetching = self._fetching(step, self.splits.place(step))
            spans = fetching.open()
            self._open.add(fetching)
            for span in spans:
                yield partial(_fetched, fetching, span)

    def _fetching(self, step: Step, path: Path) -> Fetching:
        wanted = known_there(self._plan.survey, step.path, self._bucket, self._journal)
        where = self._address / step.path
        if wanted is None:
            what = "the server keeps no checksum, nothing verifies its bytes"
            self._work.progress.note(f"{where}: {what}")
        hint = "it is another file: name the right prefix, or leave it out by --what"
        pieces = pieces_of(self._dataset, step.path, step.size_bytes, where=where, hint=hint)
        return Fetching(step, path, where, self._work, wanted=wanted, pieces=pieces)

    def _is_there(self, step: Step, wanted: Known | None) -> bool:
        """Did an earlier run fetch it, of a split that has no folder yet?"""
        place = self.splits.place(step)
        if wanted is None or place == self._root.path / step.path or not place.is_file():
            return False
        known = self._journal.of_file(step.path, file_state(place), wanted.whole.kind)
        return known is not None and known.whole == wanted.whole

    def _settle(self) -> Iterator[Moved]:
        """What has landed gets its name, after a sync that covers it."""
        landed, self._landed = self._landed, []
        under_way = list(self._open)  # threads add to it
        places = {each.path.parent.stat().st_dev: each.path.parent for each in under_way}
        with self._journal.syncing():
            for place in places.values():
                sync_file_system(place)
        folders = set()
        for fetching in landed:
            self._open.discard(fetching)
            self._refuse_touched(fetching)
            part_path(fetching.path).replace(fetching.path)
            folders.add(fetching.path.parent)
        for folder in folders:
            sync_folder(folder)
        with self._journal.together():
            kept = [self._kept(fetching) for fetching in landed]
        proofs = {
            fetching.path: fetching.proof
            for fetching in landed
            if what_of(fetching.step.path) is What.ARCHIVES
            and fetching.path.suffix != ".json"
            and fetching.proof is not None
        }
        if proofs:
            record_archives(self._root, proofs)
        yield from kept

    def _refuse_touched(self, fetching: Fetching) -> None:
        """Raise ImnetprepError where somebody else has written what is to get its name."""
        path, step = fetching.path, fetching.step
        if path != self._root.path / step.path:
            return  # grows where only we write
        here = self._plan.survey.here.get(step.path)
        mtime_ns = path.stat().st_mtime_ns if path.exists() else None
        if mtime_ns != (here and here.mtime_ns) or is_busy(self._root, step.path):
            raise ImnetprepError(
                f"{path} was written meanwhile; what came is kept beside it",
                hint="run the same command again: it compares the two",
            )

    def _kept(self, fetching: Fetching) -> Moved:
        """What is known of it now outlives this process."""
        step, known, state = fetching.step, fetching.known, file_state(fetching.path)
        address, etag = fetching.address, step.etag or ""
        self._journal.forget_fetching(step.path)
        self._journal.keep_file(step.path, state, known)
        self._journal.keep_object(address, etag, known)
        self._journal.keep_synced(address, etag, value_of(known))
        return Moved(step, Action.FETCH, known, etag)


def fetch_manifest(found: Survey, work: Work) -> Fetched | None:
    """The manifest in the bucket, looked through. Its file is the caller's to remove."""
    if found.manifest is None:
        return None
    path = work.root.organizing / f"fetched-{MANIFEST}"
    size_bytes, etag = found.manifest.size_bytes, found.manifest.etag
    fetching = Fetching(
        Step(MANIFEST, Action.FETCH, size_bytes, "lists what is there", etag),
        path,
        found.address / MANIFEST,
        work,
        wanted=known_there(found, MANIFEST, work.bucket, work.journal),
    )
    try:
        units = (partial(_fetched, fetching, span) for span in fetching.open())
        list(side_by_side(units, jobs=_JOBS_FOR_ONE, stopped=work.flow.stopped))
    finally:
        fetching.close()
    part_path(path).replace(path)
    work.journal.forget_fetching(MANIFEST)
    return read_fetched(path)


def _fetched(fetching: Fetching, span: range) -> Fetching | None:
    """The file, where that was the last of it."""
    return fetching if fetching.fetch(span) else None
