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

from imnetprep.archives.file import ArchiveFile, read_all
from imnetprep.archives.ranges import Range
from imnetprep.archives.tar import FETCH_AGAIN
from imnetprep.digests import Checksum, Pieces
from imnetprep.messages import WrongBytes
from imnetprep.proving.receipt import DigestProof

# From here, what stays in a core's cache until it is written; from afar, what is worth the trip.
_NEAR_BYTES, _FAR_BYTES = 2 << 20, 4 << 20
# Chunks of a far archive that are under way, and read chunks that wait for their digest.
_PREFETCH = 8

Span = tuple[int, int]
Read = Callable[[int, int], bytes | memoryview]


class Reader:
    """An open archive that was proved earlier, or that nothing can prove.

    `in_order`: is it read once, from its start to its end? `is_forkable`: may ranges be read by
    several processes, each with a copy of the reader? `checksums` has that of each range by its
    start once it is read, where they are the proof.
    """

    def __init__(self, file: ArchiveFile, *, in_order: bool = False) -> None:
        self.in_order, self.is_forkable = in_order, not (in_order or file.is_far)
        self.checksums: dict[int, Checksum] = {}
        self._file = file
        is_ahead = in_order and file.is_far
        self._unit_bytes = _FAR_BYTES if is_ahead else _NEAR_BYTES
        self._workers = ThreadPoolExecutor(_PREFETCH) if is_ahead else None

    def chunks(self, start: int, end: int | None) -> Iterator[memoryview]:
        """The bytes from `start` to `end`, or to where the archive ends, in order.

        A chunk holds until the next is asked for; if read in order, for as long as it is wanted.
        """
        length, end = self._unit_bytes, end or self._file.size_bytes
        if end is None:
            return self._to_the_end(start)
        if not self.in_order:
            return self._file.chunks(start, end, length)
        spans = ((at, min(at + length, end)) for at in range(start, end, length))
        return self._in_turn(partial(read_all, self._file), spans)

    def finish(self) -> None:
        """All ranges are read: raise WrongBytes unless the archive is what was promised."""

    def close(self) -> None:
        """End its threads; the archive itself stays open."""
        if self._workers is not None:
            self._workers.shutdown(cancel_futures=True)

    def _to_the_end(self, at: int) -> Iterator[memoryview]:
        while body := self._file.read_at(at, self._unit_bytes):
            at += len(body)
            yield memoryview(body)

    def _in_turn(self, read: Read, spans: Iterable[Span]) -> Iterator[memoryview]:
        """What `read` gives for each of `spans`; of a far archive several are under way."""
        if self._workers is None:
            return map(memoryview, starmap(read, spans))
        return _ahead(self._workers, read, spans)


def _ahead(workers: ThreadPoolExecutor, read: Read, spans: Iterable[Span]) -> Iterator[memoryview]:
    futures: deque[Future[bytes | memoryview]] = deque()
    for span in spans:
        futures.append(workers.submit(read, *span))
        if len(futures) == _PREFETCH:
            yield memoryview(futures.popleft().result())
    while futures:
        yield memoryview(futures.popleft().result())


