"""Files fetched from a BitTorrent swarm, each piece proved as read back from the disk.

libtorrent's `piece_finished_alert` comes before the bytes are in the file. A piece counts here
when, after a `cache_flushed_alert`, its SHA-1 is right as read back; that is the archive's proof.
"""

import os
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import libtorrent as lt

from imnetprep.messages import ImnetprepError, Progress, Task, WrongBytes, count
from imnetprep.sources.part_files import PartFiles
from imnetprep.sources.patience import Addresses, Patience
from imnetprep.sources.torrent import Magnet, Torrent, info_hash_of, read_torrent
from imnetprep.transfers.flow import Cancellation

_SECONDS_BETWEEN_SAVES = 30
_SECONDS_BETWEEN_FLUSHES = 0.5
_READS_OF_A_PIECE = 5
# What is read while it comes: from how many full seeds on in order, else a window before the rest.
_AMPLE_SEEDS, _WINDOW_PIECES, _FIRST_OF_ALL = 2, 128, 7


def fetch_metadata(
    session: Any,
    magnets: Sequence[Magnet],
    *,
    addresses: Addresses,
    wait_s: float,
    progress: Progress,
    reading: "Reading | None" = None,
) -> list[Torrent]:
    """What the swarm says about each magnet link. Raises SourceFailed when it says nothing."""
    handles = {_add_magnet(session, magnet, addresses): magnet for magnet in magnets}
    found: dict[Magnet, Torrent] = {}
    patience = Patience(session, addresses, wait_s, progress)
    while len(found) < len(magnets):
        if reading is not None and reading.stop.is_set():
            raise Cancellation
        session.wait_for_alert(250)
        for alert in session.pop_alerts():
            patience.hear(alert)
            if isinstance(alert, lt.metadata_received_alert) and alert.handle in handles:
                magnet = handles[alert.handle]
                info = alert.handle.torrent_file().info_section()
                peers = [peer.ip for peer in alert.handle.get_peer_info()]
                body = lt.bencode({b"info": lt.bdecode(info)})  # the .torrent around it
                found[magnet] = read_torrent(body, magnet=magnet, peers=peers)
                patience.alive()
        next_magnet = next((magnet for magnet in magnets if magnet not in found), None)
        if next_magnet is not None:
            torrents = {handle: None for handle, magnet in handles.items() if magnet not in found}
            patience.watch(torrents, f"metadata of {next_magnet.name}")
    for handle in handles:
        session.remove_torrent(handle)
    return [found[magnet] for magnet in magnets]


def _add_magnet(session: Any, magnet: Magnet, addresses: Addresses) -> Any:
    params = lt.parse_magnet_uri(magnet.uri)
    params.save_path = "."  # nothing is written: see the flags
    params.flags |= lt.torrent_flags.upload_mode | lt.torrent_flags.default_dont_download
    params.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
    handle = session.add_torrent(params)
    for address in addresses:
        handle.connect_peer(address)
    return handle


@dataclass
class _Torrent:
    """A torrent in the session and the pieces of it that are under way."""

    parts: PartFiles
    handle: Any
    finished_pieces: set[int] = field(default_factory=set)  # by libtorrent's word
    flushing_pieces: set[int] = field(default_factory=set)
    proving: dict[Future[bool], int] = field(default_factory=dict)
    wrong_reads: Counter[int] = field(default_factory=Counter)
    told_bytes: int = 0
    is_rechecking: bool = False
    is_checked: bool = False  # of one without SHA-1 pieces: read back by libtorrent, and whole
    first_gap: int = -1

    @property
    def is_done(self) -> bool:
        if not self.parts.torrent.has_v1:
            return self.is_checked
        return len(self.parts.proved_pieces) == len(self.parts.pieces)

    def steer(self) -> None:
        """Ask first for what is read next.

        In order where two peers or web seeds have all of it; else a window of pieces before all
        others: a thin swarm lives of what is rare in it.
        """
        if self.handle.status().num_seeds + len(self.handle.url_seeds()) >= _AMPLE_SEEDS:
            self.handle.set_flags(lt.torrent_flags.sequential_download)
            return
        self.handle.unset_flags(lt.torrent_flags.sequential_download)
        pieces, proved_pieces = self.parts.pieces, self.parts.proved_pieces
        at = bisect_left(pieces, self.first_gap)
        while at < len(pieces) and pieces[at] in proved_pieces:
            at += 1
        window = pieces[at : at + _WINDOW_PIECES]
        if window and window[0] != self.first_gap:
            self.first_gap = window[0]
            self.handle.prioritize_pieces([(piece, _FIRST_OF_ALL) for piece in window])


