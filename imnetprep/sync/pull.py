"""Carrying out a pull: objects to files, proved as they are written, whole or absent.

A file gets its name after a sync that covers it. The shards of a split wait out of sight under
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
from imnetprep.jobs import TRANSFERS_OF_ONE
from imnetprep.messages import ImnetprepError
from imnetprep.proving.receipt import record_archives
from imnetprep.sync.bucket_manifest import RemoteManifest, read_remote_manifest
from imnetprep.sync.jobs import side_by_side
from imnetprep.sync.journal import Checksums
from imnetprep.sync.keys import MANIFEST, Content, content_of, is_busy
from imnetprep.sync.object_download import ObjectDownload, part_path
from imnetprep.sync.plan import Action, Outcome, Step, SyncPlan, Work, value_of
from imnetprep.sync.pulled_splits import Splits
from imnetprep.sync.survey import Survey, ask_for_unknown, object_checksums, pieces_of

_SECONDS_BETWEEN_SYNCS = 2.0


class Pull:
    """A pull at work. Its `splits` get their folders when all has come."""

    def __init__(self, plan: SyncPlan, work: Work, dataset: Dataset | None) -> None:
        self._plan, self._work, self._dataset = plan, work, dataset
        self._root, self._bucket, self._journal = work.root, work.bucket, work.journal
        self._address = plan.survey.address
        self._open: set[ObjectDownload] = set()
        self._arrivals: list[ObjectDownload] = []
        self.splits = Splits(plan, work.root)

    def outcomes(self, jobs: int) -> Iterator[Outcome]:
        """Fetch all that is to be fetched, and put it in its place."""
        steps = self._plan.of(Action.FETCH)
        for each in map(self._compared, self._plan.of(Action.COMPARE)):
            if each.action is Action.KEEP and self._plan.replace:
                steps.append(each.step)
            else:
                yield each
        paths = [step.path for step in steps]
        ask_for_unknown(self._plan.survey, paths, self._bucket, self._journal)
        self._require_free(steps)
        synced_at = time.monotonic()
        try:
            units = self._units(steps)
            for download in side_by_side(units, jobs=jobs, stop=self._work.flow.stop):
                if download is not None:
                    self._arrivals.append(download)
                if time.monotonic() - synced_at > _SECONDS_BETWEEN_SYNCS:
                    yield from self._settle()
                    synced_at = time.monotonic()
            yield from self._settle()
        finally:
            for download in list(self._open):
                download.close()

    def _require_free(self, steps: Iterable[Step]) -> None:
        """Raise ImnetprepError unless each disk has room for what it is to take."""
        needs = dict[int, tuple[Path, int]]()
        for step in steps:
            folder = existing_folder(self.splits.place(step).parent)
            _, need_bytes = needs.get(folder.stat().st_dev, (folder, 0))
            needs[folder.stat().st_dev] = folder, need_bytes + self._missing_bytes(step)
        for folder, size_bytes in needs.values():
            require_free(folder, size_bytes, purpose="what is to be fetched")

    def _missing_bytes(self, step: Step) -> int:
        place = self.splits.place(step)
        disk_bytes = allocated_bytes(part_path(place))
        if place != self._root.path / step.path:
            disk_bytes += allocated_bytes(place)
        return max(0, step.size_bytes - disk_bytes)

    def _compared(self, step: Step) -> Outcome:
        """Read a file of the same size, to know whether its bytes are the same."""
        target = object_checksums(self._plan.survey, step.path, self._bucket, self._journal)
        assert target is not None, "it was asked for when this was planned"
        checksums = self._work.file_checksums(step.path, target)
        is_same = checksums.whole == target.whole
        return Outcome(step, Action.SKIP if is_same else Action.KEEP, checksums, step.etag)

    def _units(self, steps: Iterable[Step]) -> Iterator[Callable[[], ObjectDownload | None]]:
        for step in steps:
            target = object_checksums(self._plan.survey, step.path, self._bucket, self._journal)
            if self._has_come(step, target):
                self._work.flow.skipped(step.size_bytes)
                continue
            download = self._download(step, self.splits.place(step))
            spans = download.open()
            self._open.add(download)
            for span in spans:
                yield partial(_fetched, download, span)

    def _download(self, step: Step, path: Path) -> ObjectDownload:
        target = object_checksums(self._plan.survey, step.path, self._bucket, self._journal)
        place = self._address / step.path
        if target is None:
            problem = "the server keeps no checksum, nothing verifies its bytes"
            self._work.progress.note(f"{place}: {problem}")
        hint = "it is another file: name the right prefix, or leave it out by --what"
        pieces = pieces_of(self._dataset, step.path, step.size_bytes, place=place, hint=hint)
        return ObjectDownload(step, path, place, self._work, target=target, pieces=pieces)

    def _has_come(self, step: Step, target: Checksums | None) -> bool:
        """Whether an earlier run fetched it, of a split that has no folder yet."""
        place = self.splits.place(step)
        if target is None or place == self._root.path / step.path or not place.is_file():
            return False
        checksums = self._journal.of_file(step.path, file_state(place), target.whole.kind)
        return checksums is not None and checksums.whole == target.whole

    def _settle(self) -> Iterator[Outcome]:
        """Give what has come its name, after a sync that covers it."""
        arrivals, self._arrivals = self._arrivals, []
        under_way = list(self._open)  # threads add to it
        places = {each.path.parent.stat().st_dev: each.path.parent for each in under_way}
        with self._journal.syncing():
            for place in places.values():
                sync_file_system(place)
        folders = set()
        for download in arrivals:
            self._open.discard(download)
            self._refuse_touched(download)
            part_path(download.path).replace(download.path)
            folders.add(download.path.parent)
        for folder in folders:
            sync_folder(folder)
        with self._journal.together():
            outcomes = [self._recorded(download) for download in arrivals]
        proofs = {
            download.path: download.proof
            for download in arrivals
            if content_of(download.step.path) is Content.ARCHIVES
            and download.path.suffix != ".json"
            and download.proof is not None
        }
        if proofs:
            record_archives(self._root, proofs)
        yield from outcomes

    def _refuse_touched(self, download: ObjectDownload) -> None:
        """Raise ImnetprepError where somebody else has written what is to get its name."""
        path, step = download.path, download.step
        if path != self._root.path / step.path:
            return  # it is written where only we write
        file = self._plan.survey.local.get(step.path)
        mtime_ns = path.stat().st_mtime_ns if path.exists() else None
        if mtime_ns != (file and file.mtime_ns) or is_busy(self._root, step.path):
            raise ImnetprepError(
                f"{path} was written meanwhile; what came is kept beside it",
                hint="run the same command again: it compares the two",
            )

    def _recorded(self, download: ObjectDownload) -> Outcome:
        """Record what is known of a file now, for the next process."""
        step, checksums, state = download.step, download.checksums, file_state(download.path)
        address, etag = download.address, step.etag or ""
        self._journal.forget_fetching(step.path)
        self._journal.keep_file(step.path, state, checksums)
        self._journal.keep_object(address, etag, checksums)
        self._journal.keep_synced(address, etag, value_of(checksums))
        return Outcome(step, Action.FETCH, checksums, etag)


def fetch_manifest(survey: Survey, work: Work) -> RemoteManifest | None:
    """The manifest in the bucket, looked through. Its file is the caller's to remove."""
    if survey.manifest is None:
        return None
    path = work.root.organizing / f"fetched-{MANIFEST}"
    size_bytes, etag = survey.manifest.size_bytes, survey.manifest.etag
    download = ObjectDownload(
        Step(MANIFEST, Action.FETCH, size_bytes, "lists what is there", etag),
        path,
        survey.address / MANIFEST,
        work,
        target=object_checksums(survey, MANIFEST, work.bucket, work.journal),
    )
    try:
        units = (partial(_fetched, download, span) for span in download.open())
        list(side_by_side(units, jobs=TRANSFERS_OF_ONE.count(), stop=work.flow.stop))
    finally:
        download.close()
    part_path(path).replace(path)
    work.journal.forget_fetching(MANIFEST)
    return read_remote_manifest(path)


def _fetched(download: ObjectDownload, span: range) -> ObjectDownload | None:
    """The download, where `span` was the last of it."""
    return download if download.fetch(span) else None
