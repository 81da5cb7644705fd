"""Check a root against a bucket: what proves a file equal on both sides, or a finding."""

import threading
from collections.abc import Iterator
from functools import partial

from imnetprep.catalog.datasets import Layout
from imnetprep.digests import Checksum
from imnetprep.layouts.webdataset import INDEX
from imnetprep.messages import Finding
from imnetprep.s3.failures import explained
from imnetprep.sync.bucket_manifest import split_fingerprints
from imnetprep.sync.keys import MANIFEST, Content, content_of
from imnetprep.sync.pull import fetch_manifest
from imnetprep.sync.survey import Survey, part_bytes_of
from imnetprep.transfers.checksums import Checksums
from imnetprep.transfers.flow import Flow, side_by_side

_PARTS_AT_ONCE = 4
_CHUNK_BYTES = 1 << 20


def sync_findings(
    survey: Survey, *, deep: bool = False, jobs: int = 8, max_rate: float | None = None
) -> Iterator[Finding]:
    """All in which the two sides differ, and what nothing proves equal.

    The server is asked for the checksum of each object, and files are read that were touched since
    they were last read. With `deep` all bytes of both sides are read.
    """
    paths = [path for path in survey.local if path in survey.remote]
    for path in sorted({*survey.local} ^ {*survey.remote}):
        if path in survey.remote:
            yield Finding("only-there", path, "is in the bucket and not here")
        else:
            yield Finding("only-here", path, "is here and not in the bucket")
    survey.ask(paths)
    total = sum(survey.local[path].size_bytes for path in paths) * (2 if deep else 1)
    with survey.progress.task(f"check {survey.address}", total=total, unit="B") as task:
        check = _Check(survey, Flow(task, max_rate), deep=deep, jobs=jobs)
        units = (partial(check.finding, path) for path in paths)
        for finding in side_by_side(units, jobs=jobs, stop=check.flow.stop):
            if finding is not None:
                yield finding
        if Content.MANIFEST in survey.contents:
            yield from check.manifest_findings()
    for upload in survey.uploads:
        path = upload.key.removeprefix(survey.address.key).lstrip("/")
        if content_of(path) in survey.contents:
            message = f"an upload of it was begun {upload.begun_at:%Y-%m-%d %H:%M} UTC"
            yield Finding("unfinished", path, f"{message} and not finished")


class _Check:
    """A check at work."""

    def __init__(self, survey: Survey, flow: Flow, *, deep: bool, jobs: int) -> None:
        self._survey, self.flow, self._deep = survey, flow, deep
        self._turns = threading.Semaphore(jobs)

    def finding(self, path: str) -> Finding | None:
        """How a file differs from its object; None: it does not."""
        size_bytes = self._survey.local[path].size_bytes
        remote_bytes = self._survey.remote[path].size_bytes
        if size_bytes != remote_bytes:
            message = f"has {size_bytes:,} bytes here and {remote_bytes:,} in the bucket"
            return Finding("size", path, message)
        remote = self._server_checksums(path)
        if remote is None and not self._deep:
            if self._survey.checksums_by_md5(path, self.flow) is not None:
                return None
            return Finding("unproved", path, "the server keeps no checksum of it; --deep reads it")
        like = remote or Checksums(Checksum(self._survey.kind, 0, size_bytes))
        local = self._survey.file_checksums(path, like, self.flow, reread=self._deep)
        if self._deep:
            read = self._read_object(path, local)
            if remote is not None and read.whole != remote.whole:
                read = self._read_object(path, local)  # it may have gone wrong on the way
            if remote is not None and read.whole != remote.whole:
                message = "reads otherwise in the bucket than its server's checksum says, twice"
                return Finding("rotten", path, message + _first_difference(remote, read))
            if remote is None:
                item = self._survey.remote[path]
                self._survey.journal.keep_object(self._survey.address / path, item.etag, read)
            remote = read
        assert remote is not None
        if local.whole == remote.whole:
            return None
        kind, value = local.whole.kind, local.whole.value
        message = f"{kind} {value:x} here, {remote.whole.value:x} in the bucket"
        return Finding("differs", path, message + _first_difference(local, remote))

    def _server_checksums(self, path: str) -> Checksums | None:
        """What the server says of an object now goes before what somebody wrote of it."""
        survey, claim = self._survey, self._survey.recorded(path)
        answer = survey.journal.of_object(survey.address / path, survey.remote[path].etag)
        return claim if claim and answer and claim.whole == answer.whole else answer or claim

    def _read_object(self, path: str, like: Checksums) -> Checksums:
        """The checksums of an object, by reading it, over the parts of `like`."""
        address, item, kind = (
            self._survey.address / path,
            self._survey.remote[path],
            like.whole.kind,
        )
        part_bytes = like.part_bytes or part_bytes_of(item.size_bytes)

        def read(start: int) -> tuple[int, Checksum]:
            checksum, end = Checksum.empty(kind), min(start + part_bytes, item.size_bytes)
            with self._turns, explained(address):
                for chunk in self._survey.bucket.chunks(
                    address.key, start, end,
                    etag=item.etag, length=_CHUNK_BYTES, on_request=self.flow.go_on,
                ):  # fmt: skip
                    checksum = checksum.over(chunk)
                    self.flow.moved(len(chunk))
            return start, checksum

        starts = range(0, item.size_bytes, part_bytes)
        units, jobs = (partial(read, start) for start in starts), min(_PARTS_AT_ONCE, len(starts))
        parts = dict(side_by_side(units, jobs=max(1, jobs), stop=self.flow.stop))
        return Checksums.of_parts((parts[start] for start in starts), kind, part_bytes)

    def manifest_findings(self) -> Iterator[Finding]:
        """The splits that the two manifests list otherwise, or the bucket's does not list."""
        manifest = fetch_manifest(self._survey, self.flow)
        remote = manifest.fingerprints if manifest else {}
        if manifest is not None:
            manifest.path.unlink()
        local = split_fingerprints(self._survey.root.manifest)
        for (split, layout), fingerprint in local.items():
            remote_fingerprint = remote.get((split, layout))
            if remote_fingerprint not in (None, fingerprint):
                message = f"{split} as {layout} is another list here than in the bucket"
                yield Finding("differs", MANIFEST, message)
            elif remote_fingerprint is None and (
                layout is Layout.WEBDATASET and f"shards/{split}/{INDEX}" in self._survey.remote
            ):
                message = f"the one in the bucket does not list {split} as {layout}"
                yield Finding("only-here", MANIFEST, message)


def _first_difference(local: Checksums, remote: Checksums) -> str:
    """Which part is the first that differs, where both have the same parts."""
    if local.part_bytes != remote.part_bytes:
        return ""
    for number, (a, b) in enumerate(zip(local.parts, remote.parts, strict=False)):
        if a != b:
            start = number * local.part_bytes
            end = min(start + local.part_bytes, local.whole.size_bytes)
            return f"; part {number + 1} (bytes {start:,} to {end:,}) is the first that differs"
    return ""
