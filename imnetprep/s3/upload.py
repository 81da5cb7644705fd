"""Objects sent whole or in parts, each body with a checksum that the server compares.

Parts of an upload that was stopped are taken up from what the server lists. An ETag is no digest;
but where it is the MD5 of the very part that would be sent, the server has that part.
"""

import base64
import hashlib
import itertools
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from typing import NamedTuple

import botocore.exceptions as failures
from botocore.parsers import ResponseParserError

from imnetprep.digests import Checksum
from imnetprep.messages import ImnetprepError, WrongBytes
from imnetprep.retry import retried
from imnetprep.s3.address import S3Address
from imnetprep.s3.bucket import (
    CHECKSUM_FIELDS,
    TRIES,
    Bucket,
    Head,
    ListedPart,
    head_object,
    unfinished_uploads,
)
from imnetprep.s3.failures import TRANSIENT, code_of, has_met, status_of

_WRONG_ON_ARRIVAL = ("BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch")
_TRIES = 3


class Part(NamedTuple):
    """A part that the server has."""

    etag: str
    checksum: Checksum


class Guard:
    """What the server compares of each body: the checksum of `kind`, or where it knows none a MD5.

    Which it is shows with the first answer; `on_note` hears it once if it is not that of `kind`.
    """

    def __init__(self, kind: str, on_note: Callable[[str], None]) -> None:
        self.kind, self._on_note = kind, on_note
        self.is_kept = True

    def headers(self, body: memoryview, checksum: Checksum) -> dict[str, str]:
        """What goes with a body."""
        if self.is_kept:
            return {f"x-amz-checksum-{self.kind}": checksum.text}
        md5 = hashlib.md5(body, usedforsecurity=False).digest()
        return {"Content-MD5": base64.b64encode(md5).decode()}

    def heard(self, is_kept: bool) -> None:
        """An answer tells whether the server keeps it; if not, what was sent was not compared."""
        if is_kept or not self.is_kept:
            return
        self.is_kept = False
        other = "" if self.kind == "crc32" else "; --checksum-algorithm CRC32 may do more"
        self._on_note(f"the server keeps no {self.kind}: it compares the MD5 of each part{other}")

    def is_refused(self, error: failures.ClientError) -> bool:
        """Does the server refuse the checksum itself? It goes without one from here on."""
        is_known_code = code_of(error) in ("InvalidRequest", "InvalidArgument", "NotImplemented")
        if not is_known_code or "checksum" not in str(error).lower():
            return False
        self.heard(is_kept=False)
        return True


