"""How a bucket is reached, as a value that loads nothing heavy."""

from dataclasses import dataclass


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
    sse: str | None = None
    sse_kms_key_id: str | None = None
    storage_class: str | None = None
    tagging: str | None = None

    @property
    def object_headers(self) -> dict[str, str]:
        """What a request that makes an object says of it."""
        headers = {
            "x-amz-server-side-encryption": self.sse,
            "x-amz-server-side-encryption-aws-kms-key-id": self.sse_kms_key_id,
            "x-amz-storage-class": self.storage_class,
            "x-amz-tagging": self.tagging,
        }
        return {name: value for name, value in headers.items() if value}