@dataclass(frozen=True)
class Reading:
    """Somebody who reads the files while they come, from their start to their end.

    `on_parts` is called once the parts are on the disk, before anything is fetched; `stop` ends the
    download.
    """

    on_parts: Callable[[Sequence[PartFiles]], None]
    stop: threading.Event


def fetch_files(
    session: Any,
    downloads: Sequence[PartFiles],
    *,
    addresses: Addresses,
    wait_s: float,
    progress: Progress,
    on_whole: Callable[[PartFiles], None],
    reading: Reading | None = None,
) -> None:
    """Fetch what is missing; `on_whole` is called for each torrent as soon as it is whole.

    Whatever ends this, what was proved is on record. Raises SourceFailed, WrongBytes and
    OSError (disk full, files that cannot be written).
    """
    with ThreadPoolExecutor(3) as workers:
        loop = _FetchLoop(session, workers, on_whole, reading)
        loop.patience = Patience(session, addresses, wait_s, progress)
        try:
            for parts in downloads:
                parts.save()
            if reading is not None:
                reading.on_parts(downloads)
            for parts in downloads:
                loop.add(parts, addresses)
            total = sum(parts.size_bytes for parts in downloads)
            proved_bytes = sum(parts.proved_bytes for parts in downloads)
            with progress.task(
                "download", total=total, unit="B", initial=proved_bytes
            ) as loop.task:
                while loop.torrents:
                    loop.step()
        finally:
            loop.leave()


