"""What a sync would do, file by file, and why; decided from listings, before anything is done."""

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum

import botocore.exceptions as failures

from imnetprep.archives.file import file_state
from imnetprep.catalog.datasets import Split
from imnetprep.digests import Checksum
from imnetprep.errors import ImnetprepError, WrongBytes
from imnetprep.layouts.webdataset import INDEX, read_index
from imnetprep.preparation.receipts import read_receipt
from imnetprep.progress import Progress
from imnetprep.roots import Layout, Root
from imnetprep.s3.address import S3Address
from imnetprep.s3.bucket import Bucket
from imnetprep.s3.failures import status_of, told
from imnetprep.s3.listing import Listed, Unfinished, head_object, listed_objects, unfinished_uploads
from imnetprep.s3.upload import part_bytes_of
from imnetprep.sync.journal import Known, SyncJournal
from imnetprep.sync.places import MANIFEST, RECEIPT, FileHere, What, files_here, is_busy, what_of
from imnetprep.sync.there import LARGEST_BYTES, RemoteReceipt, parse_receipt

RANGE_BYTES = 32 << 20
_HEADS_AT_ONCE = 16
_TRIES = 3
# What is written anew while a root is used; the newer side may replace the older.
_CHANGING = (What.RUNS,)


class Direction(StrEnum):
    """Which side is made like the other."""

    PUSH = "push"
    PULL = "pull"


class Action(StrEnum):
    """What is to be done with a file. COMPARE: its bytes here must be read to know."""

    SEND = "send"
    FETCH = "fetch"
    COMPARE = "compare"
    SKIP = "skip"
    KEEP = "keep"
    DELETE = "delete"


