"""SQLite files, on whatever file system: opened without locks where it has none.

What the machine does not let SQLite do is an OSError of the file, as it is of any other file.
"""

import errno
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from imnetprep.fs import has_locks, lock_refusal
from imnetprep.messages import ImnetprepError, move_away

# By the first byte of SQLite's result code; it keeps the system's own number to itself.
_OF_THE_MACHINE = {
    sqlite3.SQLITE_PERM: errno.EACCES,
    sqlite3.SQLITE_NOMEM: errno.ENOMEM,
    sqlite3.SQLITE_READONLY: errno.EACCES,
    sqlite3.SQLITE_IOERR: errno.EIO,
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_CANTOPEN: errno.EIO,
    sqlite3.SQLITE_PROTOCOL: errno.ENOLCK,
    sqlite3.SQLITE_NOLFS: errno.EFBIG,
}
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_OF_LOCKS = (
    sqlite3.SQLITE_IOERR_LOCK,
    sqlite3.SQLITE_IOERR_RDLOCK,
    sqlite3.SQLITE_IOERR_UNLOCK,
    sqlite3.SQLITE_IOERR_CHECKRESERVEDLOCK,
    sqlite3.SQLITE_IOERR_SHMLOCK,
    sqlite3.SQLITE_PROTOCOL,  # after ten seconds of locks that fail
)
_OF_READS = (sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR_FSTAT)
MEMORY = Path(":memory:")  # a database that no file keeps
_TABLES = "SELECT name FROM sqlite_schema WHERE type = 'table'"
_PROBE_BYTES, _FILES_AT_ONCE = 1 << 16, 4


class Busy(ImnetprepError):
    """The error where another process writes the database."""


@contextmanager
def open_database(
    path: Path, query: str = "mode=rwc", *, wait_s: float = 5, **options: Any
) -> Iterator[sqlite3.Connection]:
    """The database at `path`, or in MEMORY.

    `query` is that of SQLite's addresses, `options` are those of `sqlite3.connect`. A writer in
    another process is waited for; after `wait_s` raises Busy. Raises OSError for what the machine
    refuses, and sqlite3.DatabaseError where the file is wrong.
    """
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise ImnetprepError(
            f"{path} is no file", hint=f"{move_away(path)}; then run the same command again"
        )
    place = "file::memory:" if path == MEMORY else path.absolute().as_uri()
    try:
        with closing(_connected(f"{place}?{query}", path, wait_s, options)) as database:
            yield database
    except sqlite3.DatabaseError as error:
        code, number = _code(error), None
        if code in _BUSY and (number := lock_refusal(path.parent)) is None:
            raise Busy(
                f"another imnetprep is at work in {path.parent}",
                hint="wait until it is done, or stop it first; if there is none, the file system"
                " refuses locks: name another place by --root",
            ) from error
        if code in (*_BUSY, *_OF_THE_MACHINE) or _is_bad_disk(error, path):
            number = _refusal(path, error) or number or _OF_THE_MACHINE.get(code, errno.EIO)
            raise OSError(number, os.strerror(number), str(path)) from error
        raise


def is_damage(error: sqlite3.DatabaseError | UnicodeDecodeError, path: Path) -> bool:
    """Is the file wrong, and neither the machine nor the program? (Text that is no UTF-8 is.)"""
    if isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError):
        return False
    if _code(error) in (*_OF_THE_MACHINE, *_BUSY):
        return False
    return not _is_bad_disk(error, path)


def _is_bad_disk(error: Exception, path: Path) -> bool:
    """Could the disk not be read, which SQLite calls damage (SQLITE_IOERR_CORRUPTFS)?"""
    if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_CORRUPT:
        return False
    try:
        with path.open("rb") as file:
            for start in range(0, path.stat().st_size, _PROBE_BYTES):
                os.pread(file.fileno(), _PROBE_BYTES, start)
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            for (table,) in database.execute(_TABLES).fetchall():
                for _ in database.execute(f"SELECT * FROM [{table}]"):  # noqa: S608 - it is only read
                    pass
            return bool(database.execute("PRAGMA integrity_check(1)").fetchone() == ("ok",))
    except sqlite3.DatabaseError:
        return False
    except OSError:
        return True


def _code(error: Exception) -> int:
    """The first byte of SQLite's result code."""
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)) & 0xFF


def _connected(
    address: str, path: Path, wait_s: float, options: dict[str, Any]
) -> sqlite3.Connection:
    database: sqlite3.Connection = sqlite3.connect(address, uri=True, timeout=0, **options)
    try:
        database.execute("PRAGMA user_version")  # takes the first lock
    except sqlite3.DatabaseError as error:
        code = _code(error)
        if code in (*_BUSY, sqlite3.SQLITE_IOERR) and not has_locks(path.parent):
            database.close()
            database = sqlite3.connect(f"{address}&nolock=1", uri=True, **options)
            database.execute("PRAGMA locking_mode = EXCLUSIVE")  # else WAL would want locks
        elif code in _OF_THE_MACHINE:
            database.close()
            raise
    database.execute(f"PRAGMA busy_timeout = {wait_s * 1000:.0f}")
    return database


def _refusal(path: Path, error: sqlite3.Error) -> int | None:
    """The number of the error with which the file system meets the same again; None: with none."""
    if getattr(error, "sqlite_errorcode", 0) in _OF_LOCKS:
        return lock_refusal(path.parent)
    try:
        with path.open("rb") as file:
            os.pread(file.fileno(), _PROBE_BYTES, 0)
        if getattr(error, "sqlite_errorcode", 0) not in _OF_READS:
            _write_beside(path)
    except OSError as refusal:
        return refusal.errno
    return None


def _write_beside(path: Path) -> None:
    """Open and write files as SQLite does beside `path`."""
    with ExitStack() as stack:
        for _ in range(_FILES_AT_ONCE):
            stack.enter_context(Path(os.devnull).open("rb"))
        file = stack.enter_context(tempfile.TemporaryFile(dir=path.parent))
        os.pwrite(file.fileno(), bytes(_PROBE_BYTES), 0)
        os.pwrite(file.fileno(), b"0", path.stat().st_size + _PROBE_BYTES)  # past `ulimit -f`
        getattr(os, "fdatasync", os.fsync)(file.fileno())  # macOS has no fdatasync
