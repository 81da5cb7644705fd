"""Objects sent whole or in parts, each body with a checksum that the server compares.

Parts of an upload that was stopped are taken up from what the server lists.
"""

import base64
import hashlib
import itertools
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from typing import Any

import botocore.exceptions as failures
from botocore.parsers import ResponseParserError

from imnetprep.digests import Checksum
from imnetprep.messages import ImnetprepError, WrongBytes
from imnetprep.retry import retried
from imnetprep.s3.address import S3Address
from imnetprep.s3.bucket import CHECKSUM_FIELDS, TRIES, Bucket, Head
from imnetprep.s3.failures import TRANSIENT, code_of, has_met, status_of

_WRONG_ON_ARRIVAL = ("BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch")
_TRIES = 3


class Sender:
    """Sends objects to one bucket. `on_bytes` hears of bytes, `on_note` of what to tell people.

    The server compares of each body the checksum of `kind`, or where it knows none a MD5. Which it
    is shows with the first answer; `on_weaker` hears it once if it is a MD5.
    """

    def __init__(
        self,
        bucket: Bucket,
        kind: str,
        *,
        on_bytes: Callable[[int], None] = lambda _: None,
        on_note: Callable[[str], None],
        on_weaker: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.bucket, self.kind = bucket, kind
        self._on_bytes, self._on_note, self._on_weaker = on_bytes, on_note, on_weaker
        self._keeps_checksums = True

    def put(
        self, key: str, body: memoryview, checksum: Checksum, headers: Mapping[str, str]
    ) -> str:
        """Send an object in one; `headers` have what must hold of the one there. Its ETag."""
        all_headers = {**self.bucket.settings.object_headers, **headers}
        try:
            etag = self._send(key, body, checksum, all_headers, None, "its bytes")
            # Of those that keep no checksum some say another ETag than they will from here on.
            return etag if self._keeps_checksums else self.bucket.head(key).etag
        except failures.ClientError as error:
            if status_of(error) != 412:
                raise
            # An attempt whose answer was lost is there now.
            head = self.bucket.head(key)
            if not head.is_of(body, checksum):
                raise
            return head.etag

    def begin(self, key: str, headers: Mapping[str, str], *, old_ids: Collection[str]) -> str:
        """The id of a new upload in parts: of one not in `old_ids`, if an answer was lost."""
        tries = itertools.count()
        all_headers = {**self.bucket.settings.object_headers, **headers}
        if self._keeps_checksums:
            all_headers["x-amz-checksum-algorithm"] = self.kind.upper()
            all_headers["x-amz-checksum-type"] = "FULL_OBJECT"

        def attempt() -> str:
            for each in self.bucket.uploads(key) if next(tries) else ():
                if each.key == key and each.upload_id not in old_ids:
                    return each.upload_id
            try:
                answer = self.bucket.send("POST", key, headers=all_headers, query={"uploads": ""})
            except failures.ClientError as error:
                if "x-amz-checksum-type" not in all_headers or not self._is_refused(error):
                    raise
                plain = {k: v for k, v in all_headers.items() if "x-amz-checksum" not in k}
                answer = self.bucket.send("POST", key, headers=plain, query={"uploads": ""})
            if "x-amz-checksum-algorithm" not in answer.headers:
                self._weaken()
            table = self.bucket.parsed(answer, "CreateMultipartUpload")
            if "UploadId" not in table:
                raise ResponseParserError("it has no UploadId")
            return str(table["UploadId"])

        return retried(attempt, on=TRANSIENT, times=TRIES)

    def send_part(
        self, key: str, upload_id: str, number: int, body: memoryview, checksum: Checksum
    ) -> str:
        """Send a part. Its ETag."""
        query = {"partNumber": str(number), "uploadId": upload_id}
        return self._send(key, body, checksum, {}, query, f"part {number}")

    def complete(
        self,
        key: str,
        upload_id: str,
        parts: Iterable[tuple[str, Checksum]],
        whole: Checksum,
        headers: Mapping[str, str],
    ) -> str:
        """Make an object of the `parts`, by ETag and checksum; the server compares the whole.

        `headers` as of `put`. Its ETag.
        """
        place, field = S3Address(self.bucket.name, key), CHECKSUM_FIELDS[whole.kind]
        items, params = list[dict[str, Any]](), dict[str, Any]()
        for number, (etag, checksum) in enumerate(parts, 1):
            item = {"PartNumber": number, "ETag": f'"{etag}"'}
            items.append(item | ({field: checksum.text} if self._keeps_checksums else {}))
        if self._keeps_checksums:
            params = {"ChecksumType": "FULL_OBJECT", field: whole.text}
            params["MpuObjectSize"] = whole.size_bytes
        params |= {name.replace("-", ""): value for name, value in headers.items()}
        try:
            self.bucket.call(
                "complete_multipart_upload",
                Key=key, UploadId=upload_id, MultipartUpload={"Parts": items}, **params,
            )  # fmt: skip
        except failures.ClientError as error:
            if code_of(error) in _WRONG_ON_ARRIVAL:
                raise WrongBytes(
                    f"{place}: the parts that the server has make another whole",
                    hint="run the same command with --abort-stale 0s: it sends them anew",
                ) from error
            # It may have been done by an attempt whose answer was lost.
            if self._keeps_checksums and (code_of(error) == "NoSuchUpload" or has_met(error)):
                with suppress(failures.ClientError):  # nothing is there
                    if head := self._found(key, whole):
                        return head.etag
            if code_of(error) != "ConditionalRequestConflict":
                raise
            with suppress(failures.ClientError):  # it can never be completed
                self.bucket.call("abort_multipart_upload", Key=key, UploadId=upload_id)
            raise WrongBytes(
                f"{place}: another program has written it meanwhile",
                hint="run the same command again: it compares the two",
            ) from error
        if head := self._found(key, whole):
            return head.etag
        raise WrongBytes(
            f"{place} is not what was sent",
            hint="another program may write there; imnetprep sync-s3 --check tells",
        )

    def _found(self, key: str, whole: Checksum) -> Head | None:
        """The object, if it is this one as far as the server can tell."""
        head = self.bucket.head(key)
        is_same = head.checksum == whole or not self._keeps_checksums
        return head if is_same and head.size_bytes == whole.size_bytes else None

    def _send(
        self,
        key: str,
        body: memoryview,
        checksum: Checksum,
        headers: Mapping[str, str],
        query: Mapping[str, str] | None,
        subject: str,
    ) -> str:
        """The ETag of what was sent. Raises WrongBytes where the bytes arrive wrong each time."""
        place = S3Address(self.bucket.name, key)
        for attempt in range(1, _TRIES + 1):
            is_kept, guard = self._keeps_checksums, self._guard(body, checksum)
            try:
                answer = self.bucket.put(
                    key, body, headers={**headers, **guard}, query=query, on_bytes=self._on_bytes
                )
            except failures.ClientError as error:
                if is_kept and query is None and self._is_refused(error):
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
            is_echoed = any(name.startswith("x-amz-checksum-") for name in answer)
            if query is None and is_kept and not is_echoed:
                self._weaken()
                self._on_bytes(-len(body))
                continue  # it was not compared
            if "etag" not in answer:
                raise ResponseParserError("it has no ETag")
            return answer["etag"].strip('"')
        raise ImnetprepError(
            f"{place}: {subject} was not compared", hint="run the same command again"
        )

    def _guard(self, body: memoryview, checksum: Checksum) -> dict[str, str]:
        """What goes with a body for the server to compare."""
        if self._keeps_checksums:
            return {f"x-amz-checksum-{self.kind}": checksum.text}
        md5 = hashlib.md5(body, usedforsecurity=False).digest()
        return {"Content-MD5": base64.b64encode(md5).decode()}

    def _is_refused(self, error: failures.ClientError) -> bool:
        """Does the server refuse the checksum itself? It goes without one from here on."""
        code = code_of(error)
        is_wordless = code in ("400", "501", "NotImplemented")  # it does not say which header
        is_known_code = is_wordless or code in ("InvalidRequest", "InvalidArgument")
        if not is_known_code or not (is_wordless or "checksum" in str(error).lower()):
            return False
        self._weaken()
        return True

    def _weaken(self) -> None:
        """The server keeps no such checksum: what was sent with one was not compared."""
        if self._keeps_checksums:
            self._keeps_checksums = False
            other = "" if self.kind == "crc32" else "; --checksum-algorithm CRC32 may do more"
            self._on_weaker(
                f"the server keeps no {self.kind}: it compares the MD5 of each part{other}"
            )
