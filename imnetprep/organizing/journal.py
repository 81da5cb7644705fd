"""What is done of unfinished splits: ranges and their samples, written after a sync covers them.

`journal.db` lies in `.organizing/` beside them and is never synced elsewhere. It has
a row for each split and stage, such as the spools of `train`; each is opened as a journal of its
own.
"""

# ruff: noqa: S608 - what is put together here is ours, to the last letter

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import astuple
from enum import StrEnum
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from imnetprep.catalog.datasets import Layout, Root, Split
from imnetprep.columns import ClassColumns, Columns, joined
from imnetprep.database import MEMORY, Busy, is_damage, open_database
from imnetprep.digests import Checksum
from imnetprep.external_sort import in_order
from imnetprep.extracting.sink import RangeRecord
from imnetprep.layouts.webdataset import Shard, parse_shard
from imnetprep.manifest import SampleRecord, packed
from imnetprep.messages import ImnetprepError, removal
from imnetprep.organizing.committer import committer
from imnetprep.plain_values import whole_number
from imnetprep.proving.receipt import Proof, parse_proof

_FORM = 4
_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS growth (
    split TEXT NOT NULL, stage TEXT NOT NULL,
    dataset TEXT NOT NULL, made_of TEXT NOT NULL, options TEXT NOT NULL,
    facts TEXT, proof TEXT, folder_inode INTEGER, PRIMARY KEY (split, stage)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS range (
    split TEXT NOT NULL, stage TEXT NOT NULL, start INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL, checksum TEXT, PRIMARY KEY (split, stage, start)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS samples (
    split TEXT NOT NULL, stage TEXT NOT NULL, start INTEGER NOT NULL, label INTEGER NOT NULL,
    {", ".join(f"{column} BLOB NOT NULL" for column in Columns._fields)},
    PRIMARY KEY (split, stage, label, start)
);
CREATE INDEX IF NOT EXISTS of_range ON samples (split, stage, start);
CREATE TABLE IF NOT EXISTS shard (
    split TEXT NOT NULL, stage TEXT NOT NULL, name TEXT NOT NULL, samples INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL, xxh128 TEXT NOT NULL, PRIMARY KEY (split, stage, name)
) WITHOUT ROWID;
PRAGMA user_version = {_FORM};
COMMIT;
"""
_SAMPLES = f"label, {', '.join(Columns._fields)} FROM samples"
_GROWING_QUERY = """
SELECT split, stage, dataset,
    (SELECT count(*) FROM range WHERE (split, stage) = (growth.split, growth.stage)),
    (SELECT coalesce(sum(length(xxh128)), 0) / 16 FROM samples
        WHERE (split, stage) = (growth.split, growth.stage)),
    (SELECT coalesce(sum(size_bytes), 0) FROM range
        WHERE (split, stage) = (growth.split, growth.stage)),
    folder_inode IS NOT NULL
FROM growth
"""
_ROW = "split = ? AND stage = ?"


class Stage(StrEnum):
    """What a split is made into: class folders, or spools and then shards in folders so named."""

    FOLDERS = "folders"
    SPOOL = "spool"
    SHARDS = "shards"

    @property
    def layout(self) -> Layout:
        """The layout of the split when it is organized."""
        return Layout.IMAGEFOLDER if self is Stage.FOLDERS else Layout.WEBDATASET


class Origin(NamedTuple):
    """What a split is made of; with another source it starts over.

    `dataset` is a fingerprint, `made_of` identifies the bytes, `options` are the words (JSON) on
    which the files depend beside them.
    """

    dataset: str
    made_of: str
    options: Mapping[str, Any]


class Whole(NamedTuple):
    """A split that is complete: `facts` for the receipt, the archive's proof, and which folder."""

    facts: Mapping[str, Any]
    proof: Proof | None
    folder_inode: int

    @property
    def receipt(self) -> Mapping[str, Any]:
        """The facts, and the proof if there is one."""
        return self.facts if self.proof is None else {**self.facts, "proof": self.proof.as_json()}

    def lies_in(self, folder: Path) -> bool:
        """Is `folder` there, and the very one that grew, whatever its name is now?"""
        return folder.exists() and folder.stat().st_ino == self.folder_inode


class Journal:
    """The open journal of one stage of a root. Use `open_journal`."""

    def __init__(self, database: sqlite3.Connection, stage: Stage, lock: threading.Lock) -> None:
        self._database, self.stage, self._lock = database, stage, lock
        self.committer = partial(committer, self.add)

    def at(self, stage: Stage) -> "Journal":
        """The open journal of another stage."""
        return Journal(self._database, stage, self._lock)

    def origin(self, split: Split) -> Origin | None:
        """What `split` was begun with; None: it was not."""
        row = self._select(split, "dataset, made_of, options FROM growth").fetchone()
        return None if row is None else Origin(row[0], row[1], _table(row[2]))

    def begin(self, split: Split, origin: Origin) -> None:
        """`split` starts from nothing."""
        dataset, made_of, options = origin
        with self._database as database:
            database.execute(
                "INSERT INTO growth (split, stage, dataset, made_of, options)"
                " VALUES (?, ?, ?, ?, ?)",
                [*self._row(split), dataset, made_of, json.dumps(options)],
            )

    def read_from(self, split: Split, files: str) -> bool:
        """Note that `split`, not whole yet, is read from these `files` now; was it, all along?"""
        is_begun = bool(self.done(split))
        row = self._database.execute(f"SELECT facts FROM growth WHERE {_ROW}", self._row(split))
        known_files = row.fetchone()[0]
        files = json.dumps(files if not is_begun or known_files == json.dumps(files) else None)
        with self._database as database:
            query = f"UPDATE growth SET facts = ? WHERE {_ROW}"
            database.execute(query, [files, *self._row(split)])
        return files != "null"

    def done(self, split: Split) -> set[int]:
        """Where the ranges start that are done."""
        return {start for (start,) in self._select(split, "start FROM range")}

    def add(self, batch: list[RangeRecord]) -> None:
        """Ranges are done, and synced. Safe beside `range_samples`."""
        with self._lock, self._database:
            for start, by_split, checksum in batch:
                for split, classes in by_split.items():
                    self._insert(split, start, classes, checksum)

    def add_shard(self, split: Split, shard: Shard, samples: Sequence[SampleRecord]) -> None:
        """A shard with these samples is whole, and synced."""
        with self._database as database:
            self._insert(split, len(self.shards(split)), packed(samples), None)
            row = [*self._row(split), *shard]
            database.execute("INSERT INTO shard VALUES (?, ?, ?, ?, ?, ?)", row)

    def shards(self, split: Split) -> tuple[Shard, ...]:
        """The shards that are whole, by name."""
        rows = self._select(split, f"{', '.join(Shard._fields)} FROM shard", "ORDER BY name")
        with _of_the_database():
            return tuple(parse_shard(dict(zip(Shard._fields, row, strict=True))) for row in rows)

    def range_samples(self, split: Split, start: int) -> list[SampleRecord]:
        """The samples of the range that starts there."""
        with self._lock:
            rows = self._select(split, _SAMPLES, "AND start = ?", start).fetchall()
        return [sample for row in rows for sample in _records(*row)]

    def checksums(self, split: Split) -> dict[int, Checksum]:
        """The checksums of ranges by their starts, of those that have one."""
        rows = self._select(split, "start, checksum FROM range", "AND checksum IS NOT NULL")
        return {start: _checksum(text) for start, text in rows}

    def samples(self, split: Split) -> Iterator[SampleRecord]:
        """All samples so far, range by range."""
        for row in self._select(split, _SAMPLES, "ORDER BY start"):
            yield from _records(*row)

    def columns(self, split: Split) -> Iterator[tuple[int, Columns]]:
        """All samples so far, class by class. Raises ValueError where a class has a name twice."""
        rows = self._select(split, _SAMPLES, "ORDER BY label")
        for label, parts in groupby(rows, key=itemgetter(0)):
            yield label, joined([_checked(*row) for row in parts])

    def ranked(self, split: Split, rank: Callable[[int, str], int]) -> Iterator[SampleRecord]:
        """All samples so far, sorted by `rank` of label and name, and not in memory."""
        items = ((rank(each.label, each.name), *each) for each in self.samples(split))
        return (SampleRecord._make(item[1:]) for item in in_order(items))

    def size_bytes(self, split: Split) -> int:
        """What the samples so far take."""
        rows = self._select(split, "coalesce(sum(size_bytes), 0) FROM range")
        with _of_the_database():
            return whole_number(rows.fetchone()[0])

    def mark_whole(
        self, folders: Mapping[Split, Path], *, facts: Mapping[str, Any], proof: Proof | None
    ) -> None:
        """The splits in `folders` are complete and proved so: from here on they only get names."""
        table = proof and proof.as_json()
        rows = [
            (json.dumps(facts), json.dumps(table), folder.stat().st_ino, *self._row(split))
            for split, folder in folders.items()
        ]
        query = f"UPDATE growth SET facts = ?, proof = ?, folder_inode = ? WHERE {_ROW}"
        with self._database as database:
            database.executemany(query, rows)

    def whole(self, split: Split, *, dataset: str) -> Whole | None:
        """The split that is whole and lacks its name or its manifest; None where it is not."""
        rest = "AND dataset = ? AND folder_inode IS NOT NULL"
        row = self._select(
            split, "facts, proof, folder_inode FROM growth", rest, dataset
        ).fetchone()
        if row is None:
            return None
        proof = _parsed(row[1])
        try:
            return Whole(_table(row[0]), None if proof is None else parse_proof(proof), row[2])
        except ValueError as error:
            raise sqlite3.DatabaseError(f"{split}: {error}") from error

    def forget(self, split: Split) -> None:
        """Drop all about `split`."""
        with self._database as database:
            for table in ("samples", "range", "shard", "growth"):
                database.execute(f"DELETE FROM {table} WHERE {_ROW}", self._row(split))

    def _select(
        self, split: Split, columns: str, rest: str = "", *values: int | str
    ) -> sqlite3.Cursor:
        """The `columns` of a table, of the rows that are of `split` and meet the `rest`."""
        query = f"SELECT {columns} WHERE {_ROW} {rest}"
        return self._database.execute(query, [*self._row(split), *values])

    def _row(self, split: Split) -> list[str]:
        return [split.value, self.stage.value]

    def _insert(
        self, split: Split, start: int, classes: ClassColumns, checksum: Checksum | None
    ) -> None:
        database, key = self._database, [*self._row(split), start]
        size_bytes = sum(columns.size_bytes for columns in classes.values())
        row = [*key, size_bytes, checksum and json.dumps(astuple(checksum))]
        database.execute("INSERT OR REPLACE INTO range VALUES (?, ?, ?, ?, ?)", row)
        database.execute(f"DELETE FROM samples WHERE {_ROW} AND start = ?", key)
        database.executemany(
            f"INSERT INTO samples VALUES (?, ?, ?, ?{', ?' * len(Columns._fields)})",
            ((*key, label, *columns) for label, columns in classes.items()),
        )


@contextmanager
def _of_the_database() -> Iterator[None]:
    """Take a value that cannot be for damage."""
    try:
        yield
    except ValueError as error:
        raise sqlite3.DatabaseError(str(error)) from error


def _parsed(text: Any) -> Any:
    """The JSON `text`. Raises sqlite3.DatabaseError where it is none."""
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise sqlite3.DatabaseError(f"JSON is wanted: {error}") from error


def _table(text: Any) -> Mapping[str, Any]:
    if not isinstance(table := _parsed(text), dict):
        raise sqlite3.DatabaseError("a JSON object is wanted")
    return table


def _checksum(text: Any) -> Checksum:
    match _parsed(text):
        case [str(kind), int(value), int(size_bytes)] if Checksum.is_known(kind):
            return Checksum(kind, value, size_bytes)
    raise sqlite3.DatabaseError("a checksum is wanted")


def _records(label: int, *row: bytes) -> Iterator[SampleRecord]:
    return (SampleRecord(label, *each) for each in _checked(label, *row).rows())


def _checked(label: int, *row: bytes) -> Columns:
    columns = Columns(*row)
    try:
        columns.check(in_shards=bool(columns.shards))
    except (ValueError, AttributeError, TypeError) as error:
        raise sqlite3.DatabaseError(f"class {label}: {error}") from error
    return columns


class _OtherForm(sqlite3.DatabaseError):
    """The journal was written by another version of imnetprep."""


def _is_begun(database: sqlite3.Connection) -> bool:
    """Does the journal have tables? Raises sqlite3.DatabaseError where its form is another one."""
    (form,) = database.execute("PRAGMA user_version").fetchone()
    if form != _FORM and database.execute("SELECT 1 FROM sqlite_master").fetchone():
        raise _OtherForm(f"it is of form {form}, not {_FORM}")
    return bool(form == _FORM)


@contextmanager
def open_journal(path: Path, stage: Stage = Stage.FOLDERS) -> Iterator[Journal]:
    """The journal at `path`, made where it is missing, as that of `stage`."""
    if path != MEMORY:
        path.parent.mkdir(parents=True, exist_ok=True)
    # The committer's thread and the main one use it in turn, never at once.
    with open_database(path, check_same_thread=False) as database:
        try:
            database.execute("PRAGMA synchronous = FULL")
            if not _is_begun(database):
                database.executescript(_SCHEMA)
            yield Journal(database, stage, threading.Lock())
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            if not is_damage(error, path):
                raise
            start_over = f"{removal(path.parent)}; the unfinished splits there start over"
            if isinstance(error, _OtherForm):
                raise ImnetprepError(
                    f"another version of imnetprep has written {path}: {error}",
                    hint=f"finish what is unfinished there with that version; or {start_over}",
                ) from error
            raise ImnetprepError(f"{path} is damaged: {error}", hint=start_over) from error


def journal_of(root: Root, stage: Stage = Stage.FOLDERS) -> AbstractContextManager[Journal]:
    """The journal of `root`, to be looked at; an empty one in memory where there is none."""
    return open_journal(root.journal if root.has_journal else MEMORY, stage)


class UnfinishedSplit(NamedTuple):
    """What the journal says of an unfinished split in one stage."""

    split: str
    stage: Stage
    dataset: str  # the fingerprint
    ranges: int
    samples: int
    size_bytes: int
    is_whole: bool


def read_unfinished(path: Path) -> list[UnfinishedSplit]:
    """The splits that the journal at `path` has, while another process may be writing it.

    Waits for nobody: what a writer has half done, alive or killed, is counted in. Raises
    sqlite3.DatabaseError where nothing can be read.
    """
    if not path.exists():
        return []
    try:
        try:
            return _read_unfinished(path, "mode=ro")
        except (Busy, OSError):  # a writer commits, or one that was killed did
            return _read_unfinished(path, "mode=ro&immutable=1")
    except (ValueError, TypeError) as error:  # no stage, or no UTF-8
        raise sqlite3.DatabaseError(str(error)) from error


def _read_unfinished(path: Path, query: str) -> list[UnfinishedSplit]:
    with open_database(path, query, wait_s=0) as database:
        rows = database.execute(_GROWING_QUERY).fetchall() if _is_begun(database) else []
    return [
        UnfinishedSplit(split, Stage(stage), dataset, ranges, samples, size_bytes, bool(is_whole))
        for split, stage, dataset, ranges, samples, size_bytes, is_whole in rows
    ]
