"""`ROOT/.sync.db`: what is known of the bytes here and in buckets. Local, never sent.

All of it can be learned again, by reading; without it a sync is slower and no less right. What it
says of a file holds while that is untouched, and of an object while it has the same ETag.
"""

# ruff: noqa: S608 - what is put together here is ours, to the last letter

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from imnetprep.catalog.datasets import Root
from imnetprep.database import MEMORY, is_damage, open_database
from imnetprep.digests import Checksum
from imnetprep.messages import ImnetprepError
from imnetprep.plain_values import plain_text, real_number, whole_number
from imnetprep.proving.receipt import Proof, parse_proof
from imnetprep.s3.address import S3Address

_FORM = 1
_MOST_PARTS = 10_000  # as S3 takes
_CHECKSUMS = "kind, size, value, part_bytes, parts"
_BEING_SYNCED, _ARRIVAL = 2, "arrival"
_SCHEMA = f"""
CREATE TABLE file (
    path TEXT, kind TEXT, state TEXT NOT NULL, size INTEGER NOT NULL, value TEXT NOT NULL,
    part_bytes INTEGER NOT NULL, parts TEXT NOT NULL, PRIMARY KEY (path, kind)
);
CREATE TABLE object (
    address TEXT PRIMARY KEY, etag TEXT NOT NULL, size INTEGER NOT NULL, kind TEXT NOT NULL,
    value TEXT NOT NULL, part_bytes INTEGER NOT NULL, parts TEXT NOT NULL
);
CREATE TABLE synced (
    address TEXT, how TEXT, etag TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (address, how)
);
CREATE TABLE sent (
    upload TEXT, number INTEGER, etag TEXT NOT NULL, kind TEXT NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (upload, number)
);
CREATE TABLE fetching (path TEXT PRIMARY KEY, etag TEXT NOT NULL, inode INTEGER NOT NULL);
CREATE TABLE fetched (
    path TEXT, start INTEGER, size INTEGER NOT NULL, kind TEXT NOT NULL, value TEXT NOT NULL,
    synced INTEGER NOT NULL, PRIMARY KEY (path, start)
);
CREATE TABLE body (address TEXT PRIMARY KEY, etag TEXT NOT NULL, body BLOB NOT NULL);
CREATE TABLE rate (direction TEXT PRIMARY KEY, bytes_per_s REAL NOT NULL);
PRAGMA user_version = {_FORM};
"""


