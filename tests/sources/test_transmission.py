"""Transmission, which takes no peer of 127.0.0.1: both sides live in a network of their own."""

import contextlib
import ctypes
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from imnetprep.sources.seeder import make_torrent
from imnetprep.sources.torrent import read_torrent
from tests.conftest import command
from tests.http_server import Answering, http_served
from tests.servers import free_port

VAL = "ILSVRC2012_img_val.tar"
HERE = "10.77.0.1"
_CLONE_NEWNET = 0x40000000


def in_a_network_of_its_own(work: Callable[[], None]) -> None:
    """Call `work` where only `HERE` and 127.0.0.1 are; what it starts lives there too."""

    def call() -> None:
        if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
            pytest.skip(f"no network namespace: {os.strerror(ctypes.get_errno())}")
        for words in (["link", "set", "lo", "up"], ["addr", "add", f"{HERE}/32", "dev", "lo"]):
            subprocess.run(["ip", *words], check=True)
        work()

    for program in ("ip", "transmission-daemon", "transmission-remote"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")
    with ThreadPoolExecutor(1) as threads:  # a namespace is a thread's, and that of its children
        threads.submit(call).result()


def until(is_so: Callable[[], bool], *processes: subprocess.Popen[Any]) -> None:
    """Wait until it is so, while the processes run; minutes mean that it never will be."""
    end_s = time.monotonic() + 180
    while not is_so():
        assert time.monotonic() < end_s and all(each.poll() is None for each in processes)
        time.sleep(0.05)


@contextlib.contextmanager
def transmission(folder: Path) -> Iterator[tuple[Callable[..., str], int]]:
    """Its daemon with the files in `folder`: what gives it words, and the port of its peers."""
    port, remote_port = free_port(), free_port()
    words = ["transmission-daemon", "--foreground", "--config-dir", f"{folder}.config", "--no-dht"]
    words += ["--no-lpd", "--no-portmap", "--no-utp", "--download-dir", str(folder)]
    words += ["--peerport", str(port), "--port", str(remote_port)]
    with Path(f"{folder}.log").open("wb") as log:
        daemon = subprocess.Popen(words, stdout=log, stderr=log)

    def say(*words: object) -> str:
        full = ["transmission-remote", f"127.0.0.1:{remote_port}", *map(str, words)]
        return subprocess.run(full, capture_output=True, text=True, check=False).stdout

    try:
        until(lambda: "Daemon version" in say("--session-info"), daemon)
        yield say, port
    finally:
        daemon.kill()
        daemon.wait()


@pytest.mark.network
@pytest.mark.slow
def test_what_it_seeds_is_fetched_and_what_is_seeded_it_fetches(
    packed: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(packed.parent, tmp_path / "published"))
    toml, line = folder / packed.name, f'name = "{VAL}"'
    (folder / "t.torrent").write_bytes(make_torrent(folder / VAL))
    toml.write_text(toml.read_text().replace(line, f'{line}\ntorrent = "t.torrent"'))
    root, other = tmp_path / "root", tmp_path / "other"
    other.mkdir()
    own = ["--root", root, "--no-dht", "--listen"]

    def exchange() -> None:
        with transmission(folder) as (say, port):
            say("--add", folder / "t.torrent")
            until(lambda: "Percent Done: 100%" in say("--torrent", 1, "--info"))
            words = ["download", *own, f"{HERE}:0", "--dataset", toml, "--split", "val"]
            words += ["--peer", f"{HERE}:{port}"]
            subprocess.run(command(*words), check=True, timeout=120)
        seed_port = free_port()
        peer = bytes(map(int, HERE.split("."))) + seed_port.to_bytes(2, "big")

        class Tracker(Answering):
            def do_GET(self) -> None:
                self.answer(b"d8:intervali60e5:peers6:" + peer + b"e")

        seed = command("seed", *own, f"{HERE}:{seed_port}")
        with subprocess.Popen(seed, stdout=subprocess.PIPE, text=True) as seeder:
            try:
                with http_served(Tracker) as tracker, transmission(other) as (say, _):
                    assert seeder.stdout is not None
                    info_hash = read_torrent((folder / "t.torrent").read_bytes()).info_hash
                    assert info_hash in seeder.stdout.readline()
                    say("--add", folder / "t.torrent")
                    address = f"http://127.0.0.1:{tracker.server_port}/announce"
                    say("--torrent", 1, "-td", address)
                    until((other / VAL).exists, seeder)
            finally:
                seeder.kill()

    in_a_network_of_its_own(exchange)
    for path in (root / "archives" / VAL, other / VAL):
        assert path.read_bytes() == (folder / VAL).read_bytes()
