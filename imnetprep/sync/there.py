"""What a bucket says of its objects in `receipt.json`: their checksums, parts and digests.

Written last, by whoever sent them, so that the next reader need not ask for each. What it says of
an object holds while that has the same ETag and size. It is as hostile as any input.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from imnetprep.digests import Checksum
from imnetprep.sync.journal import Known

_DAMAGE = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RecursionError,
    OverflowError,  # Infinity is a number to json
)
_SECTIONS = ("archives", "splits")
_MOST_PARTS = 10_000
LARGEST_BYTES = 64 << 20


@dataclass(frozen=True)
class ObjectRecord:
    """What is known of one object; `digests` by kind: md5, torrent (its info hash), xxh128."""

    etag: str
    known: Known
    digests: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RemoteReceipt:
    """The receipt in a bucket: `told` as the local one has it, and the objects by path."""

    told: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    objects: Mapping[str, ObjectRecord] = field(default_factory=dict)


def parse_receipt(body: bytes) -> RemoteReceipt:
    """The receipt; of what is not understood nothing. Raises ValueError where it is no receipt."""
    try:
        table = json.loads(body)
        told = {name: dict(table.get(name, {})) for name in _SECTIONS}
        records = dict(table.get("objects", {}))
    except _DAMAGE as error:
        raise ValueError(str(error)) from error
    objects = {}
    for path, record in records.items():
        try:
            objects[str(path)] = _parse(record)
        except _DAMAGE:
            continue
    return RemoteReceipt(told, objects)


def format_receipt(receipt: RemoteReceipt) -> bytes:
    """The same content always gives the same bytes."""
    objects = {path: _format(record) for path, record in sorted(receipt.objects.items())}
    return json.dumps({**receipt.told, "objects": objects}, indent=1, sort_keys=True).encode()


def _parse(record: Mapping[str, Any]) -> ObjectRecord:
    size_bytes, part_bytes = int(record["size_bytes"]), int(record.get("part_bytes", 0))
    kind = str(record["kind"])
    parts = tuple(int(value, 16) for value in str(record.get("parts", "")).split())
    wanted = -(-size_bytes // part_bytes) if part_bytes > 0 else 0
    if wanted > _MOST_PARTS:
        raise ValueError("has more parts than S3 takes")
    if not Checksum.is_known(kind) or size_bytes < 0 or part_bytes < 0 or len(parts) != wanted:
        raise ValueError("does not fit")
    known = Known(Checksum(kind, int(record["checksum"], 16), size_bytes), part_bytes, parts)
    if parts and known != Known.of_parts(known.part_checksums(), kind, part_bytes):
        raise ValueError("its parts are not those of the whole")
    digests = {str(kind): str(value) for kind, value in dict(record.get("digests", {})).items()}
    return ObjectRecord(str(record["etag"]), known, digests)


def _format(record: ObjectRecord) -> dict[str, Any]:
    whole, part_bytes, parts = record.known
    table: dict[str, Any] = {
        "etag": record.etag,
        "size_bytes": whole.size_bytes,
        "kind": whole.kind,
        "checksum": f"{whole.value:x}",
    }
    if parts:
        table |= {"part_bytes": part_bytes, "parts": " ".join(f"{part:x}" for part in parts)}
    return table | ({"digests": dict(record.digests)} if record.digests else {})
