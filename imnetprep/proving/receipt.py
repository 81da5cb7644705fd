"""`receipt.json`: which archive bytes, from where, proved how, and what was made of them."""

import errno
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from imnetprep import __version__
from imnetprep.archives.file import file_state
from imnetprep.fs import locked, written_whole
from imnetprep.messages import ImnetprepError
from imnetprep.proving.proof import NoProof, Proof, parse_proof
from imnetprep.roots import Root


def read_receipt(root: Root) -> dict[str, Any]:
    """The receipt: `archives`, `splits` and what was `verified`; all empty where there is none."""
    empty: dict[str, Any] = {"archives": {}, "splits": {}, "verified": {}}
    try:
        receipt = empty
        receipt |= json.loads(root.receipt.read_text())
        _check(receipt)
        return receipt
    except FileNotFoundError:
        return empty
    except (ValueError, TypeError, RecursionError) as error:
        raise ImnetprepError(
            f"{root.receipt} is damaged: {error}",
            hint="move it away; the archives are then verified again",
        ) from error


def _check(receipt: Mapping[str, Any]) -> None:
    """Raise ValueError unless it has the form that `_record` gives it."""
    for kind in ("archives", "splits", "verified"):
        if not isinstance(receipt[kind], dict):
            raise ValueError(f"{kind} is no table")
        for name, record in receipt[kind].items():
            if not isinstance(record, dict):
                raise ValueError(f"what it says of {name} is no record")
            if "proof" in record or kind == "archives":
                parse_proof(record.get("proof"))


def record_archive(root: Root, archive: Path, proof: Proof) -> None:
    """`archive` is proved; the record holds for as long as the file is not touched."""
    record_archives(root, {archive: proof})


def record_archives(root: Root, proofs: Mapping[Path, Proof]) -> None:
    """Several archives are proved, as `record_archive` has one."""
    facts = {
        archive.name: {**file_state(archive), "proof": proof.as_json()}
        for archive, proof in proofs.items()
    }
    _record(root, "archives", facts)


def archive_proof(root: Root, archive: Path) -> Proof | None:
    """How `archive` was proved, or None: never, or the file has changed since."""
    record = read_receipt(root)["archives"].get(archive.name)
    if record is None or not archive.exists():
        return None
    if not record.items() >= file_state(archive).items():
        return None
    return parse_proof(record["proof"])


def is_proved(root: Root, archive: Path) -> bool:
    """Does the receipt say what proved the bytes of `archive`?"""
    return not isinstance(archive_proof(root, archive), NoProof | None)


def withdraw_archive(root: Root, archive: Path) -> None:
    """`archive` was proved once and is wrong now: the record goes."""
    if archive.name in read_receipt(root)["archives"]:
        _record(root, "archives", {archive.name: None})


def record_verify(
    root: Root, subject: str, *, splits: Sequence[str], checks: Sequence[str], findings: int
) -> None:
    """What verify found in `subject`, samples or archives, if it can be kept."""
    facts = {"splits": list(splits), "checks": list(checks), "findings": findings}
    with if_possible():
        _record(root, "verified", {subject: facts})


@contextmanager
def if_possible() -> Iterator[None]:
    """Leave the receipt as it is where it is damaged, or nobody may write it."""
    try:
        yield
    except ImnetprepError:
        return
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise


def record_split(root: Root, split: str, **facts: Any) -> None:
    """`split` is organized: what from, proved how, how much."""
    _record(root, "splits", {split: facts})


def _record(root: Root, kind: str, records: Mapping[str, Mapping[str, Any] | None]) -> None:
    """Set the records of the table `kind`, by name; None drops one."""
    timestamp = datetime.now(UTC).isoformat(timespec="seconds")
    with locked(root.path, name=".receipt.lock", wait=True):  # download beside organize
        receipt = read_receipt(root)
        for name, facts in records.items():
            if facts is None:
                receipt[kind].pop(name, None)
            else:
                receipt[kind][name] = {**facts, "recorded_at": timestamp, "imnetprep": __version__}
        with written_whole(root.receipt) as file:
            file.write(json.dumps(receipt, indent=2).encode() + b"\n")
