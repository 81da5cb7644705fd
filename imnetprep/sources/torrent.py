"""Torrents as values: magnet links, and what a .torrent says, before any byte moves."""

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import libtorrent as lt

from imnetprep.catalog.datasets import Archive, Dataset
from imnetprep.digests import Pieces
from imnetprep.messages import ImnetprepError, WrongUsage
from imnetprep.outside_text import public_address


@dataclass(frozen=True)
class Magnet:
    """A magnet link: the info-hashes as hex (v1 SHA-1, v2 SHA-256), and the link itself."""

    v1: str | None
    v2: str | None
    name: str
    uri: str

    @property
    def info_hash(self) -> str:
        """The info-hash by which we call its torrent: v1 if it has one, else v2."""
        return self.v1 or self.v2 or ""


def parse_magnet(text: str) -> Magnet:
    """The magnet link in `text`. Raises WrongUsage that says what is wrong with it."""
    uri = _as_written(text)
    if not uri.startswith("magnet:?"):
        raise _bad(uri, "it does not begin with magnet:?")
    fields = parse_qsl(urlsplit(uri).query)
    topics = [value for key, value in fields if re.fullmatch(r"xt(\.\d+)?", key)]
    if not topics:
        raise _bad(uri, "it has no xt=urn:btih:… with an info-hash")
    v1 = v2 = None
    for topic in topics:
        kind, _, value = topic.rpartition(":")
        if kind == "urn:btih":
            v1 = _v1(uri, value)
        elif kind == "urn:btmh":
            v2 = _v2(uri, value)
        else:
            raise _bad(uri, f"xt={topic} is neither urn:btih (v1) nor urn:btmh (v2)")
    return Magnet(v1=v1, v2=v2, name=dict(fields).get("dn", v1 or v2 or ""), uri=uri)


def _as_written(text: str) -> str:
    """The link in `text` as who made it wrote it: a page, a mail or a shell may have changed it."""
    uri = re.sub(r"[\s\\]", "", html.unescape(html.unescape(text))).strip("\"'`<>()[]“”‘’«».,;")
    if re.match("magnet(%3a|:%3f|:[?]xt%3d)", uri, re.IGNORECASE):
        uri = unquote(uri)
    return re.sub(r"^magnet:(//)?/?\?", "magnet:?", uri, flags=re.IGNORECASE)


def _v1(uri: str, value: str) -> str:
    """Forty hexadecimal or thirty-two base32 digits, as forty hexadecimal ones."""
    if len(value) not in (32, 40):
        raise _bad(uri, f"its info-hash has {len(value)} digits, not 40 (hex) or 32 (base32)")
    if len(value) == 40 and re.fullmatch(r"[0-9a-fA-F]*", value):
        return value.lower()
    if len(value) == 32 and re.fullmatch(r"[a-zA-Z2-7]*", value):
        return base64.b32decode(value.upper()).hex()
    kind = "hexadecimal" if len(value) == 40 else "base32"
    raise _bad(uri, f"its info-hash {value!r} has a digit that is not {kind}")


def _v2(uri: str, value: str) -> str:
    """A multihash: 1220 (SHA-256, 32 bytes) and sixty-four hexadecimal digits."""
    if not re.fullmatch(r"1220[0-9a-fA-F]{64}", value):
        raise _bad(uri, "its v2 info-hash is not 1220 and 64 hexadecimal digits")
    return value[4:].lower()


def _bad(uri: str, problem: str) -> WrongUsage:
    public = public_address(uri, mark="…")
    excerpt = public if len(public) <= 80 else f"{public[:77]}…"
    return WrongUsage(
        f"bad magnet link {excerpt!r}: {problem}",
        hint="copy the whole link, and quote it: the shell reads & as the end of the command",
    )


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
    def public_body(self) -> bytes:
        """The .torrent without its trackers, whose addresses may hold a passkey."""
        layers = lt.bdecode(self.body).get(b"piece layers")
        rest = b"12:piece layers" + bytes(lt.bencode(layers)) if layers else b""
        return b"d4:info" + bytes(self.info.info_section()) + rest + b"e"

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


def info_hash_of(hashes: Any) -> str:
    """The hex info-hash by which we call a torrent: v1 if it has one, else v2."""
    return str(hashes.v1 if hashes.has_v1() else hashes.v2)


def pieces_of(body: bytes) -> Pieces | None:
    """The piece digests of a .torrent of one file; None where it has several, or v2 ones only."""
    torrent = read_torrent(body)
    if len(torrent.files) != 1 or not torrent.has_v1:
        return None
    info = torrent.info
    sha1s = b"".join(map(info.hash_for_piece, range(info.num_pieces())))
    return Pieces(torrent.files[0].size_bytes, info.piece_length(), sha1s, torrent.info_hash)


def published_pieces(dataset: Dataset, archive: Archive) -> Pieces | None:
    """The digests of the pieces of the archive's own torrent, where the dataset has it."""
    return None if archive.torrent is None else pieces_of(dataset.published.read(archive.torrent))
