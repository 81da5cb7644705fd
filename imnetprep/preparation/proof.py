"""Reading an archive so that its bytes are proved on the one read that uses them.

Torrent pieces are proved one by one, before anything is made of them, and in any order. A digest
of the whole wants the bytes in order and says yes or no at the end.
"""

import hashlib
import os
import threading
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from imnetprep.archives.tar import truncated
from imnetprep.catalog.datasets import Archive
from imnetprep.digests import ARCHIVE_DIGESTS, Pieces
from imnetprep.errors import WrongBytes
from imnetprep.preparation.ranges import Range

_CHUNK_BYTES = 2 << 20


class Reader(Protocol):
    """An open archive. `parallel`: may ranges be read side by side, or only one after another?"""

    parallel: bool

    def read_at(self, offset: int, length: int) -> bytes:
        """Bytes that nothing has proved yet. Raises WrongBytes where the file ends before."""

    def chunks(self, start: int, end: int) -> Iterator[memoryview]:
        """The bytes from `start` to `end` in order."""

    def finish(self) -> None:
        """All ranges are read: raise WrongBytes unless the archive is what was promised."""

    def close(self) -> None:
        """Close the file."""


class _File:
    """Whole reads at an offset, or an error."""

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_RDONLY)
        self.size_bytes = os.fstat(self._handle).st_size
        self.name = path.name

    def read_at(self, offset: int, length: int) -> bytes:
        body = os.pread(self._handle, length, offset)
        if len(body) != length:
            raise truncated(self.name, offset + len(body))
        return body

    def close(self) -> None:
        os.close(self._handle)


def choose_proof(
    archive: Archive, pieces: Pieces | None, before: Mapping[str, Any] | None
) -> Mapping[str, Any]:
    """What proves `archive`: its torrent's pieces, else a digest, else nothing (and it says so).

    `before` is how the bytes at hand were proved already. It serves if the dataset names that very
    digest or torrent, or names nothing by which they could be proved.
    """
    digest = next((kind for kind in ARCHIVE_DIGESTS if kind in archive.digests), None)
    if pieces is not None:
        wanted = {"kind": "torrent", "info_hash": pieces.info_hash, "pieces": pieces.count}
    elif digest is not None:
        wanted = {"kind": digest, "digest": archive.digests[digest]}
    else:
        return before or {"kind": "none", "why": "the dataset names no digest of its archive"}
    return wanted


def open_reader(
    path: Path,
    *,
    proof: Mapping[str, Any],
    before: Mapping[str, Any] | None,
    pieces: Pieces | None,
    ranges: Sequence[Range],
    done: Container[int],
) -> Reader:
    """The reader that establishes `proof` while it reads, or plainly reads what has it already.

    `ranges` are all of the archive's, `done` the starts of those that are not read again.
    """
    if proof["kind"] == "none" or proof == before:
        return ProvedReader(path)
    if proof["kind"] == "torrent" and pieces is not None:
        to_do = [each for each in ranges if each.start not in done]
        return PieceReader(path, pieces, to_do, ranges[-1].end if ranges else 0)
    return DigestReader(path, proof["kind"], proof["digest"])


class ProvedReader(_File):
    """The archive was proved before, or there is nothing to prove it by."""

    parallel = True

    def chunks(self, start: int, end: int) -> Iterator[memoryview]:
        for offset in range(start, end, _CHUNK_BYTES):
            yield memoryview(self.read_at(offset, min(_CHUNK_BYTES, end - offset)))

    def finish(self) -> None: ...


class PieceReader(_File):
    """Each torrent piece is proved by its SHA-1 before a byte of it is given out.

    A piece that several of the `ranges` share is read once and kept until the last has had it.
    `tail` is where the last member ends.
    """

    parallel = True

    def __init__(self, path: Path, pieces: Pieces, ranges: Sequence[Range], tail: int) -> None:
        super().__init__(path)
        self._pieces, self._tail = pieces, tail
        self._uses = Counter(
            piece
            for each in ranges
            for piece in {each.start // pieces.length_bytes, (each.end - 1) // pieces.length_bytes}
        )
        self._shared: dict[int, Future[bytes]] = {}
        self._lock = threading.Lock()

    def chunks(self, start: int, end: int) -> Iterator[memoryview]:
        length = self._pieces.length_bytes
        for piece in range(start // length, -(-end // length)):
            body = self._shared_piece(piece) if self._uses[piece] else self._piece(piece)
            offset = piece * length
            yield memoryview(body)[max(0, start - offset) : end - offset]

    def finish(self) -> None:
        """Prove the pieces behind the last member too: they hold the end of the archive."""
        length = self._pieces.length_bytes
        for piece in range(-(-self._tail // length), self._pieces.count):
            self._piece(piece)

    def _piece(self, piece: int) -> bytes:
        offset = piece * self._pieces.length_bytes
        length = min(self._pieces.length_bytes, self._pieces.size_bytes - offset)
        body = self.read_at(offset, length)
        if not self._pieces.is_right(piece, body):
            raise WrongBytes(
                f"{self.name}: piece {piece} (bytes {offset:,} to {offset + length:,}) is not what"
                f" torrent {self._pieces.info_hash} says",
                hint="imnetprep download fetches the wrong pieces again, and only those",
            )
        return body

    def _shared_piece(self, piece: int) -> bytes:
        with self._lock:
            mine = piece not in self._shared
            future = self._shared.setdefault(piece, Future())
            self._uses[piece] -= 1
            if not self._uses[piece]:
                del self._shared[piece]
        if mine:
            try:
                future.set_result(self._piece(piece))
            except BaseException as error:
                future.set_exception(error)
                raise
        return future.result()


class DigestReader(_File):
    """The whole archive has a digest: every byte goes through it once, in order."""

    parallel = False

    def __init__(self, path: Path, kind: str, digest: str) -> None:
        super().__init__(path)
        self._kind, self._digest = kind, digest
        self._hasher: Any = hashlib.new(kind, usedforsecurity=False)
        self._hashed_bytes = 0
        self._hashing = ThreadPoolExecutor(1)
        self._under_way: Future[None] | None = None

    def chunks(self, start: int, end: int) -> Iterator[memoryview]:
        """As Reader.chunks; `start` never lies before the end of the last call."""
        assert start >= self._hashed_bytes
        for _ in self._in_order(start):
            pass  # a range that was done before: hashed again, not written again
        yield from self._in_order(end)

    def finish(self) -> None:
        for _ in self._in_order(self.size_bytes):
            pass
        if self._under_way is not None:
            self._under_way.result()
        if self._hasher.hexdigest() != self._digest:
            raise WrongBytes(
                f"{self.name}: {self._kind} is {self._hasher.hexdigest()}, not {self._digest}",
                hint=f"fetch {self.name} again; what was made of it is not used",
            )

    def close(self) -> None:
        self._hashing.shutdown()
        super().close()

    def _in_order(self, end: int) -> Iterator[memoryview]:
        while self._hashed_bytes < end:
            length = min(_CHUNK_BYTES, end - self._hashed_bytes)
            body = self.read_at(self._hashed_bytes, length)
            if self._under_way is not None:
                self._under_way.result()
            self._under_way = self._hashing.submit(self._hasher.update, body)
            self._hashed_bytes += length
            yield memoryview(body)
