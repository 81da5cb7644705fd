"""A manifest on its way to a bucket and back lists what is there, whole, and nothing that lies."""

import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from imnetprep.catalog.datasets import Dataset, Layout, Root, Split, load_dataset
from imnetprep.catalog.subsets import read_list, subset_of
from imnetprep.manifest import OtherForm, SampleRecord, create_manifest, open_manifest
from imnetprep.messages import ImnetprepError, WrongBytes
from imnetprep.sync.bucket_manifest import (
    Key,
    publish_pulled,
    read_remote_manifest,
    split_fingerprints,
    write_bucket_manifest,
)
from tests.conftest import DATASETS

TINY = load_dataset(str(DATASETS / "tiny10.toml"))
TRAIN, VAL = (Split.TRAIN, Layout.WEBDATASET), (Split.VAL, Layout.WEBDATASET)
FILES = Split.TRAIN, Layout.IMAGEFOLDER


def _samples(key: Key, *, at: int = 512, digest: bytes = bytes(16)) -> list[SampleRecord]:
    placed = (0, at) if key[1] is Layout.WEBDATASET else (None, None)
    return [
        SampleRecord(label, name, 7, digest, None, *placed) for label in (1, 0) for name in "ab"
    ]


def _list(path: Path, *keys: Key, dataset: Dataset = TINY, **told: int | bytes) -> Path:
    """A manifest that lists these splits."""
    create_manifest(path, dataset)
    with open_manifest(path, write=True) as manifest:
        for key in keys:
            manifest.add_split(*key, _samples(key, **told), change="resize 8 q90")  # type: ignore[arg-type]
    return path


def _root(path: Path, *keys: Key) -> Root:
    """A root with the folders of these splits, and no manifest."""
    root = Root(path)
    for key in keys:
        root.split(*key).mkdir(parents=True)
    return root


def _execute(path: Path, *statements: str) -> Path:
    with closing(sqlite3.connect(path)) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()
    return path


def test_the_copy_lists_the_splits_that_were_asked_for_and_nothing_lies_beside_it(
    tmp_path: Path,
) -> None:
    ours = _list(tmp_path / "manifest.db", TRAIN, VAL, FILES)
    listed = write_bucket_manifest(ours, tmp_path / "to" / "copy.db", splits=[TRAIN])
    assert [each[:4] for each in listed] == [(*TRAIN, 4, 28)]
    assert listed[0].change == "resize 8 q90"
    told = split_fingerprints(tmp_path / "to" / "copy.db")
    assert told == {TRAIN: split_fingerprints(ours)[TRAIN]}
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["copy.db"]


def test_the_same_splits_are_the_same_bytes_in_whatever_order_they_came(tmp_path: Path) -> None:
    one = _list(tmp_path / "one.db", TRAIN, VAL, FILES)
    other = _list(tmp_path / "other.db", VAL, FILES)
    with open_manifest(other, write=True) as manifest:
        manifest.add_split(*TRAIN, _samples(TRAIN, digest=b"x" * 16))
        manifest.add_columns(*TRAIN, (), replace=True)
        manifest.drop_split(*TRAIN)
        manifest.add_split(*TRAIN, reversed(_samples(TRAIN)), change="resize 8 q90")
    assert one.read_bytes() != other.read_bytes()
    for path in (one, other):
        write_bucket_manifest(path, path.with_suffix(".copy"), splits=[VAL, TRAIN])
    assert one.with_suffix(".copy").read_bytes() == other.with_suffix(".copy").read_bytes()
    again = read_remote_manifest(one.with_suffix(".copy"))
    write_bucket_manifest(other, tmp_path / "again", splits=[TRAIN, VAL], remote=again)
    assert (tmp_path / "again").read_bytes() == other.with_suffix(".copy").read_bytes()