class Sender:
    """Sends objects to one bucket. `on_bytes` hears of bytes, `on_note` of what to tell people."""

    def __init__(
        self,
        bucket: Bucket,
        guard: Guard,
        *,
        on_bytes: Callable[[int], None],
        on_note: Callable[[str], None],
    ) -> None:
        self.bucket, self.guard = bucket, guard
        self._on_bytes, self._on_note = on_bytes, on_note

    def put(
        self, key: str, body: memoryview, checksum: Checksum, headers: Mapping[str, str]
    ) -> str:
        """Send an object in one; `headers` have what must hold of the one there. Its ETag."""
        all_headers = {**self.bucket.settings.object_headers, **headers}
        try:
            answer = self._send(key, body, checksum, all_headers, None, "its bytes")
        except failures.ClientError as error:
            if status_of(error) != 412:
                raise
            # An attempt whose answer was lost is there now.
            head = head_object(self.bucket, key)
            if head.checksum != checksum:
                raise
            return head.etag
        return _etag(answer)

    def begin(self, key: str, headers: Mapping[str, str], *, old_ids: Collection[str]) -> str:
        """The id of a new upload in parts: of one that is not `known`, if an answer was lost."""
        tries = itertools.count()
        all_headers = {**self.bucket.settings.object_headers, **headers}
        if self.guard.is_kept:
            all_headers["x-amz-checksum-algorithm"] = self.guard.kind.upper()
            all_headers["x-amz-checksum-type"] = "FULL_OBJECT"

        def attempt() -> str:
            for each in unfinished_uploads(self.bucket, key) if next(tries) else ():
                if each.key == key and each.upload_id not in old_ids:
                    return each.upload_id
            try:
                answer = self.bucket.send("POST", key, headers=all_headers, query={"uploads": ""})
            except failures.ClientError as error:
                if "x-amz-checksum-type" not in all_headers or not self.guard.is_refused(error):
                    raise
                plain = {k: v for k, v in all_headers.items() if "x-amz-checksum" not in k}
                answer = self.bucket.send("POST", key, headers=plain, query={"uploads": ""})
            self.guard.heard("x-amz-checksum-algorithm" in answer.headers)
            table = self.bucket.parsed(answer, "CreateMultipartUpload")
            if "UploadId" not in table:
                raise ResponseParserError("it has no UploadId")
            return str(table["UploadId"])

        return retried(attempt, on=TRANSIENT, times=TRIES)

    def send_part(
        self, key: str, upload_id: str, number: int, body: memoryview, checksum: Checksum
    ) -> Part:
        """Send a part."""
        query = {"partNumber": str(number), "uploadId": upload_id}
        answer = self._send(key, body, checksum, {}, query, f"part {number}")
        return Part(_etag(answer), checksum)

    def complete(
        self,
        key: str,
        upload_id: str,
        parts: Iterable[Part],
        whole: Checksum,
        headers: Mapping[str, str],
    ) -> Head:
        """Make an object of the parts, which the server compares with the checksum of the whole."""
        field = CHECKSUM_FIELDS[whole.kind]
        items = []
        for number, part in enumerate(parts, 1):
            on_note = {"PartNumber": number, "ETag": f'"{part.etag}"'}
            items.append(on_note | ({field: part.checksum.text} if self.guard.is_kept else {}))
        params = {"IfNoneMatch": "*"} if "If-None-Match" in headers else {}
        if etag := headers.get("If-Match"):
            params = {"IfMatch": etag}
        if self.guard.is_kept:
            params |= {"ChecksumType": "FULL_OBJECT", field: whole.text}
            params |= {"MpuObjectSize": whole.size_bytes}  # type: ignore[dict-item]
        try:
            self.bucket.call(
                "complete_multipart_upload",
                Key=key, UploadId=upload_id, MultipartUpload={"Parts": items}, **params,
            )  # fmt: skip
        except failures.ClientError as error:
            if code_of(error) in _WRONG_ON_ARRIVAL:
                raise WrongBytes(
                    f"{S3Address(self.bucket.name, key)}: the parts that the server has make"
                    " another whole",
                    hint="run the same command with --abort-stale 0s: it sends them anew",
                ) from error
            # It may have been done by an attempt whose answer was lost.
            is_lost = code_of(error) == "NoSuchUpload" or has_met(error)
            if not is_lost or not self.guard.is_kept or not self._is_there(key, whole):
                if code_of(error) != "ConditionalRequestConflict":
                    raise
                with suppress(failures.ClientError):  # it can never be completed
                    self.bucket.call("abort_multipart_upload", Key=key, UploadId=upload_id)
                raise WrongBytes(
                    f"{S3Address(self.bucket.name, key)}: another program has written it meanwhile",
                    hint="run the same command again: it compares the two",
                ) from error
        return self._arrived(key, whole)

    def _arrived(self, key: str, whole: Checksum) -> Head:
        head = self._found(key, whole)
        if head is None:
            raise WrongBytes(
                f"{S3Address(self.bucket.name, key)} is not what was sent",
                hint="another program may write there; imnetprep sync-s3 --check tells",
            )
        return head

    def _is_there(self, key: str, whole: Checksum) -> bool:
        with suppress(failures.ClientError):  # nothing is
            return self._found(key, whole) is not None
        return False

    def _found(self, key: str, whole: Checksum) -> Head | None:
        """The object, if it is this one as far as the server can tell."""
        head = head_object(self.bucket, key)
        is_same = head.checksum == whole if self.guard.is_kept else True
        return head if is_same and head.size_bytes == whole.size_bytes else None

    def _send(
        self,
        key: str,
        body: memoryview,
        checksum: Checksum,
        headers: Mapping[str, str],
        query: Mapping[str, str] | None,
        subject: str,
    ) -> Mapping[str, str]:
        """The answer's headers. Raises WrongBytes where the bytes arrive wrong each time."""
        place = S3Address(self.bucket.name, key)
        for attempt in range(1, _TRIES + 1):
            is_kept, guard = self.guard.is_kept, self.guard.headers(body, checksum)
            try:
                answer = self.bucket.put(
                    key, body, headers={**headers, **guard}, query=query, on_bytes=self._on_bytes
                )
            except failures.ClientError as error:
                if is_kept and query is None and self.guard.is_refused(error):
                    continue
                if code_of(error) not in _WRONG_ON_ARRIVAL:
                    raise
                if attempt < _TRIES:
                    self._on_note(f"{place}: {subject} arrived wrong; sent again")
                    continue
                raise WrongBytes(
                    f"{place}: {subject} arrived wrong, {_TRIES} times",
                    hint="the network or the memory of this machine changes bytes; try another",
                ) from error
            answer = {name.lower(): value for name, value in answer.items()}
            if query is None and is_kept and not _is_echoed(answer):
                self.guard.heard(is_kept=False)
                self._on_bytes(-len(body))
                continue  # it was not compared
            return answer
        raise ImnetprepError(
            f"{place}: {subject} was not compared", hint="run the same command again"
        )


def _etag(answer: Mapping[str, str]) -> str:
    """What the server calls what it has now. Raises ResponseParserError where it does not say."""
    if "etag" not in answer:
        raise ResponseParserError("it has no ETag")
    return answer["etag"].strip('"')


def _is_echoed(answer: Mapping[str, str]) -> bool:
    return any(name.startswith("x-amz-checksum-") for name in answer)


def has_part(
    remote_part: ListedPart | None, sent_part: Part | None, body: memoryview, checksum: Checksum
) -> bool:
    """Does the server have this very part? By its checksum, by what it answered us, or by MD5."""
    if remote_part is None or remote_part.size_bytes != len(body):
        return False
    if remote_part.checksum is not None:
        return remote_part.checksum == checksum
    if sent_part is not None and sent_part.etag == remote_part.etag:
        return sent_part.checksum.value == checksum.value
    return hashlib.md5(body, usedforsecurity=False).hexdigest() == remote_part.etag
