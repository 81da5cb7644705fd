"""Torrents by way of a SOCKS5 proxy (RFC 1928, RFC 1929), which a closed network may want."""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from imnetprep.messages import ImnetprepError
from imnetprep.sources.seeder import seeded
from imnetprep.sources.session import Network, open_session
from tests.conftest import Run

USER, PASSWORD = "me", "hush/hush"


class Proxy:
    """A SOCKS5 proxy on loopback that wants USER and PASSWORD; `targets` are whom it led to."""

    def __init__(self) -> None:
        self.targets: list[tuple[str, int]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])

    def serve(self) -> None:
        """Until it is closed."""
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._lead, args=(client,), daemon=True).start()

    def close(self) -> None:
        """Listen no more."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _lead(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, struct.error), client, client.makefile("rb") as stream:
            _, number = stream.read(2)
            stream.read(number)
            client.sendall(b"\x05\x02")
            user = stream.read(stream.read(2)[1])
            password = stream.read(stream.read(1)[0])
            is_right = (user, password) == (USER.encode(), PASSWORD.encode())
            client.sendall(b"\x01" + bytes([not is_right]))
            _, command, _, kind = stream.read(4)
            if not is_right or command != 1 or kind != 1:
                client.sendall(b"\x05\x07\x00\x01" + bytes(6))
                return
            host, port = socket.inet_ntoa(stream.read(4)), struct.unpack(">H", stream.read(2))[0]
            self.targets.append((host, port))
            with socket.create_connection((host, port)) as other:
                client.sendall(b"\x05\x00\x00\x01" + bytes(6))
                back = threading.Thread(target=_copy, args=(other, client), daemon=True)
                back.start()
                while body := stream.read1(1 << 16):
                    other.sendall(body)
                other.shutdown(socket.SHUT_WR)
                back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while body := source.recv(1 << 16):
            target.sendall(body)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    proxy = Proxy()
    threading.Thread(target=proxy.serve, daemon=True).start()
    yield proxy
    proxy.close()


def test_peers_are_reached_by_the_proxy_that_the_environment_names(
    packed: Path, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: Run
) -> None:
    archive = packed.parent / "ILSVRC2012_img_val.tar"
    with seeded([archive]) as seeder:
        address = f"socks5://{USER}:{PASSWORD.replace('/', '%2F')}@127.0.0.1:{proxy.port}"
        monkeypatch.setenv("ALL_PROXY", address)
        words = ["download", seeder.magnets[0], "--root", tmp_path, "--dataset", packed]
        words += ["--peer", seeder.peer, "--no-dht", "--listen", "127.0.0.1:0", "--wait", "20s"]
        done = here(*words, "--split", "val")
        assert done.returncode == 0, done.stderr
        host, _, port = seeder.peer.partition(":")
        assert set(proxy.targets) == {(host, int(port))}
    assert (tmp_path / "archives" / archive.name).read_bytes() == archive.read_bytes()
    assert "hush" not in done.stdout + done.stderr


def test_a_proxy_that_is_none_is_told_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", f"socks5://{USER}:secret@host:port")
    with (
        pytest.raises(ImnetprepError, match="ALL_PROXY is no address") as failed,
        open_session(Network(listen="127.0.0.1:0", dht=False)),
    ):
        pass
    assert "secret" not in f"{failed.value} {failed.value.hint}"
