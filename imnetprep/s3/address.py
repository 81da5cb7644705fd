"""`s3://BUCKET/KEY` as a value."""

from typing import NamedTuple

from imnetprep.messages import WrongUsage

SCHEME = "s3://"


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
