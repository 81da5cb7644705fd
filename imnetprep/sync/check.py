"""Both sides of a sync held against each other: what proves them equal, or a finding each."""

from collections.abc import Iterator
from functools import partial

from imnetprep.archives.file import file_state
from imnetprep.digests import Checksum
from imnetprep.progress import Progress
from imnetprep.roots import Root
from imnetprep.s3.bucket import Bucket
from imnetprep.s3.failures import told
from imnetprep.s3.upload import part_bytes_of
from imnetprep.sync.jobs import Flow, side_by_side
from imnetprep.sync.journal import Known, SyncJournal
from imnetprep.sync.objects import ask, known_there
from imnetprep.sync.push import read_known
from imnetprep.sync.survey import Survey
from imnetprep.trees.finding import Finding

_JOBS = 8
_CHUNK_BYTES = 1 << 20


def sync_findings(
    root: Root,
    bucket: Bucket,
    found: Survey,
    journal: SyncJournal,
    *,
    deep: bool = False,
    kind: str,
    progress: Progress,
) -> Iterator[Finding]:
    """All in which the two sides differ, and what cannot be told to be equal.

    The server is asked for the checksum of each object, and files are read whose bytes are not
    known since they were last touched. With `deep` all bytes of both sides are read.
    """
    both = []
    for path in sorted({*found.here, *found.there}):
        here, listed = found.here.get(path), found.there.get(path)
        if here is None:
            yield Finding("only-there", path, "is in the bucket and not here")
        elif listed is None:
            yield Finding("only-here", path, "is here and not in the bucket")
        elif here.size_bytes != listed.size_bytes:
            what = f"has {here.size_bytes:,} bytes here and {listed.size_bytes:,} in the bucket"
            yield Finding("size", path, what)
        else:
            both.append(path)
    ask(found, both, bucket, journal)
    total = sum(found.here[path].size_bytes for path in both) * (2 if deep else 1)
    with progress.task(f"check {found.address}", total=total, unit="B") as task:
        flow = Flow(task, None)

        def judged(path: str) -> Finding | None:
            # What the server says now goes before what somebody wrote into the receipt.
            listed, known = found.listed(path), known_there(found, path, None, journal)
            there = journal.of_object(found.address / path, listed.etag) or known
            if there and known and there.whole == known.whole:
                there = known  # it knows the parts too
            if there is None and not deep:
                what = "the server keeps no checksum of it; --deep reads it"
                return Finding("unproved", path, what)
            wanted_kind = there.whole.kind if there else kind
            state = file_state(root.path / path)
            known = None if deep else journal.of_file(path, state, wanted_kind)
            if known is None:
                like = there or Known(Checksum(kind, 0, found.here[path].size_bytes))
                known = read_known(root.path / path, like, flow)
                if file_state(root.path / path) == state:
                    journal.keep_file(path, state, known)
            else:
                flow.skipped(known.whole.size_bytes)
            if deep:
                read = _read_there(found, path, bucket, known, flow)
                if there is not None and read.whole != there.whole:
                    what = "reads otherwise in the bucket than its server's checksum says"
                    return Finding("rotten", path, what + _first_difference(there, read))
                there = read
            assert there is not None
            if known.whole == there.whole:
                return None
            what = f"{wanted_kind} {known.whole.value:x} here, {there.whole.value:x} in the bucket"
            return Finding("differs", path, what + _first_difference(known, there))

        units = (partial(judged, path) for path in both)
        for finding in side_by_side(units, jobs=_JOBS, stopped=flow.stopped):
            if finding is not None:
                yield finding
    for upload in found.unfinished:
        path = upload.key.removeprefix(found.address.key).lstrip("/")
        when = f"{upload.begun_at:%Y-%m-%d %H:%M} UTC"
        yield Finding("unfinished", path, f"an upload of it was begun {when} and not finished")


def _read_there(found: Survey, path: str, bucket: Bucket, like: Known, flow: Flow) -> Known:
    """The checksums of an object, by reading it, over the same parts as `like`."""
    listed, address = found.listed(path), found.address / path
    part_bytes = like.part_bytes or part_bytes_of(listed.size_bytes)
    parts = []
    with told(address):
        for start in range(0, listed.size_bytes, part_bytes):
            checksum = Checksum.empty(like.whole.kind)
            end = min(start + part_bytes, listed.size_bytes)
            chunks = bucket.chunks(address.key, start, end, etag=listed.etag, length=_CHUNK_BYTES)
            for chunk in chunks:
                checksum = checksum.over(chunk)
                flow.moved(len(chunk))
            parts.append(checksum)
    return Known.of_parts(parts, like.whole.kind, part_bytes)


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
