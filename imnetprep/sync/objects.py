"""What is known of the bytes of objects: by the receipt, from before, by asking; or published."""

import threading
from collections.abc import Iterable
from functools import partial

import botocore.exceptions as failures

from imnetprep.catalog.datasets import Dataset
from imnetprep.digests import Pieces
from imnetprep.messages import ImnetprepError, WrongBytes
from imnetprep.s3.bucket import Bucket
from imnetprep.s3.failures import status_of, told
from imnetprep.s3.listing import head_object
from imnetprep.sources.torrent import published_pieces
from imnetprep.sync.jobs import side_by_side
from imnetprep.sync.journal import Known, SyncJournal
from imnetprep.sync.keys import What, what_of
from imnetprep.sync.survey import Survey

_HEADS_AT_ONCE = 16


def known_there(
    found: Survey, path: str, bucket: Bucket | None, journal: SyncJournal
) -> Known | None:
    """What is known of an object: by the receipt, from before, or by asking `bucket`."""
    if (known := known_before(found, path, journal)) is None and bucket is not None:
        _ask(found, path, bucket, journal)
        known = known_before(found, path, journal)
    return known


def known_before(found: Survey, path: str, journal: SyncJournal) -> Known | None:
    """What is known of an object without asking."""
    listed, record = found.listed(path), found.receipt.objects.get(path)
    if record is not None and record.etag == listed.etag:
        return record.known if record.known.whole.size_bytes == listed.size_bytes else None
    return journal.of_object(found.address / path, listed.etag)


def ask_for_unknown(
    found: Survey, paths: Iterable[str], bucket: Bucket, journal: SyncJournal
) -> None:
    """Learn what the server keeps of those objects of which nothing is known."""
    unknown = [path for path in paths if known_before(found, path, journal) is None]
    ask(found, unknown, bucket, journal)


def ask(found: Survey, paths: Iterable[str], bucket: Bucket, journal: SyncJournal) -> None:
    """Learn what the server keeps of these objects now."""
    units = (partial(_ask, found, path, bucket, journal) for path in paths)
    for _ in side_by_side(units, jobs=_HEADS_AT_ONCE, stopped=threading.Event()):
        pass


def pieces_of(
    dataset: Dataset | None, path: str, size_bytes: int, *, where: object, hint: str
) -> Pieces | None:
    """The published pieces that an archive must have. Raises WrongBytes where it has not the size.

    `where` and `hint` are for that error.
    """
    if dataset is None or what_of(path) is not What.ARCHIVES:
        return None
    name = path.partition("/")[2]
    archive = next((each for each in dataset.archives if each.name == name), None)
    pieces = published_pieces(dataset, archive) if archive else None
    if pieces is not None and pieces.size_bytes != size_bytes:
        message = f"{where} has {size_bytes:,} bytes, not {pieces.size_bytes:,}"
        raise WrongBytes(message, hint=hint)
    return pieces


def _ask(found: Survey, path: str, bucket: Bucket, journal: SyncJournal) -> None:
    where, listed = found.address / path, found.listed(path)
    try:
        with told(where):
            head = head_object(bucket, where.key)
    except ImnetprepError as error:
        cause = error.__cause__
        if isinstance(cause, failures.ClientError) and status_of(cause) == 404:
            return
        raise
    if head.checksum is None or head.etag != listed.etag:
        return
    before = journal.of_object(where, listed.etag)
    if before is None or before.whole != head.checksum:  # it may know the parts too
        journal.keep_object(where, head.etag, Known(head.checksum))
