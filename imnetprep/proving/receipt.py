"""What proves the bytes of an archive, as a value, and `receipt.json`, which keeps it.

The receipt says which archive bytes came from where, proved how, and what was made of them.
"""

import errno
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from imnetprep import __version__
from imnetprep.archives.file import file_state
from imnetprep.catalog.datasets import Archive, Root
from imnetprep.digests import ARCHIVE_DIGESTS, Checksum, Pieces
from imnetprep.fs import locked, written_whole
from imnetprep.messages import ImnetprepError
from imnetprep.outside_files import read_file
from imnetprep.transfers.journal import PartJournal, values_of_a_journal

_PART, _SERVER = "what was read", "its server"
_THREADS = threading.Lock()


@dataclass(frozen=True)
class TorrentProof:
    """Each piece had the SHA-1 that the torrent promises. `part`: only of what was read."""

    info_hash: str
    pieces: int
    part: bool = False

    def as_json(self) -> dict[str, Any]:
        """The proof as `parse_proof` reads it."""
        table = {"kind": "torrent", "info_hash": self.info_hash, "pieces": self.pieces}
        return {**table, "of": _PART} if self.part else table

    def describe(self) -> str:
        """What people read behind the name of the archive."""
        pieces = "all pieces that were read" if self.part else f"all {self.pieces:,} pieces"
        return f"{pieces} right (torrent {self.info_hash})"


@dataclass(frozen=True)
class DigestProof:
    """The whole archive had the digest that its dataset names; `kind` is one of ARCHIVE_DIGESTS."""

    kind: str
    digest: str

    def as_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "digest": self.digest}

    def describe(self) -> str:
        return f"its {self.kind} is right ({self.digest})"


@dataclass(frozen=True)
class ServerChecksum:
    """The bytes had the checksum that the object store keeps of them; nobody vouches for those."""

    kind: str
    digest: str
    server: str = _SERVER

    def as_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "digest": self.digest, "of": self.server}

    def describe(self) -> str:
        return f"its {self.kind} is that of {self.server} ({self.digest})"


@dataclass(frozen=True)
class NoProof:
    """Nothing proves the bytes; `reason` says what is missing, `server` where they are from."""

    reason: str
    server: str = ""

    def as_json(self) -> dict[str, Any]:
        origin = {"of": self.server} if self.server else {}
        return {"kind": "none", "why": self.reason, **origin}

    def describe(self) -> str:
        return f"not verified: {self.reason}"


@dataclass(frozen=True)
class Several:
    """A split is made of several archives, each with its own proof, by archive name."""

    proofs: Mapping[str, "ArchiveProof"]

    def as_json(self) -> dict[str, Any]:
        proofs = {name: proof.as_json() for name, proof in self.proofs.items()}
        return {"kind": "several", "of": proofs}

    def describe(self) -> str:
        return "; ".join(f"{name}: {proof.describe()}" for name, proof in self.proofs.items())


ArchiveProof = TorrentProof | DigestProof | ServerChecksum | NoProof
Proof = ArchiveProof | Several


def parse_proof(table: object) -> Proof:
    """The proof of which `table` is the JSON, whoever wrote it. Raises ValueError on all else."""
    match table:
        case {"kind": "several", "of": dict(of), **rest} if of and not rest:
            proofs = {str(name): parse_proof(proof) for name, proof in of.items()}
            single = {name: each for name, each in proofs.items() if not isinstance(each, Several)}
            if len(single) == len(proofs):
                return Several(single)
        case {"kind": "torrent", "info_hash": str(info_hash), "pieces": int(pieces), **rest}:
            if pieces > 0 and rest in ({}, {"of": _PART}):
                return TorrentProof(info_hash, pieces, part=bool(rest))
        case {"kind": "none", "why": str(reason), **rest} if not rest:
            return NoProof(reason)
        case {"kind": "none", "why": str(reason), "of": str(server), **rest} if not rest:
            return NoProof(reason, server)
        case {"kind": str(kind), "digest": str(digest), "of": str(server), **rest} if not rest:
            return ServerChecksum(kind, digest, server)
        case {"kind": str(kind), "digest": str(digest), **rest} if kind in ARCHIVE_DIGESTS:
            if not rest:
                return DigestProof(kind, digest)
    raise ValueError("it has a proof of no known form")


def choose_proof(
    archive: Archive,
    pieces: Pieces | None,
    *,
    earlier: Proof | None = None,
    checksum: Checksum | None = None,
) -> ArchiveProof:
    """What is to prove `archive`: the pieces of its torrent, else a digest, else the `checksum`
    that its server keeps, else nothing.

    `earlier` is how the bytes at hand were proved already. It serves if the dataset names that very
    digest or torrent, or names nothing by which they could be proved.
    """
    kind = next((kind for kind in ARCHIVE_DIGESTS if kind in archive.digests), None)
    if pieces is not None:
        return TorrentProof(pieces.info_hash, pieces.count)
    if kind is not None:
        return DigestProof(kind, archive.digests[kind])
    if earlier is not None and not isinstance(earlier, Several):
        return earlier
    if checksum is not None:
        return ServerChecksum(checksum.kind, f"{checksum.value:x}")
    return NoProof("the dataset names no digest of its archive")


