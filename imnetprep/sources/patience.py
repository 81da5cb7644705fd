"""How long a swarm that delivers nothing is waited for, and what its peers did meanwhile."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import libtorrent as lt

from imnetprep.messages import Progress, SourceFailed, count, format_duration
from imnetprep.outside_text import quoted
from imnetprep.sources.part_files import PartFiles

_SAY_SO_AFTER_S = 60
_TRY_UTP_AFTER_S = 120
_SECONDS_BETWEEN_DIALS = 5
_NAMES = 3

_RETRY_HINT = "name another peer by --peer HOST:PORT, or run the same command later: it resumes"
_NO_PEERS_HINT = (
    "look whether a firewall blocks BitTorrent; on a closed network name a peer by --peer HOST:PORT"
)
_NO_CONNECTION_HINT = (
    "look whether a BitTorrent client listens there that has this torrent, and whether a firewall"
    " lets it be reached; or name another by --peer HOST:PORT"
)
_CHOKED_HINT = f"they may serve others first, so wait longer by --wait 2h; or {_RETRY_HINT}"

# Of the peers that the user names: they are dialled beside those that the swarm tells of.
Addresses = Sequence[tuple[str, int]]
# What is waited for: torrents, each with what is fetched of it; None: its metadata.
Torrents = Mapping[Any, PartFiles | None]


class Patience:
    """Watches one session for signs of life and ends the wait for a dead swarm."""

    def __init__(
        self, session: Any, addresses: Addresses, wait_s: float, progress: Progress
    ) -> None:
        self._session, self._addresses, self._progress = session, addresses, progress
        self._wait_s = wait_s
        self._alive_s = time.monotonic()
        self._dialled_s = 0.0
        self._has_warned = self._utp = False
        self._wrong_pieces = Counter[str]()  # by the peer that sent them
        self._farewells: dict[str, str] = {}  # why a peer is connected no more

    def alive(self) -> None:
        """Note that a peer sent something useful."""
        self._alive_s = time.monotonic()
        self._has_warned = False

    def hear(self, alert: Any) -> None:
        """Note what an alert says of a peer."""
        if isinstance(alert, lt.hash_failed_alert):
            for peer in alert.handle.get_peer_info():
                self._blame(_name(peer.ip), peer.num_hashfails)
        elif isinstance(alert, lt.peer_ban_alert):
            self._blame(_name(alert.ip), 1)
        elif isinstance(alert, lt.peer_connect_alert):
            self._farewells.setdefault(_name(alert.ip), "it does not answer")
        elif isinstance(alert, lt.peer_disconnected_alert):
            self._farewells[_name(alert.ip)] = quoted(alert.error.message())

    def _blame(self, peer: str, pieces: int) -> None:
        if pieces:
            self._wrong_pieces[peer] = max(self._wrong_pieces[peer], pieces)

    def watch(self, torrents: Torrents, subject: str) -> None:
        """Dial, warn, fall back to uTP, or raise SourceFailed, the longer the silence lasts."""
        now_s = time.monotonic()
        silent_s = now_s - self._alive_s
        is_alone = not any(handle.status().num_peers for handle in torrents)
        if is_alone and now_s - self._dialled_s > _SECONDS_BETWEEN_DIALS:
            self._dialled_s = now_s
            for handle in torrents:
                for address in self._addresses:
                    handle.connect_peer(address)
        if silent_s > min(_SAY_SO_AFTER_S, self._wait_s / 2) and not self._has_warned:
            self._has_warned = True
            rest = format_duration(max(0, self._wait_s - silent_s))
            self._progress.note(f"{subject}: {self._explained(torrents)[0]}; --wait ends in {rest}")
        if silent_s > _TRY_UTP_AFTER_S and not self._utp:
            self._utp = True
            self._session.apply_settings({"enable_outgoing_utp": True})
        if silent_s > self._wait_s:
            reason, hint = self._explained(torrents)
            wait = format_duration(self._wait_s)
            raise SourceFailed(f"{subject}: {reason}; nothing came for {wait}", hint=hint)

    def _explained(self, torrents: Torrents) -> tuple[str, str]:
        """Why nothing comes, as far as it shows from here, and what to try."""
        gaps = {handle: _gaps(handle, parts) for handle, parts in torrents.items()}
        state = _missing(sum(map(len, gaps.values())), torrents)
        facts = self._wrong_pieces.most_common(_NAMES)
        liars = ", ".join(f"{name} sent {count(n, 'wrong piece')}" for name, n in facts)
        peers = [(peer, handle) for handle in torrents for peer in _connected(handle)]
        if peers:
            reason, hint = _of_peers(peers, gaps, state)
            return f"{reason}; {liars}" if liars else reason, hint
        if liars:
            return f"{liars}, and {state}", _RETRY_HINT
        if self._farewells:
            ends = [f"{name}: {reason}" for name, reason in self._farewells.items()]
            return f"no peer stays connected ({', '.join(ends[:_NAMES])})", _NO_CONNECTION_HINT
        return "no peer was found", _NO_PEERS_HINT


def _of_peers(
    peers: Sequence[tuple[Any, Any]], gaps: Mapping[Any, Sequence[int]], state: str
) -> tuple[str, str]:
    """What connected `peers`, each with the torrent that it is of, do in place of sending."""
    useful_peers = [peer for peer, handle in peers if _has_any(peer, gaps[handle])]
    if state and not useful_peers:
        return f"{state}, and no connected peer (of {len(peers)}) has them", _RETRY_HINT
    names = count(len(useful_peers or peers), "connected peer")
    if useful_peers and all(peer.flags & peer.remote_choked for peer in useful_peers):
        return f"{state}, and {names} with them let nothing be fetched (choked)", _CHOKED_HINT
    return f"{names} sent nothing", _RETRY_HINT


def _gaps(handle: Any, parts: PartFiles | None) -> list[int]:
    """The pieces that are missing."""
    has = handle.status().pieces  # none of a torrent that is looked through
    return [each for each in parts.pieces if not any(has[each : each + 1])] if parts else []


def _missing(gaps: int, torrents: Torrents) -> str:
    """How many pieces are missing, of those that are wanted; nothing where none are known yet."""
    total = sum(len(parts.pieces) for parts in torrents.values() if parts)
    return f"{gaps:,} of {count(total, 'piece')} missing" if total else ""


def _connected(handle: Any) -> list[Any]:
    """The peers that have said who they are."""
    infos = handle.get_peer_info()
    return [each for each in infos if not each.flags & (each.handshake | each.connecting)]


def _has_any(peer: Any, pieces: Sequence[int]) -> bool:
    has = peer.pieces
    return any(piece < len(has) and has[piece] for piece in pieces)


def _name(endpoint: tuple[str, int]) -> str:
    host, port = endpoint
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