def test_what_only_the_bucket_lists_stays_listed_there(tmp_path: Path) -> None:
    ours = _list(tmp_path / "ours.db", TRAIN, FILES)
    there = read_remote_manifest(_list(tmp_path / "there.db", TRAIN, VAL, FILES, at=1024))
    write_bucket_manifest(ours, tmp_path / "copy.db", splits=[TRAIN, VAL], remote=there)
    assert split_fingerprints(tmp_path / "copy.db") == {
        TRAIN: split_fingerprints(ours)[TRAIN],
        VAL: there.fingerprints[VAL],
    }
    write_bucket_manifest(
        ours, tmp_path / "copy.db", splits=[TRAIN], remote=there, conflicts=[TRAIN]
    )
    assert split_fingerprints(tmp_path / "copy.db") == {TRAIN: there.fingerprints[TRAIN]}


def test_the_bucket_of_another_dataset_is_refused(tmp_path: Path) -> None:
    ours = _list(tmp_path / "root" / "manifest.db", TRAIN)
    listed = _list(tmp_path / "b.db", VAL, dataset=load_dataset("imagenette"))
    there, before = read_remote_manifest(listed), ours.read_bytes()
    with pytest.raises(ImnetprepError, match="root holds tiny10, not imagenette") as refused:
        write_bucket_manifest(ours, tmp_path / "copy.db", splits=[TRAIN], remote=there)
    assert refused.value.hint == "name another address, or another --root"
    assert not (tmp_path / "copy.db").exists()
    with pytest.raises(ImnetprepError, match="root holds tiny10, not imagenette"):
        publish_pulled(_root(tmp_path / "root", VAL), there, replace=True)
    assert ours.read_bytes() == before


def test_a_writer_beside_it_neither_waits_nor_is_half_in_the_copy(tmp_path: Path) -> None:
    ours = _list(tmp_path / "manifest.db", TRAIN, VAL)
    whole, done = split_fingerprints(ours), threading.Event()

    def organize() -> None:
        with open_manifest(ours, write=True) as manifest:
            while not done.wait(0.02):
                manifest.drop_split(*VAL)
                manifest.add_split(*VAL, _samples(VAL), change="resize 8 q90")

    with closing(sqlite3.connect(ours)) as database:  # in the middle of a transaction
        database.execute("INSERT INTO split VALUES (9, 'train', 'imagefolder', 0, 0, NULL)")
        write_bucket_manifest(ours, tmp_path / "copy.db", splits=[TRAIN, VAL, FILES])
        assert split_fingerprints(tmp_path / "copy.db") == whole
    writer = threading.Thread(target=organize)
    writer.start()
    try:
        for _ in range(8):
            write_bucket_manifest(ours, tmp_path / "copy.db", splits=[TRAIN, VAL])
            told = split_fingerprints(tmp_path / "copy.db")
            assert told in (whole, {TRAIN: whole[TRAIN]})
    finally:
        done.set()
        writer.join()


def test_a_damaged_local_manifest_is_told_by_its_name_and_makes_no_copy(tmp_path: Path) -> None:
    ours = _list(tmp_path / "manifest.db", TRAIN)
    _execute(ours, "UPDATE samples SET sizes = x'07'")
    with pytest.raises(ImnetprepError, match=r"/manifest\.db is damaged: train class 0"):
        write_bucket_manifest(ours, tmp_path / "copy.db", splits=[TRAIN])
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.db"]


def test_splits_that_lie_otherwise_in_their_shards_are_told_apart(tmp_path: Path) -> None:
    one, other = _list(tmp_path / "1.db", TRAIN, FILES), _list(tmp_path / "2.db", TRAIN, at=1024)
    assert split_fingerprints(one)[TRAIN] != split_fingerprints(other)[TRAIN]
    with open_manifest(one) as a, open_manifest(other) as b:
        assert a.fingerprint(a.splits()[TRAIN]) == b.fingerprint(b.splits()[TRAIN])
    assert split_fingerprints(tmp_path / "none.db") == {}


def test_a_root_without_a_manifest_gets_one_of_the_splits_that_are_there(tmp_path: Path) -> None:
    remote = read_remote_manifest(_list(tmp_path / "there.db", TRAIN, VAL, FILES))
    root = _root(tmp_path / "root", TRAIN, FILES)
    published = [each[:2] for each in publish_pulled(root, remote, replace=False)]
    assert published == sorted([TRAIN, FILES]), "in one order, whichever came first"
    with open_manifest(root.manifest) as manifest:
        assert manifest.dataset().fingerprint == TINY.fingerprint
        assert manifest.dataset().synsets == TINY.synsets
    assert split_fingerprints(root.manifest) == {
        key: remote.fingerprints[key] for key in (TRAIN, FILES)
    }
    taken = root.manifest.read_bytes()
    assert publish_pulled(root, remote, replace=False) == []
    assert root.manifest.read_bytes() == taken


