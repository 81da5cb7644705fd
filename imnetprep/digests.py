"""Digests: xxh128 of samples, SHA-1 of torrent pieces, CRCs of objects and of their parts."""

import base64
import functools
import hashlib
import importlib.util
import zlib
from dataclasses import dataclass

import xxhash

ARCHIVE_DIGESTS = ("md5", "sha1", "sha256")


# XXH3's 128-bit digest of a body, as sixteen bytes, big-endian; and of bytes that come in parts.
xxh128 = xxhash.xxh3_128_digest
running_xxh128 = xxhash.xxh3_128


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
        """Is `body` the piece with number `piece`, to the bit?"""
        return hashlib.sha1(body).digest() == self.sha1s[20 * piece : 20 * piece + 20]


# The polynomials, bits reversed: IEEE 802.3, Castagnoli's (RFC 3720), and the NVMe specification.
_POLYNOMIALS = {
    "crc32": (32, 0xEDB88320),
    "crc32c": (32, 0x82F63B78),
    "crc64nvme": (64, 0x9A6C9329AC4BC9B5),
}


@dataclass(frozen=True)
class Checksum:
    """The CRC of `size_bytes` bytes. crc32c and crc64nvme are known where `awscrt` is installed."""

    kind: str
    value: int
    size_bytes: int

    @staticmethod
    def is_known(kind: str) -> bool:
        """Can a CRC of this kind be computed on this machine?"""
        return kind == "crc32" or (
            kind in _POLYNOMIALS and importlib.util.find_spec("awscrt") is not None
        )

    @classmethod
    def parse(cls, kind: str, text: str, size_bytes: int) -> "Checksum":
        """The checksum that `text` says in S3's form, of `size_bytes` bytes."""
        return cls(kind, int.from_bytes(base64.b64decode(text), "big"), size_bytes)

    @property
    def text(self) -> str:
        """The checksum in S3's form: base64 of the big-endian number."""
        width = _POLYNOMIALS[self.kind][0]
        return base64.b64encode(self.value.to_bytes(width // 8, "big")).decode()

    @classmethod
    def empty(cls, kind: str) -> "Checksum":
        """The checksum of no bytes."""
        return cls(kind, 0, 0)

    def over(self, body: bytes | memoryview) -> "Checksum":
        """The checksum of the bytes so far, followed by `body`."""
        if self.kind == "crc32":
            value = zlib.crc32(body, self.value)
        else:
            import awscrt.checksums

            value = getattr(awscrt.checksums, self.kind)(body, self.value)
        return Checksum(self.kind, value, self.size_bytes + len(body))

    def followed_by(self, tail: "Checksum") -> "Checksum":
        """The checksum of the bytes of both, one behind the other.

        In the ring of polynomials modulo the CRC's own: ours times x to the bits of the other
        (Adler's crc32_combine in zlib).
        """
        factor = _shift(self.kind, tail.size_bytes)
        value = _multiply(factor, self.value, *_POLYNOMIALS[self.kind]) ^ tail.value
        return Checksum(self.kind, value, self.size_bytes + tail.size_bytes)


@functools.lru_cache(maxsize=64)  # the parts of an object have one size, but for the last
def _shift(kind: str, size_bytes: int) -> int:
    """x to the power of the bits in `size_bytes` bytes, modulo the CRC's polynomial."""
    width, polynomial = _POLYNOMIALS[kind]
    factor, square = 1 << width - 1, 1 << width - 2  # x to the 0 and to the 1
    exponent = 8 * size_bytes
    while exponent:
        if exponent & 1:
            factor = _multiply(square, factor, width, polynomial)
        square = _multiply(square, square, width, polynomial)
        exponent >>= 1
    return factor


def _multiply(a: int, b: int, width: int, polynomial: int) -> int:
    """The product of two polynomials over GF(2), highest bit first, modulo the CRC's."""
    product = 0
    for bit in range(width - 1, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = b >> 1 ^ (polynomial if b & 1 else 0)
    return product
