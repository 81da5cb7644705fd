"""The one home of S3: archives read from a bucket, through boto3's own credentials and settings.

Every read is a ranged GET that holds only for the object as it was when it was opened (its ETag).
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import boto3
import botocore.config
import botocore.exceptions as failures

from imnetprep.digests import Checksum
from imnetprep.errors import ImnetprepError, SourceFailed, WrongBytes, WrongUsage
from imnetprep.retry import resumed, retried

SCHEME = "s3://"

# A body may end early or stall after its headers came: botocore does not try that again.
_BROKEN_BODIES = (
    failures.IncompleteReadError,
    failures.ReadTimeoutError,
    failures.ResponseStreamingError,
)
_CHECKSUM_FIELDS = {"crc64nvme": "ChecksumCRC64NVME", "crc32": "ChecksumCRC32"}
_MENDS = {
    "401": "aws sts get-caller-identity shows who you are",
    "403": "your credentials need s3:GetObject there (and s3:ListBucket, to tell missing from"
    " forbidden); aws sts get-caller-identity shows who you are",
    "404": "aws s3 ls shows what is there",
    "301": "the bucket is in another region: set AWS_REGION to it",
    "ExpiredToken": "your session has expired: log in again (aws sso login)",
    "RequestTimeTooSkewed": "the clock of this machine is wrong: set it",
}


class S3Address(NamedTuple):
    """A bucket, and a key or a prefix without a slash at its end."""

    bucket: str
    key: str

    def __truediv__(self, name: str) -> "S3Address":
        return S3Address(self.bucket, f"{self.key}/{name}".removeprefix("/"))

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.key}"


def parse_s3_address(address: str) -> S3Address:
    """`s3://bucket/prefix/` as an address. Raises WrongUsage."""
    bucket, _, key = address.removeprefix(SCHEME).partition("/")
    if not address.startswith(SCHEME) or not bucket:
        raise WrongUsage(f"{address!r} names no bucket", hint="write s3://BUCKET/PREFIX")
    return S3Address(bucket, key.strip("/"))


class S3Object:
    """An archive in a bucket."""

    seekable, far = True, True

    def __init__(self, address: S3Address) -> None:
        self.address, self.name = address, address.key.rpartition("/")[2]
        self._client = _client()
        where = {"Bucket": address.bucket, "Key": address.key}
        with self._told():
            head = self._client.head_object(**where, ChecksumMode="ENABLED")
        self.size_bytes: int | None = head["ContentLength"]
        self._where = {**where, "IfMatch": head["ETag"]}
        self.identity = f"{address} {head['ETag']} {self.size_bytes}"
        self.checksum = _full_checksum(head)

    def read_at(self, offset: int, length: int) -> bytes:
        """As ArchiveFile.read_at. Raises WrongBytes where the object has changed meanwhile."""
        end = min(offset + length, self.size_bytes or 0)
        if offset >= end:
            return b""
        span = f"bytes={offset}-{end - 1}"

        def get() -> bytes:
            body: bytes = self._client.get_object(**self._where, Range=span)["Body"].read()
            return body

        with self._told():
            return retried(get, on=_BROKEN_BODIES)

    def chunks(self, start: int, end: int, length: int) -> Iterator[memoryview]:
        """As ArchiveFile.chunks: one request, and one more for each time that it breaks."""

        def open_at(at: int) -> Any:
            got = self._client.get_object(**self._where, Range=f"bytes={at}-{end - 1}")
            return got["Body"]

        with self._told():
            yield from resumed(open_at, start, end, length=length, on=_BROKEN_BODIES)

    def close(self) -> None: ...

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What boto3 says of a failure, as we say it."""
        try:
            yield
        except failures.ClientError as error:
            raise self._refusal(error.response) from error
        except failures.NoCredentialsError as error:
            raise ImnetprepError(
                f"no AWS credentials to read {self.address}",
                hint="aws configure, or set AWS_PROFILE or AWS_ACCESS_KEY_ID",
            ) from error
        except (EOFError, failures.BotoCoreError) as error:
            raise SourceFailed(
                f"{self.address}: {error}",
                hint="check the network and AWS_ENDPOINT_URL; run the same command to go on",
            ) from error

    def _refusal(self, response: Any) -> ImnetprepError:
        code = str(response["Error"]["Code"])
        status = str(response["ResponseMetadata"]["HTTPStatusCode"])
        if status == "412":
            return WrongBytes(
                f"{self.address} has changed while it was read",
                hint="run the same command again: what was made of the old one is dropped",
            )
        said = response["Error"].get("Message") or code
        mend = _MENDS.get(code) or _MENDS.get(status)
        return SourceFailed(
            f"{self.address}: {said} ({status})",
            hint=mend or "run the same command again; it goes on from where it was",
        )


@functools.cache
def _client() -> Any:
    """boto3 finds credentials, region and endpoint as it always does (AWS_… and ~/.aws)."""
    config = botocore.config.Config(
        retries={"mode": "standard", "max_attempts": 8},
        connect_timeout=5,
        read_timeout=15,
        max_pool_connections=64,
        tcp_keepalive=True,
    )
    return boto3.session.Session().client("s3", config=config)


def _full_checksum(head: Any) -> Checksum | None:
    """The checksum of the whole object, where the server has one that can be computed here.

    One that is composite, of the parts' checksums, ends in a dash and their number. SeaweedFS
    does not say the type of an object that came in one part.
    """
    if head.get("ChecksumType", "FULL_OBJECT") != "FULL_OBJECT":
        return None
    for kind, field in _CHECKSUM_FIELDS.items():
        if field in head and "-" not in head[field] and Checksum.is_known(kind):
            return Checksum.parse(kind, head[field], head["ContentLength"])
    return None