def test_a_split_that_differs_is_left_alone_unless_told_to_replace_it(tmp_path: Path) -> None:
    root = _root(tmp_path / "root", TRAIN, VAL)
    _list(root.manifest, TRAIN)
    ours = split_fingerprints(root.manifest)
    remote = read_remote_manifest(_list(tmp_path / "there.db", TRAIN, VAL, at=1024))
    with pytest.raises(ImnetprepError, match="differ: train as webdataset") as refused:
        publish_pulled(root, remote, replace=False)
    assert "--replace takes the bucket's" in refused.value.hint
    assert split_fingerprints(root.manifest) == {TRAIN: ours[TRAIN], VAL: remote.fingerprints[VAL]}
    assert [each[:2] for each in publish_pulled(root, remote, replace=True)] == [TRAIN]
    assert split_fingerprints(root.manifest) == remote.fingerprints


def test_shards_that_come_without_a_listing_drop_that_of_the_ones_they_replace(
    tmp_path: Path,
) -> None:
    root = _root(tmp_path / "root", TRAIN, VAL)
    _list(root.manifest, TRAIN, VAL)
    ours = split_fingerprints(root.manifest)
    workspace = root.organizing / "sync/shards/train"
    workspace.mkdir(parents=True)
    (workspace / "index.json").write_text("{}")
    assert publish_pulled(root, None, [(TRAIN, workspace)], replace=True) == []
    assert (root.split(*TRAIN) / "index.json").exists()
    assert split_fingerprints(root.manifest) == {VAL: ours[VAL]}


def test_killed_while_it_replaces_it_has_the_old_split_and_goes_on(tmp_path: Path) -> None:
    root = _root(tmp_path / "root", TRAIN, VAL)
    _list(root.manifest, VAL)
    ours = split_fingerprints(root.manifest)
    remote = read_remote_manifest(_list(tmp_path / "there.db", VAL, TRAIN, at=1024))
    code = """
import os, sys
from pathlib import Path
from imnetprep import manifest
from imnetprep.catalog.datasets import Root
from imnetprep.sync.bucket_manifest import read_remote_manifest, publish_pulled

def opened(*arguments, connect=manifest.sqlite3.connect, **options):
    database = connect(*arguments, **options)
    database.set_trace_callback(told)
    return database

def told(sql):
    if sql.startswith("UPDATE split") and sql.endswith("id = 3"):  # after TRAIN, VAL once more
        os.kill(os.getpid(), 9)

fetched = read_remote_manifest(Path(sys.argv[2]))
manifest.sqlite3.connect = opened
publish_pulled(Root(Path(sys.argv[1])), fetched, replace=True)
"""
    words = [sys.executable, "-c", code, str(root.path), str(remote.path)]
    assert subprocess.run(words, check=False).returncode == -9
    assert split_fingerprints(root.manifest) == {TRAIN: remote.fingerprints[TRAIN], VAL: ours[VAL]}
    assert [each[:2] for each in publish_pulled(root, remote, replace=True)] == [VAL]
    assert split_fingerprints(root.manifest) == remote.fingerprints


def test_the_definition_of_a_subset_travels_with_the_one_it_is_part_of(tmp_path: Path) -> None:
    chosen = tmp_path / "mine.txt"
    chosen.write_text("".join(f"{synset.wnid}\n" for synset in TINY.synsets[3:5]))
    subset = subset_of(TINY, read_list(str(chosen)))
    ours = _list(tmp_path / "manifest.db", TRAIN, dataset=subset)
    write_bucket_manifest(ours, tmp_path / "bucket.db", splits=[TRAIN])
    remote, root = read_remote_manifest(tmp_path / "bucket.db"), _root(tmp_path / "root", TRAIN)
    publish_pulled(root, remote, replace=False)
    with open_manifest(root.manifest) as manifest:
        held = manifest.dataset()
    assert held.fingerprint == subset.fingerprint
    assert held.part_of is not None
    assert held.part_of.fingerprint == TINY.fingerprint
    assert held.counts(Split.VAL) == subset.counts(Split.VAL)


