"""One file on its way here: by ranges, each judged as it comes, resumed when interrupted.

It is a part beside its place until it is whole. How far each range is written outlives a kill, and
what a power cut may have taken is read again.
"""

import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from imnetprep.digests import Checksum, Pieces
from imnetprep.fs import read_range
from imnetprep.machine import named
from imnetprep.messages import WrongBytes
from imnetprep.outside_files import open_file
from imnetprep.transfers.checksums import Checksums
from imnetprep.transfers.flow import Cancellation, Flow
from imnetprep.transfers.journal import PartJournal

_CHUNK_BYTES = 1 << 20
_JOURNALLED_BYTES = 2 << 20  # which a kill costs, for each job
_LARGEST_RANGE_BYTES = 64 << 20
_REQUEST_BYTES, _REQUESTS_AT_LEAST = 64 << 20, 32  # few at the end leave connections idle


def pull_part_path(path: Path) -> Path:
    """What `path` is called while a pull fetches it."""
    return path.with_name(f".{path.name}.fetching")


def download_part_path(path: Path) -> Path:
    """What `path` is called while it is downloaded.

    Each journal knows the bytes of its own parts alone: a pull and a download never share one.
    """
    return path.with_name(f".{path.name}.download")


def name_of_part(part: Path) -> str | None:
    """What the file will be called whose part is at `part`; None: it is no such part."""
    match = re.fullmatch(r"(?s)\.(.+)\.(?:fetching|download)", part.name)
    return match and match[1]


def open_part(part: Path) -> int:
    """The handle of `part`, open for writing, and made if it is not there."""
    part.parent.mkdir(parents=True, exist_ok=True)
    return os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)


@dataclass(frozen=True)
class Remote:
    """A file as its server has it: `version` tells these bytes from all others of that address.

    `title`: the address without secrets; `chunks`: as `ArchiveFile.chunks`; `hint`: what tells
    more where wrong bytes come.
    """

    title: str
    size_bytes: int
    version: str
    chunks: Callable[[int, int, int], Iterator[memoryview]]
    hint: str


