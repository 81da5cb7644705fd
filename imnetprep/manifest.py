"""The list of all samples under a root: one SQLite file, portable, the truth that verbs read.

It says which dataset the root holds (with the definition of one that is not built in), which
splits are there in which layout, and for each sample its label, name, size and xxh128 digest, what
was done to it, and its place in a shard. The samples of a class are one row: `columns`.
"""

# ruff: noqa: S608 - what is put together here is ours, to the last letter

import os
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Self

from imnetprep.catalog.datasets import (
    BUILT_IN,
    DEFAULT,
    Dataset,
    Layout,
    Root,
    Split,
    Synset,
    load_dataset,
    parse_dataset,
)
from imnetprep.columns import Columns, Row, joined, pack
from imnetprep.database import is_damage, open_database
from imnetprep.digests import running_xxh128, xxh128
from imnetprep.external_sort import in_order
from imnetprep.fs import written_whole
from imnetprep.machine import named
from imnetprep.messages import ImnetprepError, WrongUsage, count, move_away, shell_command
from imnetprep.plain_values import plain_text, whole_number

_JOURNAL_AND_NO_WAL = b"\x01\x01"
_OTHER_ROOT = "name another --root, or the dataset that it holds"
_SCHEMA_VERSION = 3
_SCHEMA = f"""
CREATE TABLE dataset (name TEXT NOT NULL, built_in INTEGER NOT NULL);
CREATE TABLE definition (file TEXT PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE class (label INTEGER PRIMARY KEY, wnid TEXT NOT NULL, words TEXT NOT NULL);
CREATE TABLE split (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, layout TEXT NOT NULL,
    samples INTEGER NOT NULL, size_bytes INTEGER NOT NULL, change TEXT, UNIQUE (name, layout)
);
CREATE TABLE samples (
    split INTEGER NOT NULL REFERENCES split, label INTEGER NOT NULL REFERENCES class,
    {", ".join(f"{column} BLOB NOT NULL" for column in Columns._fields)},
    PRIMARY KEY (split, label)
);
PRAGMA user_version = {_SCHEMA_VERSION};
"""
_OF_SPLIT = "split = (SELECT id FROM split WHERE name = ? AND layout = ?)"
# A sample takes some 300 bytes; packed, 60.
_PACKED_AT_ONCE = 50_000


class SampleRecord(NamedTuple):
    """One sample as the manifest has it. `xxh128` is the digest's 16 bytes.

    `change` is what was done to the image; None: these are the published bytes. A sample in a
    shard says which, and where in it its body starts.
    """

    label: int
    name: str
    size_bytes: int
    xxh128: bytes
    change: str | None = None
    shard: int | None = None
    offset_bytes: int | None = None

    @classmethod
    def of_body(cls, label: int, name: str, body: bytes | memoryview) -> Self:
        """The record of `body`, an image as published."""
        return cls(label, name, len(body), xxh128(body))

    def is_right(self, body: bytes | memoryview) -> bool:
        """Is `body` the image, to the bit?"""
        return xxh128(body) == self.xxh128


class SplitRecord(NamedTuple):
    """An organized split. `change` is what was asked to be done to its images, None: nothing."""

    split: Split
    layout: Layout
    samples: int
    size_bytes: int
    change: str | None = None


