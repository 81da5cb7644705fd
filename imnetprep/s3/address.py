"""Where a bucket is, and how it is reached: values that load nothing heavy."""

from dataclasses import dataclass
from typing import NamedTuple

from imnetprep.messages import WrongUsage
from imnetprep.outside_text import has_secret, public_address

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
    if not address.startswith(SCHEME) or not bucket or has_secret(address):
        public = public_address(address, mark="…")
        raise WrongUsage(f"{public!r} names no bucket", hint="write s3://BUCKET/PREFIX")
    return S3Address(bucket, key.strip("/"))


@dataclass(frozen=True)
class Settings:
    """How a bucket is reached, and what objects are made as, in the words of AWS."""

    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
    path_style: bool = False
    accelerate: bool = False
    dual_stack: bool = False
    request_payer: bool = False
    no_sign_request: bool = False
    sse: str | None = None
    sse_kms_key_id: str | None = None
    storage_class: str | None = None
    tags: str | None = None

    @property
    def object_headers(self) -> dict[str, str]:
        """What a request that makes an object says of it."""
        headers = {
            "x-amz-server-side-encryption": self.sse,
            "x-amz-server-side-encryption-aws-kms-key-id": self.sse_kms_key_id,
            "x-amz-storage-class": self.storage_class,
            "x-amz-tagging": self.tags,
        }
        return {name: value for name, value in headers.items() if value}


_reading = Settings()


def read_buckets_with(settings: Settings) -> None:
    """Reach by these settings each bucket that archives are read from: no address can say them."""
    global _reading
    _reading = settings


def reading_settings() -> Settings:
    """How buckets are reached that archives are read from."""
    return _reading
