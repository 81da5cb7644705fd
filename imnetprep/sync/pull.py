"""Carrying out a pull: objects to files, proved as they are written, whole or absent.

A file gets its name after a sync that covers it. The shards of a split wait out of sight under
`.organizing` and get their folder when all of them are there.
"""

import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from imnetprep.archives.file import file_state
from imnetprep.catalog.datasets import Dataset, Layout, Split
from imnetprep.fs import (
    allocated_bytes,
    existing_folder,
    hard_link,
    require_distinct,
    require_free,
    sync_file_system,
    sync_folder,
)
from imnetprep.jobs import TRANSFERS_OF_ONE
from imnetprep.layouts.webdataset import INDEX, read_index
from imnetprep.messages import ImnetprepError, WrongBytes
from imnetprep.organizing.publish import refuse_other_disk
from imnetprep.proving.receipt import keep_arrival, record_arrivals
from imnetprep.sync.bucket_manifest import RemoteManifest, read_remote_manifest
from imnetprep.sync.keys import MANIFEST, Content, content_of, is_busy
from imnetprep.sync.object_download import ObjectDownload
from imnetprep.sync.plan import Action, Outcome, Step, SyncPlan, compared
from imnetprep.sync.survey import Survey, pieces_of
from imnetprep.transfers.flow import Flow, side_by_side
from imnetprep.transfers.range_download import pull_part_path

_SECONDS_BETWEEN_SYNCS = 2.0


class Pull:
    """A pull at work. Its `splits` get their folders when all has come."""

    def __init__(self, plan: SyncPlan, flow: Flow, dataset: Dataset | None) -> None:
        self._plan, self._survey, self._flow, self._dataset = plan, plan.survey, flow, dataset
        self._root, self._journal = plan.survey.root, plan.survey.journal
        self._open: set[ObjectDownload] = set()
        self._arrivals: list[ObjectDownload] = []
        self.splits = _Splits(plan)

    def outcomes(self, jobs: int) -> Iterator[Outcome]:
        """Fetch all that is to be fetched, and put it in its place."""
        record_arrivals(self._journal, self._root, self._root.place)
        steps = self._plan.of(Action.FETCH)
        for step in self._plan.of(Action.COMPARE):
            outcome = compared(self._survey, step, self._flow)
            if outcome.action is Action.KEEP and self._plan.replace:
                steps.append(step)
            else:
                yield outcome
        self._survey.ask_for_unknown(step.path for step in steps)
        self._require_free(steps)
        require_distinct(self._root.path, (step.path for step in steps))
        synced_at = time.monotonic()
        try:
            units = self._units(steps)
            for download in side_by_side(units, jobs=jobs, stop=self._flow.stop):
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
            place = self.splits.place(step)
            folder, disk_bytes = (
                existing_folder(place.parent),
                allocated_bytes(pull_part_path(place)),
            )
            if place != self._root.place(step.path):
                disk_bytes += allocated_bytes(place)
            _, need_bytes = needs.get(folder.stat().st_dev, (folder, 0))
            need_bytes += max(0, step.size_bytes - disk_bytes)
            needs[folder.stat().st_dev] = folder, need_bytes
        for folder, size_bytes in needs.values():
            require_free(folder, size_bytes, purpose="what is to be fetched")

    def _units(self, steps: Iterable[Step]) -> Iterator[Callable[[], ObjectDownload | None]]:
        for step in steps:
            download = self._download(step)
            if self._has_come(download):
                self._flow.skipped(step.size_bytes)
                continue
            spans = download.open()
            self._open.add(download)
            for span in spans:
                yield partial(download.fetch, span)

    def _download(self, step: Step) -> ObjectDownload:
        place, target = self._survey.address / step.path, self._survey.checksums(step.path)
        if target is None:
            problem = "the server keeps no checksum, nothing verifies its bytes"
            self._survey.progress.note(f"{place}: {problem}")
        hint = "it is another file: name the right prefix, or leave it out by --what"
        pieces = pieces_of(self._dataset, step.path, step.size_bytes, place=place, hint=hint)
        path = self.splits.place(step)
        return ObjectDownload(step, path, self._survey, self._flow, target=target, pieces=pieces)

    def _has_come(self, download: ObjectDownload) -> bool:
        """Whether an earlier run fetched it, of a split that has no folder yet."""
        name, path, target = download.step.path, download.path, download.target
        if target is None or path == self._root.place(name) or not path.is_file():
            return False
        checksums = self._journal.of_file(name, file_state(path), target.whole.kind)
        return checksums is not None and checksums.whole == target.whole

    def _settle(self) -> Iterator[Outcome]:
        """Give what has come its name, after a sync that covers it."""
        arrivals, self._arrivals = self._arrivals, []
        for download in arrivals:
            proof = download.proof if _is_archive(download.step.path) else None
            if proof is not None:  # a kill may come between the name and the receipt
                keep_arrival(self._journal, download.step.path, download.part, proof)
        under_way = list(self._open)  # threads add to it
        places = {each.path.parent.stat().st_dev: each.path.parent for each in under_way}
        with self._journal.syncing():
            for place in places.values():
                sync_file_system(place)
        folders = set()
        for download in arrivals:
            self._open.discard(download)
            self._refuse_touched(download)
            download.part.replace(download.path)
            folders.add(download.path.parent)
        for folder in folders:
            sync_folder(folder)
        with self._journal.together():
            outcomes = [self._recorded(download) for download in arrivals]
        record_arrivals(self._journal, self._root, self._root.place)
        yield from outcomes

    def _refuse_touched(self, download: ObjectDownload) -> None:
        """Raise ImnetprepError where somebody else has written what is to get its name."""
        path, step = download.path, download.step
        if path != self._root.place(step.path):
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
        self._journal.keep_synced(address, etag, str(checksums))
        return Outcome(step, Action.FETCH, checksums, etag)