class RangeDownload:
    """A file on its way to `path` by way of `part`, called `name` in the journal.

    `target`: what its bytes must be, where its server says so; else `kind` is that of the checksums
    that are computed. `pieces`: what they must be by a torrent.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        part: Path,
        remote: Remote,
        journal: PartJournal,
        flow: Flow,
        *,
        range_bytes: int,
        kind: str,
        target: Checksums | None,
        pieces: Pieces | None,
        note: Callable[[str], None],
    ) -> None:
        self.name, self.path, self.part, self.remote = name, path, part, remote
        self._journal, self._flow, self._note = journal, flow, note
        self.target, self.pieces = target, pieces
        self._kind = target.whole.kind if target else kind
        if pieces is not None and range_bytes % pieces.length_bytes:
            self.pieces = pieces = None  # they would not lie in single ranges
        self._chunk_bytes = pieces.length_bytes if pieces else _CHUNK_BYTES
        self._range_bytes, self._parts = range_bytes, tuple[Checksum, ...]()
        part_bytes = target.part_bytes if target else 0
        if 0 < part_bytes <= _LARGEST_RANGE_BYTES and not part_bytes % self._chunk_bytes:
            self._range_bytes = part_bytes
            self._parts = tuple(target.part_checksums()) if target else ()
        self._starts = range(0, max(1, remote.size_bytes), self._range_bytes)
        if target and len(self._starts) == 1:
            self._parts = (target.whole,)
        self._ranges: dict[int, Checksum] = {}  # whole ones, by where they start
        self._prefixes: dict[int, Checksum] = {}  # of others: how far they are written
        self._change = threading.Condition()
        self._is_journalled = remote.size_bytes > _JOURNALLED_BYTES
        self._is_judged = self._is_given_up = False
        self.is_resumed = False  # was some of it there before?
        self._handle = -1

    def open(self) -> Sequence[range]:
        """Make the part or resume it: where missing ranges start, those of a request together.

        One that is whole has an empty one, so that it is judged like any other.
        """
        size_bytes = self.remote.size_bytes
        is_new = not self.part.exists()  # which may have the inode of one that is gone
        self._handle = open_part(self.part)
        status = os.fstat(self._handle)
        if not self._is_journalled:
            with named(self.path):
                os.ftruncate(self._handle, 0)
            return [self._starts]
        ranges = self._journal.fetched(self.name, self.remote.version, status.st_ino)
        if ranges is not None and not is_new and status.st_size == size_bytes:
            for start, checksum, is_synced in ranges:
                is_right = self._fits(start, checksum)
                if not is_right or not (is_synced or self._reads_back(start, checksum)):
                    self._journal.forget_range(self.name, start)
                elif start + checksum.size_bytes == self._end(start):
                    self._ranges[start] = checksum
                else:
                    self._prefixes[start] = checksum
        else:
            with named(self.path):
                os.ftruncate(self._handle, 0)
                os.ftruncate(self._handle, size_bytes)
            self._journal.begin_fetching(self.name, self.remote.version, status.st_ino)
        present = (*self._ranges.values(), *self._prefixes.values())
        self.is_resumed = bool(present)
        self._flow.skipped(sum(each.size_bytes for each in present))
        gaps = [at for at in self._starts if at not in self._ranges]
        return list(self._spans(gaps)) or [range(0)]

    def _spans(self, starts: Sequence[int]) -> Iterator[range]:
        """The ranges at `starts`, as requests: a longer one costs a server less."""
        step, first = self._range_bytes, 0
        limit = max(1, min(_REQUEST_BYTES, self.remote.size_bytes // _REQUESTS_AT_LEAST) // step)
        for at, start in enumerate(starts, 1):
            is_end = at == len(starts) or starts[at] != start + step or starts[at] in self._prefixes
            if is_end or at - first == limit:
                yield range(starts[first], start + step, step)
                first = at

    def _end(self, start: int) -> int:
        return min(start + self._range_bytes, self.remote.size_bytes)

    def _fits(self, start: int, checksum: Checksum) -> bool:
        size_bytes = checksum.size_bytes
        is_whole = start + size_bytes == self._end(start)
        is_prefix = 0 < size_bytes < self._range_bytes and not size_bytes % self._chunk_bytes
        return start in self._starts and checksum.kind == self._kind and (is_whole or is_prefix)

    def _reads_back(self, start: int, checksum: Checksum) -> bool:
        found, end = Checksum.empty(self._kind), start + checksum.size_bytes
        for at in range(start, end, _CHUNK_BYTES):
            found = found.over(read_range(self._handle, min(_CHUNK_BYTES, end - at), at))
        return found == checksum

    def fetch(self, span: range) -> Self | None:
        """Fetch the ranges that start at `span`. The download, where that makes the file whole.

        Raises WrongBytes where the same range comes with wrong bytes twice, and where the whole is
        not what it should be.
        """
        with self._flow.part_of(self.name):
            for start, problem in list(self._fetched(span)):
                end = self._end(start)
                message = f"{self.remote.title}: {self._title_of(start)} came with wrong bytes"
                self._note(f"{message} ({problem}); fetched again")
                self._flow.moved(start - end)
                for _, second_problem in self._fetched(range(start, end, self._range_bytes)):
                    raise WrongBytes(
                        f"{message}, twice: {second_problem}",
                        hint=f"{self.remote.hint}; what came right is kept here",
                    )
        with self._change:
            if len(self._ranges) < len(self._starts) or self._is_judged:
                return None
            self._is_judged = True
        self._judge()
        self.close()
        return self

    def _title_of(self, start: int) -> str:
        end = self._end(start)
        part = f"part {start // self._range_bytes + 1} (" if len(self._starts) > 1 else "("
        return f"{part}bytes {start:,} to {end:,})"

    def _fetched(self, span: range) -> Iterator[tuple[int, str]]:
        """Fetch the ranges of `span` by one request; which of them are wrong, and how."""
        if not span:
            return
        checksum = self._prefixes.get(span[0], Checksum.empty(self._kind))
        first, end, length = span[0] + checksum.size_bytes, self._end(span[-1]), self._chunk_bytes
        chunks = self.remote.chunks(first, end, length)
        for start in span:
            if start != span[0] or not checksum.size_bytes:
                checksum = Checksum.empty(self._kind)
                self._forget(start)
            problem, journalled_bytes = None, checksum.size_bytes
            for at in range(start + checksum.size_bytes, self._end(start), length):
                chunk = next(chunks)
                self._flow.moved(len(chunk))
                checksum = checksum.over(chunk)
                if (pieces := self.pieces) and not pieces.is_right(at // length, chunk):
                    problem = f"piece {at // length} is not that of {pieces.info_hash}"
                write_all(self._handle, chunk, at, self.path)
                is_due = checksum.size_bytes - journalled_bytes >= _JOURNALLED_BYTES
                if is_due and problem is None and checksum.size_bytes < self._range_bytes:
                    journalled_bytes = checksum.size_bytes
                    self._keep(self._prefixes, start, checksum)
            problem = problem or self._problem(start, checksum)
            if problem is not None:
                self._forget(start)
                yield start, problem
                continue
            self._keep(self._ranges, start, checksum)

    def _keep(self, kind: dict[int, Checksum], start: int, checksum: Checksum) -> None:
        """Note how far a range is written."""
        if self._is_journalled:
            self._journal.keep_fetched(self.name, start, checksum)
        with self._change:
            self._prefixes.pop(start, None)
            kind[start] = checksum
            self._change.notify_all()

    def _forget(self, start: int) -> None:
        """Drop what is known of a range that is written anew."""
        with self._change:
            ranges = self._ranges.pop(start, None), self._prefixes.pop(start, None)
        if ranges != (None, None):
            self._journal.forget_range(self.name, start)

    def _problem(self, start: int, checksum: Checksum) -> str | None:
        target = self._parts[start // self._range_bytes] if self._parts else checksum
        if checksum == target:
            return None
        return f"{self._kind} {checksum.value:x}, not {target.value:x}"

    def wait_for(self, at: int) -> int:
        """Wait until the byte at `at` is written; how far all behind it is, in one range at least.

        Raises Cancellation after `end_waiting`.
        """
        start = at // self._range_bytes * self._range_bytes
        with self._change:
            while True:
                checksum = self._ranges.get(start) or self._prefixes.get(start)
                if checksum is not None and start + checksum.size_bytes > at:
                    return start + checksum.size_bytes
                if self._is_given_up:
                    raise Cancellation
                self._change.wait()

    def end_waiting(self) -> None:
        """Let nobody wait for bytes that will not come."""
        with self._change:
            self._is_given_up = True
            self._change.notify_all()

    @property
    def checksums(self) -> Checksums:
        """The checksums of what came."""
        parts = (self._ranges[start] for start in self._starts)
        return Checksums.of_parts(parts, self._kind, self._range_bytes)

    def _judge(self) -> None:
        """Raise WrongBytes unless the whole is right, with ranges fetched anew until it is."""
        if self.target is None or self.checksums.whole == self.target.whole:
            return
        self._note(f"{self.remote.title} came with wrong bytes; looking for them")
        for start in self._starts:
            checksum = self._ranges[start]
            self._flow.moved(start - self._end(start))
            list(self._fetched(range(start, self._end(start), self._range_bytes)))
            if self._ranges[start] != checksum:
                self._note(f"{self.remote.title}: {self._title_of(start)} was wrong")
                if self.checksums.whole == self.target.whole:
                    return
        self._journal.forget_fetching(self.name)
        found, target = self.checksums.whole, self.target.whole
        raise WrongBytes(
            f"{self.remote.title}: {self._kind} is {found.value:x}; its server has"
            f" {target.value:x}; which part is wrong cannot be told",
            hint=self.remote.hint,
        )

    def sync(self) -> None:
        """Let what is written outlive a power cut."""
        with self._journal.syncing(), open_file(self.part) as file:
            os.fsync(file.fileno())

    def close(self) -> None:
        """Let go of its part."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def write_all(handle: int, body: memoryview, at: int, path: Path) -> None:
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
