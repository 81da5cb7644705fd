"""The unfinished files of a torrent: `*.part` files, and the record of proved pieces in them.

libtorrent trusts resume data that is older than the files, and calls a piece finished before it
is on the disk. So the record here is ours: a piece is in it after its SHA-1 was right (as read back
from the file, where libtorrent wrote it) and the file was synced. What the record does not cover is
checked at start.
"""

import hashlib
import os
import random
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import libtorrent as lt

from imnetprep.fs import allocated_bytes, data_ranges, read_range, sync_folder, written_whole
from imnetprep.jobs import FILES
from imnetprep.machine import named
from imnetprep.messages import ImnetprepError, Progress, move_away
from imnetprep.outside_files import open_handle
from imnetprep.sources.torrent import Torrent, read_torrent
from imnetprep.transfers.flow import Cancellation

_PIECES_READ_AGAIN = 64


def record_path(folder: Path, info_hash: str) -> Path:
    """Where the metadata and the proved pieces of a torrent are kept until its files are whole."""
    return folder / f".{info_hash}.resume"


class Record(NamedTuple):
    """A torrent, its proved pieces, and inode and mtime (ns) of each of its wanted files."""

    torrent: Torrent
    proved_pieces: frozenset[int]
    states: list[list[int]]


def read_record(path: Path) -> Record | None:
    """What the record at `path` says; None where there is none that can be read."""
    try:
        record = lt.bdecode(path.read_bytes())
        torrent, bits = read_torrent(record[b"torrent"]), record[b"proved"]
        right = path.name == record_path(path.parent, torrent.info_hash).name
        right = right and type(bits) is bytes and len(bits) == (torrent.info.num_pieces() + 7) // 8
        right = right and all(len(state) == 2 for state in record[b"files"])
    except (FileNotFoundError, ImnetprepError, RuntimeError, LookupError, TypeError):
        return None
    if not right:
        return None
    pieces = range(torrent.info.num_pieces())
    proved_pieces = frozenset(each for each in pieces if bits[each // 8] >> (each % 8) & 1)
    return Record(torrent, proved_pieces, record[b"files"])


class PartFiles:
    """The files of `torrent` that are on their way to `paths` (by file index)."""

    def __init__(self, torrent: Torrent, paths: Mapping[int, Path]) -> None:
        self.torrent = torrent
        self.paths = paths
        self.folder = next(iter(paths.values())).parent
        files = torrent.info.layout()
        # A piece at the edge of a wanted file may reach into files that nobody wants.
        self._parts = {
            index: paths[index].with_name(f"{paths[index].name}.part")
            if index in paths
            else self.folder / f".{torrent.info_hash}-{index}.unwanted"
            for index in range(files.num_files())
        }
        ranges = [self._pieces_of(index, 0, files.file_size(index)) for index in paths]
        self.pieces = sorted(set().union(*ranges))
        self.proved_pieces: set[int] = set()
        self._record = record_path(self.folder, torrent.info_hash)
        self._handles: dict[int, int] = {}
        self._change = threading.Condition()
        self._failure: BaseException | None = None

    @property
    def size_bytes(self) -> int:
        """The bytes of all pieces to fetch, whole pieces counted."""
        return sum(map(self.torrent.info.piece_size, self.pieces))

    @property
    def proved_bytes(self) -> int:
        return sum(map(self.torrent.info.piece_size, self.proved_pieces))

    @property
    def missing_disk_bytes(self) -> int:
        """The bytes that the parts will still take from the disk."""
        return max(0, self.size_bytes - sum(map(allocated_bytes, self._parts.values())))

    def recover(self, progress: Progress, *, stop: threading.Event | None = None) -> None:
        """Find out which pieces are there: by the record, else by their SHA-1.

        A file that no record speaks of (under its final name, never proved, or a part from
        elsewhere) is used if most of it is right; otherwise it is somebody's, and this raises
        ImnetprepError and leaves it alone. Raises Cancellation once `stop` is set.
        """
        if not self.torrent.has_v1:
            self._rename_to_parts()
            return  # libtorrent checks SHA-256 trees itself, when it is given no record
        with_data = set(self._pieces_with_data())
        pieces_on_record = self._recorded(with_data)
        self.proved_pieces = pieces_on_record or set()
        if pieces_to_check := sorted(with_data - self.proved_pieces):
            self._check(pieces_to_check, progress, stop)
        if pieces_on_record is None and len(self.proved_pieces) * 2 < len(with_data):
            self.close()
            path = next(path for path in map(self._place, self.paths) if path.exists())
            raise ImnetprepError(
                f"{path} is there, and {len(with_data) - len(self.proved_pieces):,} of its"
                f" {len(with_data):,} pieces are not those of torrent {self.torrent.info_hash}",
                hint=f"{move_away(path)}; then run the same command again",
            )
        self._rename_to_parts()

    def begin_with(self, pieces: Iterable[int]) -> None:
        """Begin with files of which just now `pieces` were proved, and no others."""
        self._forget()  # of an earlier time: after a kill right here it would be believed
        self.proved_pieces = set(pieces)
        self._rename_to_parts()

    def put(self, piece: int, body: bytes | memoryview) -> bool:
        """Write a piece that came another way, if it is right; False if its SHA-1 is not.

        For a torrent of one file with SHA-1 pieces. Safe from several threads, of other pieces.
        """
        if hashlib.sha1(body).digest() != self.torrent.info.hash_for_piece(piece):
            return False
        (index,) = self.paths
        with named(self._parts[index]), self._parts[index].open("r+b", buffering=0) as part:
            part.seek(piece * self.torrent.info.piece_length())
            rest = memoryview(body)
            while rest:  # a disk that fills up takes a part, and says so the next time
                rest = rest[part.write(rest) :]
        self.add(piece)
        return True

    def add(self, piece: int) -> None:
        """Count a piece that is proved, and let those go on who wait for it."""
        with self._change:
            self.proved_pieces.add(piece)
            self._change.notify_all()

    def fail(self, error: BaseException) -> None:
        """Let nobody wait any longer: no further piece comes, because of `error`."""
        with self._change:
            self._failure = error
            self._change.notify_all()

    def wait_for(self, index: int, start: int, end: int) -> None:
        """Wait until the bytes from `start` to `end` of a file are proved.

        Raises what `fail` was told, if they never will be.
        """
        pieces = self._pieces_of(index, start, end)
        with self._change:
            while not self.proved_pieces.issuperset(pieces):
                if self._failure is not None:
                    raise self._failure
                self._change.wait()

    def open(self, index: int) -> int:
        """The handle of a file, in its part or under its name; it outlives that change."""
        try:
            return open_handle(self._parts[index])
        except FileNotFoundError:
            return open_handle(self.paths[index])

    def _check(
        self, pieces: Sequence[int], progress: Progress, stop: threading.Event | None
    ) -> None:
        size_of = self.torrent.info.piece_size
        workers = ThreadPoolExecutor(FILES.count())
        try:
            with progress.task("check", total=sum(map(size_of, pieces)), unit="B") as task:
                for piece, right in zip(pieces, workers.map(self.prove, pieces), strict=True):
                    if stop is not None and stop.is_set():
                        raise Cancellation
                    task.advance(size_of(piece))
                    if right:
                        self.proved_pieces.add(piece)
        finally:
            workers.shutdown(cancel_futures=True)  # ^C does not wait for the rest

    def prove(self, piece: int) -> bool:
        """Is the SHA-1 of `piece`, as the files have it now, the torrent's?"""
        digest = hashlib.sha1()
        size_bytes = self.torrent.info.piece_size(piece)
        for part in self.torrent.info.map_block(piece, 0, size_bytes):
            if (
                self.torrent.info.layout().file_flags(part.file_index)
                & lt.file_flags_t.flag_pad_file
            ):
                digest.update(bytes(part.size))
                continue
            try:
                with named(self._parts[part.file_index]):
                    digest.update(read_range(self._handle(part.file_index), part.size, part.offset))
            except FileNotFoundError:
                return False
        return bool(digest.digest() == self.torrent.info.hash_for_piece(piece))

    def save(self) -> None:
        """Record the proved pieces, after a sync that covers them."""
        pieces = frozenset(self.proved_pieces)
        for part in map(self._parts.__getitem__, self.paths):
            if not part.exists():
                part.touch()  # so that the record can say in which file they lie
        for index in self.paths:
            with named(self._parts[index]):
                os.fsync(self._handle(index))
        bits = bytearray((self.torrent.info.num_pieces() + 7) // 8)
        for piece in pieces:
            bits[piece // 8] |= 1 << (piece % 8)
        with written_whole(self._record) as file:
            record = {b"torrent": self.torrent.public_body, b"proved": bytes(bits)}
            file.write(lt.bencode({**record, b"files": self._states()}))

    def params(self) -> Any:
        """What libtorrent needs to fetch the missing pieces into the parts."""
        params = self.torrent.params()
        params.save_path = os.fsencode(self.folder.absolute())  # which need not be UTF-8
        params.renamed_files = {index: part.name for index, part in self._parts.items()}
        pieces = set(self.pieces)
        numbers = range(self.torrent.info.num_pieces())
        params.piece_priorities = [4 if piece in pieces else 0 for piece in numbers]
        if self.proved_pieces:
            params.have_pieces = [piece in self.proved_pieces for piece in numbers]
        params.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
        return params

    def discard(self) -> None:
        """Remove the parts and their record: the files have come another way."""
        self.close()
        self._forget()
        for part in self._parts.values():
            part.unlink(missing_ok=True)

    def finish(self) -> None:
        """Give the whole files their names. Call when every piece is proved and saved.

        The record goes first: one that outlived the part would be believed of a later file.
        """
        for index in self.paths:
            with named(self._parts[index]):
                os.fsync(self._handle(index))
        self.close()
        self._forget()
        for index, path in self.paths.items():
            self._parts[index].rename(path)
        for part in self._parts.values():
            part.unlink(missing_ok=True)
        sync_folder(self.folder)

    def close(self) -> None:
        for handle in self._handles.values():
            os.close(handle)
        self._handles.clear()

    def _forget(self) -> None:
        """Drop the record, for good before anything else is done."""
        self._record.unlink(missing_ok=True)
        sync_folder(self.folder)

    def _place(self, index: int) -> Path:
        """Where the bytes of a file are now: in its part, or under its final name, not proved."""
        part = self._parts[index]
        return self.paths[index] if index in self.paths and not part.exists() else part

    def _rename_to_parts(self) -> None:
        self.close()
        for index, path in self.paths.items():
            if self._place(index) == path and path.exists():
                path.rename(self._parts[index])

    def _recorded(self, with_data: set[int]) -> set[int] | None:
        """The pieces that the record says are proved; None where it is not of these very parts.

        After a kill the parts are newer than the record. Some pieces are then read again: were
        the file another one, they would not all be right.
        """
        record = read_record(self._record)
        if record is None or any(self._place(index) == path for index, path in self.paths.items()):
            return None
        found = self._states()
        if [inode for inode, _ in record.states] != [inode for inode, _ in found]:
            return None
        pieces = with_data & record.proved_pieces
        if record.states == found:
            return pieces
        probes = random.sample(sorted(pieces), min(len(pieces), _PIECES_READ_AGAIN))
        return pieces if all(map(self.prove, probes)) else None

    def _states(self) -> list[list[int]]:
        """Inode and mtime (ns) of each wanted file, zeros where it is not there yet."""
        places = (self._place(index) for index in sorted(self.paths))
        states = (place.stat() if place.exists() else None for place in places)
        return [[state.st_ino, state.st_mtime_ns] if state else [0, 0] for state in states]

    def _handle(self, index: int) -> int:
        if index not in self._handles:
            handle = os.open(self._place(index), os.O_RDONLY)
            if self._handles.setdefault(index, handle) != handle:
                os.close(handle)  # another thread was first
        return self._handles[index]

    def _pieces_of(self, index: int, start: int, end: int) -> range:
        """The pieces that have bytes from `start` to `end` of a file."""
        offset = self.torrent.info.layout().file_offset(index)
        length = self.torrent.info.piece_length()
        return range((offset + start) // length, -(-(offset + end) // length))

    def _pieces_with_data(self) -> Iterator[int]:
        for index in self.paths:
            place = self._place(index)
            if not place.exists():
                continue
            size_bytes = self.torrent.info.layout().file_size(index)
            if place.stat().st_size > size_bytes:
                raise ImnetprepError(
                    f"{place} has {place.stat().st_size:,} bytes; the torrent's has {size_bytes:,}",
                    hint=f"{move_away(place)}; then run the same command again",
                )
            size_bytes = place.stat().st_size
            for start, end in data_ranges(self._handle(index), size_bytes):
                yield from self._pieces_of(index, start, end)


def read_part_records(folder: Path) -> dict[str, tuple[int, int]]:
    """The proved bytes and the size of each part in `folder`, by the name of its archive.

    From the records alone: reads no part. A record that cannot be read says nothing.
    """
    found = {}
    for path in sorted(folder.glob(".*.resume")):
        if (record := read_record(path)) is None:
            continue
        for file in record.torrent.files:
            if (folder / f"{file.name}.part").exists():
                parts = PartFiles(record.torrent, {file.index: folder / file.name})
                parts.proved_pieces.update(record.proved_pieces.intersection(parts.pieces))
                found[file.name] = (min(parts.proved_bytes, file.size_bytes), file.size_bytes)
    return found
