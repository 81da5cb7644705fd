"""Carrying out a push: files to objects, each read once, and what was learned of them."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from imnetprep.archives.file import file_state
from imnetprep.archives.range_index import SUFFIX
from imnetprep.catalog.datasets import Dataset
from imnetprep.digests import Checksum, Pieces
from imnetprep.layouts.webdataset import INDEX
from imnetprep.messages import ImnetprepError, WrongBytes
from imnetprep.proving.proof import Proof, TorrentProof
from imnetprep.proving.receipt import record_archive
from imnetprep.s3.failures import told
from imnetprep.s3.listing import ListedPart, listed_parts
from imnetprep.s3.upload import Guard, Part, Sender, has_part, part_bytes_of
from imnetprep.sync.jobs import Flow, side_by_side
from imnetprep.sync.journal import Known
from imnetprep.sync.objects import known_there, pieces_of
from imnetprep.sync.plan import Action, Step, SyncPlan, value_of
from imnetprep.sync.work import Work

# What parts that are under way may hold in all.
MEMORY_BYTES = 384 << 20


class Moved(NamedTuple):
    """What was done with a file; `known`: its bytes in this `state`, `etag`: the object's.

    `proof`: what has proved it on the way.
    """

    step: Step
    action: Action
    known: Known | None
    etag: str | None
    state: Mapping[str, int] | None = None
    proof: Proof | None = None


@dataclass
class _Sending:
    """A file on its way."""

    step: Step
    path: Path
    key: str
    state: Mapping[str, int]
    part_bytes: int
    pieces: Pieces | None = None
    upload_id: str = ""
    listed: Mapping[int, ListedPart] = field(default_factory=dict)
    before: Mapping[int, Part] = field(default_factory=dict)
    parts: dict[int, Part] = field(default_factory=dict)
    checksums: dict[int, Checksum] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def count(self) -> int:
        return max(1, -(-self.step.size_bytes // self.part_bytes))

    @property
    def condition(self) -> dict[str, str]:
        """What must hold of the object that is there when this one takes its place."""
        etag = self.step.etag
        return {"If-Match": f'"{etag}"'} if etag else {"If-None-Match": "*"}


class Push:
    """A push at work."""

    def __init__(self, plan: SyncPlan, work: Work, dataset: Dataset | None) -> None:
        self._plan, self._dataset = plan, dataset
        self._root, self._bucket, self._journal = work.root, work.bucket, work.journal
        self._flow, self._kind = work.flow, work.kind
        self._address = plan.survey.address
        self._kept = {step.path for step in plan.kept}
        guard = Guard(work.kind, work.progress.note)
        self._sender = Sender(work.bucket, guard, sent=work.flow.moved, told=work.progress.note)

    def moved(self, jobs: int) -> Iterator[Moved]:
        """Send all that is to be sent; what lists others when those are there."""
        steps = self._plan.of(Action.SEND, Action.COMPARE)
        for _, group in groupby(steps, key=lambda step: step.path.endswith("index.json")):
            differing = []
            for each in self._side_by_side(list(self._fitting(group)), jobs):
                if each.action is Action.KEEP and self._plan.replace:
                    differing.append(replace(each.step, action=Action.SEND))
                else:
                    yield each
            yield from self._side_by_side(differing, jobs)

    def _fitting(self, steps: Iterable[Step]) -> Iterator[Step]:
        """All but the lists of what is another there than here, and stays so."""
        for step in steps:
            listed = step.path.removesuffix(INDEX) if step.path.endswith(f"/{INDEX}") else None
            if step.path.endswith(SUFFIX):
                listed = step.path.removesuffix(SUFFIX)
            if listed is None or not any(path.startswith(listed) for path in self._kept):
                yield step

    def _side_by_side(self, steps: Sequence[Step], jobs: int) -> Iterator[Moved]:
        largest = max((part_bytes_of(step.size_bytes) for step in steps), default=1)
        side = max(1, min(jobs, MEMORY_BYTES // largest))
        for each in side_by_side(self._units(steps), jobs=side, stopped=self._flow.stopped):
            if each is not None:
                self._note(each)
                if each.action is Action.KEEP and not self._plan.replace:
                    self._kept.add(each.step.path)
                yield each

    def sent_from(self, path: Path, step: Step) -> Moved:
        """Send one file that lies elsewhere."""
        units = self._units_of(step, path)
        moved = side_by_side(units, jobs=1, stopped=self._flow.stopped)
        return next(each for each in list(moved) if each is not None)

    def _note(self, moved: Moved) -> None:
        """What is known now outlives this process."""
        step, known, etag = moved.step, moved.known, moved.etag
        if known is None:
            return
        if moved.state is not None:
            self._journal.keep_file(step.path, moved.state, known)
        path = self._root.path / step.path
        if moved.proof is not None and file_state(path) == moved.state:
            record_archive(self._root, path, moved.proof)
        if etag is not None and moved.action in (Action.SEND, Action.SKIP):
            address = self._address / step.path
            self._journal.keep_object(address, etag, known)
            self._journal.keep_synced(address, etag, value_of(known))

    def _units(self, steps: Iterable[Step]) -> Iterator[Callable[[], Moved | None]]:
        for step in steps:
            yield from self._units_of(step, self._root.path / step.path)

    def _units_of(self, step: Step, path: Path) -> Iterator[Callable[[], Moved | None]]:
        sending = _Sending(
            step,
            path,
            (self._address / step.path).key,
            file_state(path),
            part_bytes_of(step.size_bytes),
        )
        if step.path not in self._plan.survey.digests:  # nothing has proved it yet
            hint = "imnetprep verify-archives says what is wrong; it is not sent"
            sending.pieces = pieces_of(
                self._dataset, step.path, step.size_bytes, where=step.path, hint=hint
            )
        if sending.state["size_bytes"] != step.size_bytes:
            raise _changed(sending)
        if step.action is Action.COMPARE:
            yield partial(self._compare, sending)
        elif sending.count == 1:
            yield partial(self._send_whole, sending)
        else:
            with told(self._address / step.path):
                self._begin(sending)
            for number in range(1, sending.count + 1):
                yield partial(self._send_part, sending, number)

    def _begin(self, sending: _Sending) -> None:
        """Take up the upload that has most of it, or begin one."""
        uploads = self._plan.survey.uploads_of(sending.step.path)
        for upload in uploads:
            if upload.algorithm not in (None, self._kind.upper()):
                continue  # its parts were compared otherwise, and so will be the whole
            listed = listed_parts(self._bucket, sending.key, upload.upload_id)
            if not sending.upload_id or len(listed) > len(sending.listed):
                sending.upload_id, sending.listed = upload.upload_id, listed
        if sending.upload_id:
            sending.before = {
                number: Part(etag, checksum)
                for number, (etag, checksum) in self._journal.sent(sending.upload_id).items()
            }
        else:
            headers, ids = self._metadata(sending), [each.upload_id for each in uploads]
            sending.upload_id = self._sender.begin(sending.key, headers, known=ids)

    def _metadata(self, sending: _Sending) -> dict[str, str]:
        """What is known of a file before it is read, for the object to carry."""
        digests = self._plan.survey.digests.get(sending.step.path, {})
        told_of = {f"x-amz-meta-{kind}": value for kind, value in digests.items()}
        if self._dataset is not None:
            told_of["x-amz-meta-dataset"] = self._dataset.name
        return {**told_of, "x-amz-meta-size": str(sending.step.size_bytes)}

    def _read(self, sending: _Sending, number: int) -> tuple[memoryview, Checksum]:
        """A part, read once, proved by its pieces where there are any."""
        start = (number - 1) * sending.part_bytes
        length = min(sending.part_bytes, sending.step.size_bytes - start)
        handle = os.open(sending.path, os.O_RDONLY)
        try:
            body = memoryview(bytearray(length))
            found = 0
            while found < length and (more := os.preadv(handle, [body[found:]], start + found)):
                found += more
        finally:
            os.close(handle)
        if found != length:
            raise _changed(sending)
        if (pieces := sending.pieces) is not None:
            first, piece_bytes = start // pieces.length_bytes, pieces.length_bytes
            for at in range(0, length, piece_bytes):
                piece = first + at // piece_bytes
                if not pieces.is_right(piece, body[at : at + piece_bytes]):
                    raise WrongBytes(
                        f"{sending.step.path}: piece {piece} is not what torrent"
                        f" {pieces.info_hash} says; it is not sent",
                        hint="imnetprep repair-archives fetches the wrong pieces again",
                    )
        return body, Checksum.empty(self._kind).over(body)

    def _send_whole(self, sending: _Sending) -> Moved:
        path = sending.step.path
        self._flow.began(path)
        try:
            body, checksum = self._read(sending, 1)
            self._unchanged(sending)
            headers = self._metadata(sending) | sending.condition
            with told(self._address / path):
                etag = self._sender.put(sending.key, body, checksum, headers)
        finally:
            self._flow.ended(path)
        return self._sent(sending, Known(checksum), etag)

    def _send_part(self, sending: _Sending, number: int) -> Moved | None:
        path, upload_id = sending.step.path, sending.upload_id
        self._flow.began(path)
        try:
            body, checksum = self._read(sending, number)
            listed, before = sending.listed.get(number), sending.before.get(number)
            if listed is not None and has_part(listed, before, body, checksum):
                part = Part(listed.etag, checksum)
                self._flow.skipped(len(body))
            else:
                with told(self._address / path):
                    part = self._sender.send_part(sending.key, upload_id, number, body, checksum)
            self._journal.keep_sent(upload_id, number, part.etag, checksum)
        finally:
            self._flow.ended(path)
        with sending.lock:
            sending.parts[number] = part
            if len(sending.parts) < sending.count:
                return None
        return self._complete(sending)

    def _complete(self, sending: _Sending) -> Moved:
        self._unchanged(sending)
        parts = [sending.parts[number] for number in range(1, sending.count + 1)]
        checksums = [part.checksum for part in parts]
        known = Known.of_parts(checksums, self._kind, sending.part_bytes)
        address = self._address / sending.step.path
        try:
            with told(address):
                head = self._sender.complete(
                    sending.key, sending.upload_id, parts, known.whole, sending.condition
                )
        except WrongBytes:  # its parts are of no use
            self._journal.forget_sent(sending.upload_id)
            raise
        self._journal.forget_sent(sending.upload_id)
        return self._sent(sending, known, head.etag)

    def _sent(self, sending: _Sending, known: Known, etag: str) -> Moved:
        pieces = sending.pieces
        proof = None if pieces is None else TorrentProof(pieces.info_hash, pieces.count)
        return Moved(sending.step, Action.SEND, known, etag, sending.state, proof)

    def _compare(self, sending: _Sending) -> Moved:
        """Read it to know whether it is what the bucket has."""
        path = sending.step.path
        wanted = known_there(self._plan.survey, path, self._bucket, self._journal)
        assert wanted is not None, "it was asked for when this was planned"
        known = read_known(sending.path, wanted, self._flow)
        self._unchanged(sending)
        if known.whole == wanted.whole:
            return Moved(sending.step, Action.SKIP, known, sending.step.etag, sending.state)
        return Moved(sending.step, Action.KEEP, known, sending.step.etag, sending.state)

    def _unchanged(self, sending: _Sending) -> None:
        if file_state(sending.path) != sending.state:
            raise _changed(sending)


def read_known(path: Path, like: Known, flow: Flow) -> Known:
    """The checksums of the file, over the same parts."""
    part_bytes = like.part_bytes or part_bytes_of(like.whole.size_bytes)
    parts, left = [], 0
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(min(1 << 20, left or part_bytes)):
            if not left:
                parts.append(Checksum.empty(like.whole.kind))
                left = part_bytes
            parts[-1] = parts[-1].over(chunk)
            left -= len(chunk)
            flow.read(len(chunk))
    return Known.of_parts(parts, like.whole.kind, part_bytes)


def _changed(sending: _Sending) -> ImnetprepError:
    return ImnetprepError(
        f"{sending.path} changed while it was read",
        hint="run the same command when it is at rest; it resumes where it stopped",
    )