class OtherForm(ImnetprepError):
    """The manifest is of another version of imnetprep."""


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
            if name not in BUILT_IN:  # a path, say, of a file that is not the manifest's
                raise self._damaged(f"no dataset called {name!r} is built in")
            return load_dataset(name)
        bodies = dict(self._database.execute("SELECT file, body FROM definition"))

        def read(file: str) -> bytes:
            if not isinstance(body := bodies.get(file), bytes):
                raise self._damaged(f"it lacks {file}, of {name}")
            return body

        return parse_dataset(read)

    def synsets(self) -> tuple[Synset, ...]:
        """The classes, in the order of their labels."""
        return self.dataset().synsets

    def splits(self) -> dict[tuple[Split, Layout], SplitRecord]:
        """The splits that are organized under the root, each in each of its layouts."""
        rows = self._database.execute("SELECT name, layout, samples, size_bytes, change FROM split")
        try:
            records = [_split_record(*row) for row in rows]
        except ValueError as error:
            raise self._damaged(str(error)) from error
        return {(record.split, record.layout): record for record in records}

    def samples(self, record: SplitRecord, label: int) -> Iterator[SampleRecord]:
        """The samples of a split with `label` in the order of their names."""
        for _, columns in self._columns(record, "AND label = ?", label):
            yield from (SampleRecord(label, *row) for row in columns.rows())

    def columns(self, record: SplitRecord) -> Iterator[tuple[int, Columns]]:
        """The samples of a split, class by class: its label and its columns."""
        return self._columns(record, "ORDER BY label")

    def _columns(
        self, record: SplitRecord, condition: str, *values: int
    ) -> Iterator[tuple[int, Columns]]:
        rows = self._database.execute(
            f"SELECT label, {', '.join(Columns._fields)} FROM samples"
            f" WHERE {_OF_SPLIT} {condition}",
            [record.split, record.layout, *values],
        )
        for label, *row in rows:
            columns = Columns(*row)
            try:
                columns.check(in_shards=record.layout.in_shards)
            except ValueError as error:
                raise self._damaged(f"{record.split} class {label}: {error}") from error
            yield label, columns

    def _damaged(self, problem: str) -> ImnetprepError:
        adopt = shell_command("imnetprep", "adopt", self.path.parent)
        return ImnetprepError(
            f"{self.path} is damaged: {problem}", hint=f"{move_away(self.path)}; then {adopt}"
        )

    def counts(self, record: SplitRecord) -> dict[int, int]:
        """How many samples of a split each label has."""
        rows = self._database.execute(
            f"SELECT label, length(xxh128) / 16 FROM samples WHERE {_OF_SPLIT}",
            [record.split, record.layout],
        )
        return dict(rows)

    def shuffled(
        self, record: SplitRecord, key: Callable[[int, str], bytes]
    ) -> Iterator[SampleRecord]:
        """The samples of a split, sorted by `key` of their label and name."""
        items = ((key(sample.label, sample.name), *sample) for sample in self._all(record))
        return (SampleRecord._make(item[1:]) for item in in_order(items))

    def in_shards(self, record: SplitRecord) -> Iterator[SampleRecord]:
        """The samples of a sharded split as they lie in its shards."""
        items = ((sample.shard, sample.offset_bytes, *sample) for sample in self._all(record))
        return (SampleRecord._make(item[2:]) for item in in_order(items))

    def _all(self, record: SplitRecord) -> Iterator[SampleRecord]:
        for label, columns in self.columns(record):
            yield from (SampleRecord(label, *row) for row in columns.rows())

    def fingerprint(self, record: SplitRecord, *, with_places: bool = False) -> str:
        """What two splits share only if they are the same images, to the byte.

        `with_places`: at the same places in their shards, too.
        """
        digest = running_xxh128()
        for label, columns in self.columns(record):
            images = columns.names, columns.xxh128, columns.changes
            facts = label, *(columns if with_places else images)
            digest.update(repr(facts).encode())
        return digest.hexdigest()

    def check_form(self) -> None:
        """Raise ImnetprepError unless the file, which a stranger may have made, has our tables.

        No trigger, no view; no page in two places, which would make a small file endless.
        """
        of_form = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name"
        with closing(sqlite3.connect(":memory:")) as fresh:
            fresh.executescript(_SCHEMA)
            if self._database.execute(of_form).fetchall() != fresh.execute(of_form).fetchall():
                raise self._damaged("its tables are not those of a manifest")
        ((found,),) = self._database.execute("PRAGMA quick_check(1)")
        if found != "ok":
            raise self._damaged(found.splitlines()[-1])

    def copy_to(self, path: Path) -> None:
        """Write a snapshot to `path`, whoever writes meanwhile; writers wait for a short time.

        `path` is absent or empty; an interrupted copy may be half there.
        """
        place = os.fsencode(path.absolute())  # which need not be UTF-8
        self._database.execute("VACUUM INTO CAST(? AS TEXT)", [place])

    def drop_split(self, split: Split, layout: Layout) -> None:
        """Forget a split in one layout, and its samples."""
        with self._database:
            self._drop(split, layout)

    def _drop(self, split: Split, layout: Layout) -> None:
        execute = self._database.execute
        execute(f"DELETE FROM samples WHERE {_OF_SPLIT}", [split, layout])
        execute("DELETE FROM split WHERE name = ? AND layout = ?", [split, layout])

    def add_split(
        self,
        split: Split,
        layout: Layout,
        samples: Iterable[SampleRecord],
        *,
        change: str | None = None,
    ) -> None:
        """Add a whole split in one transaction. `samples` in any order, no two of one name."""
        self.add_columns(split, layout, packed(samples).items(), change=change)

    def add_columns(
        self,
        split: Split,
        layout: Layout,
        classes: Iterable[tuple[int, Columns]],
        *,
        change: str | None = None,
        replace: bool = False,
    ) -> None:
        """Add a split of packed samples, each label once; `replace` one that is listed already."""
        with self._database as database:
            if replace:
                self._drop(split, layout)
            key = database.execute(
                "INSERT INTO split (name, layout, samples, size_bytes, change)"
                " VALUES (?, ?, 0, 0, ?)",
                [split, layout, change],
            ).lastrowid
            samples = size_bytes = 0
            for label, columns in classes:
                database.execute(
                    "INSERT INTO samples VALUES (?, ?, ?, ?, ?, ?, ?, ?)", [key, label, *columns]
                )
                samples, size_bytes = samples + columns.samples, size_bytes + columns.size_bytes
            database.execute(
                "UPDATE split SET samples = ?, size_bytes = ? WHERE id = ?",
                [samples, size_bytes, key],
            )