@dataclass(frozen=True)
class Step:
    """One file. `etag` is that of the object there, if there is one."""

    path: str
    action: Action
    size_bytes: int
    why: str
    etag: str | None = None

    @property
    def requests(self) -> int:
        """How many requests it will take."""
        if self.action in (Action.SEND, Action.COMPARE):
            parts = -(-self.size_bytes // part_bytes_of(self.size_bytes))
            return parts + 2 if parts > 1 else 1
        if self.action is Action.FETCH:
            ranges = -(-self.size_bytes // RANGE_BYTES)
            return ranges + 1 if ranges > 1 else 1
        return 0


@dataclass(frozen=True)
class Survey:
    """Both sides as they lie there, by path."""

    address: S3Address
    here: Mapping[str, FileHere]
    there: Mapping[str, Listed]
    unfinished: tuple[Unfinished, ...]
    receipt: RemoteReceipt
    receipt_etag: str | None
    manifest: Listed | None
    digests: Mapping[str, Mapping[str, str]]

    def listed(self, path: str) -> Listed:
        """An object that is there."""
        if path == MANIFEST and self.manifest is not None:
            return self.manifest
        return self.there[path]

    def uploads_of(self, path: str) -> list[Unfinished]:
        """The unfinished uploads of a file."""
        key = (self.address / path).key
        return [each for each in self.unfinished if each.key == key]


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


def survey(
    root: Root,
    bucket: Bucket,
    address: S3Address,
    journal: SyncJournal,
    *,
    what: Collection[What],
    uploads: bool = True,
    progress: Progress,
) -> Survey:
    """List both sides, and the `uploads` there that are not finished: not all may see those.

    Raises SourceFailed where the bucket cannot be read.
    """
    tops = {}
    folders = set()
    prefix = f"{address.key}/" if address.key else ""
    for page in bucket.pages("list_objects_v2", Prefix=prefix, Delimiter="/"):
        for each in page.get("Contents", ()):
            etag = each["ETag"].strip('"')
            name = each["Key"].removeprefix(prefix)
            tops[name] = Listed(each["Key"], each["Size"], etag, each["LastModified"])
        folders |= {each["Prefix"].removeprefix(prefix) for each in page.get("CommonPrefixes", ())}
    there: dict[str, Listed] = {}
    for folder in sorted(folders & set(_folders(what))):
        for listed in listed_objects(bucket, prefix + folder):
            path = listed.key.removeprefix(prefix)
            if what_of(path) in what:
                if not is_busy(root, path):
                    there[path] = listed
            elif not path.endswith("/"):
                progress.note(f"{S3Address(address.bucket, listed.key)}: left alone")
    listed_receipt = tops.get(RECEIPT)
    here = list(files_here(root, what, progress))
    return Survey(
        address,
        {each.path: each for each in here},
        there,
        tuple(unfinished_uploads(bucket, prefix)) if uploads else (),
        _fetch_receipt(bucket, address, listed_receipt, journal, progress),
        listed_receipt.etag if listed_receipt else None,
        tops.get(MANIFEST) if What.MANIFEST in what else None,
        dict(digests_here(root, here)),
    )


def _folders(what: Collection[What]) -> Iterator[str]:
    for each in (What.ARCHIVES, What.SHARDS, What.RUNS):
        if each in what:
            yield f"{each}/"
    if What.IMAGES in what:
        yield from (f"{split}/" for split in Split)


def fetch_receipt(
    bucket: Bucket, address: S3Address, journal: SyncJournal, progress: Progress
) -> tuple[RemoteReceipt, str | None]:
    """The receipt as it is now, and its ETag."""
    key = (address / RECEIPT).key
    listed = next((each for each in listed_objects(bucket, key) if each.key == key), None)
    receipt = _fetch_receipt(bucket, address, listed, journal, progress)
    return receipt, listed.etag if listed else None


def _fetch_receipt(
    bucket: Bucket,
    address: S3Address,
    listed: Listed | None,
    journal: SyncJournal,
    progress: Progress,
) -> RemoteReceipt:
    if listed is None:
        return RemoteReceipt()
    where = address / RECEIPT
    body = journal.body(where, listed.etag)
    try:
        if body is None:
            if listed.size_bytes > LARGEST_BYTES:
                raise ValueError(f"has {listed.size_bytes:,} bytes")
            with told(where):
                body = _proved_body(bucket, where, listed)
            journal.keep_body(where, listed.etag, body)
        return parse_receipt(body)
    except ValueError as error:
        progress.note(f"{where} is no receipt and is not believed: {error}")
        return RemoteReceipt()


def _proved_body(bucket: Bucket, where: S3Address, listed: Listed) -> bytes:
    """All of a small object, as its server's checksum has it."""
    for _ in range(_TRIES):
        chunks = bucket.chunks(where.key, 0, listed.size_bytes, etag=listed.etag, length=1 << 20)
        body = b"".join(chunks)
        wanted = head_object(bucket, where.key).checksum
        if wanted is None or Checksum.empty(wanted.kind).over(body) == wanted:
            return body
    raise WrongBytes(
        f"{where} came with wrong bytes, {_TRIES} times",
        hint="the network or the memory of this machine changes bytes; try another",
    )


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
    unclear = [
        listed
        for path, listed in found.there.items()
        if path in found.here
        and found.here[path].size_bytes == listed.size_bytes
        and _known_there(found, path, journal) is None
        and not _same_digest(found, path)
    ]
    _ask_for(unclear, bucket, found.address, journal)
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
    there = _known_there(found, path, journal)
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
        if changed_here != changed_there:
            side = "here" if changed_here else "in the bucket"
            return Step(path, Action.KEEP, size_bytes, f"newer {side}", listed.etag)
    return Step(path, moved if replace else Action.KEEP, size_bytes, why, listed.etag)


def value_of(known: Known) -> str:
    """The checksum of the whole as one word."""
    return f"{known.whole.kind}:{known.whole.value:x}"


def _known_there(found: Survey, path: str, journal: SyncJournal) -> Known | None:
    """What is known of an object without asking."""
    listed, record = found.listed(path), found.receipt.objects.get(path)
    if record is not None and record.etag == listed.etag:
        return record.known if record.known.whole.size_bytes == listed.size_bytes else None
    return journal.of_object(found.address / path, listed.etag)


def known_there(
    found: Survey, path: str, bucket: Bucket | None, journal: SyncJournal
) -> Known | None:
    """What is known of an object: by the receipt, from before, or by asking `bucket`."""
    if (known := _known_there(found, path, journal)) is None and bucket is not None:
        _ask_for([found.listed(path)], bucket, found.address, journal)
        known = _known_there(found, path, journal)
    return known


def ask_all(found: Survey, paths: Collection[str], bucket: Bucket, journal: SyncJournal) -> None:
    """Learn what the server keeps of these objects now."""
    _ask_for([found.there[path] for path in paths], bucket, found.address, journal)


def ask_for_unknown(
    found: Survey, steps: Collection[Step], bucket: Bucket, journal: SyncJournal
) -> None:
    """Learn what the server keeps of those objects of which nothing is known."""
    unknown = [
        found.there[step.path] for step in steps if _known_there(found, step.path, journal) is None
    ]
    _ask_for(unknown, bucket, found.address, journal)


def _ask_for(
    listed: Collection[Listed], bucket: Bucket, address: S3Address, journal: SyncJournal
) -> None:
    """Learn the checksums that the server keeps of these."""

    def ask(each: Listed) -> None:
        where = S3Address(address.bucket, each.key)
        try:
            with told(where):
                head = head_object(bucket, each.key)
        except ImnetprepError as error:
            cause = error.__cause__
            if isinstance(cause, failures.ClientError) and status_of(cause) == 404:
                return
            raise
        before = journal.of_object(where, each.etag)
        if head.checksum is None or head.etag != each.etag:
            return
        if before is None or before.whole != head.checksum:  # it may know the parts too
            journal.keep_object(where, head.etag, Known(head.checksum))

    with ThreadPoolExecutor(_HEADS_AT_ONCE) as threads:
        list(threads.map(ask, listed))


def _same_digest(found: Survey, path: str) -> bool:
    """Do both sides tell the same digest of it? Nothing is read for that."""
    record, listed = found.receipt.objects.get(path), found.there[path]
    if record is None or record.etag != listed.etag:
        return False
    here = found.digests.get(path, {})
    return any(record.digests.get(kind) == value for kind, value in here.items())


def digests_here(root: Root, here: Collection[FileHere]) -> Iterator[tuple[str, dict[str, str]]]:
    """The digests that are known without reading: of proved archives, and what indexes list."""
    proved, sizes = read_receipt(root)["archives"], {each.path: each.size_bytes for each in here}
    for name, record in proved.items():
        path, proof = f"{What.ARCHIVES}/{name}", record["proof"]
        if path in sizes and record.items() >= file_state(root.path / path).items():
            digest = proof.get("info_hash") or proof.get("digest")
            if digest and "of" not in proof:
                yield path, {proof["kind"]: str(digest)}
    for split in Split:
        if f"{What.SHARDS}/{split}/{INDEX}" in sizes:
            folder = root.split(split, Layout.WEBDATASET)
            indexed_at = (folder / INDEX).stat().st_mtime_ns
            with suppress(WrongBytes, OSError):
                for shard in read_index(folder).shards:
                    path = f"{What.SHARDS}/{split}/{shard.name}"
                    status = (root.path / path).stat()
                    # The index is written last: what was touched since is not what it lists.
                    if (
                        path in sizes
                        and status.st_size == shard.size_bytes
                        and status.st_mtime_ns < indexed_at
                    ):
                        yield path, {"xxh128": shard.xxh128}


def _stale(unfinished: Collection[Unfinished], abort_stale_s: float | None) -> Iterator[Unfinished]:
    """Those uploads that are older than that."""
    if abort_stale_s is None:
        return
    limit = datetime.now(UTC) - timedelta(seconds=abort_stale_s)
    yield from (each for each in unfinished if each.begun_at <= limit)
