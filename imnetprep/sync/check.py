"""Both sides of a sync held against each other: what proves them equal, or a finding each."""

import threading
from collections.abc import Collection, Iterator
from functools import partial

from imnetprep.archives.file import file_state
from imnetprep.digests import Checksum
from imnetprep.layouts.webdataset import INDEX
from imnetprep.messages import Finding, Progress
from imnetprep.roots import Layout, Root
from imnetprep.s3.bucket import Bucket
from imnetprep.s3.failures import told
from imnetprep.s3.upload import part_bytes_of
from imnetprep.sync.bucket_manifest import splits_told
from imnetprep.sync.jobs import Flow, side_by_side
from imnetprep.sync.journal import Known, SyncJournal
from imnetprep.sync.keys import MANIFEST, What, what_of
from imnetprep.sync.objects import ask, known_there
from imnetprep.sync.pull import fetch_manifest
from imnetprep.sync.push import read_known
from imnetprep.sync.survey import Survey
from imnetprep.sync.work import Work

_PARTS_AT_ONCE = 4
_CHUNK_BYTES = 1 << 20


def sync_findings(
    root: Root,
    bucket: Bucket,
    found: Survey,
    journal: SyncJournal,
    *,
    what: Collection[What],
    deep: bool = False,
    kind: str,
    jobs: int = 8,
    max_rate: float | None = None,
    progress: Progress,
) -> Iterator[Finding]:
    """All in which the two sides differ, and what cannot be told to be equal.

    The server is asked for the checksum of each object, and files are read whose bytes are not
    known since they were last touched. With `deep` all bytes of both sides are read.
    """
    both = [path for path in found.here if path in found.there]
    for path in sorted({*found.here} ^ {*found.there}):
        if path in found.there:
            yield Finding("only-there", path, "is in the bucket and not here")
        else:
            yield Finding("only-here", path, "is here and not in the bucket")
    ask(found, both, bucket, journal)
    total = sum(found.here[path].size_bytes for path in both) * (2 if deep else 1)
    with progress.task(f"check {found.address}", total=total, unit="B") as task:
        flow = Flow(task, max_rate)
        work = Work(
            root=root, bucket=bucket, journal=journal, kind=kind, flow=flow, progress=progress
        )
        check = _Check(found, work, deep=deep, jobs=jobs)
        units = (partial(check.finding, path) for path in both)
        for finding in side_by_side(units, jobs=jobs, stopped=flow.stopped):
            if finding is not None:
                yield finding
        if What.MANIFEST in what:
            yield from check.manifest_findings()
    for upload in found.unfinished:
        path = upload.key.removeprefix(found.address.key).lstrip("/")
        if what_of(path) in what:
            when = f"{upload.begun_at:%Y-%m-%d %H:%M} UTC"
            yield Finding("unfinished", path, f"an upload of it was begun {when} and not finished")


class _Check:
    """A check at work."""

    def __init__(self, found: Survey, work: Work, *, deep: bool, jobs: int) -> None:
        self._found, self._work, self._deep = found, work, deep
        self._root, self._journal, self._flow = work.root, work.journal, work.flow
        self._turns = threading.Semaphore(jobs)

    def finding(self, path: str) -> Finding | None:
        """In what the two sides of a file differ."""
        here, listed = self._found.here[path], self._found.listed(path)
        if here.size_bytes != listed.size_bytes:
            what = f"has {here.size_bytes:,} bytes here and {listed.size_bytes:,} in the bucket"
            return Finding("size", path, what)
        there = self._told_there(path)
        if there is None and not self._deep:
            return Finding("unproved", path, "the server keeps no checksum of it; --deep reads it")
        known = self._known_here(path, there)
        if self._deep:
            read = self._read_there(path, known)
            if there is not None and read.whole != there.whole:
                read = self._read_there(path, known)  # it may have gone wrong on the way
            if there is not None and read.whole != there.whole:
                what = "reads otherwise in the bucket than its server's checksum says, twice"
                return Finding("rotten", path, what + _first_difference(there, read))
            there = read
        assert there is not None
        if known.whole == there.whole:
            return None
        ours, theirs = known.whole, there.whole
        what = f"{ours.kind} {ours.value:x} here, {theirs.value:x} in the bucket"
        return Finding("differs", path, what + _first_difference(known, there))

    def _told_there(self, path: str) -> Known | None:
        """What the server says now goes before what somebody wrote into the receipt."""
        address, etag = self._found.address / path, self._found.listed(path).etag
        known = known_there(self._found, path, None, self._journal)
        there = self._journal.of_object(address, etag) or known
        return known if there and known and there.whole == known.whole else there

    def _known_here(self, path: str, like: Known | None) -> Known:
        """The checksums of a file, over the same parts; it is read where they are not known."""
        kind = like.whole.kind if like else self._work.kind
        file, size_bytes = self._root.path / path, self._found.here[path].size_bytes
        state = file_state(file)
        known = None if self._deep else self._journal.of_file(path, state, kind)
        if known is not None:
            self._flow.skipped(size_bytes)
            return known
        known = read_known(file, like or Known(Checksum(kind, 0, size_bytes)), self._flow)
        if file_state(file) == state:
            self._journal.keep_file(path, state, known)
        return known

    def _read_there(self, path: str, like: Known) -> Known:
        """The checksums of an object, by reading it, over the same parts as `like`."""
        listed, address = self._found.listed(path), self._found.address / path
        size_bytes = listed.size_bytes
        part_bytes = like.part_bytes or part_bytes_of(size_bytes)

        def read(start: int) -> tuple[int, Checksum]:
            checksum, end = Checksum.empty(like.whole.kind), min(start + part_bytes, size_bytes)
            with self._turns, told(address):
                for chunk in self._work.bucket.chunks(
                    address.key, start, end,
                    etag=listed.etag, length=_CHUNK_BYTES, asked=self._flow.go_on,
                ):  # fmt: skip
                    checksum = checksum.over(chunk)
                    self._flow.moved(len(chunk))
            return start, checksum

        starts = range(0, size_bytes, part_bytes)
        units, jobs = (partial(read, start) for start in starts), min(_PARTS_AT_ONCE, len(starts))
        parts = dict(side_by_side(units, jobs=jobs, stopped=self._flow.stopped))
        return Known.of_parts(
            (parts[start] for start in sorted(parts)), like.whole.kind, part_bytes
        )

    def manifest_findings(self) -> Iterator[Finding]:
        """The splits that the two manifests tell otherwise, or the bucket's does not list."""
        fetched = fetch_manifest(self._found, self._work)
        there = fetched.told if fetched else {}
        if fetched is not None:
            fetched.path.unlink()
        for (split, layout), ours in splits_told(self._root.manifest).items():
            theirs = there.get((split, layout))
            sent = layout is Layout.WEBDATASET and f"shards/{split}/{INDEX}" in self._found.there
            if theirs is not None and theirs != ours:
                what = f"{split} as {layout} is another list here than in the bucket"
                yield Finding("differs", MANIFEST, what)
            elif theirs is None and sent:
                what = f"the one in the bucket does not list {split} as {layout}"
                yield Finding("only-here", MANIFEST, what)


def _first_difference(one: Known, other: Known) -> str:
    """Which part is the first that differs, where both tell of the same parts."""
    if one.part_bytes != other.part_bytes:
        return ""
    for number, (a, b) in enumerate(zip(one.parts, other.parts, strict=False)):
        if a != b:
            start = number * one.part_bytes
            end = min(start + one.part_bytes, one.whole.size_bytes)
            return f"; part {number + 1} (bytes {start:,} to {end:,}) is the first that differs"
    return ""