SAMPLES_AS_VIEW = "ALTER TABLE samples RENAME TO t", "CREATE VIEW samples AS SELECT * FROM t"
ENDLESS = (
    "PRAGMA writable_schema = ON",
    "UPDATE sqlite_schema SET rootpage = (SELECT rootpage FROM sqlite_schema WHERE name = 'class')"
    " WHERE name = 'samples'",
)
TRIGGER = "CREATE TRIGGER more AFTER INSERT ON samples BEGIN DELETE FROM split; END"
LIES = [
    ("its tables are not those of a manifest", TRIGGER),
    ("its tables are not those of a manifest", *SAMPLES_AS_VIEW),
    ("its tables are not those of a manifest", "CREATE TABLE other (x)"),
    ("2nd reference to page", *ENDLESS),
    ("called '/a.toml' is built in", "UPDATE dataset SET built_in = 1, name = '/a.toml'"),
    ("it lacks tiny10_synsets.tsv", "DELETE FROM definition WHERE file = 'tiny10_synsets.tsv'"),
    ("its labels are not some of 10", "UPDATE samples SET label = 10 WHERE label = 1"),
    ("its labels are not some of 10", "UPDATE samples SET label = 'one' WHERE label = 1"),
    ("it has 4 samples of 28 bytes", "UPDATE split SET size_bytes = 29"),
    ("it has 2 samples of 14 bytes", "DELETE FROM samples WHERE label = 1"),
    ("its names are not those", "UPDATE samples SET names = x'2e2e006100'"),
    ("a number is below zero", f"UPDATE samples SET offsets = x'{'00' * 15}80'"),
    ("is no plain text", "UPDATE split SET change = char(27) || '[2J'"),
    ("not a valid Split", "UPDATE split SET name = '../../train'"),
    ("is no SQLite file of ours", "PRAGMA journal_mode = WAL"),
]


@pytest.mark.parametrize(("told", "statements"), [(told, lie) for told, *lie in LIES])
def test_a_manifest_that_lies_is_refused(told: str, statements: list[str], tmp_path: Path) -> None:
    (tmp_path / "bucket").mkdir()
    path = _execute(_list(tmp_path / "bucket" / "there.db", TRAIN), *statements)
    with pytest.raises(WrongBytes, match=told) as refused:
        read_remote_manifest(path)
    assert str(refused.value).startswith("the manifest in the bucket cannot be used: ")
    assert "--push --replace" in refused.value.hint
    assert [each.name for each in path.parent.iterdir()] == ["there.db"]


@pytest.mark.parametrize("body", [b"", b"SQLite format 3\0" + b"\xff" * 4096, b"<html>" * 99])
def test_what_is_no_manifest_is_refused(body: bytes, tmp_path: Path) -> None:
    (tmp_path / "there.db").write_bytes(body)
    with pytest.raises(WrongBytes, match="cannot be used"):
        read_remote_manifest(tmp_path / "there.db")


def test_spoiled_bytes_are_refused_or_taken_as_they_were_read(tmp_path: Path) -> None:
    path = _list(tmp_path / "there.db", TRAIN, VAL)
    body = path.read_bytes()
    for at in range(0, len(body), len(body) // 99):
        path.write_bytes(body[:at] + bytes([body[at] ^ 0x5A]) + body[at + 1 :])
        try:
            remote = read_remote_manifest(path)
        except (WrongBytes, OtherForm):
            continue
        root = _root(tmp_path / f"root{at}", TRAIN, VAL)
        publish_pulled(root, remote, replace=False)
        assert split_fingerprints(root.manifest) == remote.fingerprints


def test_a_manifest_of_another_version_names_the_mend(tmp_path: Path) -> None:
    path = _execute(_list(tmp_path / "there.db", TRAIN), "PRAGMA user_version = 4")
    with pytest.raises(OtherForm, match="has form 4") as refused:
        read_remote_manifest(path)
    assert refused.value.hint == "use the version of imnetprep that wrote it"
