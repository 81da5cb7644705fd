"""Digests of bytes: xxh128 for samples, md5, sha1 or sha256 for archives, SHA-1 for pieces."""

import hashlib
from dataclasses import dataclass

import xxhash

ARCHIVE_DIGESTS = ("md5", "sha1", "sha256")


def xxh128(body: bytes | memoryview) -> bytes:
    """The sixteen bytes of the body's XXH3 128-bit digest, big-endian."""
    return xxhash.xxh3_128_digest(body)


def running_xxh128() -> xxhash.xxh3_128:
    """The same digest of bytes that come in parts."""
    return xxhash.xxh3_128()


@dataclass(frozen=True)
class Pieces:
    """A file as a torrent has it (BEP 3): the SHA-1 of each run of `length_bytes`."""

    size_bytes: int
    length_bytes: int
    sha1s: bytes
    info_hash: str

    @property
    def count(self) -> int:
        """How many pieces there are; the last one may be shorter."""
        return len(self.sha1s) // 20

    def is_right(self, piece: int, body: bytes | memoryview) -> bool:
        """Is `body` that piece, to the bit?"""
        return hashlib.sha1(body).digest() == self.sha1s[20 * piece : 20 * piece + 20]
