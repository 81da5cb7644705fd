"""What proves the bytes of an archive, as a value: parsed, kept as JSON, and said in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from imnetprep.catalog.datasets import Archive
from imnetprep.digests import ARCHIVE_DIGESTS, Checksum, Pieces

_PART, _SERVER = "what was read", "its server"


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
        """As `TorrentProof.as_json`."""
        return {"kind": self.kind, "digest": self.digest}

    def describe(self) -> str:
        """As `TorrentProof.describe`."""
        return f"its {self.kind} is right ({self.digest})"


@dataclass(frozen=True)
class ServerChecksum:
    """The bytes had the checksum that the object store keeps of them; nobody vouches for those."""

    kind: str
    digest: str
    server: str = _SERVER

    def as_json(self) -> dict[str, Any]:
        """As `TorrentProof.as_json`."""
        return {"kind": self.kind, "digest": self.digest, "of": self.server}

    def describe(self) -> str:
        """As `TorrentProof.describe`."""
        return f"its {self.kind} is that of {self.server} ({self.digest})"


@dataclass(frozen=True)
class NoProof:
    """Nothing proves the bytes; `reason` says what is missing."""

    reason: str

    def as_json(self) -> dict[str, Any]:
        """As `TorrentProof.as_json`."""
        return {"kind": "none", "why": self.reason}

    def describe(self) -> str:
        """As `TorrentProof.describe`."""
        return f"not verified: {self.reason}"


@dataclass(frozen=True)
class Several:
    """A split is made of several archives, each with its own proof, by archive name."""

    proofs: Mapping[str, "ArchiveProof"]

    def as_json(self) -> dict[str, Any]:
        """As `TorrentProof.as_json`."""
        proofs = {name: proof.as_json() for name, proof in self.proofs.items()}
        return {"kind": "several", "of": proofs}

    def describe(self) -> str:
        """As `TorrentProof.describe`."""
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