def _split_record(
    name: str, layout: str, samples: object, size_bytes: object, change: object
) -> SplitRecord:
    return SplitRecord(
        Split(name),
        Layout(layout),
        whole_number(samples),
        whole_number(size_bytes),
        None if change is None else plain_text(change),
    )


def packed(samples: Iterable[SampleRecord]) -> dict[int, Columns]:
    """The columns of each label, in their order. Raises ValueError where a class has a name twice.

    A part at a time: as records, a million are too many to hold.
    """
    stream, parts = iter(samples), defaultdict[int, list[Columns]](list)
    while by_label := _by_label(islice(stream, _PACKED_AT_ONCE)):
        for label, rows in by_label.items():
            parts[label].append(pack(rows))
    return {label: joined(parts.pop(label)) for label in sorted(parts)}


def _by_label(samples: Iterable[SampleRecord]) -> dict[int, list[Row]]:
    rows = defaultdict[int, list[Row]](list)
    for sample in samples:
        rows[sample.label].append(sample[1:])
    return rows


@contextmanager
def open_manifest(path: Path, *, write: bool = False, wait_s: float = 5) -> Iterator[Manifest]:
    """The manifest at `path`. Raises ImnetprepError where there is none or it cannot be read.

    A writer in another process is waited for; after `wait_s` raises Busy.
    """
    if not path.exists():
        raise ImnetprepError(
            f"{path.parent} holds no dataset yet: there is no {path.name}",
            hint="imnetprep download, or imnetprep organize --archives DIR; --root names the root",
        )
    # What a killed writer left in SQLite's journal is rolled back by who opens next, not read-only.
    write = write or path.with_name(f"{path.name}-journal").exists()
    mode = "mode=rw" if write else "mode=ro"
    with open_database(path, mode, wait_s=wait_s) as database:
        try:
            version = database.execute("PRAGMA user_version").fetchone()[0]
            if version != _SCHEMA_VERSION:
                raise OtherForm(
                    f"{path} has form {version}; this imnetprep reads form {_SCHEMA_VERSION}",
                    hint="use the version of imnetprep that wrote it",
                )
            database.execute("PRAGMA synchronous = FULL")
            yield Manifest(database, path)
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            if not is_damage(error, path):
                raise
            raise Manifest(database, path)._damaged(str(error)) from error


@contextmanager
def open_foreign_manifest(path: Path) -> Iterator[Manifest]:
    """The manifest at `path`, which a stranger may have made, in a folder that only we write.

    Raises ImnetprepError where it is none of ours, or its dataset cannot be read.
    """
    with named(path), path.open("rb") as file:
        if file.read(20)[18:] != _JOURNAL_AND_NO_WAL:  # opening it would write beside it
            raise ImnetprepError(f"{path} is no SQLite file of ours", hint="")
    with open_manifest(path) as manifest:
        manifest.check_form()
        _ = manifest.dataset().fingerprint  # reads all of its definition
        yield manifest


def create_manifest(path: Path, dataset: Dataset, *, hint: str = _OTHER_ROOT) -> None:
    """Bind the root of `path` to `dataset`; do nothing where it is bound to it already.

    A root that was bound to images of one's own, and has none of them, is bound anew. Raises
    ImnetprepError where it holds another dataset.
    """
    if path.exists():
        with open_manifest(path) as manifest:
            is_bound = not (dataset.is_own and is_vacant(manifest))
            if is_bound or manifest.dataset().fingerprint == dataset.fingerprint:
                refuse_other_dataset(manifest, dataset, hint=hint)
                return
    with manifest_written(path, dataset):
        pass


@contextmanager
def manifest_written(path: Path, dataset: Dataset) -> Iterator[Manifest]:
    """A new manifest that appears under `path` when the block ends, or not at all.

    The same splits, added in the same order, make the same bytes (with the same SQLite).
    """
    definition = {} if dataset.built_in else dataset.definition()
    classes = ((synset.label, synset.wnid, synset.words) for synset in dataset.synsets)
    with written_whole(path) as file, open_database(Path(file.name)) as database:
        # It is whole or absent by its name, so no journal need lie beside it.
        database.executescript(f"PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF; {_SCHEMA}")
        database.execute("INSERT INTO dataset VALUES (?, ?)", [dataset.name, dataset.built_in])
        database.executemany("INSERT INTO definition VALUES (?, ?)", definition.items())
        database.executemany("INSERT INTO class VALUES (?, ?, ?)", classes)
        database.commit()
        yield Manifest(database, path)


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


