"""A libtorrent session with the settings that move 155 GB well (docs/torrents.md has figures)."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies

import libtorrent as lt

from imnetprep import __version__
from imnetprep.messages import ImnetprepError, WrongUsage

# One node alone leaves a magnet link without trackers hanging when that node is down.
_DHT_NODES = (
    "dht.libtorrent.org:25401",
    "router.bittorrent.com:6881",
    "dht.transmissionbt.com:6881",
    "router.utorrent.com:6881",
)
# One for the network, one for names of hosts, and those of the disk: its defaults, as settings say.
_DISK_THREADS, _HASH_THREADS = 10, 1
_THREADS = 2 + _DISK_THREADS + _HASH_THREADS
DEFAULT_LISTEN = "0.0.0.0:6881,[::]:6881"


def _keep_paths_as_they_are() -> None:
    """Let libtorrent see that LANG names UTF-8, as it looks once, with the first path.

    Else it encodes each path anew, and finds none whose bytes are not UTF-8.
    """
    language = os.environ.get("LANG")
    os.environ["LANG"] = "C.UTF-8"
    lt.list_files(os.devnull)
    del os.environ["LANG"]
    if language is not None:
        os.environ["LANG"] = language


_keep_paths_as_they_are()


@dataclass(frozen=True)
class Network:
    """How to meet the swarm. Rates are bytes a second, 0 for no limit."""

    listen: str = DEFAULT_LISTEN
    dht: bool = True
    peers: tuple[tuple[str, int], ...] = ()
    max_down: int = 0
    max_up: int = 0


def parse_peer(text: str) -> tuple[str, int]:
    """`HOST:PORT` or `[IPV6]:PORT` as an address and a port. Raises WrongUsage."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise WrongUsage(f"--peer {text!r} is not HOST:PORT", hint="for example 192.0.2.7:6881")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except OSError as error:
        raise WrongUsage(
            f"--peer {text!r}: {host} is not known ({error.strerror})",
            hint="give the peer's address as a number",
        ) from error
    return str(found[0][4][0]), int(port)


def parse_listen(text: str) -> str:
    """`ADDRESS`, `ADDRESS:PORT` or `[IPV6]:PORT` as libtorrent wants it. Raises WrongUsage."""
    address, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        address, port = text, "6881"
    try:
        family = socket.AF_INET6 if address.startswith("[") else socket.AF_INET
        socket.inet_pton(family, address.strip("[]"))
        if not 0 <= int(port) < 65536:
            raise ValueError
    except (OSError, ValueError):
        raise WrongUsage(
            f"--listen {text!r} is not an address of this machine, with a port or without",
            hint="for example --listen 0.0.0.0:6881, or 127.0.0.1:0 for any free port",
        ) from None
    return f"{address}:{port}"


@contextmanager
def open_session(network: Network) -> Iterator[Any]:
    """A session that listens. Raises ImnetprepError where it cannot listen at all, RuntimeError
    where the system starts fewer threads than it has.
    """
    _require_threads(_THREADS)
    session = lt.session(lt.session_params(_settings(network)))
    # Peers on the same network count too: by default libtorrent lets them pass every rate limit.
    all_peers = lt.ip_filter()
    all_peers.add_rule("0.0.0.0", "255.255.255.255", 1)  # noqa: S104 - a range of peers
    all_peers.add_rule("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 1)
    session.set_peer_class_filter(all_peers)
    try:
        yield session
    finally:
        session.pause()


def _require_threads(number: int) -> None:
    """Raise RuntimeError, as Python says it, unless this process can have `number` threads more.

    libtorrent starts its own one by one, where nobody catches what the system refuses: the process
    would abort (SIGABRT).
    """
    is_over, threads = threading.Event(), list[threading.Thread]()
    try:
        for _ in range(number):
            thread = threading.Thread(target=is_over.wait, daemon=True)
            thread.start()
            threads.append(thread)
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


def listening_port(session: Any) -> int:
    """The TCP port the session was given. Raises ImnetprepError where there is none."""
    for _ in range(100):
        if port := session.listen_port():
            return int(port)
        session.wait_for_alert(50)
    raise ImnetprepError(
        "no port to listen on could be opened", hint="name another with --listen ADDRESS:PORT"
    )


def _settings(network: Network) -> dict[str, Any]:
    return {
        "user_agent": f"imnetprep/{__version__}",
        "alert_mask": lt.alert.category_t.error_notification
        | lt.alert.category_t.status_notification
        | lt.alert.category_t.storage_notification
        | lt.alert_category.connect
        | lt.alert_category.peer
        | lt.alert_category.piece_progress,
        "alert_queue_size": 100_000,
        "aio_threads": _DISK_THREADS,
        "hashing_threads": _HASH_THREADS,
        "listen_interfaces": network.listen,
        "enable_dht": network.dht,
        "dht_bootstrap_nodes": ",".join(_DHT_NODES),
        "enable_lsd": network.dht,
        "enable_upnp": network.dht,
        "enable_natpmp": network.dht,
        # Outgoing uTP first is 7 MB/s on loopback where TCP is 637.
        "enable_outgoing_utp": False,
        "announce_to_all_trackers": True,
        "announce_to_all_tiers": True,
        "stop_tracker_timeout": 1,
        "allow_multiple_connections_per_ip": True,  # peers behind one NAT
        "max_out_request_queue": 1500,  # fast peers that are far away
        "max_queued_disk_bytes": 16 << 20,
        "connections_limit": 200,
        "min_reconnect_time": 5,
        "download_rate_limit": network.max_down,
        "upload_rate_limit": network.max_up,
        **_proxy_settings(),
    }


def _proxy_settings() -> dict[str, Any]:
    """How to reach peers and trackers by the SOCKS5 proxy of ALL_PROXY, where that names one.

    Raises ImnetprepError where it is damaged; the message tells none of it.
    """
    try:
        proxy = urlsplit(getproxies().get("all", ""))
        host, port = proxy.hostname, proxy.port or 1080
    except ValueError:
        raise ImnetprepError(
            "ALL_PROXY is no address of a proxy",
            hint="ALL_PROXY=socks5://HOST:PORT, or leave it out",
        ) from None
    if proxy.scheme not in ("socks5", "socks5h") or not host:
        return {}
    kind = lt.proxy_type_t.socks5_pw if proxy.username else lt.proxy_type_t.socks5
    return {
        "proxy_type": kind,
        "proxy_hostname": host,
        "proxy_port": port,
        "proxy_username": unquote(proxy.username or ""),
        "proxy_password": unquote(proxy.password or ""),
        "proxy_peer_connections": True,
        "proxy_tracker_connections": True,
        "proxy_hostnames": True,
    }
