"""What is done of a split that grows: ranges and their samples, written after a sync covers them.

`journal.db` lies in `.organizing/` beside the growing split and is never synced elsewhere.
"""

# ruff: noqa: S608 - what is put together here is ours, to the last letter

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import astuple
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from imnetprep.catalog.datasets import Split
from imnetprep.columns import ClassColumns, Columns, joined
from imnetprep.digests import Checksum
from imnetprep.external_sort import in_order
from imnetprep.extracting.sink import Done
from imnetprep.layouts.webdataset import Shard
from imnetprep.manifest import SampleRecord, is_damage, packed
from imnetprep.messages import ImnetprepError, removal

_FORM = 3
_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS split (
    name TEXT PRIMARY KEY, dataset TEXT NOT NULL, archive TEXT NOT NULL,
    proof TEXT, folder_inode INTEGER
);
CREATE TABLE IF NOT EXISTS range (
    split TEXT NOT NULL, start INTEGER NOT NULL, size_bytes INTEGER NOT NULL,
    checksum TEXT, PRIMARY KEY (split, start)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS samples (
    split TEXT NOT NULL, start INTEGER NOT NULL, label INTEGER NOT NULL,
    {", ".join(f"{column} BLOB NOT NULL" for column in Columns._fields)},
    PRIMARY KEY (split, label, start)
);
CREATE INDEX IF NOT EXISTS of_range ON samples (split, start);
CREATE TABLE IF NOT EXISTS shard (
    split TEXT NOT NULL, name TEXT NOT NULL, samples INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL, xxh128 TEXT NOT NULL, PRIMARY KEY (split, name)
) WITHOUT ROWID;
PRAGMA user_version = {_FORM};
COMMIT;
"""
_COLUMNS = ", ".join(Columns._fields)


class Whole(NamedTuple):
    """A split that is complete: how its archive is proved, and which folder it is."""

    proof: Mapping[str, Any]
    folder_inode: int

    def lies_in(self, folder: Path) -> bool:
        """Is `folder` there, and the very one that grew, whatever its name is now?"""
        return folder.exists() and folder.stat().st_ino == self.folder_inode


class Journal:
    """The open journal of one root. Use `open_journal`."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._lock = threading.Lock()

    def has_begun(self, split: Split, *, dataset: str, archive: str) -> bool:
        """Does `split` grow, from these very bytes, as this very dataset?"""
        query = "SELECT 1 FROM split WHERE name = ? AND dataset = ? AND archive = ?"
        row = self._database.execute(query, [split.value, dataset, archive]).fetchone()
        return row is not None

    def grows_from(self, split: Split) -> tuple[str, str] | None:
        """The `dataset` and the `archive` with which `split` was begun; None: it was not."""
        query = "SELECT dataset, archive FROM split WHERE name = ?"
        row = self._database.execute(query, [split.value]).fetchone()
        return None if row is None else (row[0], row[1])

    def made_as(self, split: Split) -> str | None:
        """In which other form than published `split` grows; "": in none, None: it does not grow."""
        begun = self.grows_from(split)
        return None if begun is None else begun[1].partition("\n")[2]

    def begin(self, split: Split, *, dataset: str, archive: str) -> None:
        """`split` starts from nothing. `dataset` and `archive` identify what it grows from."""
        with self._database as database:
            database.execute(
                "INSERT INTO split (name, dataset, archive) VALUES (?, ?, ?)",
                [split.value, dataset, archive],
            )

    def done(self, split: Split) -> set[int]:
        """Where the ranges start that are done."""
        rows = self._database.execute("SELECT start FROM range WHERE split = ?", [split.value])
        return {start for (start,) in rows}

    def add(self, batch: list[Done]) -> None:
        """Ranges are done, and synced. Safe beside `range_samples`."""
        with self._lock, self._database as database:
            for start, by_split, checksum in batch:
                for split, packed in by_split.items():
                    told = None if checksum is None else json.dumps(astuple(checksum))
                    _insert(database, split, start, packed, told)

    def add_shard(self, split: Split, shard: Shard, samples: Sequence[SampleRecord]) -> None:
        """A shard with these samples is whole, and synced."""
        with self._database as database:
            _insert(database, split, len(self.shards(split)), packed(samples), None)
            database.execute("INSERT INTO shard VALUES (?, ?, ?, ?, ?)", [split.value, *shard])

    def shards(self, split: Split) -> tuple[Shard, ...]:
        """The shards that are whole, by name."""
        rows = self._database.execute(
            "SELECT name, samples, size_bytes, xxh128 FROM shard WHERE split = ? ORDER BY name",
            [split.value],
        )
        return tuple(map(Shard._make, rows))

    def range_samples(self, split: Split, start: int) -> list[SampleRecord]:
        """The samples of the range that starts there."""
        query = f"SELECT label, {_COLUMNS} FROM samples WHERE split = ? AND start = ?"
        with self._lock:
            rows = self._database.execute(query, [split.value, start]).fetchall()
        return [sample for row in rows for sample in _records(*row)]

    def checksums(self, split: Split) -> dict[int, Checksum]:
        """The checksums of ranges by their starts, of those that have one."""
        query = "SELECT start, checksum FROM range WHERE split = ? AND checksum IS NOT NULL"
        rows = self._database.execute(query, [split.value])
        return {start: Checksum(*json.loads(checksum)) for start, checksum in rows}

    def samples(self, split: Split) -> Iterator[SampleRecord]:
        """All samples so far, range by range."""
        query = f"SELECT label, {_COLUMNS} FROM samples WHERE split = ? ORDER BY start"
        for row in self._database.execute(query, [split.value]):
            yield from _records(*row)

    def columns(self, split: Split) -> Iterator[tuple[int, Columns]]:
        """The same, class by class. Raises ValueError where ranges have a name of one twice."""
        query = f"SELECT label, {_COLUMNS} FROM samples WHERE split = ? ORDER BY label"
        rows = self._database.execute(query, [split.value])
        for label, parts in groupby(rows, key=itemgetter(0)):
            yield label, joined([_checked(*row) for row in parts])

    def ranked(self, split: Split, rank: Callable[[int, str], int]) -> Iterator[SampleRecord]:
        """All samples so far, sorted by `rank` of label and name, and not in memory."""
        keyed = ((rank(each.label, each.name), *each) for each in self.samples(split))
        return (SampleRecord._make(item[1:]) for item in in_order(keyed))

    def size_bytes(self, split: Split) -> int:
        """What the samples so far take."""
        query = "SELECT coalesce(sum(size_bytes), 0) FROM range WHERE split = ?"
        return int(self._database.execute(query, [split.value]).fetchone()[0])

    def mark_whole(self, folders: Mapping[Split, Path], proof: Mapping[str, Any]) -> None:
        """The splits in `folders` are complete and proved so: from here on they only get names."""
        rows = [
            (json.dumps(proof), folder.stat().st_ino, split.value)
            for split, folder in folders.items()
        ]
        with self._database as database:
            database.executemany(
                "UPDATE split SET proof = ?, folder_inode = ? WHERE name = ?", rows
            )

    def whole(self, split: Split, *, dataset: str) -> Whole | None:
        """The split that is whole and lacks its name or its manifest; None where it is not."""
        row = self._database.execute(
            "SELECT proof, folder_inode FROM split WHERE name = ? AND dataset = ?",
            [split.value, dataset],
        ).fetchone()
        return None if row is None or row[0] is None else Whole(json.loads(row[0]), row[1])

    def forget(self, split: Split) -> None:
        """Drop all about `split`."""
        with self._database as database:
            database.execute("DELETE FROM samples WHERE split = ?", [split.value])
            database.execute("DELETE FROM range WHERE split = ?", [split.value])
            database.execute("DELETE FROM shard WHERE split = ?", [split.value])
            database.execute("DELETE FROM split WHERE name = ?", [split.value])


def _insert(
    database: sqlite3.Connection,
    split: Split,
    start: int,
    packed: ClassColumns,
    checksum: str | None,
) -> None:
    size_bytes = sum(columns.size_bytes for columns in packed.values())
    row = [split.value, start, size_bytes, checksum]
    database.execute("INSERT OR REPLACE INTO range VALUES (?, ?, ?, ?)", row)
    database.execute("DELETE FROM samples WHERE split = ? AND start = ?", row[:2])
    database.executemany(
        "INSERT INTO samples VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        ((split.value, start, label, *columns) for label, columns in packed.items()),
    )


def _records(label: int, *row: bytes) -> Iterator[SampleRecord]:
    return (SampleRecord(label, *each) for each in _checked(label, *row).rows())


def _checked(label: int, *row: bytes) -> Columns:
    columns = Columns(*row)
    try:
        columns.check(in_shards=bool(columns.shards))
    except (ValueError, AttributeError, TypeError) as error:
        raise sqlite3.DatabaseError(f"class {label}: {error}") from error
    return columns


@contextmanager
def open_journal(path: Path) -> Iterator[Journal]:
    """The journal at `path`, made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The committer's thread and the main one use it in turn, never at once.
    with closing(sqlite3.connect(path, check_same_thread=False)) as database:
        try:
            database.execute("PRAGMA synchronous = FULL")
            (form,) = database.execute("PRAGMA user_version").fetchone()
            if form != _FORM:
                if database.execute("SELECT 1 FROM sqlite_master").fetchone():
                    raise sqlite3.DatabaseError(f"it is of form {form}, not {_FORM}")
                database.executescript(_SCHEMA)
            yield Journal(database)
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            if not is_damage(error):
                if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
                    raise ImnetprepError(
                        f"another imnetprep is at work in {path.parent}",
                        hint="wait until it is done, or stop it first",
                    ) from error
                raise
            raise ImnetprepError(
                f"{path} is damaged: {error}",
                hint=f"{removal(path.parent)}; the unfinished splits there start over",
            ) from error