def _is_archive(path: str) -> bool:
    return content_of(path) is Content.ARCHIVES and not path.endswith(".json")


class _Splits:
    """The splits of one pull: each gets its folder when all is there. As `refuse_other_disk`."""

    def __init__(self, plan: SyncPlan) -> None:
        self._plan, self._root = plan, plan.survey.root
        self._workspace = self._root.organizing / "sync"
        steps = plan.of(Action.FETCH, Action.COMPARE)
        self._folders = {_folder(step) for step in steps}
        conflicts = [step for step in steps if step.path in plan.survey.local and plan.replace]
        self._replacements = {_folder(step) for step in conflicts}
        for folder in filter(None, self._folders):
            if self._grows(folder):
                refuse_other_disk(self._root.place(folder), self._root)

    def place(self, step: Step) -> Path:
        """Where a file is written: beside its name, or where its unfinished split is."""
        folder = _folder(step)
        if folder is None or not self._grows(folder):
            return self._root.place(step.path)
        return self._workspace / step.path

    def _grows(self, folder: str) -> bool:
        """Is the split of this folder written out of sight: is it not here yet, or another one?"""
        return folder in self._replacements or not self._root.place(folder).exists()

    def whole(self) -> Iterator[tuple[tuple[Split, Layout], Path]]:
        """The splits that are whole by their index, sorted, each with the folder where it grew.

        Raises WrongBytes for a split that has not.
        """
        for split in sorted(Split):
            final = self._root.split(split, Layout.WEBDATASET)
            folder = str(final.relative_to(self._root.path))
            workspace = self._workspace / folder
            if folder not in self._folders or not workspace.is_dir():
                continue
            if final.exists():
                self._link_what_stays(folder)
            self._check_shards(workspace)
            yield (split, Layout.WEBDATASET), workspace

    def clear(self) -> None:
        """Remove what is left of unfinished splits, unless another one is there."""
        for folder in self._workspace.glob("*/*.replaced"):
            shutil.rmtree(folder, ignore_errors=True)
        for folder in (self._workspace / Content.SHARDS, self._workspace):
            with suppress(OSError):
                folder.rmdir()

    def _check_shards(self, folder: Path) -> None:
        lack, name = "an index of its shards that can be read", f"shards/{folder.name}/{INDEX}"
        with suppress(WrongBytes):
            index = read_index(folder)
            sizes = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
            gaps = [each.name for each in index.shards if sizes.get(each.name) != each.size_bytes]
            if not gaps:
                return
            lack, name = f"{len(gaps):,} of {len(index.shards):,} shards", gaps[0]
        raise WrongBytes(
            f"{self._plan.survey.address} lacks {lack} ({name})",
            hint="it was not sent whole: imnetprep sync-s3 --push where it comes from",
        )

    def _link_what_stays(self, folder: str) -> None:
        """What is here already and in the bucket too is part of the unfinished split."""
        for path in self._plan.survey.remote:
            local, link = self._root.place(path), self._workspace / path
            if path.startswith(f"{folder}/") and local.exists():
                link.parent.mkdir(parents=True, exist_ok=True)
                if not link.exists():
                    hard_link(local, link)


def _folder(step: Step) -> str | None:
    """The folder of the split that a file is part of."""
    return step.path.rpartition("/")[0] if content_of(step.path) is Content.SHARDS else None


def fetch_manifest(survey: Survey, flow: Flow) -> RemoteManifest | None:
    """The manifest in the bucket, looked through. Its file is the caller's to remove."""
    if survey.manifest is None:
        return None
    path = survey.root.organizing / f"fetched-{MANIFEST}"
    size_bytes, etag = survey.manifest.size_bytes, survey.manifest.etag
    step = Step(MANIFEST, Action.FETCH, size_bytes, "lists what is there", etag)
    download = ObjectDownload(step, path, survey, flow, target=survey.checksums(MANIFEST))
    try:
        units = (partial(download.fetch, span) for span in download.open())
        list(side_by_side(units, jobs=TRANSFERS_OF_ONE.count(), stop=flow.stop))
    finally:
        download.close()
    download.part.replace(path)
    survey.journal.forget_fetching(MANIFEST)
    return read_remote_manifest(path)
