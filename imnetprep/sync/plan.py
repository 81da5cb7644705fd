"""Plan a sync: what it would do, file by file, and why; decided from listings, with nothing done.

How the two sides of a file stand to each other is its `Relation`, and `_ACTIONS` has what follows.
A check, a push and a pull carry their part out.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from imnetprep.messages import ImnetprepError
from imnetprep.proving.receipt import Proof
from imnetprep.s3.bucket import UnfinishedUpload
from imnetprep.sync.keys import MANIFEST, Content, comes_last, content_of
from imnetprep.sync.survey import Survey, part_bytes_of
from imnetprep.transfers.checksums import Checksums
from imnetprep.transfers.flow import Flow

RANGE_BYTES = 32 << 20


class Direction(StrEnum):
    """Which side is made like the other."""

    PUSH = "push"
    PULL = "pull"


class Action(StrEnum):
    """What is to be done with a file. COMPARE: its bytes here must be read to know.

    KEEP: both sides are left as they are; NEWER: likewise, as the other side has moved on.
    """

    SEND = "send"
    FETCH = "fetch"
    COMPARE = "compare"
    SKIP = "skip"
    KEEP = "keep"
    NEWER = "newer"
    DELETE = "delete"


class Relation(StrEnum):
    """How the two sides of a file stand to each other, as far as is known without reading it.

    UNREAD: of one size, and the bytes here are to be read. NO_CHECKSUM: of one size, the server
    keeps none, and its ETag is no MD5. NEWER_…: they differ, and only that side has changed since
    the last sync.
    The values are what people are told.
    """

    LOCAL_ONLY = "not in the bucket"
    REMOTE_ONLY = "not here"
    EQUAL = "the same bytes"
    UNREAD = "of the same size: its bytes here are to be read"
    NO_CHECKSUM = "of the same size; the server keeps no checksum of it"
    DIFFERENT = "differs"
    NEWER_LOCAL = "newer here"
    NEWER_REMOTE = "newer in the bucket"


# What a push and a pull do; and what they do with --delete of what lies on one side only, and with
# --replace of what lies on both.
_ACTIONS = {
    #                       push                            pull
    Relation.LOCAL_ONLY:   (Action.SEND, Action.SEND,       Action.KEEP, Action.DELETE),
    Relation.REMOTE_ONLY:  (Action.KEEP, Action.DELETE,     Action.FETCH, Action.FETCH),
    Relation.EQUAL:        (Action.SKIP, Action.SKIP,       Action.SKIP, Action.SKIP),
    Relation.UNREAD:       (Action.COMPARE, Action.COMPARE, Action.COMPARE, Action.COMPARE),
    Relation.NO_CHECKSUM:  (Action.KEEP, Action.SEND,       Action.KEEP, Action.FETCH),
    Relation.DIFFERENT:    (Action.KEEP, Action.SEND,       Action.KEEP, Action.FETCH),
    Relation.NEWER_LOCAL:  (Action.SEND, Action.SEND,       Action.NEWER, Action.FETCH),
    Relation.NEWER_REMOTE: (Action.NEWER, Action.SEND,      Action.FETCH, Action.FETCH),
}  # fmt: skip


@dataclass(frozen=True)
class Step:
    """What is to be done with one file. `etag`: of its object, if there is one."""

    path: str
    action: Action
    size_bytes: int
    reason: str
    etag: str | None = None


@dataclass(frozen=True)
class SyncPlan:
    """What is to be done, and `stale` uploads to abort."""

    survey: Survey
    direction: Direction
    steps: tuple[Step, ...]
    stale: tuple[UnfinishedUpload, ...]
    replace: bool

    @property
    def kept(self) -> list[Step]:
        """The files that both sides have and that are left alone, since they differ."""
        paths = self.survey.local.keys() & self.survey.remote.keys()
        return [step for step in self.of(Action.KEEP) if step.path in paths]

    def of(self, *actions: Action) -> list[Step]:
        """The steps with one of these actions."""
        return [step for step in self.steps if step.action in actions]

    def requests(self, step: Step) -> int:
        """How many requests it may take: what is compared moves only where it is replaced."""
        moves = (Action.SEND, Action.FETCH, *([Action.COMPARE] if self.replace else []))
        if step.action not in moves:
            return 0
        if self.direction is Direction.PUSH:
            parts = -(-step.size_bytes // part_bytes_of(step.size_bytes))
            return parts + 2 if parts > 1 else 1
        ranges = -(-step.size_bytes // RANGE_BYTES)
        return ranges + 1 if ranges > 1 else 1


class Outcome(NamedTuple):
    """What was done with a file; `checksums`: of its bytes in this `state`, `etag`: the object's.

    `proof`: what has proved it on the way.
    """

    step: Step
    action: Action
    checksums: Checksums | None = None
    etag: str | None = None
    state: Mapping[str, int] | None = None
    proof: Proof | None = None


def compared(survey: Survey, step: Step, flow: Flow) -> Outcome:
    """Read a file, to know whether it is what the bucket has: SKIP, or else KEEP."""
    target = survey.checksums(step.path) or survey.checksums_by_md5(step.path, flow)
    if target is None:
        step = dataclasses.replace(step, reason=Relation.NO_CHECKSUM)
        return Outcome(step, Action.KEEP, etag=step.etag)
    checksums = survey.file_checksums(step.path, target, flow)
    action = Action.SKIP if checksums.whole == target.whole else Action.KEEP
    return Outcome(step, action, checksums, step.etag)


def plan_sync(
    survey: Survey,
    *,
    direction: Direction,
    replace: bool = False,
    delete: bool = False,
    abort_stale_s: float | None = None,
) -> SyncPlan:
    """Decide for each file of either side. Reads no file, asks only for what listings leave open.

    With `replace` what differs is overwritten, with `delete` what the other side lacks removed.
    """
    is_push = direction is Direction.PUSH
    if delete and not (survey.local if is_push else survey.remote):
        side = "here" if is_push else f"at {survey.address}"
        raise ImnetprepError(
            f"there is nothing {side}: --delete would remove all of the other side",
            hint="name the right --root and prefix; or remove it by hand",
        )
    survey.ask_for_unknown(_undecided(survey))
    steps = []
    for path in sorted({*survey.local, *survey.remote}, key=_order):
        relation = _relation(survey, path)
        may_lose = delete if relation in (Relation.LOCAL_ONLY, Relation.REMOTE_ONLY) else replace
        action = _ACTIONS[relation][may_lose if is_push else 2 + may_lose]
        local, remote = survey.local.get(path), survey.remote.get(path)
        source = (local or remote) if is_push else (remote or local)
        assert source is not None, "one side has it"
        reason, etag = _reason(survey, path, relation, action), remote.etag if remote else None
        steps.append(Step(path, action, source.size_bytes, reason, etag))
    keys = {(survey.address / step.path).key for step in steps}
    keys |= {(survey.address / MANIFEST).key} if Content.MANIFEST in survey.contents else set()
    uploads = [each for each in survey.uploads if each.key in keys and is_push]
    limit = None if abort_stale_s is None else datetime.now(UTC) - timedelta(seconds=abort_stale_s)
    stale = tuple(each for each in uploads if limit and each.begun_at <= limit)
    fresh = tuple(each for each in uploads if each not in stale)
    survey = dataclasses.replace(survey, uploads=fresh)
    return SyncPlan(survey, direction, tuple(steps), stale, replace)


def _order(path: str) -> tuple[bool, str]:
    return comes_last(path), path


def _undecided(survey: Survey) -> Iterator[str]:
    """The files whose listings leave open whether both sides are equal."""
    for path, remote in survey.remote.items():
        local = survey.local.get(path)
        is_of_one_size = local is not None and local.size_bytes == remote.size_bytes
        if is_of_one_size and not _has_same_digest(survey, path):
            yield path


def _relation(survey: Survey, path: str) -> Relation:
    local, remote, journal = survey.local.get(path), survey.remote.get(path), survey.journal
    if remote is None:
        return Relation.LOCAL_ONLY
    if local is None:
        return Relation.REMOTE_ONLY
    state = survey.file(path).state
    if local.size_bytes == remote.size_bytes:
        object_sums = survey.recorded(path)
        file_sums = object_sums and journal.of_file(path, state, object_sums.whole.kind)
        is_same = file_sums and object_sums and file_sums.whole == object_sums.whole
        if is_same or _has_same_digest(survey, path):
            return Relation.EQUAL
        if object_sums is None and not remote.has_md5():
            return Relation.NO_CHECKSUM
        if file_sums is None:
            return Relation.UNREAD
    # A run is written anew while a root is used: there the newer side may replace the older.
    base = journal.synced(survey.address / path) if content_of(path) is Content.RUNS else None
    if base is None:
        return Relation.DIFFERENT
    etag, value = base
    file_sums = journal.of_file(path, state, value.partition(":")[0])
    local_has_changed = file_sums is None or str(file_sums) != value
    match local_has_changed, etag != remote.etag:
        case True, False:
            return Relation.NEWER_LOCAL
        case False, True:
            return Relation.NEWER_REMOTE
    return Relation.DIFFERENT


def _reason(survey: Survey, path: str, relation: Relation, action: Action) -> str:
    match relation, action:
        case Relation.LOCAL_ONLY, Action.KEEP:
            return "only here"
        case Relation.REMOTE_ONLY, Action.KEEP:
            return "only in the bucket"
    is_newer_lost = (relation, action) in (
        (Relation.NEWER_LOCAL, Action.FETCH),
        (Relation.NEWER_REMOTE, Action.SEND),
    )
    if relation is not Relation.DIFFERENT and not is_newer_lost:
        return relation
    local_bytes, remote_bytes = survey.local[path].size_bytes, survey.remote[path].size_bytes
    if local_bytes == remote_bytes:
        return f"{Relation.DIFFERENT}: another checksum"
    return f"{Relation.DIFFERENT}: {local_bytes:,} bytes here, {remote_bytes:,} in the bucket"


def _has_same_digest(survey: Survey, path: str) -> bool:
    """Whether both sides have the same digest of a file; nothing is read for that."""
    record = survey.receipt.objects.get(path)
    if record is None or record.etag != survey.remote[path].etag:
        return False
    digests = survey.digests.get(path, {})
    return any(record.digests.get(kind) == value for kind, value in digests.items())
