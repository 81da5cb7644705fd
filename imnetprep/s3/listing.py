"""What is in a bucket: objects, one of them in full, and uploads that are not finished."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple

import botocore.exceptions as failures

from imnetprep.digests import Checksum
from imnetprep.messages import SourceFailed
from imnetprep.s3.bucket import Bucket
from imnetprep.s3.failures import code_of

CHECKSUM_FIELDS = {"crc64nvme": "ChecksumCRC64NVME", "crc32": "ChecksumCRC32"}


class ListedObject(NamedTuple):
    """An object as a listing has it. The ETag changes with the object, and is no digest of it."""

    key: str
    size_bytes: int
    etag: str
    changed_at: datetime


class Head(NamedTuple):
    """An object in full; `checksum` of the whole, where the server keeps one known here."""

    size_bytes: int
    etag: str
    checksum: Checksum | None


class UnfinishedUpload(NamedTuple):
    """An upload in parts that was begun and neither completed nor aborted.

    `algorithm`: of its checksums, where the server tells.
    """

    key: str
    upload_id: str
    begun_at: datetime
    algorithm: str | None


class ListedPart(NamedTuple):
    """A part that an unfinished upload has; `checksum` where the server tells it."""

    etag: str
    size_bytes: int
    checksum: Checksum | None


def listed_objects(bucket: Bucket, prefix: str) -> Iterator[ListedObject]:
    """All objects whose key begins with `prefix`: a request a thousand."""
    for page in bucket.pages("list_objects_v2", Prefix=prefix):
        for each in page.get("Contents", ()):
            etag = each["ETag"].strip('"')
            yield ListedObject(each["Key"], each["Size"], etag, each["LastModified"])


def head_object(bucket: Bucket, key: str) -> Head:
    """The object under `key`. Raises as botocore."""
    head = bucket.call("head_object", Key=key, ChecksumMode="ENABLED")
    return Head(head["ContentLength"], head["ETag"].strip('"'), full_checksum(head))


def unfinished_uploads(bucket: Bucket, prefix: str) -> Iterator[UnfinishedUpload]:
    """The uploads under `prefix` that are not finished: they are stored and paid for, unseen."""
    try:
        for page in bucket.pages("list_multipart_uploads", Prefix=prefix):
            for each in page.get("Uploads", ()):
                algorithm = each.get("ChecksumAlgorithm")
                yield UnfinishedUpload(each["Key"], each["UploadId"], each["Initiated"], algorithm)
    except SourceFailed as error:
        # rclone says so of a bucket in which none was begun since it serves it.
        if not _is_none_there(error):
            raise


def _is_none_there(error: SourceFailed) -> bool:
    cause = error.__cause__
    return isinstance(cause, failures.ClientError) and code_of(cause) == "NoSuchUpload"


def listed_parts(bucket: Bucket, key: str, upload_id: str) -> dict[int, ListedPart]:
    """The parts that an unfinished upload has, by number; of one sent twice the later."""
    parts = {}
    for page in bucket.pages("list_parts", Key=key, UploadId=upload_id):
        for each in page.get("Parts", ()):
            checksum = _checksum(each, each["Size"])
            part = ListedPart(each["ETag"].strip('"'), each["Size"], checksum)
            parts[int(each["PartNumber"])] = part
    return parts


def stored_bytes(bucket: Bucket, upload: UnfinishedUpload) -> int:
    """How much an unfinished upload has; none where somebody has just finished it."""
    try:
        parts = listed_parts(bucket, upload.key, upload.upload_id).values()
    except SourceFailed as error:
        if not _is_none_there(error):
            raise
        return 0
    return sum(part.size_bytes for part in parts)


def full_checksum(head: Any) -> Checksum | None:
    """The checksum of the whole object, where the server has one that can be computed here.

    One that is composite, of the parts' checksums, ends in a dash and their number. SeaweedFS
    does not say the type of an object that came in one part.
    """
    if head.get("ChecksumType", "FULL_OBJECT") != "FULL_OBJECT":
        return None
    return _checksum(head, head["ContentLength"])


def _checksum(told: Any, size_bytes: int) -> Checksum | None:
    for kind, field in CHECKSUM_FIELDS.items():
        if told.get(field) and "-" not in told[field] and Checksum.is_known(kind):
            with suppress(ValueError):
                return Checksum.parse(kind, told[field], size_bytes)
    return None