class PieceReader(Reader):
    """Each torrent piece is proved by its SHA-1 before a byte of it is given out.

    A piece that several of the `ranges` share is read once and kept until the last has had it;
    None: all will be read in order. `tail` is where the last range of the archive ends.
    """

    def __init__(
        self, file: ArchiveFile, pieces: Pieces, ranges: Sequence[Range] | None, tail: int
    ) -> None:
        super().__init__(file, in_order=ranges is None)
        self.is_forkable = False
        self._pieces, self._tail = pieces, tail
        self._stride = max(1, self._unit_bytes // pieces.length_bytes)  # pieces in one read
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
        if self.in_order:
            firsts = range(first, last, self._stride)
            spans = ((at, min(at + self._stride, last)) for at in firsts)
            bodies = self._in_turn(self._read, spans)
        else:
            bodies = self._range(first, last)
        for body in bodies:
            yield body[max(0, start - offset) : end - offset]
            offset += len(body)

    def _range(self, first: int, last: int) -> Iterator[memoryview]:
        """The pieces of a range: the shared ones at its ends, and what lies between in one go."""
        inner = [piece for piece in range(first, last) if not self._uses[piece]]
        if first < last and self._uses[first]:
            yield self._shared_piece(first)
        if inner:
            start, end = self._bytes(inner[0], inner[-1] + 1)
            chunks = self._file.chunks(start, end, self._stride * self._pieces.length_bytes)
            firsts = range(inner[0], inner[-1] + 1, self._stride)
            for piece, body in zip(firsts, chunks, strict=True):
                yield self._proved(piece, body)
        if last - 1 > first and self._uses[last - 1]:
            yield self._shared_piece(last - 1)

    def finish(self) -> None:
        """Prove the pieces behind the last member too: they hold the end of the archive."""
        if not self.in_order:
            for piece in range(-(-self._tail // self._pieces.length_bytes), self._pieces.count):
                self._read(piece, piece + 1)

    def _bytes(self, first: int, last: int) -> Span:
        """Where the pieces from `first` up to `last` lie; the archive's last may be shorter."""
        length = self._pieces.length_bytes
        return first * length, min(last * length, self._pieces.size_bytes)

    def _read(self, first: int, last: int) -> memoryview:
        return self._proved(first, memoryview(read_all(self._file, *self._bytes(first, last))))

    def _proved(self, first: int, body: memoryview) -> memoryview:
        """`body`, if it is the pieces from `first` on."""
        length = self._pieces.length_bytes
        for at in range(0, len(body), length):
            piece = first + at // length
            if not self._pieces.is_right(piece, body[at : at + length]):
                start, end = self._bytes(piece, piece + 1)
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
                future.set_result(self._read(piece, piece + 1))
            except BaseException as error:
                future.set_exception(error)
                raise
        return future.result()


class DigestReader(Reader):
    """The whole archive has a digest: every byte goes through it once, in order.

    The digest is the slowest part of all, so it has a thread of its own that never waits.
    """

    def __init__(self, file: ArchiveFile, proof: DigestProof) -> None:
        super().__init__(file, in_order=True)
        self._proof = proof
        self._hasher = hashlib.new(proof.kind, usedforsecurity=False)
        self._hash_thread = ThreadPoolExecutor(1)
        self._queue: deque[Future[None]] = deque()

    def chunks(self, start: int, end: int | None) -> Iterator[memoryview]:
        """As `Reader.chunks`; called once, from 0 to the end."""
        return map(self._hashed, super().chunks(start, end))

    def _hashed(self, body: memoryview) -> memoryview:
        if len(self._queue) == _PREFETCH:
            self._queue.popleft().result()
        self._queue.append(self._hash_thread.submit(self._hasher.update, body))
        return body

    def finish(self) -> None:
        for future in self._queue:
            future.result()
        if (digest := self._hasher.hexdigest()) != self._proof.digest:
            raise WrongBytes(
                f"{self._file.name}: {self._proof.kind} is {digest}, not {self._proof.digest}",
                hint=f"fetch {self._file.name} again; what was made of it is not used",
            )

    def close(self) -> None:
        self._hash_thread.shutdown()
        super().close()


class ChecksumReader(Reader):
    """The server keeps a checksum of the whole: those of the ranges are put together to it.

    `checksums` are those of the ranges that were read before.
    """

    def __init__(
        self,
        file: ArchiveFile,
        promise: Checksum,
        checksums: Mapping[int, Checksum],
        *,
        in_order: bool,
    ) -> None:
        super().__init__(file, in_order=in_order)
        self.is_forkable, self.checksums = False, dict(checksums)
        self._promise = promise

    def chunks(self, start: int, end: int | None) -> Iterator[memoryview]:
        checksum = Checksum.empty(self._promise.kind)
        for body in super().chunks(start, end):
            checksum = checksum.over(body)
            yield body
        self.checksums[start] = checksum

    def finish(self) -> None:
        whole = Checksum.empty(self._promise.kind)
        for start, checksum in sorted(self.checksums.items()):
            assert start == whole.size_bytes, "ranges lie end to end"
            whole = whole.followed_by(checksum)
        for body in super().chunks(whole.size_bytes, self._promise.size_bytes):
            whole = whole.followed_by(Checksum.empty(whole.kind).over(body))
        if whole != self._promise:
            raise WrongBytes(
                f"{self._file.name}: {whole.kind} is {whole.value:x}; its server has"
                f" {self._promise.value:x}",
                hint="run the same command again; what was made of it is not used",
            )
