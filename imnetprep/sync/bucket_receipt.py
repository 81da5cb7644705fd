"""The receipt that a push leaves in the bucket, last of all: what is known of its objects."""

from collections.abc import Collection, Mapping
from typing import Any

import botocore.exceptions as failures

from imnetprep.digests import Checksum
from imnetprep.messages import ImnetprepError
from imnetprep.proving.receipt import read_receipt
from imnetprep.s3.failures import explained, has_met
from imnetprep.s3.upload import Guard, Sender
from imnetprep.sync.keys import MANIFEST, RECEIPT, Content, content_of
from imnetprep.sync.plan import Action, Outcome, SyncPlan, Work
from imnetprep.sync.remote_receipt import ObjectRecord, RemoteReceipt, format_receipt
from imnetprep.sync.survey import fetch_receipt, local_digests, object_checksums

_TRIES = 5
_DATE = "recorded_at"


def push_receipt(
    plan: SyncPlan, work: Work, *, outcomes: Collection[Outcome], deletes: Collection[str]
) -> None:
    """Say in the bucket what is known of its objects; somebody else may do so meanwhile.

    `outcomes`: of the files that were sent, `deletes`: the paths of the objects removed.
    """
    receipt, etag = plan.survey.receipt, plan.survey.receipt_etag
    address = plan.survey.address
    place = address / RECEIPT
    guard = Guard(work.kind, on_note=lambda _: None)
    sender = Sender(work.bucket, guard, on_bytes=lambda _: None, on_note=work.progress.note)
    for attempt in range(1, _TRIES + 1):
        body = format_receipt(_merged(receipt, plan, work, outcomes=outcomes, deletes=deletes))
        if etag is not None and body == format_receipt(receipt):
            return
        condition = {"If-Match": f'"{etag}"'} if etag else {"If-None-Match": "*"}
        headers = {**condition, "Content-Type": "application/json"}
        checksum = Checksum.empty(work.kind).over(body)
        try:
            with explained(place):
                new_etag = sender.put(place.key, memoryview(body), checksum, headers)
            work.journal.keep_body(place, new_etag, body)
            return
        except ImnetprepError as error:
            cause = error.__cause__
            is_conflict = isinstance(cause, failures.ClientError) and has_met(cause)
            if not is_conflict or attempt == _TRIES:
                raise
            receipt, etag = fetch_receipt(work.bucket, address, work.journal, work.progress)


def _merged(
    receipt: RemoteReceipt,
    plan: SyncPlan,
    work: Work,
    *,
    outcomes: Collection[Outcome],
    deletes: Collection[str],
) -> RemoteReceipt:
    """What the `receipt` in the bucket said, and what is known of both sides after this push."""
    survey = plan.survey
    objects = {
        path: record
        for path, record in receipt.objects.items()
        if path not in deletes and _still_holds(path, record, plan)
    }
    digests = dict(local_digests(work.root, survey.local.values()))  # some are proved only now
    for path, item in survey.remote.items():
        checksums = object_checksums(survey, path, None, work.journal)
        if checksums is not None and path not in deletes:
            old_digests = objects[path].digests if path in objects else {}
            objects[path] = ObjectRecord(item.etag, checksums, old_digests)
    for outcome in outcomes:
        path, checksums = outcome.step.path, outcome.checksums
        if outcome.action is Action.SEND and checksums is not None and outcome.etag:
            objects[path] = ObjectRecord(outcome.etag, checksums, digests.get(path, {}))
    local = read_receipt(work.root)
    archives = {
        name: {key: record[key] for key in ("proof", _DATE) if key in record}
        for name, record in local["archives"].items()
        if f"{Content.ARCHIVES}/{name}" in objects and "of" not in record["proof"]
    }
    splits = {
        name: {key: value for key, value in record.items() if key != "fetched_from"}
        for name, record in local["splits"].items()
    }
    sections = {
        name: _with(receipt.sections.get(name, {}), records)
        for name, records in (("archives", archives), ("splits", splits))
    }
    return RemoteReceipt(sections, objects)


def _still_holds(path: str, record: ObjectRecord, plan: SyncPlan) -> bool:
    """Whether the receipt in the bucket is right about an object, as far as this sync looked."""
    survey = plan.survey
    item = survey.manifest if path == MANIFEST else survey.remote.get(path)
    if item is not None:
        return item.etag == record.etag
    # Not looked at now, or written by somebody who sent it since.
    return content_of(path) not in plan.contents or path not in survey.receipt.objects


def _with(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The records of both. One that says as much as before keeps its date, or two roots would
    write it in turn.
    """
    return {**old, **{k: v for k, v in new.items() if _undated(v) != _undated(old.get(k))}}


def _undated(record: Any) -> Any:
    return {**record, _DATE: None, "imnetprep": None} if isinstance(record, dict) else record