class _FetchLoop:
    """The loop of `fetch_files`: alerts in, flushes and proofs out, saves now and then."""

    task: Task
    patience: Patience

    def __init__(
        self,
        session: Any,
        workers: ThreadPoolExecutor,
        on_whole: Callable[[PartFiles], None],
        reading: Reading | None,
    ) -> None:
        self._session, self._workers, self._on_whole = session, workers, on_whole
        self._reading = reading
        self.torrents: dict[str, _Torrent] = {}
        self._save_under_way: Future[None] | None = None
        self._saved_s = self._flushed_s = time.monotonic()
        self._received_bytes = 0

    def add(self, parts: PartFiles, addresses: Addresses) -> None:
        handle = self._session.add_torrent(parts.params())
        for address in (*addresses, *parts.torrent.peers):
            handle.connect_peer(address)
        self.torrents[parts.torrent.info_hash] = _Torrent(parts, handle)

    def step(self) -> None:
        if self._reading is not None and self._reading.stop.is_set():
            raise Cancellation
        self._session.wait_for_alert(250)
        for alert in self._session.pop_alerts():
            self._on(alert)
        now_s = time.monotonic()
        for torrent in list(self.torrents.values()):
            self._collect_proofs(torrent)
            if torrent.is_done:
                self._finish(torrent)
        if now_s - self._flushed_s > _SECONDS_BETWEEN_FLUSHES:
            self._flushed_s = now_s
            self._flush()
            if self._reading is not None:
                for torrent in self.torrents.values():
                    torrent.steer()
            self._tell()
        if now_s - self._saved_s > _SECONDS_BETWEEN_SAVES:
            self._saved_s = now_s
            self._save()

    def leave(self) -> None:
        """Record what is proved and close the files."""
        self._workers.shutdown(cancel_futures=True)
        for torrent in self.torrents.values():
            if torrent.handle.is_valid():  # else the disk failed when it was whole
                self._session.remove_torrent(torrent.handle)
            with suppress(OSError):  # a full disk: what the record lacks is found at the next start
                torrent.parts.save()
            torrent.parts.close()

    def _on(self, alert: Any) -> None:
        self.patience.hear(alert)
        handle = getattr(alert, "handle", None)
        if handle is None or not handle.is_valid():
            return
        torrent = self.torrents.get(info_hash_of(handle.info_hashes()))
        if torrent is None:
            return
        if isinstance(alert, lt.piece_finished_alert):
            self.patience.alive()
            if torrent.parts.torrent.has_v1:
                torrent.finished_pieces.add(int(alert.piece_index))
        elif isinstance(alert, lt.cache_flushed_alert):
            for piece in torrent.flushing_pieces - torrent.parts.proved_pieces:
                torrent.proving[self._workers.submit(torrent.parts.prove, piece)] = piece
            torrent.flushing_pieces = set()
        elif isinstance(alert, lt.file_error_alert | lt.torrent_error_alert):
            raise _disk_error(alert, torrent.parts.folder)
        elif not torrent.parts.torrent.has_v1:
            self._on_unproved(alert, torrent)

    def _on_unproved(self, alert: Any, torrent: _Torrent) -> None:
        """Without SHA-1 pieces the proof is libtorrent's: it reads all back when all is there."""
        if isinstance(alert, lt.torrent_finished_alert) and not torrent.is_rechecking:
            torrent.is_rechecking = True
            torrent.handle.force_recheck()
        elif isinstance(alert, lt.torrent_checked_alert) and torrent.is_rechecking:
            torrent.is_rechecking = False  # it says finished once more before it says checked
            torrent.is_checked = torrent.handle.status().is_finished

    def _collect_proofs(self, torrent: _Torrent) -> None:
        for future in [future for future in torrent.proving if future.done()]:
            piece = torrent.proving.pop(future)
            if future.result():
                torrent.parts.add(piece)
                self.task.advance(torrent.parts.torrent.info.piece_size(piece))
                continue
            torrent.wrong_reads[piece] += 1
            if torrent.wrong_reads[piece] == _READS_OF_A_PIECE:
                raise WrongBytes(
                    f"piece {piece} of {torrent.parts.torrent.info.name()} arrived right and"
                    " reads back wrong from the disk",
                    hint="the disk or the memory may be failing; the same command fetches it again",
                )
            torrent.finished_pieces.add(piece)

    def _flush(self) -> None:
        for torrent in self.torrents.values():
            if torrent.finished_pieces and not torrent.flushing_pieces:
                torrent.flushing_pieces, torrent.finished_pieces = torrent.finished_pieces, set()
                torrent.handle.flush_cache()

    def _tell(self) -> None:
        states = [torrent.handle.status() for torrent in self.torrents.values()]
        if not states:
            return
        for torrent, state in zip(self.torrents.values(), states, strict=True):
            if not torrent.parts.torrent.has_v1 and state.total_wanted_done > torrent.told_bytes:
                self.task.advance(state.total_wanted_done - torrent.told_bytes)
                torrent.told_bytes = state.total_wanted_done
        peers = sum(state.num_peers for state in states)
        received_bytes = sum(state.total_payload_download for state in states)
        if received_bytes != self._received_bytes:  # the rate is an average of half a minute
            self._received_bytes = received_bytes
            self.patience.alive()
        self.task.tell(count(peers, "peer"))
        names = ", ".join(torrent.parts.torrent.info.name() for torrent in self.torrents.values())
        self.patience.watch({each.handle: each.parts for each in self.torrents.values()}, names)

    def _save(self) -> None:
        if self._save_under_way is None or self._save_under_way.done():
            downloads = [torrent.parts for torrent in self.torrents.values()]
            self._save_under_way = self._workers.submit(_save_all, downloads)

    def _finish(self, torrent: _Torrent) -> None:
        if self._save_under_way is not None:
            self._save_under_way.result()
        self._session.remove_torrent(torrent.handle)
        torrent.parts.save()
        del self.torrents[torrent.parts.torrent.info_hash]  # whose parts are gone from here on
        torrent.parts.finish()
        self._on_whole(torrent.parts)


def _save_all(downloads: Sequence[PartFiles]) -> None:
    for parts in downloads:
        parts.save()


def _disk_error(alert: Any, folder: Path) -> Exception:
    place = str(folder)
    if isinstance(alert, lt.file_error_alert):
        with suppress(UnicodeDecodeError):  # of a folder that is not UTF-8
            place = alert.filename()
    error = alert.error
    if error.category().name() in ("system", "generic"):
        return OSError(error.value(), os.strerror(error.value()), place)
    return ImnetprepError(
        f"{place} cannot be written: {error.message()}",
        hint="fix what the system says and run the same command again",
    )
