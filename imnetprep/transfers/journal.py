"""What is known of files on their way here, as rows of SQLite that outlive a kill.

All of it can be learned again, by reading or by fetching: a journal that is damaged is made anew.
"""

# ruff: noqa: S608 - what is put together here is ours, to the last letter

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from imnetprep.database import is_damage, open_database
from imnetprep.digests import Checksum
from imnetprep.messages import ImnetprepError
from imnetprep.plain_values import plain_text, whole_number
from imnetprep.transfers.checksums import parse_checksum

_BEING_SYNCED = 2
_FORM = 2
PART_TABLES = """
CREATE TABLE fetching (path TEXT PRIMARY KEY, version TEXT NOT NULL, inode INTEGER NOT NULL);
CREATE TABLE fetched (
    path TEXT, start INTEGER, size INTEGER NOT NULL, kind TEXT NOT NULL, value TEXT NOT NULL,
    synced INTEGER NOT NULL, PRIMARY KEY (path, start)
);
CREATE TABLE arrival (path TEXT PRIMARY KEY, inode INTEGER NOT NULL, proof TEXT NOT NULL);
"""


class Tables:
    """An open journal. Safe from several threads."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database, self._lock = database, threading.RLock()

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


class FetchedRange(NamedTuple):
    """Bytes from `start` that are in the part of a file; `synced`: a power cut would spare them."""

    start: int
    checksum: Checksum
    synced: bool


class PartJournal(Tables):
    """What the parts of unfinished files have, by the path of the file."""

    def fetched(self, path: str, version: str, inode: int) -> list[FetchedRange] | None:
        """What the part of `path` has, if it is this file here, of that version of it there."""
        query = "SELECT version, inode FROM fetching WHERE path = ?"
        if self._row(query, path) != (version, inode):
            return None
        query = "SELECT start, size, kind, value, synced FROM fetched WHERE path = ? ORDER BY start"
        with values_of_a_journal():
            return [
                FetchedRange(
                    whole_number(start), parse_checksum(kind, value, size_bytes), is_synced == 1
                )
                for start, size_bytes, kind, value, is_synced in self._execute(query, path)
            ]

    def begin_fetching(self, path: str, version: str, inode: int) -> None:
        """The part of `path` is this file, and has nothing yet."""
        with self.together():
            self.forget_fetching(path)
            self._keep("fetching", path, version, inode)

    def keep_fetched(self, path: str, start: int, checksum: Checksum) -> None:
        """The bytes from `start` that have this checksum are in the part of `path`."""
        facts = (checksum.size_bytes, checksum.kind, f"{checksum.value:x}")
        self._keep("fetched", path, start, *facts, 0)

    def forget_range(self, path: str, start: int) -> None:
        """The bytes from `start` are not in the part of `path`, or other ones soon."""
        self._execute("DELETE FROM fetched WHERE path = ? AND start = ?", path, start)

    def forget_fetching(self, path: str) -> None:
        """The part of `path` is no more."""
        self._execute("DELETE FROM fetching WHERE path = ?", path)
        self._execute("DELETE FROM fetched WHERE path = ?", path)

    def arrived(self) -> list[tuple[str, int, str]]:
        """The files that got their names, and maybe not their place in the receipt: path, inode,
        and the proof as text.
        """
        with values_of_a_journal():
            rows = self._execute("SELECT path, inode, proof FROM arrival")
            return [
                (plain_text(path), whole_number(inode), plain_text(proof))
                for path, inode, proof in rows
            ]

    def keep_arrived(self, path: str, inode: int, proof: str) -> None:
        """The file at `path` is about to get its name."""
        self._keep("arrival", path, inode, proof)

    def forget_arrived(self) -> None:
        """The receipt has all of them."""
        self._execute("DELETE FROM arrival")

    @property
    def is_empty(self) -> bool:
        """Does it know of no file?"""
        query = "SELECT 1 FROM fetching UNION SELECT 1 FROM arrival"
        return self._row(query) is None

    @contextmanager
    def syncing(self) -> Iterator[None]:
        """What was kept as fetched before the block, which syncs, outlives a power cut."""
        self._execute("UPDATE fetched SET synced = ? WHERE synced = 0", _BEING_SYNCED)
        yield
        self._execute("UPDATE fetched SET synced = 1 WHERE synced = ?", _BEING_SYNCED)


@contextmanager
def open_part_journal(path: Path) -> Iterator[PartJournal]:
    """The journal of parts at `path`; gone at the end where it knows of none. As `open_journal`."""
    is_empty = False
    try:
        with open_journal(path, PART_TABLES) as database:
            journal = PartJournal(database)
            try:
                yield journal
            finally:
                with suppress(sqlite3.Error):
                    is_empty = journal.is_empty
    finally:
        if is_empty:
            _remove(path)


def read_part_sizes(path: Path) -> dict[str, int]:
    """How many bytes the part of each unfinished file has, by the journal at `path`.

    Empty where there is none that can be read.
    """
    sizes = dict[str, int]()
    query = "SELECT path, sum(size) FROM fetched GROUP BY path"
    with suppress(sqlite3.Error, ImnetprepError, OSError), ExitStack() as stack:
        if path.is_file():
            stack.enter_context(values_of_a_journal())
            database = stack.enter_context(open_database(path, "mode=ro"))
            for name, size_bytes in database.execute(query):
                sizes[plain_text(name)] = whole_number(size_bytes)
    return sizes


@contextmanager
def open_journal(path: Path, tables: str) -> Iterator[sqlite3.Connection]:
    """The SQLite database at `path` that has these `tables`; one that cannot be read is made anew.

    Raises ImnetprepError where it turns out to be damaged: it is gone then, and the next run makes
    another.
    """
    with ExitStack() as stack:
        try:
            database = stack.enter_context(_opened(path, tables))
        except sqlite3.DatabaseError as error:
            if not is_damage(error, path):
                raise
            _remove(path)
            database = stack.enter_context(_opened(path, tables))
        try:
            yield database
        except sqlite3.DatabaseError as error:
            if not is_damage(error, path):
                raise
            _remove(path)
            raise ImnetprepError(
                f"{path} was damaged and is removed",
                hint="run the same command; it reads files again",
            ) from error


@contextmanager
def values_of_a_journal() -> Iterator[None]:
    """Take a value that cannot be for damage."""
    try:
        yield
    except (ValueError, TypeError, RecursionError) as error:
        raise sqlite3.DatabaseError(str(error)) from error


def _remove(path: Path) -> None:
    for each in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        each.unlink(missing_ok=True)


@contextmanager
def _opened(path: Path, tables: str) -> Iterator[sqlite3.Connection]:
    with open_database(path, isolation_level=None, check_same_thread=False) as database:
        try:
            database.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:  # no shared memory there: alone it needs none
            database.executescript("PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL;")
        # A kill loses nothing that was written; a power cut the last of it, and all of it in order.
        database.execute("PRAGMA synchronous = NORMAL")
        form = database.execute("PRAGMA user_version").fetchone()[0]
        if form == 0:
            database.executescript(f"BEGIN; {tables} PRAGMA user_version = {_FORM}; COMMIT;")
        elif form != _FORM:
            raise sqlite3.DatabaseError(f"form {form}")
        yield database
