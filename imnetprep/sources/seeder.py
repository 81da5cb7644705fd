"""Torrents made of archives, and archives seeded to the swarm."""

import itertools
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import libtorrent as lt

from imnetprep.messages import Progress
from imnetprep.sources.session import Network, listening_port, open_session
from imnetprep.sources.torrent import read_torrent


class Seeder(NamedTuple):
    """A session that seeds: the magnet links of what it has, and where it is (`HOST:PORT`)."""

    magnets: list[str]
    peer: str
    handles: list[Any]

    def sent_bytes(self) -> int:
        """The bytes sent so far, without the protocol around them."""
        return sum(handle.status().total_payload_upload for handle in self.handles)


class Seed(NamedTuple):
    """A whole torrent on the disk: the .torrent and where each of its files lies."""

    torrent: bytes
    paths: Mapping[int, Path]


class SeedLimits(NamedTuple):
    """How long to seed: until `ratio` times the bytes, or for `seconds`; None: no such limit."""

    ratio: float | None = None
    seconds: float | None = None


def make_torrent(archive: Path, *, piece_bytes: int = 0) -> bytes:
    """The .torrent of one file (v1, as the published ones are); 0 picks the piece size."""
    files = lt.list_files(os.fsencode(archive))  # which need not be UTF-8
    torrent = lt.create_torrent(files, piece_bytes, lt.create_torrent.v1_only)
    lt.set_piece_hashes(torrent, os.fsencode(archive.parent))
    return bytes(lt.bencode(torrent.generate()))


def magnet_of(torrent: bytes, path: Path) -> str:
    """The magnet link of the .torrent of the file at `path`."""
    name = quote(os.fsencode(path.name))
    return f"magnet:?xt=urn:btih:{read_torrent(torrent).info_hash}&dn={name}"


@contextmanager
def seeded(archives: Sequence[Path], *, listen: str = "127.0.0.1:0") -> Iterator[Seeder]:
    """Seed `archives` to whoever dials this machine at `listen`, without DHT or trackers."""
    with open_session(Network(listen=listen, dht=False)) as session:
        magnets, handles = [], []
        for archive in archives:
            torrent = make_torrent(archive)
            handles.append(add_seed(session, Seed(torrent, {0: archive})))
            magnets.append(magnet_of(torrent, archive))
        address = listen.rpartition(":")[0]
        yield Seeder(magnets, f"{address}:{listening_port(session)}", handles)


def add_seed(session: Any, seed: Seed) -> Any:
    """Add a torrent that is whole and proved; returns its handle."""
    params = lt.load_torrent_buffer(seed.torrent)
    places = {index: os.fsencode(path.absolute()) for index, path in seed.paths.items()}
    params.save_path = os.path.dirname(next(iter(places.values())))  # noqa: PTH120 - of bytes
    params.renamed_files = places
    params.flags = lt.torrent_flags.seed_mode
    return session.add_torrent(params)


def seed_until(
    seeds: Sequence[Seed], network: Network, limits: SeedLimits, *, progress: Progress
) -> None:
    """Seed until the first of `limits` is reached; its ratio counts what this call sends."""
    ratio, seconds = limits
    with open_session(network) as session:
        handles = [add_seed(session, seed) for seed in seeds]
        for handle, address in itertools.product(handles, network.peers):
            handle.connect_peer(address)
        size_bytes = sum(handle.status().total_wanted for handle in handles)
        until_s = time.monotonic() + seconds if seconds is not None else float("inf")
        goal = int(size_bytes * ratio) if ratio is not None else size_bytes
        sent_bytes = 0
        with progress.task("seed", total=goal, unit="B") as task:
            while time.monotonic() < until_s and (ratio is None or sent_bytes < goal):
                time.sleep(0.5)
                states = [handle.status() for handle in handles]
                total_bytes = sum(state.total_payload_upload for state in states)
                task.advance(total_bytes - sent_bytes)
                sent_bytes = total_bytes
                task.tell(f"{sum(state.num_peers for state in states)} peers")
