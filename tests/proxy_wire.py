"""HTTP/1.1 as bytes: heads, and bodies that are moved on in big blocks."""

import select
import socket
from collections.abc import Iterator

BLOCK = 1 << 18  # bytes moved at once


def readable(*socks: socket.socket, wait_ms: int | None = None) -> set[int]:
    """Those of them, by file descriptor, that have something to read or have ended."""
    watch = select.poll()  # select.select knows no descriptor above 1023
    for sock in socks:
        watch.register(sock, select.POLLIN)
    return {descriptor for descriptor, _ in watch.poll(wait_ms)}


class Head:
    """The first lines of a message, and how its body is to be read."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        first, *lines = raw.decode("latin-1").split("\r\n")
        self.words = first.split(" ", 2)
        pairs = (line.partition(":") for line in lines if line)
        self.headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        self.chunked = "chunked" in self.headers.get("transfer-encoding", "").lower()
        told = self.headers.get("content-length")
        self.length = int(told) if told else None

    @property
    def closes(self) -> bool:
        return self.headers.get("connection", "").lower() == "close"


class Wire:
    """One socket: heads, and bodies in big blocks, come out of it."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.block = memoryview(bytearray(BLOCK))
        self.rest = b""  # was read with what came before it

    def until(self, mark: bytes) -> bytes:
        """All up to and with `mark`; nothing when the other side has ended."""
        while (at := self.rest.find(mark)) < 0:
            got = self.sock.recv(65536)
            if not got:
                return b""
            self.rest += got
        found, self.rest = self.rest[: at + len(mark)], self.rest[at + len(mark) :]
        return found

    def head(self) -> Head | None:
        raw = self.until(b"\r\n\r\n")
        return Head(raw) if raw else None

    def take(self, length: int | None, most: int = BLOCK) -> Iterator[memoryview]:
        """So many bytes, or all until the end, in blocks; each is gone when the next is asked."""
        while length is None or length > 0:
            here = self.block[: min(most, BLOCK if length is None else length)]
            if self.rest:
                count = min(len(self.rest), len(here))
                here[:count], self.rest = self.rest[:count], self.rest[count:]
            else:
                count = self.sock.recv_into(here)
            if not count and length is None:
                return
            if not count:
                raise ConnectionError(f"ended {length} bytes early")
            yield here[:count]
            length = None if length is None else length - count

    def body(self, head: Head, length: int | None, most: int) -> Iterator[tuple[memoryview, bool]]:
        """The body's blocks, and of each whether it is data or the framing of chunks."""
        if not head.chunked:
            for block in self.take(length, most):
                yield block, True
            return
        size = 1
        while size:
            line = self.until(b"\r\n")
            size = int(line.partition(b";")[0], 16)
            yield memoryview(line), False
            for block in self.take(size, most):
                yield block, True
            while size == 0 and line != b"\r\n":  # trailers
                line = self.until(b"\r\n")
                yield memoryview(line), False
                if not line:
                    return
            if size:
                yield memoryview(self.until(b"\r\n")), False

    def is_readable(self) -> bool:
        return bool(self.rest) or bool(readable(self.sock, wait_ms=0))
