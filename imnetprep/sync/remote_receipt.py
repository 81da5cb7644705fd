"""What a bucket says of its objects in `receipt.json`: their checksums, parts and digests.

Written last, by whoever sent them, so that the next reader need not ask for each. What it says of
an object holds while that has the same ETag and size. It is as hostile as any input.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from imnetprep.digests import Checksum
from imnetprep.plain_values import plain_text, table, whole_number
from imnetprep.transfers.checksums import Checksums

# OverflowError: Infinity is a number to json.
_DAMAGE = (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError)
_SECTIONS = ("archives", "splits")
LARGEST_BYTES = 64 << 20


@dataclass(frozen=True)
class ObjectRecord:
    """What is known of one object; `digests` by kind: md5, torrent (its info hash), xxh128."""

    etag: str
    checksums: Checksums
    digests: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RemoteReceipt:
    """The receipt in a bucket: the `sections` of a local one, and the objects by path."""

    sections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    objects: Mapping[str, ObjectRecord] = field(default_factory=dict)


def parse_receipt(body: bytes) -> RemoteReceipt:
    """Parse a receipt, without what is not understood. Raises ValueError where it is none."""
    try:
        receipt = table(json.loads(body))
        sections = {name: table(receipt.get(name, {})) for name in _SECTIONS}
        records = table(receipt.get("objects", {}))
    except _DAMAGE as error:
        raise ValueError(str(error)) from error
    objects = {}
    for path, record in records.items():
        try:
            objects[str(path)] = _parse(record)
        except _DAMAGE:
            continue
    return RemoteReceipt(sections, objects)


def format_receipt(receipt: RemoteReceipt) -> bytes:
    """Format a receipt, with the same bytes for the same content."""
    objects = {path: _format(record) for path, record in sorted(receipt.objects.items())}
    return json.dumps({**receipt.sections, "objects": objects}, indent=1, sort_keys=True).encode()


def _parse(record: Mapping[str, Any]) -> ObjectRecord:
    size_bytes = whole_number(record["size_bytes"])
    part_bytes = whole_number(record.get("part_bytes", 0))
    kind, parts = plain_text(record["kind"]), plain_text(record.get("parts", ""))
    checksums = Checksums.parse(kind, size_bytes, record["checksum"], part_bytes, parts)
    if not Checksum.is_known(kind):
        raise ValueError("its checksum cannot be computed here")
    parts_of_whole = checksums.part_checksums()
    if checksums.parts and checksums != Checksums.of_parts(parts_of_whole, kind, part_bytes):
        raise ValueError("its parts are not those of the whole")
    digests = {
        plain_text(kind): plain_text(value)
        for kind, value in table(record.get("digests", {})).items()
    }
    return ObjectRecord(plain_text(record["etag"]), checksums, digests)


def _format(record: ObjectRecord) -> dict[str, Any]:
    kind, size_bytes, value, part_bytes, parts = record.checksums.columns()
    facts = {"etag": record.etag, "size_bytes": size_bytes, "kind": kind, "checksum": value}
    if parts:
        facts |= {"part_bytes": part_bytes, "parts": parts}
    return facts | ({"digests": dict(record.digests)} if record.digests else {})
