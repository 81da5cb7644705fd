"""`receipt.json`: which archive bytes, from where, proved how, and what was made of them."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from imnetprep import __version__
from imnetprep.fs import written_whole
from imnetprep.roots import Root


def read_receipt(root: Root) -> dict[str, Any]:
    """The receipt: `archives` and `splits` by name; both empty where there is none yet."""
    try:
        receipt: dict[str, Any] = json.loads(root.receipt.read_text())
    except FileNotFoundError:
        receipt = {}
    return {"archives": {}, "splits": {}} | receipt


def record_archive(root: Root, archive: Path, proof: Mapping[str, Any]) -> None:
    """`archive` is proved; the record holds for as long as the file is not touched."""
    _record(root, "archives", archive.name, {**_state(archive), "proof": proof})


def archive_proof(root: Root, archive: Path) -> Mapping[str, Any] | None:
    """How `archive` was proved, or None: never, or the file has changed since."""
    record = read_receipt(root)["archives"].get(archive.name)
    if record is None or not archive.exists():
        return None
    return record["proof"] if record.items() >= _state(archive).items() else None


def record_split(root: Root, split: str, **facts: Any) -> None:
    """`split` is organized: what from, proved how, how much."""
    _record(root, "splits", split, facts)


def _state(archive: Path) -> dict[str, int]:
    status = archive.stat()
    return {"size_bytes": status.st_size, "mtime_ns": status.st_mtime_ns}


def _record(root: Root, kind: str, name: str, facts: Mapping[str, Any]) -> None:
    receipt = read_receipt(root)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    receipt[kind][name] = {**facts, "recorded_at": now, "imnetprep": __version__}
    with written_whole(root.receipt) as file:
        file.write(json.dumps(receipt, indent=2).encode() + b"\n")
