"""Carry out a plan of a sync, from its first byte to the receipt, which comes last."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from imnetprep.archives.file import file_state
from imnetprep.catalog.datasets import Dataset, Layout, Split
from imnetprep.digests import Checksum
from imnetprep.fs import locked
from imnetprep.jobs import TRANSFERS
from imnetprep.layouts.webdataset import INDEX
from imnetprep.manifest import dataset_for
from imnetprep.messages import ImnetprepError, SourceFailed, WrongBytes
from imnetprep.proving.receipt import parse_proof
from imnetprep.s3.failures import explained
from imnetprep.sync.bucket_manifest import (
    Key,
    RemoteManifest,
    publish_pulled,
    split_fingerprints,
    write_bucket_manifest,
)
from imnetprep.sync.bucket_receipt import push_receipt
from imnetprep.sync.keys import MANIFEST, Content
from imnetprep.sync.plan import Action, Direction, Outcome, Relation, Step, SyncPlan
from imnetprep.sync.pull import Pull, fetch_manifest
from imnetprep.sync.push import Push
from imnetprep.transfers.flow import Flow

_DELETED_AT_ONCE = 1000
_WORTH_REMEMBERING_BYTES = 64 << 20
_NAMES_IN_ERROR = 3


def best_kind() -> str:
    """The strongest checksum of a whole object that S3 has and that can be computed here."""
    return "crc64nvme" if Checksum.is_known("crc64nvme") else "crc32"


class Sync:
    """A plan to be carried out. One process at a time: the caller has the lock."""

    def __init__(self, plan: SyncPlan) -> None:
        self._plan, self._survey = plan, plan.survey
        self._root, self._journal = plan.survey.root, plan.survey.journal
        self._address = plan.survey.address
        self._outcomes: list[Outcome] = []
        self._deletes = set[str]()

    def carried_out(
        self, *, jobs: int | None = None, max_rate: float | None = None, delete: bool = False
    ) -> Iterator[Outcome]:
        """Do what is planned, and yield each file as it is done; `delete`: also what is listed so.

        Raises ImnetprepError in the end where files differ and were kept.
        """
        plan, is_push = self._plan, self._plan.direction is Direction.PUSH
        steps = plan.of(Action.SEND, Action.COMPARE, Action.FETCH)
        with ExitStack() as stack:
            if not is_push:
                stack.enter_context(locked(self._root.organizing))
                if Content.ARCHIVES in self._survey.contents:
                    stack.enter_context(locked(self._root.archives))
            for upload in plan.stale:
                ids = {"Key": upload.key, "UploadId": upload.upload_id}
                with explained(self._address):
                    self._survey.bucket.call("abort_multipart_upload", **ids)
            title, total = f"{plan.direction} {self._address}", sum(s.size_bytes for s in steps)
            task = stack.enter_context(self._survey.progress.task(title, total=total, unit="B"))
            flow, start_s = Flow(task, max_rate), time.monotonic()
            self._deletes = {step.path for step in plan.of(Action.DELETE)} if delete else set()
            for outcome in self._push(flow, jobs) if is_push else self._pull(flow, jobs):
                self._outcomes.append(outcome)
                yield outcome
            if flow.moved_bytes > _WORTH_REMEMBERING_BYTES:
                seconds = time.monotonic() - start_s
                self._journal.keep_rate(plan.direction, flow.moved_bytes / seconds)
            if delete:
                yield from self._deleted()
            if is_push:
                push_receipt(self._survey, outcomes=self._outcomes, deletes=self._deletes)
        self._refuse_kept()

    def _local_dataset(self) -> Dataset | None:
        manifest = self._root.manifest
        return dataset_for(manifest, None) if manifest.exists() else None

    def _push(self, flow: Flow, jobs: int | None) -> Iterator[Outcome]:
        push = Push(self._plan, flow, self._local_dataset())
        yield from push.outcomes(TRANSFERS.count(jobs))
        if Content.MANIFEST in self._survey.contents and self._root.manifest.exists():
            yield from self._push_manifest(push, flow)

    def _remote_manifest(self, flow: Flow) -> RemoteManifest | None:
        """The manifest in the bucket; None: there is none, or a damaged one is to be replaced."""
        try:
            return fetch_manifest(self._survey, flow)
        except WrongBytes:
            if not self._plan.replace or Content.SHARDS not in self._survey.contents:
                raise
            return None

    def _push_manifest(self, push: Push, flow: Flow) -> Iterator[Outcome]:
        """A copy of the manifest that lists what is in the bucket, where that has not got it."""
        item, address = self._survey.manifest, self._address / MANIFEST
        splits, conflicts = self._remote_splits()
        state = f"{self._manifest_state()} {sorted(splits)} {sorted(conflicts)}"
        if item and self._journal.synced(address, "push") == (item.etag, state):
            return
        remote = self._remote_manifest(flow)
        if Content.SHARDS not in self._survey.contents:  # nobody looked which of them are there
            splits = conflicts = {*remote.fingerprints} if remote else set()
        splits -= conflicts - (remote.fingerprints.keys() if remote else set())
        copy = self._root.organizing / f"bucket-{MANIFEST}"
        write_bucket_manifest(
            self._root.manifest, copy, splits=splits, remote=remote, conflicts=conflicts
        )
        if remote is not None:
            remote.path.unlink()
        fingerprints = split_fingerprints(copy)
        if remote is not None and item and fingerprints == remote.fingerprints:
            copy.unlink()
            self._journal.keep_synced(address, item.etag, state, "push")
            return
        size_bytes = copy.stat().st_size
        etag = item.etag if item else None
        step = Step(MANIFEST, Action.SEND, size_bytes, "lists what is there", etag)
        outcome = push.sent_from(copy, step)
        copy.unlink()
        self._journal.keep_synced(address, outcome.etag or "", state, "push")
        yield outcome

    def _remote_splits(self) -> tuple[set[Key], set[Key]]:
        """The splits that are in the bucket now, and the ones whose shards differ there."""
        remote = {*self._survey.remote}
        remote |= {outcome.step.path for outcome in self._outcomes if outcome.action is Action.SEND}
        remote -= self._deletes
        splits, conflicts = set[Key](), set[Key]()
        kept_paths = {step.path for step in self._kept()}
        for split in Split:
            key, folder = (split, Layout.WEBDATASET), f"{Content.SHARDS}/{split}/"
            if f"{folder}{INDEX}" in remote:
                splits.add(key)
            if any(path.startswith(folder) for path in kept_paths):
                conflicts.add(key)
        return splits, conflicts

    def _pull(self, flow: Flow, jobs: int | None) -> Iterator[Outcome]:
        item, address = self._survey.manifest, self._address / MANIFEST
        base = self._journal.synced(address, "pull")
        remote = None
        if item and (self._plan.of(Action.FETCH) or base != (item.etag, self._manifest_state())):
            remote = fetch_manifest(self._survey, flow)
        dataset = self._local_dataset() or (remote.dataset if remote else None)
        pull = Pull(self._plan, flow, dataset)
        yield from pull.outcomes(TRANSFERS.count(jobs))
        records = publish_pulled(
            self._root, remote, pull.splits.whole(),
            facts=self._split_facts, replace=self._plan.replace,
        )  # fmt: skip
        pull.splits.clear()
        if remote is not None and item is not None:
            self._journal.keep_synced(address, item.etag, self._manifest_state(), "pull")
            remote.path.unlink()
            if records:
                step = Step(MANIFEST, Action.FETCH, item.size_bytes, "lists them", item.etag)
                yield Outcome(step, Action.FETCH, etag=item.etag)

    def _split_facts(self, folder: str) -> dict[str, Any]:
        """What the receipt in the bucket says of a split, and which bucket that was."""
        facts = self._survey.receipt.sections.get("splits", {}).get(folder, {})
        fetched_from = {"fetched_from": str(self._address)}
        return {**facts, **fetched_from} if _is_record(facts) else fetched_from

    def _manifest_state(self) -> str:
        """A text that changes with the manifest of the root."""
        manifest = self._root.manifest
        return str(sorted(file_state(manifest).items())) if manifest.exists() else ""

    def _kept(self) -> list[Step]:
        """The files that both sides have and that were left alone, since they differ."""
        return self._plan.kept + [e.step for e in self._outcomes if e.action is Action.KEEP]

    def _refuse_kept(self) -> None:
        steps = self._kept()
        paths = [step.path for step in steps]
        if not paths:
            return
        is_unproved = all(step.reason == Relation.NO_CHECKSUM for step in steps)
        reason, way = "they differ", "--check says how they differ"
        if is_unproved:
            reason = "nothing proves them equal: the server keeps no checksum"
            way = "imnetprep sync-s3 --check --deep reads both sides, and they are known after it"
        rest = f" and {len(paths) - _NAMES_IN_ERROR:,} more" if len(paths) > _NAMES_IN_ERROR else ""
        side = "in the bucket" if self._plan.direction is Direction.PUSH else "here"
        raise ImnetprepError(
            f"kept as they are, since both sides have them and {reason}:"
            f" {', '.join(paths[:_NAMES_IN_ERROR])}{rest}",
            hint=f"{way}; --replace overwrites what is {side}",
        )

    def _deleted(self) -> Iterator[Outcome]:
        """Remove what the other side does not have."""
        steps = self._plan.of(Action.DELETE)
        if self._plan.direction is Direction.PULL:
            for step in steps:
                self._root.place(step.path).unlink(missing_ok=True)
        else:
            for at in range(0, len(steps), _DELETED_AT_ONCE):
                batch = steps[at : at + _DELETED_AT_ONCE]
                objects = [{"Key": (self._address / step.path).key} for step in batch]
                with explained(self._address):
                    answer = self._survey.bucket.call(
                        "delete_objects", Delete={"Objects": objects, "Quiet": True}
                    )
                for error in answer.get("Errors", ()):
                    raise SourceFailed(
                        f"s3://{self._address.bucket}/{error.get('Key')} was not removed:"
                        f" {error.get('Message') or error.get('Code')}",
                        hint="your credentials need s3:DeleteObject there",
                    )
        yield from (Outcome(step, Action.DELETE) for step in steps)


def _is_record(facts: Any) -> bool:
    """Whether `record_split` may write these `facts`, which come from a bucket."""
    if not isinstance(facts, dict) or {"root", "split"} & facts.keys():
        return False
    try:
        return "proof" not in facts or bool(parse_proof(facts["proof"]))
    except ValueError:
        return False
