"""The cache of shards: whole or absent, once for all, and never over its limit."""

import os
import signal
import threading
from collections import Counter
from multiprocessing import get_context
from pathlib import Path

import pytest

from imnetprep.messages import ImnetprepError
from imnetprep.remote_shards.cache import Cache

SIZE = 1000


def name_of(number: int) -> str:
    return f"train-{number:06}-{number:032x}.tar"


class Fills:
    """Writes shards, and counts them."""

    def __init__(self) -> None:
        self.counts = Counter[int]()

    def open(self, cache: Cache, number: int) -> None:
        def fill(handle: int) -> None:
            self.counts[number] += 1
            assert lying_bytes(cache.folder) <= cache.limit_bytes
            os.pwrite(handle, bytes([number]) * SIZE, 0)

        handle = cache.open(name_of(number), SIZE, fill)
        assert os.pread(handle, SIZE + 1, 0) == bytes([number]) * SIZE
        os.close(handle)


def lying_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def shards_in(folder: Path) -> list[str]:
    """What lies there but for the lock."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def test_a_shard_is_fetched_once_and_the_oldest_makes_room(tmp_path: Path) -> None:
    cache, fills = Cache(tmp_path / "cache", 3 * SIZE), Fills()
    for number in (1, 2, 3, 1, 2, 3):
        fills.open(cache, number)
    assert fills.counts == {1: 1, 2: 1, 3: 1}
    (cache.folder / "notes.tar").write_bytes(b"of somebody else")
    for number in (1, 2, 3):
        os.utime(cache.folder / name_of(number), (number, number))
    (cache.folder / "notes.tar").unlink()
    fills.open(cache, 4)
    assert shards_in(cache.folder) == [name_of(2), name_of(3), name_of(4)]


def test_what_is_in_use_is_removed_last_and_what_is_not_ours_never(tmp_path: Path) -> None:
    cache, fills = Cache(tmp_path, 2 * SIZE), Fills()
    for number in (1, 2):
        fills.open(cache, number)
    os.utime(tmp_path / name_of(1), (1, 1))
    (tmp_path / "photos.tar").touch()
    handle = cache.fetch(name_of(3), SIZE, lambda _: None, in_use=lambda: [name_of(1)])
    assert handle is not None
    os.close(handle)
    assert shards_in(tmp_path) == ["photos.tar", name_of(1), name_of(3)]


def test_many_threads_and_processes_share_it(tmp_path: Path) -> None:
    """A limit of three shards, and eight that want four in turn: some wait for room."""
    cache = Cache(tmp_path, 3 * SIZE)

    def work() -> None:
        fills = Fills()
        for number in [1, 2, 3, 4] * 5:
            fills.open(cache, number)

    def work_in_threads() -> None:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        os._exit(0)

    processes = [get_context("fork").Process(target=work_in_threads) for _ in range(2)]
    for each in processes:
        each.start()
    for each in processes:
        each.join()
    assert [each.exitcode for each in processes] == [0, 0]
    assert lying_bytes(tmp_path) <= 3 * SIZE and not list(tmp_path.glob("*.fetching"))


def test_two_that_need_a_shard_fetch_it_once(tmp_path: Path) -> None:
    cache, is_begun, may_end = Cache(tmp_path, SIZE), threading.Event(), threading.Event()
    fills = list[int]()

    def fill(handle: int) -> None:
        fills.append(handle)
        is_begun.set()
        may_end.wait()

    first = threading.Thread(target=lambda: os.close(cache.open(name_of(1), SIZE, fill)))
    first.start()
    is_begun.wait()
    assert cache.fetch(name_of(1), SIZE, fill, wait=False) is None
    second = threading.Thread(target=lambda: os.close(cache.open(name_of(1), SIZE, fill)))
    second.start()
    may_end.set()
    first.join()
    second.join()
    assert len(fills) == 1


def test_a_kill_in_the_middle_of_a_fetch_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 2 * SIZE)

    def die(handle: int) -> None:
        os.pwrite(handle, b"half", 0)
        os.kill(os.getpid(), signal.SIGKILL)

    process = get_context("fork").Process(target=cache.open, args=(name_of(1), SIZE, die))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert shards_in(tmp_path) == [f".{name_of(1)}.fetching"]
    Fills().open(cache, 2)  # which finds it without a lock
    assert shards_in(tmp_path) == [name_of(2)]
    cache.folder.joinpath(f".{name_of(1)}.fetching").write_bytes(b"half")
    fills = Fills()
    for number in (1, 3):
        fills.open(cache, number)
    assert shards_in(tmp_path) == [name_of(1), name_of(3)]


def test_a_fetch_that_fails_leaves_nothing(tmp_path: Path) -> None:
    cache = Cache(tmp_path, SIZE)

    def fail(handle: int) -> None:
        os.pwrite(handle, b"half", 0)
        raise OSError("the network")

    with pytest.raises(OSError, match="the network"):
        cache.open(name_of(1), SIZE, fail)
    assert shards_in(tmp_path) == []


def test_a_disk_without_room_for_it_is_told_before(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 10**18)
    cache.require_place(10**6)  # all that will lie there
    with pytest.raises(ImnetprepError, match=r"the cache may take 1e\+06 TB, and the disk of"):
        cache.require_place(10**18)
