"""The receipt that a push leaves in the bucket, last of all: what is known of its objects."""

from collections.abc import Collection, Mapping
from typing import Any

import botocore.exceptions as failures

from imnetprep.digests import Checksum
from imnetprep.messages import ImnetprepError
from imnetprep.proving.receipt import read_receipt
from imnetprep.s3.failures import explained, has_met
from imnetprep.s3.upload import Sender
from imnetprep.sync.keys import MANIFEST, RECEIPT, Content, content_of
from imnetprep.sync.plan import Action, Outcome
from imnetprep.sync.remote_receipt import ObjectRecord, RemoteReceipt, format_receipt
from imnetprep.sync.survey import Survey, local_digests

_TRIES = 5
_DATE = "recorded_at"


def push_receipt(
    survey: Survey, *, outcomes: Collection[Outcome], deletes: Collection[str]
) -> None:
    """Say in the bucket what is known of its objects; somebody else may do so meanwhile.

    `outcomes`: of the files that were sent, `deletes`: the paths of the objects removed.
    """
    latest, place = survey, survey.address / RECEIPT
    sender = Sender(survey.bucket, survey.kind, on_note=survey.progress.note)
    for attempt in range(1, _TRIES + 1):
        receipt, etag = latest.receipt, latest.receipt_etag
        body = format_receipt(_merged(receipt, survey, outcomes=outcomes, deletes=deletes))
        if etag is not None and body == format_receipt(receipt):
            return
        condition = {"If-Match": f'"{etag}"'} if etag else {"If-None-Match": "*"}
        headers = {**condition, "Content-Type": "application/json"}
        checksum = Checksum.empty(survey.kind).over(body)
        try:
            with explained(place):
                new_etag = sender.put(place.key, memoryview(body), checksum, headers)
            survey.journal.keep_body(place, new_etag, body)
            return
        except ImnetprepError as error:
            cause = error.__cause__
            is_conflict = isinstance(cause, failures.ClientError) and has_met(cause)
            if not is_conflict or attempt == _TRIES:
                raise
            items = survey.bucket.objects(place.key)
            item = next((each for each in items if each.key == place.key), None)
            latest = survey.with_receipt(item)


def _merged(
    receipt: RemoteReceipt,
    survey: Survey,
    *,
    outcomes: Collection[Outcome],
    deletes: Collection[str],
) -> RemoteReceipt:
    """What the `receipt` in the bucket said, and what is known of both sides after this push."""
    objects = {
        path: record
        for path, record in receipt.objects.items()
        if path not in deletes and _still_holds(path, record, survey)
    }
    for path, item in survey.remote.items():
        checksums = survey.recorded(path)
        if checksums is not None and path not in deletes:
            old_digests = objects[path].digests if path in objects else {}
            objects[path] = ObjectRecord(item.etag, checksums, old_digests)
    digests = dict(local_digests(survey.root, survey.local.values()))  # some are proved only now
    for outcome in outcomes:
        path, checksums = outcome.step.path, outcome.checksums
        if outcome.action is Action.SEND and checksums is not None and outcome.etag:
            objects[path] = ObjectRecord(outcome.etag, checksums, digests.get(path, {}))
    local = read_receipt(survey.root)
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


def _still_holds(path: str, record: ObjectRecord, survey: Survey) -> bool:
    """Whether the receipt in the bucket is right about an object, as far as this sync looked."""
    item = survey.manifest if path == MANIFEST else survey.remote.get(path)
    if item is not None:
        return item.etag == record.etag
    # Not looked at now, or written by somebody who sent it since.
    return content_of(path) not in survey.contents or path not in survey.receipt.objects


def _with(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The records of both. One that says as much as before keeps its date, or two roots would
    write it in turn.
    """
    return {**old, **{k: v for k, v in new.items() if _undated(v) != _undated(old.get(k))}}


def _undated(record: Any) -> Any:
    return {**record, _DATE: None, "imnetprep": None} if isinstance(record, dict) else record
