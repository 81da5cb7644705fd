"""Carrying out a push: files to objects, each read once, and what was learned of them."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, groupby
from pathlib import Path

from imnetprep.archives.file import file_state
from imnetprep.archives.range_index import SUFFIX
from imnetprep.catalog.datasets import Dataset
from imnetprep.digests import Checksum, Pieces
from imnetprep.fs import read_into
from imnetprep.layouts.webdataset import INDEX
from imnetprep.messages import ImnetprepError, WrongBytes
from imnetprep.proving.receipt import TorrentProof, record_archive
from imnetprep.s3.bucket import ListedPart
from imnetprep.s3.failures import explained
from imnetprep.s3.upload import Sender
from imnetprep.sync.keys import comes_last
from imnetprep.sync.open_files import ReadFile
from imnetprep.sync.plan import Action, Outcome, Step, SyncPlan, compared
from imnetprep.sync.survey import part_bytes_of, pieces_of
from imnetprep.transfers.checksums import Checksums
from imnetprep.transfers.flow import Flow, side_by_side

# What parts that are under way may hold in all.
MEMORY_BYTES = 384 << 20


@dataclass
class _FileUpload:
    """A file on its way: `remote_parts` as the server lists them, `sent_parts` as we sent them.

    A part by its number is its ETag and its checksum.
    """

    step: Step
    file: ReadFile
    key: str
    part_bytes: int
    pieces: Pieces | None = None
    upload_id: str = ""
    remote_parts: Mapping[int, ListedPart] = field(default_factory=dict)
    sent_parts: Mapping[int, tuple[str, Checksum]] = field(default_factory=dict)
    parts: dict[int, tuple[str, Checksum]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def count(self) -> int:
        return max(1, -(-self.step.size_bytes // self.part_bytes))

    @property
    def condition(self) -> dict[str, str]:
        """What must hold of the object that is there when this one takes its place."""
        etag = self.step.etag
        return {"If-Match": f'"{etag}"'} if etag else {"If-None-Match": "*"}

    def refuse_changed(self) -> None:
        """Raise ImnetprepError where the file is no longer what it was when it was listed."""
        if not self.file.is_unchanged():
            raise _changed(self)


class Push:
    """A push at work."""

    def __init__(self, plan: SyncPlan, flow: Flow, dataset: Dataset | None) -> None:
        survey, self._plan, self._flow, self._dataset = plan.survey, plan, flow, dataset
        self._survey, self._root, self._journal = survey, survey.root, survey.journal
        self._address, self._kind, note = survey.address, survey.kind, survey.progress.note
        self._conflicts = {step.path for step in plan.kept}
        self._sender = Sender(
            survey.bucket, self._kind, on_bytes=flow.moved, on_note=note, on_weaker=note
        )

    def outcomes(self, jobs: int) -> Iterator[Outcome]:
        """Send all that is to be sent; what counts on others when those are there."""
        steps = self._plan.of(Action.SEND, Action.COMPARE)
        for _, group in groupby(steps, key=lambda step: comes_last(step.path)):
            conflicts = []
            for each in self._side_by_side(list(self._fitting(group)), jobs):
                if each.action is Action.KEEP and self._plan.replace:
                    conflicts.append(replace(each.step, action=Action.SEND))
                else:
                    yield each
            yield from self._side_by_side(conflicts, jobs)

    def _fitting(self, steps: Iterable[Step]) -> Iterator[Step]:
        """All steps but those of indexes that list what differs in the bucket, and stays so."""
        for step in steps:
            prefix = step.path.removesuffix(INDEX) if step.path.endswith(f"/{INDEX}") else None
            if step.path.endswith(SUFFIX):
                prefix = step.path.removesuffix(SUFFIX)
            if prefix is None or not any(path.startswith(prefix) for path in self._conflicts):
                yield step

    def _side_by_side(self, steps: Sequence[Step], jobs: int) -> Iterator[Outcome]:
        part_bytes = max((part_bytes_of(step.size_bytes) for step in steps), default=1)
        count = max(1, min(jobs, MEMORY_BYTES // part_bytes))
        groups = (self._units_of(step, self._survey.file(step.path)) for step in steps)
        units = chain.from_iterable(groups)
        for each in side_by_side(units, jobs=count, stop=self._flow.stop):
            if each is not None:
                self._note(each)
                if each.action is Action.KEEP and not self._plan.replace:
                    self._conflicts.add(each.step.path)
                yield each

    def sent_from(self, path: Path, step: Step) -> Outcome:
        """Send one file from `path`, outside its place in the root."""
        units = self._units_of(step, ReadFile(path, file_state(path)))
        outcomes = side_by_side(units, jobs=1, stop=self._flow.stop)
        return next(each for each in list(outcomes) if each is not None)

    def _note(self, outcome: Outcome) -> None:
        """Record what is known of a file now, for the next process."""
        step, checksums, etag = outcome.step, outcome.checksums, outcome.etag
        if checksums is None:
            return
        if outcome.state is not None:
            self._journal.keep_file(step.path, outcome.state, checksums)
        path = self._root.place(step.path)
        if outcome.proof is not None and file_state(path) == outcome.state:
            record_archive(self._root, path, outcome.proof)
        if etag is not None and outcome.action in (Action.SEND, Action.SKIP):
            address = self._address / step.path
            self._journal.keep_object(address, etag, checksums)
            self._journal.keep_synced(address, etag, str(checksums))

    def _units_of(self, step: Step, file: ReadFile) -> Iterator[Callable[[], Outcome | None]]:
        key, part_bytes = (self._address / step.path).key, part_bytes_of(step.size_bytes)
        upload = _FileUpload(step, file, key, part_bytes)
        if step.path not in self._survey.digests:  # nothing has proved it yet
            hint = "imnetprep verify-archives says what is wrong; it is not sent"
            upload.pieces = pieces_of(
                self._dataset, step.path, step.size_bytes, place=step.path, hint=hint
            )
        if file.state["size_bytes"] != step.size_bytes:
            raise _changed(upload)
        if step.action is Action.COMPARE:
            yield partial(self._compare, upload)
        elif upload.count == 1:
            yield partial(self._send_whole, upload)
        else:
            with explained(self._address / step.path):
                self._begin(upload)
            for number in range(1, upload.count + 1):
                yield partial(self._send_part, upload, number)

    def _begin(self, upload: _FileUpload) -> None:
        """Resume the unfinished upload that has most of a file, or begin one."""
        candidates = [each for each in self._survey.uploads if each.key == upload.key]
        for each in candidates:
            if each.algorithm not in (None, self._kind.upper()):
                continue  # its parts were compared otherwise, and so will be the whole
            parts = self._survey.bucket.parts(each)
            if not upload.upload_id or len(parts) > len(upload.remote_parts):
                upload.upload_id, upload.remote_parts = each.upload_id, parts
        if upload.upload_id:
            upload.sent_parts = self._journal.sent(upload.upload_id)
        else:
            headers, old_ids = self._metadata(upload), [each.upload_id for each in candidates]
            upload.upload_id = self._sender.begin(upload.key, headers, old_ids=old_ids)

    def _metadata(self, upload: _FileUpload) -> dict[str, str]:
        """What is known of a file before it is read, for the object to carry."""
        digests = self._survey.digests.get(upload.step.path, {})
        headers = {f"x-amz-meta-{kind}": value for kind, value in digests.items()}
        if self._dataset is not None:
            headers["x-amz-meta-dataset"] = self._dataset.name
        return {**headers, "x-amz-meta-size": str(upload.step.size_bytes)}

    def _read(self, upload: _FileUpload, number: int) -> tuple[memoryview, Checksum]:
        """A part, read once, proved by its pieces where there are any."""
        start = (number - 1) * upload.part_bytes
        length = min(upload.part_bytes, upload.step.size_bytes - start)
        body = memoryview(bytearray(length))
        with upload.file.opened() as handle:
            if read_into(handle, body, start) != length:
                raise _changed(upload)
        if (pieces := upload.pieces) is not None:
            first, piece_bytes = start // pieces.length_bytes, pieces.length_bytes
            for at in range(0, length, piece_bytes):
                piece = first + at // piece_bytes
                if not pieces.is_right(piece, body[at : at + piece_bytes]):
                    raise WrongBytes(
                        f"{upload.step.path}: piece {piece} is not what torrent"
                        f" {pieces.info_hash} says; it is not sent",
                        hint="imnetprep repair-archives fetches the wrong pieces again",
                    )
        return body, Checksum.empty(self._kind).over(body)

    def _send_whole(self, upload: _FileUpload) -> Outcome:
        with self._flow.part_of(upload.step.path):
            body, checksum = self._read(upload, 1)
            upload.refuse_changed()
            headers = self._metadata(upload) | upload.condition
            with explained(self._address / upload.step.path):
                etag = self._sender.put(upload.key, body, checksum, headers)
        return self._sent(upload, Checksums(checksum), etag)

    def _send_part(self, upload: _FileUpload, number: int) -> Outcome | None:
        path, upload_id = upload.step.path, upload.upload_id
        with self._flow.part_of(path):
            body, checksum = self._read(upload, number)
            part = upload.remote_parts.get(number)
            if part is not None and part.is_of(body, checksum, upload.sent_parts.get(number)):
                etag = part.etag
                self._flow.skipped(len(body))
            else:
                with explained(self._address / path):
                    etag = self._sender.send_part(upload.key, upload_id, number, body, checksum)
            self._journal.keep_sent(upload_id, number, etag, checksum)
        with upload.lock:
            upload.parts[number] = etag, checksum
            if len(upload.parts) < upload.count:
                return None
        return self._complete(upload)

    def _complete(self, upload: _FileUpload) -> Outcome:
        upload.refuse_changed()
        parts = [upload.parts[number] for number in range(1, upload.count + 1)]
        part_checksums = (checksum for _, checksum in parts)
        checksums = Checksums.of_parts(part_checksums, self._kind, upload.part_bytes)
        try:
            with explained(self._address / upload.step.path):
                etag = self._sender.complete(
                    upload.key, upload.upload_id, parts, checksums.whole, upload.condition
                )
        except WrongBytes:  # its parts are of no use
            self._journal.forget_sent(upload.upload_id)
            raise
        self._journal.forget_sent(upload.upload_id)
        return self._sent(upload, checksums, etag)

    def _sent(self, upload: _FileUpload, checksums: Checksums, etag: str) -> Outcome:
        pieces = upload.pieces
        proof = None if pieces is None else TorrentProof(pieces.info_hash, pieces.count)
        return Outcome(upload.step, Action.SEND, checksums, etag, upload.file.state, proof)

    def _compare(self, upload: _FileUpload) -> Outcome:
        outcome = compared(self._survey, upload.step, self._flow)
        upload.refuse_changed()
        return outcome


def _changed(upload: _FileUpload) -> ImnetprepError:
    return ImnetprepError(
        f"{upload.file.place} changed while it was read",
        hint="run the same command once nothing writes to it; it resumes where it stopped",
    )
