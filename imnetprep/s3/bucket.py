"""A bucket: its objects and unfinished uploads listed, and bodies sent and fetched.

botocore's client takes some milliseconds for a request, and its send fails where one part takes
longer than the timeout for connecting. So it does the small requests, and bodies go through its
signer and its HTTP session; endpoints, credentials, proxies and certificates are botocore's for
both.
"""

import base64
import hashlib
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import botocore.exceptions as failures
import botocore.session
from botocore import UNSIGNED
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSPreparedRequest, AWSRequest, AWSResponse, HeadersDict
from botocore.config import Config
from botocore.httpsession import URLLib3Session
from botocore.parsers import ResponseParserError, create_parser
from botocore.utils import get_environ_proxies

from imnetprep.digests import Checksum
from imnetprep.messages import SourceFailed, WrongBytes, WrongUsage
from imnetprep.outside_text import public_address, quoted
from imnetprep.retry import resumed, retried, wait_s
from imnetprep.s3.address import S3Address, Settings
from imnetprep.s3.failures import TRANSIENT, client_error, code_of, explained, is_busy, status_of

_CONNECT_S, _SILENT_S = 10, 10
# Some 25 seconds of a busy server, without its silence; a server that is not there is told at once.
TRIES, _TRIES_TO_CONNECT = 9, 3
_CONNECTIONS = 64
# A chunk that is sent has to leave within _CONNECT_S.
_SENT_BYTES = 256 << 10
_OPERATIONS = {"GET": "GetObject", "PUT": "PutObject", "POST": "CreateMultipartUpload"}
# What a server answers that does not take HEAD, or takes it without a checksum only; and what says
# why in a body, which is no part of an answer to HEAD.
_ODD_TO_HEAD = (301, 302, 307, 308, 400, 403, 405, 501)
CHECKSUM_FIELDS = {"crc64nvme": "ChecksumCRC64NVME", "crc32": "ChecksumCRC32"}


class ListedObject(NamedTuple):
    """An object as a listing has it. The ETag changes with the object, and is no digest of it."""

    key: str
    size_bytes: int
    etag: str

    def has_md5(self) -> bool:
        """Is its ETag perhaps the MD5 of its bytes, as of what came in one part?"""
        return re.fullmatch("[0-9a-f]{32}", self.etag) is not None


class Head(NamedTuple):
    """An object in full; `checksum` of the whole, where the server keeps one known here."""

    size_bytes: int
    etag: str
    checksum: Checksum | None

    def is_of(self, body: memoryview, checksum: Checksum) -> bool:
        """Is `body` the object, by the server's checksum, or by an ETag that is its MD5?"""
        if self.checksum is not None:
            return self.checksum == checksum
        return self.size_bytes == len(body) and self.etag == _md5(body).hex()


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

    def is_of(
        self, body: memoryview, checksum: Checksum, sent_part: tuple[str, Checksum] | None
    ) -> bool:
        """Is `body` the part? By the server's checksum, or that of a `sent_part` with its ETag.

        An ETag is no digest; but where it is the MD5 of the body, the server has that.
        """
        if self.size_bytes != len(body):
            return False
        if self.checksum is not None:
            return self.checksum == checksum
        if sent_part is not None and sent_part[0] == self.etag:
            return sent_part[1].value == checksum.value
        return _md5(body).hex() == self.etag


