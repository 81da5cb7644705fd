"""Reading an archive so that its bytes are proved on the one read that uses them.

Torrent pieces are proved one by one, before anything is made of them, and in any order. A digest
of the whole wants the bytes in order and says yes or no at the end.
"""

import hashlib
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import starmap
from typing import Protocol

from imnetprep.archives.file import ArchiveFile, read_all
from imnetprep.archives.ranges import Range
from imnetprep.archives.tar import FETCH_AGAIN
from imnetprep.digests import Checksum, Pieces
from imnetprep.messages import WrongBytes
from imnetprep.proving.receipt import ArchiveProof, DigestProof, Proof, ServerChecksum, TorrentProof

# From here, what stays in a core's cache until it is written; from afar, what is worth the trip.
_NEAR_BYTES, _FAR_BYTES = 2 << 20, 4 << 20
# Chunks of a far archive that are under way, and read chunks that wait for their digest.
_PREFETCH = 8

Span = tuple[int, int]
Read = Callable[[int, int], bytes | memoryview]


class Reader(Protocol):
    """An open archive. `in_order`: is it read once, from its start to its end? `is_forkable`: may
    ranges be read by several processes, each with a copy of the reader?

    `checksums` has that of each range by its start once it is read, where they are the proof.
    """

    in_order: bool
    is_forkable: bool
    checksums: dict[int, Checksum]

    def chunks(self, start: int, end: int | None) -> Iterator[memoryview]:
        """The bytes from `start` to `end`, or to where the archive ends, in order.

        A chunk holds until the next is asked for; if read in order, for as long as it is wanted.
        """

    def finish(self) -> None:
        """All ranges are read: raise WrongBytes unless the archive is what was promised."""

    def close(self) -> None:
        """End its threads; the archive itself stays open."""


def wants_order(proof: ArchiveProof, *, earlier: Proof | None) -> bool:
    """Does `proof` need the bytes in order?"""
    return isinstance(proof, DigestProof) and proof != earlier


def open_reader(
    file: ArchiveFile,
    *,
    proof: ArchiveProof,
    earlier: Proof | None,
    pieces: Pieces | None,
    ranges: Sequence[Range] | None,
    tail: int = 0,
    checksums: Mapping[int, Checksum] | None = None,
) -> Reader:
    """The reader that establishes `proof` while it reads, or a plain one if `earlier` is as much.

    `ranges` are those that will be asked for and `tail` where the last of the archive's ends;
    None: all will be read in order. `checksums` are those of the ranges that were read before.
    """
    if proof == earlier:
        return PlainReader(file, in_order=ranges is None)
    if isinstance(proof, TorrentProof) and pieces is not None:
        return PieceReader(file, pieces, ranges, tail)
    if isinstance(proof, DigestProof):
        return DigestReader(file, proof)
    if isinstance(proof, ServerChecksum) and file.checksum is not None:
        if ranges is None:
            return ChecksumReader(file, file.checksum, {}, in_order=True)
        return ChecksumReader(file, file.checksum, checksums or {}, in_order=False)
    return PlainReader(file, in_order=ranges is None)


class PlainReader:
    """The archive was proved earlier, or nothing could prove it."""

    def __init__(self, file: ArchiveFile, *, in_order: bool = False) -> None:
        self.in_order, self.is_forkable = in_order, not file.is_far
        self.checksums: dict[int, Checksum] = {}
        self._file = file
        self._reads = _Reads(prefetch=in_order and file.is_far)

    def chunks(self, start: int, end: int | None) -> Iterator[memoryview]:
        length = _FAR_BYTES if self._file.is_far else _NEAR_BYTES
        if end is None and self._file.size_bytes is None:
            return self._to_the_end(start, length)
        end = end or self._file.size_bytes or 0
        if not self.in_order:
            return self._file.chunks(start, end, _NEAR_BYTES)
        spans = ((at, min(at + length, end)) for at in range(start, end, length))
        return self._reads.all(partial(read_all, self._file), spans)

    def _to_the_end(self, at: int, length: int) -> Iterator[memoryview]:
        while body := self._file.read_at(at, length):
            at += len(body)
            yield memoryview(body)

    def finish(self) -> None: ...

    def close(self) -> None:
        self._reads.close()


