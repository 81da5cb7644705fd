"""The receipt that a push leaves in the bucket, last of all: what is known of the objects there."""

from collections.abc import Collection, Mapping
from typing import Any

import botocore.exceptions as failures

from imnetprep.digests import Checksum
from imnetprep.messages import ImnetprepError
from imnetprep.proving.receipt import read_receipt
from imnetprep.s3.failures import has_met, told
from imnetprep.s3.upload import Guard, Sender
from imnetprep.sync.keys import MANIFEST, RECEIPT, What, what_of
from imnetprep.sync.objects import known_there
from imnetprep.sync.plan import Action, SyncPlan
from imnetprep.sync.push import Moved
from imnetprep.sync.survey import digests_here, fetch_receipt
from imnetprep.sync.there import ObjectRecord, RemoteReceipt, format_receipt
from imnetprep.sync.work import Work

_TRIES = 5
_WHEN = "recorded_at"


def push_receipt(
    plan: SyncPlan, work: Work, *, done: Collection[Moved], gone: Collection[str]
) -> None:
    """Say in the bucket what is known of its objects; somebody else may do so meanwhile.

    `done`: what was sent, `gone`: the paths of what was removed.
    """
    before, etag = plan.survey.receipt, plan.survey.receipt_etag
    address = plan.survey.address
    where = address / RECEIPT
    guard = Guard(work.kind, lambda _: None)
    sender = Sender(work.bucket, guard, sent=lambda _: None, told=work.progress.note)
    for attempt in range(1, _TRIES + 1):
        body = format_receipt(_merged(before, plan, work, done=done, gone=gone))
        if etag is not None and body == format_receipt(before):
            return
        condition = {"If-Match": f'"{etag}"'} if etag else {"If-None-Match": "*"}
        headers = {**condition, "Content-Type": "application/json"}
        checksum = Checksum.empty(work.kind).over(body)
        try:
            with told(where):
                new = sender.put(where.key, memoryview(body), checksum, headers)
            work.journal.keep_body(where, new, body)
            return
        except ImnetprepError as error:
            cause = error.__cause__
            met = isinstance(cause, failures.ClientError) and has_met(cause)
            if not met or attempt == _TRIES:
                raise
            before, etag = fetch_receipt(work.bucket, address, work.journal, work.progress)


def _merged(
    before: RemoteReceipt,
    plan: SyncPlan,
    work: Work,
    *,
    done: Collection[Moved],
    gone: Collection[str],
) -> RemoteReceipt:
    """What the receipt in the bucket said, and what is known here."""
    found, objects = plan.survey, dict[str, ObjectRecord]()
    for path, record in before.objects.items():
        listed = found.manifest if path == MANIFEST else found.there.get(path)
        if listed is not None:
            is_so = listed.etag == record.etag
        else:  # not looked at now, or told by somebody who sent it since
            is_so = what_of(path) not in plan.what or path not in found.receipt.objects
        if is_so and path not in gone:
            objects[path] = record
    digests = dict(digests_here(work.root, found.here.values()))  # some are proved only now
    for path, listed in found.there.items():
        known = known_there(found, path, None, work.journal)
        if known is not None and path not in gone:
            before_it = objects[path].digests if path in objects else {}
            objects[path] = ObjectRecord(listed.etag, known, before_it)
    for moved in done:
        path = moved.step.path
        if moved.action is Action.SEND and moved.known is not None and moved.etag:
            objects[path] = ObjectRecord(moved.etag, moved.known, digests.get(path, {}))
    here = read_receipt(work.root)
    archives = {
        name: {key: record[key] for key in ("proof", _WHEN) if key in record}
        for name, record in here["archives"].items()
        if f"{What.ARCHIVES}/{name}" in objects and "of" not in record["proof"]
    }
    splits = {
        name: {key: value for key, value in record.items() if key != "fetched_from"}
        for name, record in here["splits"].items()
    }
    sections = {
        name: _with(before.told.get(name, {}), records)
        for name, records in (("archives", archives), ("splits", splits))
    }
    return RemoteReceipt(sections, objects)


def _with(before: Mapping[str, Any], here: Mapping[str, Any]) -> dict[str, Any]:
    """Both; what says the same as before keeps its date, or two roots would write it in turn."""
    return {**before, **{k: v for k, v in here.items() if _undated(v) != _undated(before.get(k))}}


def _undated(record: Any) -> Any:
    return {**record, _WHEN: None, "imnetprep": None} if isinstance(record, dict) else record
