"""Torrents as values: what a .torrent or a magnet link's metadata says, before any byte moves."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import libtorrent as lt

from imnetprep.catalog.datasets import Archive, Dataset
from imnetprep.digests import Pieces
from imnetprep.messages import ImnetprepError
from imnetprep.sources.magnet import Magnet


@dataclass(frozen=True)
class TorrentFile:
    """One file of a torrent: its index, its name without folders, its size."""

    index: int
    name: str
    size_bytes: int


@dataclass(frozen=True)
class Torrent:
    """A torrent with its metadata. `body` is the .torrent; `trackers` and `peers` add to it."""

    body: bytes
    info_hash: str
    info: Any
    magnet: Magnet | None = None
    peers: tuple[tuple[str, int], ...] = ()

    @property
    def has_v1(self) -> bool:
        """Has it SHA-1 piece hashes (BEP 3), beside or instead of SHA-256 trees (BEP 52)?"""
        return bool(self.info.info_hashes().has_v1())

    @property
    def files(self) -> tuple[TorrentFile, ...]:
        """The files of the torrent, padding left out."""
        files = self.info.layout()
        return tuple(
            TorrentFile(index, PurePosixPath(files.file_path(index)).name, files.file_size(index))
            for index in range(files.num_files())
            if not files.file_flags(index) & lt.file_flags_t.flag_pad_file
        )

    def params(self) -> Any:
        """What libtorrent needs to join the swarm; a magnet link's trackers and peers included."""
        params = lt.load_torrent_buffer(self.body)
        if self.magnet is not None:
            link = lt.parse_magnet_uri(self.magnet.uri)
            params.trackers = list(dict.fromkeys([*params.trackers, *link.trackers]))
            params.tracker_tiers = []
            params.url_seeds = list(dict.fromkeys([*params.url_seeds, *link.url_seeds]))
            params.peers = link.peers
        return params


def read_torrent(
    body: bytes, *, magnet: Magnet | None = None, peers: Sequence[tuple[str, int]] = ()
) -> Torrent:
    """The torrent that the bytes of a .torrent file describe. Raises ImnetprepError."""
    try:
        info = lt.load_torrent_buffer(body).ti
    except RuntimeError as error:
        raise ImnetprepError(
            f"the .torrent cannot be read: {error}", hint="fetch it again, or use its magnet link"
        ) from error
    return Torrent(body, info_hash_of(info.info_hashes()), info, magnet, tuple(peers))


def torrent_of_metadata(info_section: bytes) -> bytes:
    """The .torrent around the info dictionary that peers sent."""
    return bytes(lt.bencode({b"info": lt.bdecode(info_section)}))


def info_hash_of(hashes: Any) -> str:
    """The hex info-hash by which we call a torrent: v1 if it has one, else v2."""
    return str(hashes.v1 if hashes.has_v1() else hashes.v2)


def pieces_of(body: bytes) -> Pieces | None:
    """The piece digests of a .torrent of one file; None where it has several, or v2 ones only."""
    torrent = read_torrent(body)
    if len(torrent.files) != 1 or not torrent.has_v1:
        return None
    sha1s = b"".join(
        torrent.info.hash_for_piece(piece) for piece in range(torrent.info.num_pieces())
    )
    size_bytes = torrent.files[0].size_bytes
    return Pieces(size_bytes, torrent.info.piece_length(), sha1s, torrent.info_hash)


def published_pieces(dataset: Dataset, archive: Archive) -> Pieces | None:
    """The digests of the pieces of the archive's own torrent, where the dataset has it."""
    return None if archive.torrent is None else pieces_of(dataset.published.read(archive.torrent))