class Checksums(NamedTuple):
    """The checksum of some bytes, and those of their parts of `part_bytes` (the last is shorter).

    What came in one part has none.
    """

    whole: Checksum
    part_bytes: int = 0
    parts: tuple[int, ...] = ()

    @classmethod
    def of_parts(cls, parts: Iterable[Checksum], kind: str, part_bytes: int) -> "Checksums":
        """The checksums of parts that lie end to end, and of the whole."""
        whole, values = Checksum.empty(kind), []
        for part in parts:
            whole = whole.followed_by(part)
            values.append(part.value)
        if len(values) < 2:
            return cls(whole)
        return cls(whole, part_bytes, tuple(values))

    @classmethod
    def parse(
        cls, kind: str, size_bytes: int, value: str, part_bytes: int, parts: str
    ) -> "Checksums":
        """The checksums whose `columns` these are. Raises ValueError where they are none."""
        values = tuple(int(part, 16) for part in plain_text(parts).split())
        whole = _checksum(kind, value, size_bytes)
        count = -(-whole.size_bytes // part_bytes) if whole_number(part_bytes) else 0
        if len(values) != count or count > _MOST_PARTS:
            raise ValueError(f"{len(values)} parts of {part_bytes} bytes are not the whole")
        return cls(whole, part_bytes, values)

    def columns(self) -> tuple[str, int, str, int, str]:
        """Kind, size, value, length of the parts, and their values: numbers as hex."""
        whole, part_bytes, parts = self
        values = " ".join(f"{value:x}" for value in parts)
        return whole.kind, whole.size_bytes, f"{whole.value:x}", part_bytes, values

    def part_checksums(self) -> Iterator[Checksum]:
        """The checksum of each part, in order."""
        for number, value in enumerate(self.parts):
            rest_bytes = self.whole.size_bytes - number * self.part_bytes
            yield Checksum(self.whole.kind, value, min(self.part_bytes, rest_bytes))

    def __str__(self) -> str:
        return f"{self.whole.kind}:{self.whole.value:x}"


class FetchedRange(NamedTuple):
    """A range that is in the part of a file; `synced`: it would outlive a power cut."""

    start: int
    checksum: Checksum
    synced: bool


class SyncJournal:
    """Open. Use `open_sync_journal`. Safe from several threads."""

    def __init__(self, database: sqlite3.Connection, endpoint: str) -> None:
        self._database, self._lock = database, threading.RLock()
        self._endpoint = endpoint

    def of_file(self, path: str, state: Mapping[str, int], kind: str) -> Checksums | None:
        """What is known of the file at `path`, if it is still in this state."""
        query = f"SELECT {_CHECKSUMS} FROM file WHERE path = ? AND kind = ? AND state = ?"
        row = self._row(query, path, kind, _format_state(state))
        with _of_the_database():
            return Checksums.parse(*row) if row else None

    def keep_file(self, path: str, state: Mapping[str, int], checksums: Checksums) -> None:
        """The bytes of the file in this state are these."""
        kind, *rest = checksums.columns()
        self._keep("file", path, kind, _format_state(state), *rest)

    def of_object(self, address: S3Address, etag: str) -> Checksums | None:
        """What is known of an object, if it still has this ETag."""
        query = f"SELECT {_CHECKSUMS} FROM object WHERE address = ? AND etag = ?"
        row = self._row(query, self._at(address), etag)
        if row is None or not Checksum.is_known(row[0]):  # awscrt was there when it was kept
            return None
        with _of_the_database():
            return Checksums.parse(*row)

    def keep_object(self, address: S3Address, etag: str, checksums: Checksums) -> None:
        """The bytes of the object that has this ETag are these."""
        kind, size_bytes, *rest = checksums.columns()
        self._keep("object", self._at(address), etag, size_bytes, kind, *rest)

    def synced(self, address: S3Address, direction: str = "") -> tuple[str, str] | None:
        """The ETag of the object and the value of the file when they were last made equal.

        A manifest has another value for each `direction`: the two sides list different splits.
        """
        query = "SELECT etag, value FROM synced WHERE address = ? AND how = ?"
        row = self._row(query, self._at(address), direction)
        return (row[0], row[1]) if row else None

    def keep_synced(self, address: S3Address, etag: str, value: str, direction: str = "") -> None:
        """The object that has this ETag and the file here are equal now."""
        self._keep("synced", self._at(address), direction, etag, value)

    def arrived(self) -> list[tuple[str, int, Proof]]:
        """The files that got their names, and maybe not their place in the receipt: path, inode,
        and the proof.
        """
        rows = self._execute("SELECT address, etag, value FROM synced WHERE how = ?", _ARRIVAL)
        with _of_the_database():
            return [
                (plain_text(path), int(inode), parse_proof(json.loads(proof)))
                for path, inode, proof in rows
            ]

    def keep_arrived(self, path: str, inode: int, proof: Proof) -> None:
        """The file at `path` is about to get its name."""
        self._keep("synced", path, _ARRIVAL, str(inode), json.dumps(proof.as_json()))

    def forget_arrived(self) -> None:
        """The receipt has all of them."""
        self._execute("DELETE FROM synced WHERE how = ?", _ARRIVAL)

    def sent(self, upload_id: str) -> dict[int, tuple[str, Checksum]]:
        """The parts of an unfinished upload that were sent from here: ETag and checksum."""
        query = "SELECT number, etag, kind, value FROM sent WHERE upload = ?"
        rows = self._execute(query, upload_id)
        with _of_the_database():
            return {
                whole_number(row[0]): (plain_text(row[1]), _checksum(row[2], row[3], 0))
                for row in rows
            }

    def keep_sent(self, upload_id: str, number: int, etag: str, checksum: Checksum) -> None:
        """The server has that part."""
        self._keep("sent", upload_id, number, etag, checksum.kind, f"{checksum.value:x}")

    def forget_sent(self, upload_id: str) -> None:
        """The upload is finished."""
        self._execute("DELETE FROM sent WHERE upload = ?", upload_id)

    def fetched(self, path: str, etag: str, inode: int) -> list[FetchedRange] | None:
        """What the part of `path` has, if it is this file here, of the object of this ETag."""
        if self._row("SELECT etag, inode FROM fetching WHERE path = ?", path) != (etag, inode):
            return None
        query = "SELECT start, size, kind, value, synced FROM fetched WHERE path = ? ORDER BY start"
        with _of_the_database():
            return [
                FetchedRange(
                    whole_number(start), _checksum(kind, value, size_bytes), is_synced == 1
                )
                for start, size_bytes, kind, value, is_synced in self._execute(query, path)
            ]

    def begin_fetching(self, path: str, etag: str, inode: int) -> None:
        """The part of `path` is this file, and has nothing yet."""
        with self.together():
            self.forget_fetching(path)
            self._keep("fetching", path, etag, inode)

    def keep_fetched(self, path: str, start: int, checksum: Checksum) -> None:
        """The bytes from `start` are in the part of `path`."""
        facts = (checksum.size_bytes, checksum.kind, f"{checksum.value:x}")
        self._keep("fetched", path, start, *facts, 0)

    def forget_range(self, path: str, start: int) -> None:
        """The bytes from `start` are not in the part of `path`, or other ones soon."""
        self._execute("DELETE FROM fetched WHERE path = ? AND start = ?", path, start)

    def forget_fetching(self, path: str) -> None:
        """The part of `path` is no more."""
        self._execute("DELETE FROM fetching WHERE path = ?", path)
        self._execute("DELETE FROM fetched WHERE path = ?", path)

    @contextmanager
    def syncing(self) -> Iterator[None]:
        """What was kept as fetched before the block, which syncs, outlives a power cut."""
        self._execute("UPDATE fetched SET synced = ? WHERE synced = 0", _BEING_SYNCED)
        yield
        self._execute("UPDATE fetched SET synced = 1 WHERE synced = ?", _BEING_SYNCED)

    def body(self, address: S3Address, etag: str) -> bytes | None:
        """A small object as it was under this ETag, if it was kept."""
        query = "SELECT body FROM body WHERE address = ? AND etag = ?"
        row = self._row(query, self._at(address), etag)
        return row[0] if row and isinstance(row[0], bytes) else None

    def keep_body(self, address: S3Address, etag: str, body: bytes) -> None:
        """The object is this under this ETag."""
        self._keep("body", self._at(address), etag, body)

    def rate(self, direction: str) -> float | None:
        """The bytes a second of the last sync of some length."""
        row = self._row("SELECT bytes_per_s FROM rate WHERE direction = ?", direction)
        with _of_the_database():
            return real_number(row[0], least=0) if row else None

    def keep_rate(self, direction: str, bytes_per_s: float) -> None:
        """The bytes a second of this sync."""
        self._keep("rate", direction, bytes_per_s)

    def _at(self, address: S3Address) -> str:
        """Two servers may have buckets of one name."""
        return f"{self._endpoint} {address}"

    @contextmanager
    def together(self) -> Iterator[None]:
        """All that is kept meanwhile is kept in one go."""
        with self._lock:
            self._execute("BEGIN")
            try:
                yield
            finally:
                if self._database.in_transaction:  # on a full disk SQLite has rolled it back
                    self._execute("COMMIT")

    def _execute(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._database.execute(query, values).fetchall()

    def _row(self, query: str, *values: Any) -> tuple[Any, ...] | None:
        return next(iter(self._execute(query, *values)), None)

    def _keep(self, table: str, *values: Any) -> None:
        places = ", ".join("?" * len(values))
        self._execute(f"INSERT OR REPLACE INTO {table} VALUES ({places})", *values)


@contextmanager
def open_sync_journal(root: Root, *, endpoint: str, keep: bool = True) -> Iterator[SyncJournal]:
    """The journal of `root` and the server there; one that cannot be read is made anew.

    Unless it is to `keep` what it learns, none is made. Raises ImnetprepError where it turns out
    to be damaged: it is gone then, and the next run makes another.
    """
    path = root.path / ".sync.db"
    if keep:
        root.path.mkdir(parents=True, exist_ok=True)
    elif not path.exists():
        path = MEMORY
    with ExitStack() as stack:
        try:
            database = stack.enter_context(_opened(path))
        except sqlite3.DatabaseError as error:
            if not is_damage(error, path):
                raise
            _remove(path)
            database = stack.enter_context(_opened(path))
        try:
            yield SyncJournal(database, endpoint)
        except sqlite3.DatabaseError as error:
            if not is_damage(error, path):
                raise
            _remove(path)
            raise ImnetprepError(
                f"{path} was damaged and is removed",
                hint="run the same command; it reads files again",
            ) from error


@contextmanager
def _of_the_database() -> Iterator[None]:
    """Take a value that cannot be for damage."""
    try:
        yield
    except (ValueError, TypeError, RecursionError) as error:
        raise sqlite3.DatabaseError(str(error)) from error


def _checksum(kind: object, value: object, size_bytes: object) -> Checksum:
    return Checksum(plain_text(kind), int(plain_text(value), 16), whole_number(size_bytes))


def _remove(path: Path) -> None:
    for each in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        each.unlink(missing_ok=True)


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    with open_database(path, isolation_level=None, check_same_thread=False) as database:
        try:
            database.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:  # no shared memory there: alone it needs none
            database.executescript("PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL;")
        # A kill loses nothing that was written; a power cut the last of it, and all of it in order.
        database.execute("PRAGMA synchronous = NORMAL")
        form = database.execute("PRAGMA user_version").fetchone()[0]
        if form == 0:
            database.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
        elif form != _FORM:
            raise sqlite3.DatabaseError(f"form {form}")
        yield database


def _format_state(state: Mapping[str, int]) -> str:
    return " ".join(str(state[key]) for key in sorted(state))
