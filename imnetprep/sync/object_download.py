"""One object on its way into a file: by ranges, each judged as it comes, resumed when interrupted.

It is `.NAME.fetching` beside its place until it is whole. A range counts when all of it is written;
what is known of the ranges outlives a kill, and what a power cut may have taken is read again.
"""

import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from imnetprep.digests import Checksum, Pieces
from imnetprep.fs import read_range
from imnetprep.machine import named
from imnetprep.messages import WrongBytes
from imnetprep.proving.receipt import Proof, ServerChecksum, TorrentProof
from imnetprep.s3.failures import explained
from imnetprep.sync.jobs import Flow
from imnetprep.sync.journal import Checksums
from imnetprep.sync.plan import RANGE_BYTES, Step
from imnetprep.sync.survey import Survey

_CHUNK_BYTES = 1 << 20
_LARGEST_RANGE_BYTES = 64 << 20
_REQUEST_BYTES, _REQUESTS_AT_LEAST = 64 << 20, 8


def part_path(path: Path) -> Path:
    """What `path` is called while it is fetched."""
    return path.with_name(f".{path.name}.fetching")


class ObjectDownload:
    """A file on its way. `target`: what its bytes must be; None: the server keeps no checksum."""

    def __init__(
        self,
        step: Step,
        path: Path,
        survey: Survey,
        flow: Flow,
        *,
        target: Checksums | None,
        pieces: Pieces | None = None,
    ) -> None:
        self.step, self.path, self.address = step, path, survey.address / step.path
        self._survey, self._journal, self._flow = survey, survey.journal, flow
        self.target, self.pieces = target, pieces
        self._kind = target.whole.kind if target else survey.kind
        if pieces is not None and RANGE_BYTES % pieces.length_bytes:
            self.pieces = pieces = None  # they would not lie in single ranges
        self._chunk_bytes = pieces.length_bytes if pieces else _CHUNK_BYTES
        self._range_bytes, self._parts = RANGE_BYTES, tuple[Checksum, ...]()
        part_bytes = target.part_bytes if target else 0
        if 0 < part_bytes <= _LARGEST_RANGE_BYTES and not part_bytes % self._chunk_bytes:
            self._range_bytes = part_bytes
            self._parts = tuple(target.part_checksums()) if target else ()
        self._starts = range(0, max(1, step.size_bytes), self._range_bytes)
        if target and len(self._starts) == 1:
            self._parts = (target.whole,)
        self._ranges: dict[int, Checksum] = {}
        self._lock = threading.Lock()
        self._is_judged = False
        self._handle = -1

    def open(self) -> Sequence[range]:
        """Make the part or resume it: where missing ranges start, those of a request together."""
        place, size_bytes, etag = part_path(self.path), self.step.size_bytes, self.step.etag or ""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        place.parent.mkdir(parents=True, exist_ok=True)
        self._handle = os.open(place, flags, 0o644)
        status = os.fstat(self._handle)
        if len(self._starts) == 1:
            with named(self.path):
                os.ftruncate(self._handle, 0)
            return [self._starts]
        ranges = self._journal.fetched(self.step.path, etag, status.st_ino)
        if ranges is not None and status.st_size == size_bytes:
            for start, checksum, is_synced in ranges:
                if self._fits(start, checksum) and (is_synced or self._reads_back(start, checksum)):
                    self._ranges[start] = checksum
                else:
                    self._journal.forget_range(self.step.path, start)
        else:
            with named(self.path):
                os.ftruncate(self._handle, 0)
                os.ftruncate(self._handle, size_bytes)
            self._journal.begin_fetching(self.step.path, etag, status.st_ino)
        self._flow.skipped(sum(each.size_bytes for each in self._ranges.values()))
        # One that is whole has its last range fetched again, so that it is judged like any other.
        gaps = [at for at in self._starts if at not in self._ranges]
        return list(self._spans(gaps or self._starts[-1:]))

    def _spans(self, starts: Sequence[int]) -> Iterator[range]:
        """The ranges at `starts`, as requests: a longer one costs a server less."""
        step, first = self._range_bytes, 0
        limit = max(1, min(_REQUEST_BYTES, self.step.size_bytes // _REQUESTS_AT_LEAST) // step)
        for at, start in enumerate(starts, 1):
            if at == len(starts) or starts[at] != start + step or at - first == limit:
                yield range(starts[first], start + step, step)
                first = at

    def _end(self, start: int) -> int:
        return min(start + self._range_bytes, self.step.size_bytes)

    def _fits(self, start: int, checksum: Checksum) -> bool:
        facts = (checksum.kind, checksum.size_bytes)
        return start in self._starts and facts == (self._kind, self._end(start) - start)

    def _reads_back(self, start: int, checksum: Checksum) -> bool:
        found = Checksum.empty(self._kind)
        for at in range(start, self._end(start), _CHUNK_BYTES):
            length = min(_CHUNK_BYTES, self._end(start) - at)
            found = found.over(read_range(self._handle, length, at))
        return found == checksum

    def fetch(self, span: range) -> "ObjectDownload | None":
        """Fetch the ranges that start at `span`. The download, where that makes the file whole.

        Raises WrongBytes where the same range comes with wrong bytes twice, and where the whole is
        not what it should be.
        """
        with self._flow.part_of(self.step.path):
            for start, problem in list(self._fetched(span)):
                end = self._end(start)
                message = f"{self.address}: {self._named(start)} came with wrong bytes"
                self._survey.progress.note(f"{message} ({problem}); fetched again")
                self._flow.moved(start - end)
                for _, second_problem in self._fetched(range(start, end, self._range_bytes)):
                    raise WrongBytes(
                        f"{message}, twice: {second_problem}",
                        hint="imnetprep sync-s3 --check --deep tells whether the bucket has them"
                        " right; what came right is kept here",
                    )
        with self._lock:
            if len(self._ranges) < len(self._starts) or self._is_judged:
                return None
            self._is_judged = True
        self._judge()
        self.close()
        return self

    def _named(self, start: int) -> str:
        end = self._end(start)
        part = f"part {start // self._range_bytes + 1} (" if len(self._starts) > 1 else "("
        return f"{part}bytes {start:,} to {end:,})"

    def _fetched(self, span: range) -> Iterator[tuple[int, str]]:
        """Fetch the ranges of `span` by one request; which of them are wrong, and how."""
        length = self._chunk_bytes
        key, etag, end = self.address.key, self.step.etag or "", self._end(span[-1])
        with explained(self.address):
            chunks = self._survey.bucket.chunks(
                key, span[0], end, etag=etag, length=length, on_request=self._flow.go_on
            )
            for start in span:
                self._forget(start)
                checksum, problem = Checksum.empty(self._kind), None
                for at in range(start, self._end(start), length):
                    chunk = next(chunks)
                    self._flow.moved(len(chunk))
                    checksum = checksum.over(chunk)
                    if (pieces := self.pieces) and not pieces.is_right(at // length, chunk):
                        problem = f"piece {at // length} is not that of {pieces.info_hash}"
                    _write_all(self._handle, chunk, at, self.path)
                problem = problem or self._problem(start, checksum)
                if problem is not None:
                    yield start, problem
                    continue
                with self._lock:
                    self._ranges[start] = checksum
                if len(self._starts) > 1:
                    self._journal.keep_fetched(self.step.path, start, checksum)

    def _forget(self, start: int) -> None:
        """Drop the checksum of a range that is written anew."""
        with self._lock:
            checksum = self._ranges.pop(start, None)
        if checksum is not None:
            self._journal.forget_range(self.step.path, start)

    def _problem(self, start: int, checksum: Checksum) -> str | None:
        target = self._parts[start // self._range_bytes] if self._parts else checksum
        if checksum == target:
            return None
        return f"{self._kind} {checksum.value:x}, not {target.value:x}"

    @property
    def checksums(self) -> Checksums:
        """The checksums of what came."""
        parts = (self._ranges[start] for start in self._starts)
        return Checksums.of_parts(parts, self._kind, self._range_bytes)

    def _judge(self) -> None:
        """Raise WrongBytes unless the whole is right, with ranges fetched anew until it is."""
        if self.target is None or self.checksums.whole == self.target.whole:
            return
        self._survey.progress.note(f"{self.address} came with wrong bytes; looking for them")
        for start in self._starts:
            checksum = self._ranges[start]
            self._flow.moved(start - self._end(start))
            list(self._fetched(range(start, self._end(start), self._range_bytes)))
            if self._ranges[start] != checksum:
                self._survey.progress.note(f"{self.address}: {self._named(start)} was wrong")
                if self.checksums.whole == self.target.whole:
                    return
        self._journal.forget_fetching(self.step.path)
        found, target = self.checksums.whole, self.target.whole
        raise WrongBytes(
            f"{self.address}: {self._kind} is {found.value:x}; its server has {target.value:x};"
            " which part is wrong cannot be told",
            hint="imnetprep sync-s3 --check --deep reads it again",
        )

    @property
    def proof(self) -> Proof | None:
        """What proves an archive that came, if anything does."""
        if (pieces := self.pieces) is not None:
            return TorrentProof(pieces.info_hash, pieces.count)
        if self.target is None:
            return None
        whole = self.checksums.whole
        return ServerChecksum(whole.kind, f"{whole.value:x}", str(self.address))

    def close(self) -> None:
        """Let go of its part."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def _write_all(handle: int, body: memoryview, at: int, path: Path) -> None:
    """Write all of `body`: a disk that fills up takes a part, and says so the next time.

    An error names `path`.
    """
    try:
        while body:
            count = os.pwrite(handle, body, at)
            body, at = body[count:], at + count
    except OSError as error:
        error.filename = str(path)
        raise
