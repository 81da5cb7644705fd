"""An archive in a bucket, read by ranges.

Every read is a ranged GET that holds only for the object as it was when it was opened (its ETag).
"""

import functools
import os
from collections.abc import Iterator

from imnetprep.s3.address import S3Address, Settings, reading_settings
from imnetprep.s3.bucket import Bucket
from imnetprep.s3.failures import explained


class S3Object:
    """An archive in a bucket."""

    seekable, is_far = True, True

    def __init__(self, address: S3Address) -> None:
        self.address, self.name = address, address.key.rpartition("/")[2]
        self._bucket = _opened(address.bucket, reading_settings(), os.getpid())
        with explained(address):
            head = self._bucket.head(address.key)
        self.size_bytes: int | None = head.size_bytes
        self._etag, self.checksum = head.etag, head.checksum
        self.identity = f'{address} "{head.etag}" {head.size_bytes}'

    def read_at(self, offset: int, length: int) -> bytes:
        """As `ArchiveFile.read_at`. Raises WrongBytes where the object has changed meanwhile."""
        end = min(offset + length, self.size_bytes or 0)
        return b"".join(self.chunks(offset, end, length)) if offset < end else b""

    def chunks(self, start: int, end: int, length: int) -> Iterator[memoryview]:
        """As `ArchiveFile.chunks`: one request, and one more for each time that it breaks."""
        with explained(self.address):
            key = self.address.key
            yield from self._bucket.chunks(key, start, end, etag=self._etag, length=length)

    def close(self) -> None: ...


@functools.cache
def _opened(bucket: str, settings: Settings, _process: int) -> Bucket:
    """Credentials, region and endpoint as botocore finds them (AWS_… and ~/.aws).

    Each process has its own: a fork would share the connections with its parent.
    """
    return Bucket(bucket, settings)