class Bucket:
    """An open bucket. Safe from several threads."""

    def __init__(self, name: str, settings: Settings) -> None:
        self.name, self.settings = name, settings
        session = botocore.session.Session(profile=settings.profile)
        with explained(f"s3://{name}"):
            try:
                self.client = session.create_client(
                    "s3",
                    region_name=settings.region,
                    endpoint_url=settings.endpoint_url,
                    config=_config(settings),
                )
            except ValueError as error:  # of a URL without a scheme, or a region with a space
                raise WrongUsage(
                    quoted(str(error)),
                    hint="--endpoint-url, or AWS_ENDPOINT_URL, is like https://HOST:PORT; --region,"
                    " or AWS_DEFAULT_REGION, like eu-west-1",
                ) from error
            self._credentials = None if settings.no_sign_request else session.get_credentials()
            params = {"Bucket": name, "Key": "-"}
            url = self.client.generate_presigned_url("head_object", Params=params)
        self._url = url.partition("?")[0].removesuffix("-")
        self._payer_headers = {"x-amz-request-payer": "requester"} if settings.request_payer else {}
        self._has_answered = False
        self._way = 0  # of those to ask for an object, the first that this server answers
        self.client.meta.events.register("before-call.s3", self._adapt)
        self.client.meta.events.register("before-call.s3.DeleteObjects", _send_md5)
        self.client.meta.events.register("needs-retry.s3", self._wait_s)
        self.endpoint = public_address(str(self.client.meta.endpoint_url))
        region = self.client.meta.region_name
        self.region = "us-east-1" if region in (None, "aws-global") else str(region)
        ca_bundle = session.get_config_variable("ca_bundle")
        self._http = URLLib3Session(
            verify=ca_bundle or os.environ.get("REQUESTS_CA_BUNDLE") or True,
            proxies=get_environ_proxies(self._url),
            timeout=(_CONNECT_S, _SILENT_S),
            max_pool_connections=_CONNECTIONS,
            socket_options=[
                (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
                (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
            ],
        )
        self._parser = create_parser("rest-xml")

    def close(self) -> None:
        """Hang up. What is asked afterwards connects again."""
        self.client.close()
        self._http.close()

    def _adapt(self, params: Any, **_: Any) -> None:
        params["headers"].update(self._payer_headers)
        # botocore would follow to another region, where costs follow too; and where a redirect
        # names none, it asks in an endless circle.
        params["context"].setdefault("s3_redirect", {})["redirected"] = True

    def _wait_s(
        self, response: Any, attempts: int, caught_exception: Exception | None, **_: Any
    ) -> float | None:
        """How long botocore waits before it tries again; None: it does not."""
        tries = TRIES
        if response is None:
            is_transient = isinstance(caught_exception, TRANSIENT)
            if isinstance(
                caught_exception, (failures.EndpointConnectionError, failures.ConnectTimeoutError)
            ):
                tries = TRIES if self._has_answered else _TRIES_TO_CONNECT
        else:
            self._has_answered = True
            is_transient = is_busy(response[1], response[0].status_code)
        return wait_s(attempts) if is_transient and attempts < tries else None

    def call(self, operation: str, **params: Any) -> Any:
        """One of botocore's operations, tried again where that may help. Raises as botocore."""
        return getattr(self.client, operation)(Bucket=self.name, **params)

    def pages(self, operation: str, **params: Any) -> Iterator[Any]:
        """The pages of a listing. Raises SourceFailed."""
        with explained(S3Address(self.name, params.get("Prefix", ""))):
            yield from self.client.get_paginator(operation).paginate(Bucket=self.name, **params)

    def chunks(
        self,
        key: str,
        start: int,
        end: int,
        *,
        etag: str,
        length: int,
        on_request: Callable[[], None] = lambda: None,
    ) -> Iterator[memoryview]:
        """The bytes from `start` to `end` of the object as it was under `etag`, `length` at a time.

        One request, and one more for each time that it breaks; `on_request` is called before each
        and may raise. Raises as botocore; EOFError; WrongBytes where other bytes are answered.
        """

        def open_at(at: int) -> Any:
            on_request()
            headers = {"If-Match": f'"{etag}"', "Range": f"bytes={at}-{end - 1}"}
            answer = self.send("GET", key, headers=headers)
            content_range = answer.headers.get("content-range", "bytes 0-")
            if not content_range.startswith(f"bytes {at}-"):
                raise WrongBytes(
                    f"{S3Address(self.name, key)}: the server answers {content_range!r} where bytes"
                    f" {at} to {end} are asked for",
                    hint="a proxy in between may not know byte ranges: name another --endpoint-url",
                )
            return answer.raw

        yield from resumed(open_at, start, end, length=length, on=TRANSIENT, times=TRIES)

    def put(
        self,
        key: str,
        body: memoryview,
        *,
        headers: Mapping[str, str],
        query: Mapping[str, str] | None = None,
        on_bytes: Callable[[int], None],
    ) -> Mapping[str, str]:
        """Send a body, again where that may help; the answer's headers. Raises as botocore.

        `on_bytes` hears each chunk, and the negative of a failed attempt; what it raises ends it.
        """
        all_headers = {**headers, "Content-Length": str(len(body))}

        def attempt() -> Mapping[str, str]:
            sent_bytes = 0

            def chunks() -> Iterator[memoryview]:
                nonlocal sent_bytes
                for at in range(0, len(body), _SENT_BYTES):
                    chunk = body[at : at + _SENT_BYTES]
                    on_bytes(len(chunk))
                    sent_bytes += len(chunk)
                    yield chunk

            try:
                answer = self.send("PUT", key, headers=all_headers, query=query, body=chunks())
                return dict(answer.headers.items())
            except BaseException:
                on_bytes(-sent_bytes)
                raise

        return retried(attempt, on=TRANSIENT, times=TRIES)

    def send(
        self,
        method: str,
        key: str,
        *,
        headers: Mapping[str, str],
        query: Mapping[str, str] | None = None,
        body: Iterator[memoryview] | None = None,
    ) -> AWSResponse:
        """One signed request, sent once. Raises as botocore (Busy where it may pass)."""
        url = self._url + quote(key, safe="/~") + (f"?{urlencode(query)}" if query else "")
        request = AWSRequest(method, url, headers={**headers, **self._payer_headers})
        request.context["client_config"] = self.client.meta.config
        if self._credentials is not None:
            credentials = self._credentials.get_frozen_credentials()
            S3SigV4Auth(credentials, "s3", self.region).add_auth(request)
        signed_headers = HeadersDict(request.headers.items())
        signed_request = AWSPreparedRequest(method, url, signed_headers, body, method == "GET")
        answer = self._http.send(signed_request)
        if answer.status_code >= 300:
            operation = "UploadPart" if query and "partNumber" in query else _OPERATIONS[method]
            raise client_error(self.parsed(answer, operation), operation)
        return answer

    def parsed(self, answer: AWSResponse, operation: str) -> Any:
        """What the body of an answer says, as botocore's client would give it."""
        response = {
            "body": answer.content,
            "headers": answer.headers,
            "status_code": answer.status_code,
        }
        model = self.client.meta.service_model.operation_model(operation)
        return self._parser.parse(response, model.output_shape)

    def objects(self, prefix: str) -> Iterator[ListedObject]:
        """All objects whose key begins with `prefix`: a request a thousand."""
        for page in self.pages("list_objects_v2", Prefix=prefix):
            yield from listed_objects(page)

    def head(self, key: str) -> Head:
        """The object under `key`. Raises as botocore.

        Asked by HEAD with the checksum, by HEAD without it where a server refuses that, or by GET
        of one byte: some know no HEAD, or answer it without a size.
        """
        asks = (partial(self._head, ChecksumMode="ENABLED"), self._head, self._head_by_get)
        for way in range(self._way, len(asks)):
            try:
                head = asks[way](key)
            except failures.ClientError as error:
                if status_of(error) not in _ODD_TO_HEAD or way == len(asks) - 1:
                    raise
            except ResponseParserError:
                if way == len(asks) - 1:
                    raise
            else:
                self._way = max(self._way, way)
                break
        return head

    def _head(self, key: str, **params: str) -> Head:
        head = self.call("head_object", Key=key, **params)
        if not {"ContentLength", "ETag"} <= head.keys():
            raise ResponseParserError("it has no size or no ETag")
        size_bytes = head["ContentLength"]
        # A composite checksum is one of the parts' checksums. SeaweedFS does not say the type where
        # an object came in one part.
        is_of_whole = head.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT"
        checksum = _checksum(head, size_bytes) if is_of_whole else None
        return Head(size_bytes, head["ETag"].strip('"'), checksum)

    def _head_by_get(self, key: str) -> Head:
        def first_byte() -> AWSResponse:
            try:
                return self.send("GET", key, headers={"Range": "bytes=0-0"})
            except failures.ClientError as error:
                if status_of(error) != 416:
                    raise
                return self.send("GET", key, headers={})  # it is empty

        answer = retried(first_byte, on=TRANSIENT, times=TRIES)
        with closing(answer.raw):
            content_range = answer.headers.get("content-range")
            size = (content_range or f"/{answer.headers.get('content-length')}").partition("/")[2]
        if not re.fullmatch("[0-9]{1,18}", size) or "etag" not in answer.headers:
            raise ResponseParserError("it has no size or no ETag")
        return Head(int(size), answer.headers["etag"].strip('"'), None)

    def uploads(self, prefix: str) -> Iterator[UnfinishedUpload]:
        """The unfinished uploads under `prefix`: they are stored and paid for, unseen."""
        # rclone says so of a bucket in which none was begun since it serves it.
        with _suppress_no_such_upload():
            for page in self.pages("list_multipart_uploads", Prefix=prefix):
                for each in page.get("Uploads", ()):
                    key, upload_id, begun_at = _facts(each, "Key", "UploadId", "Initiated")
                    algorithm = each.get("ChecksumAlgorithm")
                    yield UnfinishedUpload(key, upload_id, begun_at, algorithm)

    def parts(self, upload: UnfinishedUpload) -> dict[int, ListedPart]:
        """The parts that an unfinished upload has, by number; of one sent twice the later."""
        parts = {}
        for page in self.pages("list_parts", Key=upload.key, UploadId=upload.upload_id):
            for each in page.get("Parts", ()):
                number, etag, size_bytes = _facts(each, "PartNumber", "ETag", "Size")
                checksum = _checksum(each, size_bytes)
                parts[int(number)] = ListedPart(etag.strip('"'), size_bytes, checksum)
        return parts

    def stored_bytes(self, upload: UnfinishedUpload) -> int:
        """How much an unfinished upload has; none where somebody has just finished it."""
        with _suppress_no_such_upload():
            return sum(part.size_bytes for part in self.parts(upload).values())
        return 0


def listed_objects(page: Any) -> Iterator[ListedObject]:
    """The objects on one page of a listing."""
    for each in page.get("Contents", ()):
        key, size_bytes, etag = _facts(each, "Key", "Size", "ETag")
        yield ListedObject(key, size_bytes, etag.strip('"'))


def _facts(item: Any, *names: str) -> list[Any]:
    """The fields called `names` of what a server lists. Raises SourceFailed without one."""
    if gaps := [name for name in names if name not in item]:
        raise SourceFailed(
            f"the server lists {item.get('Key') or 'an item'} without {' and '.join(gaps)}",
            hint="check --endpoint-url, or AWS_ENDPOINT_URL: that is no list of S3",
        )
    return [item[name] for name in names]


def _md5(body: memoryview | bytes) -> bytes:
    return hashlib.md5(body, usedforsecurity=False).digest()


def _send_md5(params: Any, **_: Any) -> None:
    """Let a MD5, which every server knows, go with a body in place of botocore's CRC32."""
    params["headers"]["Content-MD5"] = base64.b64encode(_md5(params["body"])).decode()
    params["context"].pop("checksum", None)


@contextmanager
def _suppress_no_such_upload() -> Iterator[None]:
    """Suppress the error that says that there is no such upload, or that none can be listed."""
    try:
        yield
    except SourceFailed as error:
        cause = error.__cause__
        if not isinstance(cause, failures.ClientError):
            raise
        if code_of(cause) != "NoSuchUpload" and status_of(cause) not in (405, 501):
            raise


def _checksum(answer: Any, size_bytes: int) -> Checksum | None:
    for kind, field in CHECKSUM_FIELDS.items():
        if answer.get(field) and "-" not in answer[field] and Checksum.is_known(kind):
            with suppress(ValueError):
                return Checksum.parse(kind, answer[field], size_bytes)
    return None


def _config(settings: Settings) -> Config:
    return Config(
        retries={"mode": "standard", "total_max_attempts": 1},  # but see Bucket._wait_s
        connect_timeout=_CONNECT_S,
        read_timeout=_SILENT_S,
        max_pool_connections=_CONNECTIONS,
        tcp_keepalive=True,
        signature_version=UNSIGNED if settings.no_sign_request else None,
        # We send and check checksums of our own; older servers refuse those of botocore.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={
            # Bodies have a checksum that the server compares; a SHA-256 would be a second one.
            "payload_signing_enabled": False,
            "use_accelerate_endpoint": settings.accelerate,
            "use_dualstack_endpoint": settings.dual_stack,
            **({"addressing_style": "path"} if settings.path_style else {}),
        },
    )
