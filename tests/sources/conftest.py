"""A torrent client that we did not write, on loopback."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imnetprep.sources.seeder import make_torrent
from imnetprep.sources.torrent import read_torrent
from tests.servers import free_port
from tests.sources.downloads import SIZES

Seed = Callable[[Path], tuple[list[str], str]]


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def aria2_seed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seed]:
    """`seed(folder)` seeds the archives of a folder; gives their magnet links and the peer."""
    if not shutil.which("aria2c"):
        pytest.skip("aria2c is not installed")
    clients: list[subprocess.Popen[bytes]] = []

    def seed(folder: Path) -> tuple[list[str], str]:
        torrents = tmp_path_factory.mktemp("torrents")
        magnets, files = [], []
        for archive in sorted(folder.glob("*.tar")):
            body = make_torrent(archive)
            files.append(torrents / f"{archive.name}.torrent")
            files[-1].write_bytes(body)
            magnets.append(f"magnet:?xt=urn:btih:{read_torrent(body).info_hash}")
        port = free_port()
        words = ["aria2c", "--quiet", "--interface=127.0.0.1", "--enable-dht=false"]
        words += ["--check-integrity=true", "--seed-ratio=0", f"--listen-port={port}"]
        clients.append(subprocess.Popen([*words, f"--dir={folder}", *files]))
        while not _listens(port):
            assert clients[-1].poll() is None, "aria2c does not listen"
            time.sleep(0.05)
        return magnets, f"127.0.0.1:{port}"

    yield seed
    for client in clients:
        client.kill()
        client.wait()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges and records as they are, for files that are a thousand times smaller."""
    monkeypatch.setattr("imnetprep.retry._FIRST_WAIT_S", 0.001)
    for name, value in SIZES.items():
        monkeypatch.setattr(f"imnetprep.{name}", value)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small disk is a mount, and this user may not mount")
    yield disk
    subprocess.run(["umount", disk], check=True)