class PieceReader:
    """Each torrent piece is proved by its SHA-1 before a byte of it is given out.

    A piece that several of the `ranges` share is read once and kept until the last has had it.
    """

    is_forkable = False

    def __init__(
        self, file: ArchiveFile, pieces: Pieces, ranges: Sequence[Range] | None, tail: int
    ) -> None:
        self.in_order = ranges is None
        self.checksums: dict[int, Checksum] = {}
        self._file, self._pieces, self._tail = file, pieces, tail
        unit_bytes = _FAR_BYTES if self.in_order and file.is_far else _NEAR_BYTES
        self._stride = max(1, unit_bytes // pieces.length_bytes)  # pieces in one read
        self._reads = _Reads(prefetch=self.in_order and file.is_far)
        self._uses = Counter(
            piece
            for each in ranges or ()
            for piece in {each.start // pieces.length_bytes, (each.end - 1) // pieces.length_bytes}
        )
        self._shared_pieces: dict[int, Future[memoryview]] = {}
        self._lock = threading.Lock()

    def chunks(self, start: int, end: int | None) -> Iterator[memoryview]:
        length, end = self._pieces.length_bytes, end or self._pieces.size_bytes
        first, last = start // length, -(-end // length)
        offset = first * length
        bodies = self._ahead(first, last) if self.in_order else self._range(first, last)
        for body in bodies:
            yield body[max(0, start - offset) : end - offset]
            offset += len(body)

    def _range(self, first: int, last: int) -> Iterator[memoryview]:
        """The pieces of a range: the shared ones at its ends, and what lies between in one go."""
        inner = [piece for piece in range(first, last) if not self._uses[piece]]
        if first < last and self._uses[first]:
            yield self._shared_piece(first)
        if inner:
            start, end = self._bytes(inner[0])[0], self._bytes(inner[-1])[1]
            length = self._stride * self._pieces.length_bytes
            chunks = self._file.chunks(start, end, length)
            for piece, body in zip(
                range(inner[0], inner[-1] + 1, self._stride), chunks, strict=True
            ):
                yield self._proved(piece, body)
        if last - 1 > first and self._uses[last - 1]:
            yield self._shared_piece(last - 1)

    def _ahead(self, first: int, last: int) -> Iterator[memoryview]:
        def read(first: int, last: int) -> memoryview:
            start, end = self._bytes(first)[0], self._bytes(last - 1)[1]
            return self._proved(first, memoryview(read_all(self._file, start, end)))

        spans = ((at, min(at + self._stride, last)) for at in range(first, last, self._stride))
        return self._reads.all(read, spans)

    def finish(self) -> None:
        """Prove the pieces behind the last member too: they hold the end of the archive."""
        if not self.in_order:
            for piece in range(-(-self._tail // self._pieces.length_bytes), self._pieces.count):
                self._piece(piece)

    def close(self) -> None:
        self._reads.close()

    def _bytes(self, piece: int) -> Span:
        """Where a piece lies; the last one may be shorter."""
        start = piece * self._pieces.length_bytes
        return start, min(start + self._pieces.length_bytes, self._pieces.size_bytes)

    def _piece(self, piece: int) -> memoryview:
        return self._proved(piece, memoryview(read_all(self._file, *self._bytes(piece))))

    def _proved(self, first: int, body: memoryview) -> memoryview:
        """`body`, if it is the pieces from `first` on."""
        length = self._pieces.length_bytes
        for at in range(0, len(body), length):
            piece = first + at // length
            if not self._pieces.is_right(piece, body[at : at + length]):
                start, end = self._bytes(piece)
                raise WrongBytes(
                    f"{self._file.name}: piece {piece} (bytes {start:,} to {end:,}) is not what"
                    f" torrent {self._pieces.info_hash} says",
                    hint=FETCH_AGAIN,
                )
        return body

    def _shared_piece(self, piece: int) -> memoryview:
        with self._lock:
            is_mine = piece not in self._shared_pieces
            future = self._shared_pieces.setdefault(piece, Future())
            self._uses[piece] -= 1
            if not self._uses[piece]:
                del self._shared_pieces[piece]
        if is_mine:
            try:
                future.set_result(self._piece(piece))
            except BaseException as error:
                future.set_exception(error)
                raise
        return future.result()


class DigestReader:
    """The whole archive has a digest: every byte goes through it once, in order.

    The digest is the slowest part of all, so it has a thread of its own that never waits.
    """

    in_order, is_forkable = True, False

    def __init__(self, file: ArchiveFile, proof: DigestProof) -> None:
        self._plain, self._name = PlainReader(file, in_order=True), file.name
        self.checksums: dict[int, Checksum] = {}
        self._proof = proof
        self._hasher = hashlib.new(proof.kind, usedforsecurity=False)
        self._hash_thread = ThreadPoolExecutor(1)
        self._queue: deque[Future[None]] = deque()

    def chunks(self, start: int, end: int | None) -> Iterator[memoryview]:
        """As `Reader.chunks`; called once, from 0 to the end."""
        return map(self._hashed, self._plain.chunks(start, end))

    def _hashed(self, body: memoryview) -> memoryview:
        if len(self._queue) == _PREFETCH:
            self._queue.popleft().result()
        self._queue.append(self._hash_thread.submit(self._hasher.update, body))
        return body

    def finish(self) -> None:
        for future in self._queue:
            future.result()
        if self._hasher.hexdigest() != self._proof.digest:
            raise WrongBytes(
                f"{self._name}: {self._proof.kind} is {self._hasher.hexdigest()},"
                f" not {self._proof.digest}",
                hint=f"fetch {self._name} again; what was made of it is not used",
            )

    def close(self) -> None:
        self._hash_thread.shutdown()
        self._plain.close()


class ChecksumReader:
    """The server keeps a checksum of the whole: those of the ranges are put together to it."""

    is_forkable = False

    def __init__(
        self,
        file: ArchiveFile,
        promise: Checksum,
        checksums: Mapping[int, Checksum],
        *,
        in_order: bool,
    ) -> None:
        self.in_order = in_order
        self.checksums = dict(checksums)
        self._plain, self._name = PlainReader(file, in_order=in_order), file.name
        self._promise = promise

    def chunks(self, start: int, end: int | None) -> Iterator[memoryview]:
        checksum = Checksum.empty(self._promise.kind)
        for body in self._plain.chunks(start, end):
            checksum = checksum.over(body)
            yield body
        self.checksums[start] = checksum

    def finish(self) -> None:
        whole = Checksum.empty(self._promise.kind)
        for start, checksum in sorted(self.checksums.items()):
            assert start == whole.size_bytes, "ranges lie end to end"
            whole = whole.followed_by(checksum)
        for body in self._plain.chunks(whole.size_bytes, self._promise.size_bytes):
            whole = whole.followed_by(Checksum.empty(whole.kind).over(body))
        if whole != self._promise:
            raise WrongBytes(
                f"{self._name}: {whole.kind} is {whole.value:x}; its server has"
                f" {self._promise.value:x}",
                hint="run the same command again; what was made of it is not used",
            )

    def close(self) -> None:
        self._plain.close()


class _Reads:
    """Reads one after another or, with `prefetch`, side by side; results come in order."""

    def __init__(self, *, prefetch: bool) -> None:
        self._workers = ThreadPoolExecutor(_PREFETCH) if prefetch else None

    def all(self, read: Read, spans: Iterable[Span]) -> Iterator[memoryview]:
        if self._workers is None:
            return map(memoryview, starmap(read, spans))
        return self._all_ahead(self._workers, read, spans)

    def _all_ahead(
        self, workers: ThreadPoolExecutor, read: Read, spans: Iterable[Span]
    ) -> Iterator[memoryview]:
        futures: deque[Future[bytes | memoryview]] = deque()
        for span in spans:
            futures.append(workers.submit(read, *span))
            if len(futures) == _PREFETCH:
                yield memoryview(futures.popleft().result())
        while futures:
            yield memoryview(futures.popleft().result())

    def close(self) -> None:
        if self._workers is not None:
            self._workers.shutdown(cancel_futures=True)
