"""The journal of the splits that grow: its stages are apart, and one of another form is refused."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from imnetprep.catalog.datasets import Split
from imnetprep.extracting.sink import RangeRecord
from imnetprep.layouts.webdataset import Shard
from imnetprep.manifest import SampleRecord, packed
from imnetprep.messages import ImnetprepError
from imnetprep.organizing.journal import (
    Journal,
    Origin,
    Stage,
    UnfinishedSplit,
    Whole,
    open_journal,
    read_unfinished,
)
from imnetprep.proving.receipt import DigestProof

SAMPLES = [SampleRecord(0, f"{number}.JPEG", 9, bytes(16)) for number in range(3)]


def _begin(journal: Journal, stage: Stage, samples: list[SampleRecord]) -> None:
    staged = journal.at(stage)
    staged.begin(Split.TRAIN, Origin("dataset", f"made for {stage}", {"seed": 0, "resize": None}))
    staged.add([RangeRecord(0, {Split.TRAIN: packed(samples)}, None)])


def test_stages_of_a_split_are_apart(tmp_path: Path) -> None:
    with open_journal(tmp_path / "journal.db") as journal:
        for number, stage in enumerate(Stage):
            _begin(journal, stage, SAMPLES[: number + 1])
        shards, spool = journal.at(Stage.SHARDS), journal.at(Stage.SPOOL)
        shards.add_shard(Split.TRAIN, Shard("0.tar", 1, 9, "x"), SAMPLES[:1])
        facts, proof = {"archive": "a.tar"}, DigestProof("md5", "0")
        spool.mark_whole({Split.TRAIN: tmp_path}, facts=facts, proof=proof)
        journal.forget(Split.TRAIN)
        assert journal.origin(Split.TRAIN) is None
    with open_journal(tmp_path / "journal.db", Stage.SHARDS) as shards:
        spool, inode = shards.at(Stage.SPOOL), tmp_path.stat().st_ino
        assert spool.whole(Split.TRAIN, dataset="dataset") == Whole(facts, proof, inode)
        assert shards.whole(Split.TRAIN, dataset="dataset") is None
        assert [shard.name for shard in shards.shards(Split.TRAIN)] == ["0.tar"]
        assert spool.shards(Split.TRAIN) == ()
        options = {"seed": 0, "resize": None}
        assert spool.origin(Split.TRAIN) == Origin("dataset", "made for spool", options)
    assert read_unfinished(tmp_path / "journal.db") == [
        UnfinishedSplit("train", Stage.SHARDS, "dataset", 1, 1, 9, is_whole=False),
        UnfinishedSplit("train", Stage.SPOOL, "dataset", 1, 2, 18, is_whole=True),
    ]


def test_a_journal_of_another_form_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with sqlite3.connect(path) as database:
        database.executescript("CREATE TABLE split (name TEXT); PRAGMA user_version = 3;")
    database.close()
    before = path.read_bytes()
    with pytest.raises(ImnetprepError, match="of form 3, not 4") as refused, open_journal(path):
        pass
    assert f"with that version; or rm -r {tmp_path}" in refused.value.hint
    with pytest.raises(sqlite3.DatabaseError, match="of form 3, not 4"):
        read_unfinished(path)
    assert path.read_bytes() == before


def test_of_an_empty_journal_nothing_grows(tmp_path: Path) -> None:
    (tmp_path / "journal.db").touch()
    assert read_unfinished(tmp_path / "journal.db") == []


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE growth SET options = '{nope'",
        "UPDATE growth SET options = '[1]'",
        "UPDATE growth SET options = x'ff'",
        "UPDATE growth SET facts = NULL",
        "UPDATE growth SET facts = '[1]'",
        'UPDATE growth SET proof = \'{"kind": "none"}\'',
        "UPDATE range SET checksum = '[1]'",
    ],
)
def test_a_row_that_nobody_wrote_is_damage(change: str, tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with open_journal(path) as journal:
        _begin(journal, Stage.FOLDERS, SAMPLES)
        journal.mark_whole({Split.TRAIN: tmp_path}, facts={}, proof=None)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(change)
    with pytest.raises(ImnetprepError, match="is damaged"), open_journal(path) as journal:
        journal.origin(Split.TRAIN)
        journal.whole(Split.TRAIN, dataset="dataset")
        journal.checksums(Split.TRAIN)


def test_a_stage_that_nobody_knows_is_told_as_damage(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with open_journal(path) as journal:
        _begin(journal, Stage.FOLDERS, SAMPLES)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE growth SET stage = 'bogus'")
    with pytest.raises(sqlite3.DatabaseError, match="bogus"):
        read_unfinished(path)
