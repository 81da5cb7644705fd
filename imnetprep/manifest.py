"""The list of all samples under a root: one SQLite file, portable, the truth that verbs read.

It says which dataset the root holds (with the definition of one that is not built in), which
splits are there, and for each sample its label, name, size and xxh128 digest.
"""

import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from imnetprep.catalog.datasets import DEFAULT, Dataset, Split, Synset, load_dataset, parse_dataset
from imnetprep.errors import ImnetprepError
from imnetprep.fs import written_whole
from imnetprep.roots import Root

# The first byte of SQLite's result code.
_OF_THE_MACHINE = (
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
)
_SCHEMA_VERSION = 1
_SCHEMA = f"""
CREATE TABLE dataset (name TEXT NOT NULL, built_in INTEGER NOT NULL);
CREATE TABLE definition (file TEXT PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE class (label INTEGER PRIMARY KEY, wnid TEXT NOT NULL, words TEXT NOT NULL);
CREATE TABLE split (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, layout TEXT NOT NULL,
    samples INTEGER NOT NULL, size_bytes INTEGER NOT NULL, UNIQUE (name, layout)
);
CREATE TABLE sample (
    split INTEGER NOT NULL REFERENCES split, label INTEGER NOT NULL REFERENCES class,
    name TEXT NOT NULL, size_bytes INTEGER NOT NULL, xxh128 BLOB NOT NULL,
    PRIMARY KEY (split, label, name)
) WITHOUT ROWID;
PRAGMA user_version = {_SCHEMA_VERSION};
"""


class SampleRecord(NamedTuple):
    """One sample as the manifest has it. `xxh128` is the digest's 16 bytes."""

    label: int
    name: str
    size_bytes: int
    xxh128: bytes


class SplitRecord(NamedTuple):
    """An organized split."""

    split: Split
    layout: str
    samples: int
    size_bytes: int


class Manifest:
    """An open manifest. Use `open_manifest` or `create_manifest`."""

    def __init__(self, database: sqlite3.Connection, path: Path) -> None:
        self._database = database
        self.path = path

    def dataset(self) -> Dataset:
        """The dataset that the root holds."""
        row = self._database.execute("SELECT name, built_in FROM dataset").fetchone()
        if row is None or not isinstance(row[0], str):
            raise self._damaged("it names no dataset")
        name, built_in = row
        if built_in:
            return load_dataset(name)
        bodies = dict(self._database.execute("SELECT file, body FROM definition"))
        return parse_dataset(bodies.__getitem__)

    def synsets(self) -> tuple[Synset, ...]:
        """The classes, in the order of their labels."""
        return self.dataset().synsets

    def splits(self) -> dict[Split, SplitRecord]:
        """The splits that are organized under the root."""
        rows = self._database.execute("SELECT name, layout, samples, size_bytes FROM split")
        try:
            return {Split(row[0]): SplitRecord(Split(row[0]), *row[1:]) for row in rows}
        except ValueError as error:
            raise self._damaged(str(error)) from error

    def samples(self, split: Split, label: int) -> Iterator[SampleRecord]:
        """The samples of `split` with `label` in the order of their names."""
        rows = self._database.execute(
            "SELECT label, name, size_bytes, xxh128 FROM sample"
            " WHERE split = (SELECT id FROM split WHERE name = ?) AND label = ? ORDER BY name",
            [split.value, label],
        )
        for row in rows:
            sample = SampleRecord._make(row)
            if not isinstance(sample.name, str) or "/" in sample.name or "\0" in sample.name:
                raise self._damaged(f"{sample.name!r} is no sample's name")
            if type(sample.size_bytes) is not int or type(sample.xxh128) is not bytes:
                raise self._damaged(f"{sample.name} has no size or no digest")
            yield sample

    def names(self, split: Split, label: int) -> str:
        """The names of the samples of `split` with `label`, in order, a newline between two.

        One string a class: a million samples are read without a million Python objects.
        """
        row = self._database.execute(
            "SELECT group_concat(name, char(10)) FROM (SELECT name FROM sample"
            " WHERE split = (SELECT id FROM split WHERE name = ?) AND label = ? ORDER BY name)",
            [split.value, label],
        ).fetchone()
        return row[0] or ""

    def _damaged(self, what: str) -> ImnetprepError:
        return ImnetprepError(
            f"{self.path} is damaged: {what}", hint="move it away and organize again"
        )

    def drop_split(self, split: Split) -> None:
        """Forget a split and its samples."""
        with self._database as database:
            database.execute(
                "DELETE FROM sample WHERE split = (SELECT id FROM split WHERE name = ?)",
                [split.value],
            )
            database.execute("DELETE FROM split WHERE name = ?", [split.value])

    def add_split(self, split: Split, layout: str, samples: Iterable[SampleRecord]) -> None:
        """Add a whole split in one transaction. `samples` in any order."""
        with self._database as database:
            key = database.execute(
                "INSERT INTO split (name, layout, samples, size_bytes) VALUES (?, ?, 0, 0)",
                [split.value, layout],
            ).lastrowid
            database.executemany(
                "INSERT INTO sample VALUES (?, ?, ?, ?, ?)", ((key, *sample) for sample in samples)
            )
            database.execute(
                "UPDATE split SET (samples, size_bytes) ="
                " (SELECT count(*), coalesce(sum(size_bytes), 0) FROM sample WHERE split = id)"
                " WHERE id = ?",
                [key],
            )


