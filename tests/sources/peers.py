"""A BitTorrent peer (BEP 3) in a few lines, which can do what clients worth their name do not."""

import contextlib
import socket
import struct
import threading
from collections.abc import Collection, Iterator

import libtorrent as lt

_CHOKE, _UNCHOKE, _BITFIELD, _REQUEST, _PIECE = 0, 1, 5, 6, 7


class Peer:
    """Serves the `body` of a torrent of one file to whoever connects.

    It has no pieces in `lacks`, sends those in `wrong` with a bit flipped, never unchokes where it
    is `choking`, and hangs up once it `answers` no handshake.
    """

    def __init__(self, torrent: bytes, body: bytes) -> None:
        self.info, self.body = lt.load_torrent_buffer(torrent).ti, body
        self.lacks: Collection[int] = ()
        self.wrong: Collection[int] = ()
        self.choking, self.answers = False, True
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def serve(self) -> None:
        """Until the listener is closed."""
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def close(self) -> None:
        """Listen no more."""
        with contextlib.suppress(OSError):  # twice
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, struct.error), client, client.makefile("rb") as stream:
            handshake = stream.read(1)
            if not self.answers or handshake != b"\x13":  # an encrypted one: it comes again, plain
                return
            handshake += stream.read(67)
            client.sendall(handshake[:20] + bytes(8) + handshake[28:48] + b"-XX0000-" + bytes(12))
            has = "".join(
                str(int(each not in self.lacks)) for each in range(self.info.num_pieces())
            )
            bits = has.ljust(-(-len(has) // 8) * 8, "0")
            self._send(client, _BITFIELD, int(bits, 2).to_bytes(len(bits) // 8))
            if not self.choking:
                self._send(client, _UNCHOKE, b"")
            while True:
                (length,) = struct.unpack(">I", stream.read(4))
                message = stream.read(length)
                if message and message[0] == _REQUEST and not self.choking:
                    piece, start, size = struct.unpack(">III", message[1:])
                    at = piece * self.info.piece_length() + start
                    block = bytearray(self.body[at : at + size])
                    block[0] ^= piece in self.wrong
                    self._send(client, _PIECE, message[1:9] + block)

    def _send(self, client: socket.socket, kind: int, payload: bytes) -> None:
        client.sendall(struct.pack(">IB", 1 + len(payload), kind) + payload)


@contextlib.contextmanager
def peer(torrent: bytes, body: bytes) -> Iterator[Peer]:
    """A peer on loopback, whose manners may be changed while it serves."""
    peer = Peer(torrent, body)
    threading.Thread(target=peer.serve, daemon=True).start()
    try:
        yield peer
    finally:
        peer.close()
