"""`status` says what is under a root, whatever is damaged and whoever is at work."""

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imnetprep.catalog.datasets import Split
from imnetprep.extracting.sink import RangeRecord
from imnetprep.fs import locked
from imnetprep.manifest import SampleRecord, open_manifest, packed
from imnetprep.organizing.journal import Origin, Stage, open_journal, read_unfinished
from imnetprep.sources.part_files import PartFiles
from imnetprep.sources.seeder import make_torrent
from imnetprep.sources.torrent import read_torrent
from imnetprep.synthetic import pack_dataset
from tests.conftest import TRAIN, VAL, Run, command, tree
from tests.servers import web_served


def _status(run: Run, root: Path) -> list[dict[str, Any]]:
    done = run("status", "--root", root, "--json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def _of(kind: str, told: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    name = "split" if kind == "split" else "name"
    return {each[name]: each for each in told if each["kind"] == kind}


def test_all_that_a_root_holds_is_told(organized: Path, packed: Path, run: Run) -> None:
    (organized / "archives").mkdir()
    shutil.copy(packed.parent / TRAIN, organized / "archives")
    part = organized / "archives" / f"{VAL}.part"
    body = (packed.parent / VAL).read_bytes()
    part.write_bytes(body[:32768] + bytes(len(body) - 32768))
    torrent = read_torrent(make_torrent(packed.parent / VAL, piece_bytes=16384))
    growing = PartFiles(torrent, {0: part.with_suffix("")})
    growing.proved_pieces = {0, 1}
    growing.save()
    growing.close()
    shutil.copy(packed.parent / VAL, organized / "archives" / "else.tar.consumed")
    assert run("verify-archives", "--root", organized).returncode == 0
    assert run("verify", "--root", organized, "--digests", "--split", "val").returncode == 0
    folder = organized / "runs" / "resnet18"
    folder.mkdir(parents=True)
    (folder / "recipe.json").write_text(json.dumps({"recipe": {"epochs": 90}}))
    lines = [{"epoch": at, "val": {"top1_percent": top1}} for at, top1 in ((1, 30.5), (2, 29.0))]
    (folder / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (organized / ".shards").mkdir()
    for name in ("train-000007-{}.tar", ".val-000000-{}.tar.fetching"):
        (organized / ".shards" / name.format("0f" * 16)).write_bytes(b"shard" * 500)
    (organized / ".shards" / "notes.txt").write_bytes(b"of somebody else")
    before = tree(organized)
    told = _status(run, organized)
    assert tree(organized) == before, "and nothing is changed"
    cache = {"kind": "cache", "name": ".shards", "shards": 1, "size_bytes": 5000, "at_work": False}
    assert _of("cache", told) == {".shards": cache}
    assert _of("dataset", told)["packed"]["title"] == "Noise, packed as ImageNet is"
    archives = _of("archive", told)
    assert (archives[TRAIN]["state"], archives[TRAIN]["proof"]["kind"]) == ("whole", "md5")
    assert (archives[VAL]["state"], archives[VAL]["proved_bytes"]) == ("part", 32768)
    assert archives[VAL]["size_bytes"] == len(body)
    assert archives["else.tar"]["state"] == "consumed"
    splits = _of("split", told)
    assert (splits["train"]["state"], splits["train"]["samples"]) == ("organized", 60)
    assert splits["val"]["layout"] == "imagefolder"
    verifies = _of("verify", told)
    assert set(verifies) == {"val", TRAIN} and verifies["val"]["findings"] == 0
    assert "digests" in verifies["val"]["checks"]
    wanted = {
        "epochs": 2,
        "all_epochs": 90,
        "best_percent": 30.5,
        "measure": "top-1",
        "at_work": False,
    }
    assert _of("run", told)["resnet18"].items() >= wanted.items()
    shown = run("status", "--root", organized).stdout
    assert "2 of 90 epochs, best top-1 30.50 %" in shown
    assert f"{VAL}    32.8 kB of" in shown and "its md5 is right" in shown


def test_a_run_does_not_load_torch(organized: Path) -> None:
    (organized / "runs" / "one").mkdir(parents=True)
    code = "import sys; from imnetprep.cli import run; "
    code += f"run(['status', '--root', {str(organized)!r}]); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def _manifest(root: Path) -> str:
    (root / "manifest.db").write_bytes(b"no database at all" * 999)
    return "manifest.db"


def _empty_manifest(root: Path) -> str:
    (root / "manifest.db").write_bytes(b"")
    return "manifest.db"


def _receipt(root: Path) -> str:
    (root / "receipt.json").write_text('{"archives": ')
    return "receipt.json"


def _odd_receipt(root: Path) -> str:
    (root / "receipt.json").write_text('{"verified": {"train": {}}, "archives": []}')
    return "receipt.json"


def _journal(root: Path) -> str:
    (root / ".organizing" / "journal.db").write_bytes(b"SQLite format 3\0" + b"x" * 9999)
    return "journal.db"


def _log(root: Path) -> str:
    (root / "runs" / "one").mkdir(parents=True)
    (root / "runs" / "one" / "log.jsonl").write_text('{"epoch": 1, "val": {}}\n')
    return "one/log.jsonl"


def _log_without_end(root: Path) -> str:
    (root / "runs" / "one").mkdir(parents=True)
    (root / "runs" / "one" / "log.jsonl").write_text('{"epoch": Infinity}\n')
    return "one/log.jsonl"


def _nested_recipe(root: Path) -> str:
    (root / "runs" / "one").mkdir(parents=True)
    (root / "runs" / "one" / "recipe.json").write_text("[" * 100_000)
    return "one/recipe.json"


@pytest.mark.parametrize(
    "spoil",
    [_manifest, _empty_manifest, _receipt, _odd_receipt, _journal, _log, _log_without_end,
     _nested_recipe],
)  # fmt: skip
def test_what_is_damaged_is_called_so_and_hides_nothing_else(
    spoil: Callable[[Path], str], organized: Path, packed: Path, run: Run
) -> None:
    (organized / "archives").mkdir()
    shutil.copy(packed.parent / TRAIN, organized / "archives")
    (organized / "archives" / f".{'a' * 40}.resume").write_bytes(b"d4:no")
    (organized / "runs" / "two").mkdir(parents=True)
    name = spoil(organized)
    told = _status(run, organized)
    assert name in _of("damage", told), told
    assert "two" in _of("run", told)
    if name != "manifest.db":
        assert _of("split", told)["train"]["samples"] == 60


def test_a_growing_split_is_told_while_organize_is_at_work(tmp_path: Path, run: Run) -> None:
    dataset = pack_dataset(tmp_path / "packed", classes=100, train_per_class=5, val_per_class=0)
    root = tmp_path / "root"
    lines = [line for line in dataset.read_text().splitlines() if not line.startswith("md5")]
    dataset.write_text("\n".join(lines))  # so that it goes class by class
    seen = []
    with web_served(dataset.parent) as web:
        web.wait_s = 0.05
        words = ["--root", root, "--dataset", dataset, "--archives", web.address, "--jobs", 1]
        organize = subprocess.Popen(command("organize", *words), stdout=subprocess.DEVNULL)
        while organize.poll() is None:
            if root.is_dir():
                split = _of("split", _status(run, root)).get("train")
                if split is not None and split["state"] == "unfinished" and organize.poll() is None:
                    seen.append(split)
    assert organize.returncode == 0
    assert seen and all(each["all_classes"] == 100 for each in seen)
    assert any(0 < each["classes"] < 100 and each["at_work"] for each in seen), seen
    classes = [each["classes"] for each in seen]
    assert classes == sorted(classes)
    assert _of("split", _status(run, root))["train"]["state"] == "organized"


def _journal_of(root: Path) -> Path:
    (root / ".organizing").mkdir(exist_ok=True)
    return root / ".organizing" / "journal.db"


def test_what_grows_into_shards_is_told(organized: Path, run: Run) -> None:
    with open_manifest(organized / "manifest.db") as manifest:
        fingerprint = manifest.dataset().fingerprint
    samples = [SampleRecord(0, f"{number}.JPEG", 9, bytes(16)) for number in range(3)]
    for stage, of in (("spool", "val"), ("spool", "train"), ("shards", "train")):
        with open_journal(_journal_of(organized), Stage(stage)) as journal:
            journal.begin(Split(of), Origin(fingerprint, "some", {}))
            shown = samples if stage == "spool" else samples[:2]
            journal.add([RangeRecord(0, {Split(of): packed(shown)}, None)])
    shutil.rmtree(organized / "val")
    told = [each for each in _status(run, organized) if each["kind"] == "split"]
    assert [(each["split"], each["state"], each["layout"], each["samples"]) for each in told] == [
        ("train", "organized", "imagefolder", 60),
        ("train", "unfinished", "webdataset", 2),
        ("val", "gone", "imagefolder", 20),
        ("val", "unfinished", "webdataset", 3),
    ]
    text = run("status", "--root", organized).stdout
    assert "unfinished into shards: 2 of 60 images" in text


def test_a_writer_is_not_waited_for(organized: Path, here: Run) -> None:
    database = sqlite3.connect(_journal_of(organized))
    manifest = sqlite3.connect(organized / "manifest.db")
    database.execute("BEGIN EXCLUSIVE")
    manifest.execute("BEGIN EXCLUSIVE")
    begun_s = time.monotonic()
    told = _status(here, organized)
    assert time.monotonic() - begun_s < 4, "sqlite alone would wait five seconds for each"
    assert _of("damage", told)["manifest.db"]["problem"] == "another process is writing it"
    database.close()
    manifest.close()


def test_a_journal_that_a_killed_writer_left_is_read(organized: Path, run: Run) -> None:
    path = _journal_of(organized)
    code = (
        "import os, sqlite3, sys; database = sqlite3.connect(sys.argv[1]);"
        "database.execute('PRAGMA cache_size = 1'); database.execute('BEGIN');"
        "rows = [('train', 'folders', at, 1, None) for at in range(9999)];"
        "row = ['train', 'folders', 'packed', '', '{}', None, None, None];"
        "database.execute('INSERT INTO growth VALUES (?, ?, ?, ?, ?, ?, ?, ?)', row);"
        "database.executemany('INSERT INTO range VALUES (?, ?, ?, ?, ?)', rows);"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], check=False)
    assert done.returncode == -signal.SIGKILL
    hot = path.with_name("journal.db-journal").read_bytes()
    assert hot
    read_unfinished(path)
    assert path.with_name("journal.db-journal").read_bytes() == hot, "organize rolls it back"
    assert not _of("damage", _status(run, organized))


def test_a_process_at_work_shows(organized: Path, packed: Path, run: Run) -> None:
    (organized / "archives").mkdir()
    (organized / "archives" / f"{VAL}.part").write_bytes(b"")
    with locked(organized / "archives"), locked(organized / "runs" / "one"):
        told = _status(run, organized)
    assert _of("archive", told)[VAL]["at_work"] and _of("run", told)["one"]["at_work"]
    told = _status(run, organized)
    assert not _of("archive", told)[VAL]["at_work"]
    assert "no record speaks of" in run("status", "--root", organized).stdout


def test_a_root_that_is_not_there_is_told_and_not_made(tmp_path: Path, run: Run) -> None:
    done = run("status", "--root", tmp_path / "root")
    assert (done.returncode, "there is no folder" in done.stderr) == (1, True)
    assert not (tmp_path / "root").exists()
    assert "holds nothing yet" in run("status", "--root", tmp_path).stdout