def organized_splits(root: Root) -> dict[tuple[Split, Layout], SplitRecord]:
    """The splits that the manifest of `root` lists and whose folders are there."""
    if not root.manifest.exists():
        return {}
    with open_manifest(root.manifest) as manifest:
        splits = manifest.splits()
    return {key: record for key, record in splits.items() if root.split(*key).exists()}


def splits_in(root: Root, layout: Layout) -> dict[Split, SplitRecord]:
    """The organized splits of one layout."""
    splits = organized_splits(root).items()
    return {split: record for (split, each), record in splits if each is layout}


def pick_split(
    manifest: Manifest, root: Root, split: Split, *, layout: Layout | None
) -> SplitRecord | None:
    """`split` in the layout that was asked for, or in the only one there is; None: not organized.

    One whose folder is gone counts where there is no other. Raises WrongUsage where two are there.
    """
    keys = [key for key in manifest.splits() if key[0] == split and layout in (None, key[1])]
    on_disk = [key for key in keys if root.split(*key).exists()] or keys
    if len(on_disk) > 1:
        names = [each.value for _, each in on_disk]
        raise WrongUsage(
            f"{root.path} holds {split} as {' and as '.join(names)}",
            hint=f"--layout {' or --layout '.join(names)}",
        )
    return manifest.splits()[on_disk[0]] if on_disk else None


class NoSplit(ImnetprepError):
    """A split is there in no layout."""


def require_split(
    manifest: Manifest, root: Root, split: Split, *, layout: Layout | None
) -> SplitRecord:
    """The `split` that `pick_split` picks. Raises ImnetprepError where it holds no sample."""
    record = pick_split(manifest, root, split, layout=layout)
    if record is None or not record.samples:
        form, words = (f" as {layout}", f" --layout {layout}") if layout else ("", "")
        has_layouts = any(name == split for name, _ in manifest.splits())
        raise (ImnetprepError if has_layouts else NoSplit)(
            f"{root.path} has no {split} split{form} yet",
            hint=(
                f"adopt a folder that has {split}, or divide one into train and val"
                if manifest.dataset().is_own
                else f"imnetprep organize --split {split}{words}"
            ),
        )
    return record


def refuse_other_dataset(manifest: Manifest, dataset: Dataset, *, hint: str = _OTHER_ROOT) -> None:
    """Raise ImnetprepError unless the root of `manifest` holds `dataset`."""
    root_dataset = manifest.dataset()
    if root_dataset.fingerprint != dataset.fingerprint:
        difference = f"{root_dataset.name}, not {dataset.name}"
        if root_dataset.name != dataset.name and not (root_dataset.built_in or dataset.built_in):
            images = image_difference(root_dataset, dataset) or "the same names in the same classes"
            difference += f": {images}"
        if root_dataset.name == dataset.name:
            titles = f"{root_dataset.title!r}, and not {dataset.title!r}"
            if root_dataset.title == dataset.title:
                titles = image_difference(root_dataset, dataset) or "its definition differs"
            difference = f"another dataset called {dataset.name}: {titles}"
        raise ImnetprepError(f"{manifest.path.parent} holds {difference}", hint=hint)


def is_vacant(manifest: Manifest) -> bool:
    """Is it of images of one's own, none of which it lists yet? An interruption leaves it so."""
    return manifest.dataset().is_own and not manifest.splits()


def image_difference(earlier: Dataset, dataset: Dataset) -> str:
    """The classes and images that `dataset` has and `earlier` lacks, and the other way round; "":
    none.
    """
    differences = []
    old_wnids, new_wnids = earlier.label_of_wnid.keys(), dataset.label_of_wnid.keys()
    for wnids, verb in ((new_wnids - old_wnids, "more"), (old_wnids - new_wnids, "fewer")):
        if wnids:
            differences.append(f"{count(len(wnids), 'class')} {verb} ({min(wnids)})")
    for split in dict.fromkeys([*earlier.splits, *dataset.splits]):
        old_names, new_names = (_names(each, split) for each in (earlier, dataset))
        for images, verb in ((new_names - old_names, "more"), (old_names - new_names, "fewer")):
            if images:
                example = "/".join(min(images))
                differences.append(f"{count(len(images), f'{split} image')} {verb} ({example})")
    return ", ".join(differences)


def _names(dataset: Dataset, split: Split) -> set[tuple[str, str]]:
    if split not in dataset.splits:
        return set()
    return {
        (synset.wnid, name)
        for synset in dataset.synsets
        for name in dataset.names(split, synset.label) or ()
    }
