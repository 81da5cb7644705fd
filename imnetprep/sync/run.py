"""A sync from its first byte to the receipt, which comes last."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from imnetprep.archives.file import file_state
from imnetprep.catalog.datasets import Dataset, Split
from imnetprep.digests import Checksum
from imnetprep.fs import locked
from imnetprep.layouts.webdataset import INDEX
from imnetprep.manifest import dataset_for
from imnetprep.messages import ImnetprepError, Progress, SourceFailed
from imnetprep.proving.proof import parse_proof
from imnetprep.roots import Layout, Root
from imnetprep.s3.bucket import Bucket
from imnetprep.s3.failures import told
from imnetprep.sync.bucket_manifest import (
    Key,
    publish_pulled,
    splits_told,
    write_bucket_manifest,
)
from imnetprep.sync.bucket_receipt import push_receipt
from imnetprep.sync.jobs import Flow
from imnetprep.sync.journal import SyncJournal
from imnetprep.sync.keys import MANIFEST, What
from imnetprep.sync.plan import Action, Direction, Step, SyncPlan
from imnetprep.sync.pull import Pull, fetch_manifest
from imnetprep.sync.push import Moved, Push
from imnetprep.sync.work import Work

DEFAULT_JOBS = 8
_DELETED_AT_ONCE = 1000
_WORTH_REMEMBERING_BYTES = 64 << 20
_SHOWN = 3


def best_kind() -> str:
    """The strongest checksum of a whole object that S3 has and that can be computed here."""
    return "crc64nvme" if Checksum.is_known("crc64nvme") else "crc32"


class Sync:
    """A plan and where it is carried out. One process at a time: the caller has the lock."""

    def __init__(
        self,
        plan: SyncPlan,
        root: Root,
        bucket: Bucket,
        journal: SyncJournal,
        *,
        kind: str | None = None,
        progress: Progress,
    ) -> None:
        self._plan, self._root, self._bucket, self._journal = plan, root, bucket, journal
        self._kind, self._progress = kind or best_kind(), progress
        self._address = plan.survey.address
        self._done: list[Moved] = []
        self._gone = set[str]()
        self._manifest_copy = root.organizing / f"bucket-{MANIFEST}"

    def carried_out(
        self, *, jobs: int | None = None, max_rate: float | None = None, delete: bool = False
    ) -> Iterator[Moved]:
        """Do what is planned, and yield each file as it is done; `delete`: also what is listed so.

        Raises ImnetprepError in the end where files differ and were kept.
        """
        plan, pushing = self._plan, self._plan.direction is Direction.PUSH
        steps = plan.of(Action.SEND, Action.COMPARE, Action.FETCH)
        with ExitStack() as stack:
            if not pushing:
                stack.enter_context(locked(self._root.organizing))
                if What.ARCHIVES in plan.what:
                    stack.enter_context(locked(self._root.archives))
            for upload in plan.stale:
                with told(self._address):
                    self._bucket.call(
                        "abort_multipart_upload", Key=upload.key, UploadId=upload.upload_id
                    )
            what, total = f"{plan.direction} {self._address}", sum(s.size_bytes for s in steps)
            task = stack.enter_context(self._progress.task(what, total=total, unit="B"))
            flow, begun = Flow(task, max_rate), time.monotonic()
            work = Work(
                root=self._root, bucket=self._bucket, journal=self._journal, kind=self._kind,
                flow=flow, progress=self._progress,
            )  # fmt: skip
            self._gone = {step.path for step in plan.of(Action.DELETE)} if delete else set()
            yield from self._push(work, jobs) if pushing else self._pull(work, jobs)
            if flow.moved_bytes > _WORTH_REMEMBERING_BYTES:
                seconds = time.monotonic() - begun
                self._journal.keep_rate(plan.direction, flow.moved_bytes / seconds)
            if delete:
                yield from self._deleted()
            if pushing:
                push_receipt(plan, work, done=self._done, gone=self._gone)
        self._refuse_kept()

    def _dataset_here(self) -> Dataset | None:
        manifest = self._root.manifest
        return dataset_for(manifest, None) if manifest.exists() else None

    def _push(self, work: Work, jobs: int | None) -> Iterator[Moved]:
        push = Push(self._plan, work, self._dataset_here())
        for moved in push.moved(jobs or DEFAULT_JOBS):
            self._done.append(moved)
            yield moved
        if What.MANIFEST in self._plan.what and self._root.manifest.exists():
            yield from self._push_manifest(push, work)

    def _push_manifest(self, push: Push, work: Work) -> Iterator[Moved]:
        """A copy of the manifest that lists what is in the bucket, where that has not got it."""
        found, address = self._plan.survey.manifest, self._address / MANIFEST
        splits, theirs = self._splits_there()
        key = f"{sorted(file_state(self._root.manifest).items())} {sorted(splits)} {sorted(theirs)}"
        if found and self._journal.synced(address, "push") == (found.etag, key):
            return
        fetched = fetch_manifest(self._plan.survey, work)
        splits = {
            each for each in splits if each not in theirs or (fetched and each in fetched.told)
        }
        write_bucket_manifest(
            self._root.manifest, self._manifest_copy, splits=splits, fetched=fetched, theirs=theirs
        )
        if fetched is not None:
            fetched.path.unlink()
        if fetched is not None and found and splits_told(self._manifest_copy) == fetched.told:
            self._manifest_copy.unlink()
            self._journal.keep_synced(address, found.etag, key, "push")
            return
        size_bytes = self._manifest_copy.stat().st_size
        etag = found.etag if found else None
        step = Step(MANIFEST, Action.SEND, size_bytes, "lists what is there", etag)
        moved = push.sent_from(self._manifest_copy, step)
        self._manifest_copy.unlink()
        self._journal.keep_synced(address, moved.etag or "", key, "push")
        self._done.append(moved)
        yield moved

    def _splits_there(self) -> tuple[set[Key], set[Key]]:
        """The splits that are in the bucket now; and those that are other ones there than here."""
        there = {*self._plan.survey.there}
        there |= {moved.step.path for moved in self._done if moved.action is Action.SEND}
        there -= self._gone
        splits, theirs = set[Key](), set[Key]()
        kept = {step.path for step in self._kept()}
        for split in Split:
            key, folder = (split, Layout.WEBDATASET), f"{What.SHARDS}/{split}/"
            if f"{folder}{INDEX}" in there:
                splits.add(key)
            if any(path.startswith(folder) for path in kept):
                theirs.add(key)
        return splits, theirs

    def _pull(self, work: Work, jobs: int | None) -> Iterator[Moved]:
        found, address = self._plan.survey.manifest, self._address / MANIFEST
        known = self._journal.synced(address, "pull")
        fetched = None
        if found and (self._plan.of(Action.FETCH) or known != (found.etag, self._manifest_state())):
            fetched = fetch_manifest(self._plan.survey, work)
        dataset = self._dataset_here() or (fetched.dataset if fetched else None)
        pull = Pull(self._plan, work, dataset)
        for moved in pull.moved(jobs or DEFAULT_JOBS):
            self._done.append(moved)
            yield moved
        taken = publish_pulled(
            self._root, fetched, pull.splits.whole(),
            facts=self._split_facts, replace=self._plan.replace,
        )  # fmt: skip
        pull.splits.clear()
        if fetched is not None and found is not None:
            self._journal.keep_synced(address, found.etag, self._manifest_state(), "pull")
            fetched.path.unlink()
            if taken:
                step = Step(MANIFEST, Action.FETCH, found.size_bytes, "lists them", found.etag)
                yield Moved(step, Action.FETCH, None, found.etag)

    def _split_facts(self, folder: str) -> dict[str, Any]:
        """What the receipt in the bucket says of a split, and where that was."""
        facts = self._plan.survey.receipt.told.get("splits", {}).get(folder, {})
        fetched_from = {"fetched_from": str(self._address)}
        return {**facts, **fetched_from} if _is_record(facts) else fetched_from

    def _manifest_state(self) -> str:
        """What changes with the manifest here."""
        manifest = self._root.manifest
        return str(sorted(file_state(manifest).items())) if manifest.exists() else ""

    def _kept(self) -> list[Step]:
        """What both sides have, and differs."""
        return self._plan.kept + [moved.step for moved in self._done if moved.action is Action.KEEP]

    def _refuse_kept(self) -> None:
        paths = [step.path for step in self._kept()]
        if not paths:
            return
        more = f" and {len(paths) - _SHOWN:,} more" if len(paths) > _SHOWN else ""
        side = "in the bucket" if self._plan.direction is Direction.PUSH else "here"
        raise ImnetprepError(
            f"kept as they are, since both sides have them and they differ:"
            f" {', '.join(paths[:_SHOWN])}{more}",
            hint=f"--check says how they differ; --replace overwrites what is {side}",
        )

    def _deleted(self) -> Iterator[Moved]:
        """Remove what the other side does not have."""
        steps = self._plan.of(Action.DELETE)
        if self._plan.direction is Direction.PULL:
            for step in steps:
                (self._root.path / step.path).unlink(missing_ok=True)
        else:
            for at in range(0, len(steps), _DELETED_AT_ONCE):
                batch = steps[at : at + _DELETED_AT_ONCE]
                objects = [{"Key": (self._address / step.path).key} for step in batch]
                with told(self._address):
                    answer = self._bucket.call(
                        "delete_objects", Delete={"Objects": objects, "Quiet": True}
                    )
                for error in answer.get("Errors", ()):
                    raise SourceFailed(
                        f"s3://{self._address.bucket}/{error.get('Key')} was not removed:"
                        f" {error.get('Message') or error.get('Code')}",
                        hint="your credentials need s3:DeleteObject there",
                    )
        yield from (Moved(step, Action.DELETE, None, None) for step in steps)


def _is_record(facts: Any) -> bool:
    """Is it what `record_split` may write? It comes from a bucket."""
    if not isinstance(facts, dict) or {"root", "split"} & facts.keys():
        return False
    try:
        return "proof" not in facts or bool(parse_proof(facts["proof"]))
    except ValueError:
        return False