def proof_of_part(proof: ArchiveProof, *, earlier: Proof | None) -> ArchiveProof:
    """What is left of `proof` where only part of the archive is read.

    The pieces prove that part; and all of it may be proved already. A digest covers the whole file.
    """
    if proof == earlier or isinstance(proof, NoProof):
        return proof
    if isinstance(proof, TorrentProof):
        return TorrentProof(proof.info_hash, proof.pieces, part=True)
    return NoProof(f"only part of it was read, and its {proof.kind} covers the whole file")


def read_receipt(root: Root) -> dict[str, Any]:
    """The receipt: `archives`, `splits` and what was `verified`; all empty where there is none."""
    empty: dict[str, Any] = {"archives": {}, "splits": {}, "verified": {}}
    try:
        receipt = empty
        receipt |= json.loads(read_file(root.receipt))
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
                raise ValueError(f"what it says of {name!r} is no record")
            if "proof" in record or kind == "archives":
                proof = parse_proof(record.get("proof"))
                if kind == "archives":
                    proof.describe().encode()  # is shown, which half a character cannot be
    for name, record in receipt["verified"].items():
        if not _is_verify(name, record):
            raise ValueError(f"what it says of the verify of {name!r} is no such record")


def _is_verify(name: str, record: Mapping[str, Any]) -> bool:
    """Has `record` the form that `record_verify` gives it, and text that can be shown?"""
    match record:
        case {"checks": list(checks), "findings": int(findings), "recorded_at": str(timestamp)}:
            texts = [name, *checks, timestamp]
            is_text = all(isinstance(text, str) and text.isprintable() for text in texts)
            return is_text and not isinstance(findings, bool)
    return False


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


def keep_arrival(journal: PartJournal, name: str, part: Path, proof: Proof) -> None:
    """The file `part` is about to be called `name`; `proof` is what proved it."""
    journal.keep_arrived(name, part.stat().st_ino, json.dumps(proof.as_json()))


def record_arrivals(journal: PartJournal, root: Root, place: Callable[[str], Path]) -> None:
    """Say in the receipt what proved the files that got their names, in this run or one before.

    `place` is where the file of a name lies.
    """
    proofs: dict[Path, Proof] = {}
    for name, inode, proof in journal.arrived():
        path = place(name)
        if path.exists() and path.stat().st_ino == inode:
            with values_of_a_journal():
                proofs[path] = parse_proof(json.loads(proof))
            journal.forget_fetching(name)
    if proofs:
        record_archives(root, proofs)
    journal.forget_arrived()


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


def bad_images(root: Root, split: str) -> Mapping[str, str]:
    """What was left out of `split` when it was made, as CLASS/FILE, each with the reason."""
    images = read_receipt(root)["splits"].get(split, {}).get("skipped", {})
    return images if isinstance(images, dict) else {}


def record_verify(root: Root, findings: Mapping[str, int], *, checks: Sequence[str]) -> bool:
    """Keep how many `findings` verify had in each split, or archive, by name; are they kept?

    Where there is none, a fuller verify of that name that had none either stays. What is said of
    splits and archives that are gone is dropped.
    """
    with if_possible():
        earlier = verifies(root)
        stale = read_receipt(root)["verified"].keys() - earlier.keys()
        records = dict.fromkeys(stale) | {
            name: {"checks": list(checks), "findings": found}
            for name, found in findings.items()
            if found or not _is_fuller(earlier.get(name), checks)
        }
        if records:
            _record(root, "verified", records)
        return True
    return False


def verifies(root: Root) -> dict[str, Mapping[str, Any]]:
    """What verify found in each split and archive, by name; in what is gone, only the wrong."""

    def is_there(name: str) -> bool:
        # os.path knows no error; whoever wrote the receipt may have called it anything
        return any(os.path.exists(folder / name) for folder in (root.path, root.archives))  # noqa: PTH110

    records = read_receipt(root)["verified"]
    return {name: each for name, each in records.items() if each["findings"] or is_there(name)}


def _is_fuller(record: Mapping[str, Any] | None, checks: Sequence[str]) -> bool:
    """Did the verify of `record` make more than these `checks`, and find nothing?"""
    return record is not None and not record["findings"] and set(checks) < set(record["checks"])


@contextmanager
def if_possible() -> Iterator[None]:
    """Do without the receipt where it is damaged, or may not be read or written."""
    try:
        yield
    except ImnetprepError:
        return
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise


def record_split(root: Root, split: str, **facts: Any) -> None:
    """`split` is organized: what from, proved how, how much. A verify of an earlier one is void."""
    if split in read_receipt(root)["verified"]:
        _record(root, "verified", {split: None})
    _record(root, "splits", {split: facts})


def _record(root: Root, kind: str, records: Mapping[str, Mapping[str, Any] | None]) -> None:
    """Set the records of the table `kind`, by name; None drops one."""
    timestamp = datetime.now(UTC).isoformat(timespec="seconds")
    # Download beside organize: in another process, or in another thread, which a lock lets in.
    with _THREADS, locked(root.path, name=".receipt.lock", wait=True):
        receipt = read_receipt(root)
        for name, facts in records.items():
            if facts is None:
                receipt[kind].pop(name, None)
            else:
                receipt[kind][name] = {**facts, "recorded_at": timestamp, "imnetprep": __version__}
        # In whatever order an interrupted command and its rerun record them.
        receipt[kind] = dict(sorted(receipt[kind].items()))
        with written_whole(root.receipt) as file:
            file.write(json.dumps(receipt, indent=2).encode() + b"\n")
