"""What a sync would do, file by file, and why; decided from listings, before anything is done."""

import dataclasses
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from imnetprep.archives.file import file_state
from imnetprep.messages import ImnetprepError
from imnetprep.roots import Root
from imnetprep.s3.bucket import Bucket
from imnetprep.s3.listing import Unfinished
from imnetprep.s3.upload import part_bytes_of
from imnetprep.sync.journal import Known, SyncJournal
from imnetprep.sync.keys import MANIFEST, What, what_of
from imnetprep.sync.objects import ask_for_unknown, known_before
from imnetprep.sync.survey import Survey

RANGE_BYTES = 32 << 20
# What is written anew while a root is used; the newer side may replace the older.
_CHANGING = (What.RUNS,)


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


@dataclass(frozen=True)
class Step:
    """One file. `etag` is that of the object there, if there is one."""

    path: str
    action: Action
    size_bytes: int
    why: str
    etag: str | None = None


@dataclass(frozen=True)
class SyncPlan:
    """What is to be done, and `stale` uploads to abort."""

    survey: Survey
    direction: Direction
    what: frozenset[What]
    steps: tuple[Step, ...]
    stale: tuple[Unfinished, ...] = field(default=())
    replace: bool = False

    @property
    def kept(self) -> list[Step]:
        """What both sides have and is left alone, since it differs."""
        found = self.survey
        both = found.here.keys() & found.there.keys()
        return [step for step in self.of(Action.KEEP) if step.path in both]

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


def plan_sync(
    root: Root,
    bucket: Bucket,
    found: Survey,
    journal: SyncJournal,
    *,
    direction: Direction,
    what: Collection[What],
    replace: bool = False,
    delete: bool = False,
    abort_stale_s: float | None = None,
) -> SyncPlan:
    """Decide for each file of either side. Reads no file, asks only for what listings leave open.

    With `replace` what differs is overwritten, with `delete` what the other side lacks removed.
    """
    pushing = direction is Direction.PUSH
    unclear = (
        path
        for path, listed in found.there.items()
        if path in found.here
        and found.here[path].size_bytes == listed.size_bytes
        and not _same_digest(found, path)
    )
    ask_for_unknown(found, unclear, bucket, journal)
    steps = []
    for path in sorted({*found.here, *found.there}, key=_in_order):
        here, listed = found.here.get(path), found.there.get(path)
        if here is not None and listed is not None:
            steps.append(_both(root, found, path, journal, pushing=pushing, replace=replace))
        elif here is not None:
            action = Action.SEND if pushing else (Action.DELETE if delete else Action.KEEP)
            why = "not in the bucket" if pushing or delete else "only here"
            steps.append(Step(path, action, here.size_bytes, why))
        elif listed is not None:
            action = Action.FETCH if not pushing else (Action.DELETE if delete else Action.KEEP)
            why = "not here" if not pushing or delete else "only in the bucket"
            steps.append(Step(path, action, listed.size_bytes, why, listed.etag))
    if delete and not (found.there if not pushing else found.here):
        side = "here" if pushing else f"at {found.address}"
        raise ImnetprepError(
            f"there is nothing {side}: --delete would remove all of the other side",
            hint="name the right --root and prefix; or remove it by hand",
        )
    keys = {(found.address / step.path).key for step in steps}
    keys |= {(found.address / MANIFEST).key} if What.MANIFEST in what else set()
    unfinished = [each for each in found.unfinished if each.key in keys and pushing]
    stale = tuple(_stale(unfinished, abort_stale_s))
    left = tuple(each for each in unfinished if each not in stale)
    found = dataclasses.replace(found, unfinished=left)
    return SyncPlan(found, direction, frozenset(what), tuple(steps), stale, replace)


def _in_order(path: str) -> tuple[bool, str]:
    """What lists others comes behind them."""
    return path.endswith("index.json"), path


def _both(
    root: Root, found: Survey, path: str, journal: SyncJournal, *, pushing: bool, replace: bool
) -> Step:
    here, listed = found.here[path], found.there[path]
    moved = Action.SEND if pushing else Action.FETCH
    size_bytes = here.size_bytes if pushing else listed.size_bytes
    address, state = found.address / path, file_state(root.path / path)
    there = known_before(found, path, journal)
    known = there and journal.of_file(path, state, there.whole.kind)
    if here.size_bytes == listed.size_bytes:
        if (known and there and known.whole == there.whole) or _same_digest(found, path):
            return Step(path, Action.SKIP, size_bytes, "the same bytes", listed.etag)
        if there is None:
            why = "of the same size; the server keeps no checksum of it"
            return Step(path, moved if replace else Action.KEEP, size_bytes, why, listed.etag)
        if known is None:
            why = "of the same size: its bytes here are to be read"
            return Step(path, Action.COMPARE, size_bytes, why, listed.etag)
    why = f"differs: {here.size_bytes:,} bytes here, {listed.size_bytes:,} in the bucket"
    if here.size_bytes == listed.size_bytes:
        why = "differs: another checksum"
    if what_of(path) in _CHANGING and (base := journal.synced(address)) is not None:
        kind = base[1].partition(":")[0]
        same_here = journal.of_file(path, state, kind)
        changed_here = same_here is None or value_of(same_here) != base[1]
        changed_there = base[0] != listed.etag
        if pushing and changed_here and not changed_there:
            return Step(path, moved, size_bytes, "newer here", listed.etag)
        if not pushing and changed_there and not changed_here:
            return Step(path, moved, size_bytes, "newer in the bucket", listed.etag)
        if changed_here != changed_there and not replace:
            side = "here" if changed_here else "in the bucket"
            return Step(path, Action.NEWER, size_bytes, f"newer {side}", listed.etag)
    return Step(path, moved if replace else Action.KEEP, size_bytes, why, listed.etag)


def value_of(known: Known) -> str:
    """The checksum of the whole as one word."""
    return f"{known.whole.kind}:{known.whole.value:x}"


def _same_digest(found: Survey, path: str) -> bool:
    """Do both sides tell the same digest of it? Nothing is read for that."""
    record, listed = found.receipt.objects.get(path), found.there[path]
    if record is None or record.etag != listed.etag:
        return False
    here = found.digests.get(path, {})
    return any(record.digests.get(kind) == value for kind, value in here.items())


def _stale(unfinished: Collection[Unfinished], abort_stale_s: float | None) -> Iterator[Unfinished]:
    """Those uploads that are older than that."""
    if abort_stale_s is None:
        return
    limit = datetime.now(UTC) - timedelta(seconds=abort_stale_s)
    yield from (each for each in unfinished if each.begun_at <= limit)