@contextmanager
def open_manifest(path: Path, *, write: bool = False) -> Iterator[Manifest]:
    """The manifest at `path`. Raises ImnetprepError where there is none or it cannot be read."""
    if not path.exists():
        raise ImnetprepError(
            f"{path.parent} holds no dataset yet: there is no {path.name}",
            hint="imnetprep download, or imnetprep organize --archives DIR; --root names the root",
        )
    # What a killed writer left in SQLite's journal is rolled back by who opens next, not read-only.
    write = write or path.with_name(f"{path.name}-journal").exists()
    database = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={'rw' if write else 'ro'}", uri=True
    )
    try:
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version != _SCHEMA_VERSION:
            raise ImnetprepError(
                f"{path} has form {version}; this imnetprep reads form {_SCHEMA_VERSION}",
                hint="take the imnetprep that wrote it",
            )
        database.execute("PRAGMA synchronous = FULL")
        yield Manifest(database, path)
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        if not is_damage(error):
            raise
        raise Manifest(database, path)._damaged(str(error)) from error
    finally:
        database.close()


def is_damage(error: sqlite3.DatabaseError | UnicodeDecodeError) -> bool:
    """Is it the file that is wrong, and neither the machine nor we? (Text that is no UTF-8 is.)"""
    if isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError):
        return False
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF not in _OF_THE_MACHINE


def create_manifest(path: Path, dataset: Dataset) -> None:
    """Bind the root of `path` to `dataset`; do nothing where it is bound to it already.

    Raises ImnetprepError where the root holds another dataset.
    """
    if path.exists():
        with open_manifest(path) as manifest:
            refuse_other_dataset(manifest, dataset)
        return
    definition = {} if dataset.built_in else dataset.definition()
    classes = ((synset.label, synset.wnid, synset.words) for synset in dataset.synsets)
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "manifest.db"
        with closing(sqlite3.connect(draft)) as database:
            database.executescript(_SCHEMA)
            database.execute("INSERT INTO dataset VALUES (?, ?)", [dataset.name, dataset.built_in])
            database.executemany("INSERT INTO definition VALUES (?, ?)", definition.items())
            database.executemany("INSERT INTO class VALUES (?, ?, ?)", classes)
            database.commit()
        with written_whole(path) as file:
            file.write(draft.read_bytes())


def dataset_for(path: Path, name: str | None) -> Dataset:
    """The dataset that the root of the manifest at `path` holds, or is to hold: `name`, or ours.

    Raises ImnetprepError where the root holds another one than `name`.
    """
    if not path.exists():
        return load_dataset(name or DEFAULT)
    with open_manifest(path) as manifest:
        if name is not None:
            refuse_other_dataset(manifest, load_dataset(name))
        return manifest.dataset()


def organized_splits(root: Root) -> dict[Split, SplitRecord]:
    """The splits that the manifest of `root` lists and whose folders are there."""
    if not root.manifest.exists():
        return {}
    with open_manifest(root.manifest) as manifest:
        splits = manifest.splits()
    return {split: record for split, record in splits.items() if root.split(split).exists()}


def refuse_other_dataset(manifest: Manifest, dataset: Dataset) -> None:
    """Raise ImnetprepError unless the root of `manifest` holds `dataset`."""
    held = manifest.dataset()
    if held.fingerprint != dataset.fingerprint:
        other = "another " if held.name == dataset.name else ""
        raise ImnetprepError(
            f"{manifest.path.parent} holds {other}{held.name}, not {dataset.name}",
            hint="leave --dataset out, or take another --root",
        )
