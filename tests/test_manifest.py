"""A root holds one dataset, and a damaged manifest is told, never guessed around."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pytest

from imnetprep.catalog.datasets import Layout, Split, load_dataset
from imnetprep.manifest import (
    SampleRecord,
    SplitRecord,
    create_manifest,
    dataset_for,
    open_manifest,
)
from imnetprep.messages import ImnetprepError
from tests.conftest import DATASETS, Run

TINY = load_dataset(str(DATASETS / "tiny10.toml"))


def test_it_carries_a_dataset_that_is_not_built_in(tmp_path: Path) -> None:
    create_manifest(tmp_path / "manifest.db", TINY)
    held = dataset_for(tmp_path / "manifest.db", None)
    assert held.fingerprint == TINY.fingerprint
    assert held.synsets == TINY.synsets
    assert held.counts(Split.VAL) == TINY.counts(Split.VAL)


def test_another_dataset_of_the_same_name_is_refused(tmp_path: Path) -> None:
    create_manifest(tmp_path / "manifest.db", TINY)
    changed = tmp_path / "tiny10.toml"
    for file in DATASETS.glob("tiny10*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    changed.write_text(changed.read_text().replace("Ten classes", "Nine classes"))
    with pytest.raises(ImnetprepError, match="holds another dataset called tiny10: "):
        dataset_for(tmp_path / "manifest.db", str(changed))


def test_samples_come_back_by_label_and_name(tmp_path: Path) -> None:
    create_manifest(tmp_path / "manifest.db", TINY)
    records = [SampleRecord(label, name, 7, bytes(16)) for label in (1, 0) for name in "ba"]
    with open_manifest(tmp_path / "manifest.db", write=True) as manifest:
        manifest.add_split(Split.TRAIN, Layout.IMAGEFOLDER, records)
        held = SplitRecord(Split.TRAIN, Layout.IMAGEFOLDER, 4, 28)
        assert manifest.splits() == {(Split.TRAIN, Layout.IMAGEFOLDER): held}
        assert list(manifest.samples(held, 0)) == [records[3], records[2]]
        assert list(manifest.samples(held, 2)) == []
        assert manifest.counts(held) == {0: 2, 1: 2}
        columns = dict(manifest.columns(held))
        assert list(columns) == [0, 1]
        assert (columns[1].names, columns[1].samples, columns[1].size_bytes) == (b"a\0b\0", 2, 14)


def test_more_samples_than_are_held_at_once_come_back(tmp_path: Path) -> None:
    """In the order of names, of a key, and as they lie in shards."""
    create_manifest(tmp_path / "manifest.db", TINY)
    names = [f"{number * 7919 % 60_000:06}" for number in range(60_000)]
    records = [
        SampleRecord(number % 3, name, number, bytes(16), "made smaller" if number == 5 else None,
                     number // 1000, number % 1000 * 9)
        for number, name in enumerate(names)
    ]  # fmt: skip
    with open_manifest(tmp_path / "manifest.db", write=True) as manifest:
        manifest.add_split(Split.TRAIN, Layout.WEBDATASET, records)
        held = manifest.splits()[Split.TRAIN, Layout.WEBDATASET]
        assert (held.samples, held.size_bytes) == (60_000, sum(range(60_000)))
        for label in range(3):
            wanted = sorted(record for record in records if record.label == label)
            assert _same(manifest.samples(held, label), wanted)
        assert _same(manifest.in_shards(held), records)
        by_end = sorted(records, key=lambda record: (record.name[::-1], record.label))
        assert _same(manifest.shuffled(held, lambda _, name: name[::-1].encode()), by_end)


def _same(told: Iterable[SampleRecord], wanted: Iterable[SampleRecord]) -> bool:
    """What pytest has to say of two long lists takes minutes."""
    return list(told) == list(wanted)


def test_splits_are_the_same_images_only_to_the_byte(tmp_path: Path) -> None:
    create_manifest(tmp_path / "manifest.db", TINY)
    one = SampleRecord(0, "a", 7, bytes(16))
    others = [
        [one, SampleRecord(1, "b", 7, bytes(16))],
        [one._replace(name="b")],
        [one._replace(label=1)],
        [one._replace(xxh128=b"1" * 16)],
        [one._replace(change="made smaller")],
    ]
    told = set()
    with open_manifest(tmp_path / "manifest.db", write=True) as manifest:
        for records in ([one], *others):
            manifest.add_split(Split.TRAIN, Layout.IMAGEFOLDER, records)
            held = manifest.splits()[Split.TRAIN, Layout.IMAGEFOLDER]
            told.add(manifest.fingerprint(held))
            manifest.drop_split(*held[:2])
    assert len(told) == 1 + len(others)


def test_a_split_in_two_layouts_is_two_lists(tmp_path: Path) -> None:
    create_manifest(tmp_path / "manifest.db", TINY)
    files = [SampleRecord(0, "a", 7, bytes(16))]
    shards = [SampleRecord(0, "a", 5, bytes(16), "resized 256 q90", 0, 512)]
    with open_manifest(tmp_path / "manifest.db", write=True) as manifest:
        manifest.add_split(Split.VAL, Layout.IMAGEFOLDER, files)
        manifest.add_split(Split.VAL, Layout.WEBDATASET, shards, change="resize 256 q90")
        held = manifest.splits()
        assert list(manifest.samples(held[Split.VAL, Layout.IMAGEFOLDER], 0)) == files
        assert list(manifest.in_shards(held[Split.VAL, Layout.WEBDATASET])) == shards
        assert held[Split.VAL, Layout.WEBDATASET].change == "resize 256 q90"
        manifest.drop_split(Split.VAL, Layout.WEBDATASET)
        assert list(manifest.splits()) == [(Split.VAL, Layout.IMAGEFOLDER)]
        assert list(manifest.samples(held[Split.VAL, Layout.IMAGEFOLDER], 0)) == files


def test_a_damaged_manifest_is_told(tmp_path: Path) -> None:
    (tmp_path / "manifest.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 4096)
    with pytest.raises(ImnetprepError, match=r"manifest\.db"):
        dataset_for(tmp_path / "manifest.db", None)


def test_a_file_that_the_definition_lacks_is_told(archived: Path, here: Run) -> None:
    with closing(sqlite3.connect(archived / "manifest.db")) as database:
        database.execute("DELETE FROM definition WHERE file = 'train.torrent'")
        database.commit()
    done = here("organize", "--root", archived)
    assert done.returncode == 1
    assert "manifest.db is damaged: it lacks train.torrent, of packed" in done.stderr


@pytest.mark.parametrize(
    "column",
    ["names = x'612f6200620a00'", "names = x'6100'", "names = x'61006100'", "names = x'00610000'",
     "names = x'ff006200'", "names = 'a'", "sizes = x'07'", "xxh128 = x''", "xxh128 = 5",
     "shards = x'00000000'", "changes = x'6100'", "changes = x'61006161'"],
)  # fmt: skip
def test_columns_that_are_not_those_of_samples_are_told(column: str, tmp_path: Path) -> None:
    create_manifest(tmp_path / "manifest.db", TINY)
    records = [SampleRecord(0, name, 7, bytes(16)) for name in "ab"]
    with open_manifest(tmp_path / "manifest.db", write=True) as manifest:
        manifest.add_split(Split.TRAIN, Layout.IMAGEFOLDER, records)
        held = manifest.splits()[Split.TRAIN, Layout.IMAGEFOLDER]
        assert list(manifest.samples(held, 0)) == records
    with closing(sqlite3.connect(tmp_path / "manifest.db")) as database:
        database.execute(f"UPDATE samples SET {column}")
        database.commit()
    with (
        open_manifest(tmp_path / "manifest.db") as manifest,
        pytest.raises(ImnetprepError, match="is damaged: train class 0: "),
    ):
        list(manifest.samples(held, 0))


def test_another_form_is_refused(tmp_path: Path) -> None:
    create_manifest(tmp_path / "manifest.db", TINY)
    with closing(sqlite3.connect(tmp_path / "manifest.db")) as database:
        database.execute("PRAGMA user_version = 2")
    with pytest.raises(
        ImnetprepError, match=r"manifest\.db has form 2; .* reads form 3"
    ) as refused:
        dataset_for(tmp_path / "manifest.db", None)
    assert refused.value.hint == "use the version of imnetprep that wrote it"


def test_what_a_killed_writer_left_is_rolled_back(tmp_path: Path) -> None:
    """More than SQLite's cache holds, so that half a split is in the file when it is killed.

    The last class lacks its row then.
    """
    code = """
import os, sys
from pathlib import Path
from imnetprep.catalog.datasets import Split, load_dataset
from imnetprep.manifest import SampleRecord, create_manifest, open_manifest

def told(sql):
    if sql.startswith("INSERT INTO samples") and " 999, " in sql:
        os.kill(os.getpid(), 9)

samples = (SampleRecord(at % 1000, f"{at}.JPEG", 1, bytes(16)) for at in range(100_000))
path = Path(sys.argv[1])
create_manifest(path, load_dataset("ilsvrc2012"))
with open_manifest(path, write=True) as manifest:
    manifest._database.set_trace_callback(told)
    manifest.add_split(Split.TRAIN, "imagefolder", samples)
"""
    path = tmp_path / "manifest.db"
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -9
    assert path.with_name("manifest.db-journal").exists()
    assert path.stat().st_size > 2_000_000
    with open_manifest(path) as manifest:
        assert manifest.splits() == {}
