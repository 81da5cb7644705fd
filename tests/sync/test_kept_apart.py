"""What differs is not mixed with what is sent or fetched, whatever is written meanwhile."""

import os
import resource
import sqlite3
import threading
from pathlib import Path

import pytest

from imnetprep.catalog.datasets import Root
from imnetprep.digests import Checksum
from imnetprep.messages import Silent
from imnetprep.sync.journal import open_sync_journal
from imnetprep.transfers.flow import Cancellation, Flow, side_by_side
from imnetprep.transfers.range_download import write_all
from tests.conftest import spoil, tree
from tests.proxy import Proxy, Rule
from tests.servers import S3Server
from tests.sync.conftest import Sync, copied, keys_there, make_run

SHARD = "shards/train/train-000000.tar"


def test_an_index_is_not_sent_for_shards_that_are_others_there(
    sync: Sync, s3: S3Server, prefix: str, whole: Path
) -> None:
    assert sync(whole, "--push", "--what", "shards").returncode == 0
    there = keys_there(s3, prefix)
    index = whole / "shards/train/index.json"
    index.write_bytes(index.read_bytes() + b"\n")
    spoil(whole / SHARD, 700)
    done = sync(whole, "--push", "--what", "shards,manifest")
    assert done.returncode == 1 and SHARD in done.stderr
    assert (
        keys_there(s3, prefix).items()
        >= {path: size for path, size in there.items() if path != "receipt.json"}.items()
    )


def test_other_shards_take_the_place_of_a_split_all_at_once(
    sync: Sync, proxy: Proxy, whole: Path, tmp_path: Path
) -> None:
    assert sync(whole, "--push", "--what", "shards").returncode == 0
    other = copied(whole, tmp_path / "other")
    wanted, before = tree(whole / "shards"), tree(other / "shards" / "val")
    for name in ("train-000000.tar", "index.json"):
        spoil(other / "shards/train" / name, 3)
    spoiled = tree(other / "shards/train")
    proxy.rules = [Rule("refuse", rf"GetObject .*{SHARD}", status=403, code="AccessDenied")]
    done = sync(other, "--pull", "--what", "shards", "--replace")
    assert done.returncode == 3, done.stderr
    assert tree(other / "shards/train") == spoiled
    proxy.rules = []
    done = sync(other, "--pull", "--what", "shards", "--replace")
    assert done.returncode == 0, done.stderr
    assert tree(other / "shards") == wanted
    assert tree(other / "shards" / "val") == before


def test_a_file_written_while_it_comes_is_left_alone(
    sync: Sync, proxy: Proxy, whole: Path, tmp_path: Path
) -> None:
    make_run(whole, "one")
    assert sync(whole, "--push", "--what", "runs").returncode == 0
    other = tmp_path / "other"
    log = other / "runs/one/log.jsonl"

    def written(request: object) -> bool:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("mine")
        return False

    proxy.rules = [Rule("refuse", lambda each: "log.jsonl" in each.path and written(each))]
    done = sync(other, "--pull", "--what", "runs")
    assert done.returncode == 1 and "was written meanwhile" in done.stderr
    assert log.read_text() == "mine"


def test_a_journal_that_cannot_be_read_is_made_anew(sync: Sync, whole: Path) -> None:
    assert sync(whole, "--push", "--what", "shards").returncode == 0
    journal = whole / ".sync.db"
    for body in (b"no database at all", None):
        if body is not None:
            journal.write_bytes(body)
        else:
            with sqlite3.connect(journal) as database:
                database.execute("PRAGMA user_version = 99")
        done = sync(whole, "--push", "--what", "shards")
        assert done.returncode == 0, done.stderr


def test_two_servers_with_a_bucket_of_one_name_are_two_places(tmp_path: Path) -> None:
    root = Root(tmp_path)
    from imnetprep.s3.address import S3Address

    address = S3Address("imagenet", "a/b")
    with open_sync_journal(root, endpoint="http://one") as journal:
        journal.keep_synced(address, "etag", "crc32:1")
    with open_sync_journal(root, endpoint="http://two") as journal:
        assert journal.synced(address) is None


def test_ranges_outlive_a_power_cut_only_once_a_sync_has_covered_them(tmp_path: Path) -> None:
    with open_sync_journal(Root(tmp_path), endpoint="") as journal:
        journal.begin_fetching("a", "etag", 1)
        one = Checksum.empty("crc32").over(b"one")
        journal.keep_fetched("a", 0, one)
        with journal.syncing():
            journal.keep_fetched("a", 3, one)
        kept = journal.fetched("a", "etag", 1)
        assert kept is not None
        assert [(each.start, each.synced) for each in kept] == [(0, True), (3, False)]


def test_a_disk_that_fills_up_ends_the_write_and_not_quietly(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handle = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_all(handle, memoryview(bytes(1000)), 0, tmp_path / "file")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        os.close(handle)


def test_the_first_that_fails_ends_all_and_nothing_more_is_begun() -> None:
    begun, stop = [], threading.Event()
    with Silent().task("", total=0, unit="B") as task:
        flow = Flow(task, None)

    def unit(number: int) -> int:
        begun.append(number)
        if number == 3:
            raise ValueError("third")
        return number

    units = ((lambda number=number: unit(number)) for number in range(1000))
    with pytest.raises(ValueError, match="third"):
        list(side_by_side(units, jobs=2, stop=stop))
    assert len(begun) < 1000 and stop.is_set()
    with pytest.raises(Cancellation):  # half of the units is not what was asked for
        list(side_by_side([int], jobs=1, stop=stop))
    flow.stop.set()
    with pytest.raises(Cancellation):
        flow.moved(1)
