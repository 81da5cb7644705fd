"""An HTTP/1.1 proxy before an S3 server: what comes is passed on unchanged, until a rule says not.

In a test `with proxied(server.endpoint) as proxy:`; for a bench a process of its own:
`python -m tests.proxy --upstream URL --port-file F --log F --rules '[{"do": "stall", "every": 9}]'`
"""

import argparse
import contextlib
import json
import re
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO
from urllib.parse import urlsplit

from tests.proxy_rules import Operation, Request, Rule, operations, read_log
from tests.proxy_wire import BLOCK, Head, Wire, readable

__all__ = ["Operation", "Proxy", "Request", "Rule", "operations", "proxied", "read_log"]

ENDS = (OSError, ValueError)  # of a connection; a closed socket is a bad file descriptor


class _Gone(ConnectionError):
    """The connection is to be reset."""


class _Exchange:
    """One request on its way to the server, and the answer on its way back."""

    def __init__(self, client: Wire, upstream: Wire, request: Request, rules: list[Rule]) -> None:
        self.client, self.upstream, self.request = client, upstream, request
        self.drops = [rule for rule in rules if rule.do == "drop"]
        self.flips = [rule for rule in rules if rule.do == "flip"]
        due = [rule for rule in rules if rule.do in {"lose", "truncate", "hang", "slow"}]
        self.due = [rule for rule in due if rule.is_due(request)]
        self.rate = min((r.bytes_per_s for r in self.due if r.bytes_per_s), default=0)

    def carry_out(self, head: Head) -> bool:
        """Pass it on and answer it; whether both connections can be used again."""
        time.sleep(sum(rule.wait_s for rule in self.due))
        self.upstream.sock.sendall(head.raw)
        whole = self._send_body(head)
        answer = self.upstream.head()
        while answer is not None and answer.words[1].startswith("1"):
            self.client.sock.sendall(answer.raw)
            answer = self.upstream.head()
        if answer is None or any(rule.do == "lose" for rule in self.due):
            raise _Gone
        self.request.status = int(answer.words[1])
        keeps = whole and not answer.closes and not head.closes
        for rule in self.drops:
            line = rf"(?im)^{rule.message}:.*\r\n".encode()
            answer.raw = re.sub(line, b"", answer.raw) if rule.is_due(self.request) else answer.raw
        told = b"" if keeps or answer.closes else b"Connection: close\r\n"
        self.client.sock.sendall(answer.raw[:-2] + told + b"\r\n")
        bare = head.words[0] == "HEAD" or answer.words[1] in {"204", "304"}
        length = 0 if bare else answer.length
        if bare:
            answer.chunked = False
        span = answer.headers.get("content-range", "").removeprefix("bytes ").partition("-")[0]
        flips = self._flips("response", "GetObject", int(span) if span.isdigit() else 0)
        for block in self._blocks((self.upstream, answer, length), "response", flips):
            self.client.sock.sendall(block)
        return keeps and (length is not None or answer.chunked)

    def _send_body(self, head: Head) -> bool:
        """Whether all of it was sent: not when the server has answered before its end."""
        if not head.chunked and not head.length:
            return True
        if "expect" in head.headers:  # whoever speaks first: the server, or a client tired of it
            client, server = self.client.sock, self.upstream.sock
            while not self.client.rest and client.fileno() not in readable(client, server):
                if not self._is_continued():
                    return False
        flips = self._flips("request", "PutObject", 0) or self._flips("request", "UploadPart", 0)
        for block in self._blocks((self.client, head, head.length), "request", flips):
            if self.upstream.is_readable() and not self._is_continued():
                return False
            try:
                self.upstream.sock.sendall(block)
            except OSError:  # it has said why, or it is gone
                return False
        return True

    def _is_continued(self) -> bool:
        """Whether what the server says is `100 Continue`, which is passed on."""
        interim = self.upstream.head()
        if interim is None:
            raise _Gone
        if interim.words[1] == "100":
            self.client.sock.sendall(interim.raw)
            return True
        self.upstream.rest = interim.raw + self.upstream.rest
        return False

    def _flips(self, side: str, name: str, start: int) -> list[tuple[Rule, int]]:
        """What may be flipped in this body, with where in it that byte would be."""
        operation = self.request.operation
        rules = [rule for rule in self.flips if rule.side == side and operation.name == name]
        part = (operation.part_number or 1) - 1 if side == "request" else 0
        return [(rule, rule.offset - start - part * rule.part_bytes) for rule in rules]

    def _blocks(
        self, body: tuple[Wire, Head, int | None], side: str, flips: list[tuple[Rule, int]]
    ) -> Iterator[memoryview]:
        """The body's blocks as they are passed on: slowly, cut, with a bit flipped."""
        source, head, length = body
        cuts = [
            rule.do for rule in self.due if rule.do in {"truncate", "hang"} and rule.side == side
        ]
        half = (length or 0) // 2
        most, count = max(1, min(BLOCK, self.rate // 20)) if self.rate else BLOCK, 0
        for block, is_data in source.body(head, length, most):
            for flip, at in flips if is_data else []:
                if 0 <= at - count < len(block) and flip.is_due(self.request):
                    block[at - count] ^= 1
            passed = block[: half - count] if cuts and is_data else block
            yield passed
            count += len(passed) if is_data else 0
            if side == "request":
                self.request.up_bytes = count
            else:
                self.request.down_bytes = count
            if cuts and count >= half:
                if "hang" in cuts:
                    _await_end(self.client.sock)
                raise ConnectionError("cut, as told")
            if self.rate:
                time.sleep(len(block) / self.rate)


class Proxy:
    """Stands before `upstream`; `rules` may be changed while it runs, `requests` is its log."""

    def __init__(self, upstream: str, *, port: int = 0, log: TextIO | None = None) -> None:
        place = urlsplit(upstream)
        self.upstream = (place.hostname or "127.0.0.1", place.port or 80)
        self.rules: list[Rule] = []
        self.requests: list[Request] = []
        self.is_dead = threading.Event()
        self._log, self._lock = log, threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", port), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def connections(self) -> int:
        """How many clients have not hung up."""
        with self._lock:
            return len(self._open)

    def die(self) -> None:
        """Stop listening and reset every connection."""
        self.is_dead.set()
        with self._lock:
            socks = [self._listener, *self._open]
        for sock in socks:
            with contextlib.suppress(*ENDS):
                sock.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(*ENDS):
            while True:
                sock, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        """All requests of one connection, which has its own connection to the server."""
        upstream: Wire | None = None
        with self._lock:
            self._open.add(sock)
        try:
            client = Wire(sock)
            while not self.is_dead.is_set() and (head := client.head()):
                if upstream is None or upstream.is_readable():  # it was closed meanwhile
                    if upstream is not None:
                        upstream.sock.close()
                    upstream = Wire(socket.create_connection(self.upstream))
                if not self._answer(client, upstream, head):
                    return
        except _Gone:
            _reset(sock)
        except ENDS:
            pass
        finally:
            with self._lock:
                self._open.discard(sock)
            if self.is_dead.is_set():
                _reset(sock)
            sock.close()
            if upstream is not None:
                upstream.sock.close()

    def _answer(self, client: Wire, upstream: Wire, head: Head) -> bool:
        path, _, query = head.words[1].partition("?")
        request = Request(head.words[0], path, query, head.headers, began_s=time.time())
        with self._lock:
            self.requests.append(request)
            ends = [rule for rule in self.rules if rule.do in {"refuse", "stall", "reset", "die"}]
            end = next((rule for rule in ends if rule.is_due(request)), None)
            exchange = _Exchange(client, upstream, request, [] if end else list(self.rules))
        try:
            return self._end(client, (head, request), end) if end else exchange.carry_out(head)
        finally:
            request.took_s = time.time() - request.began_s
            with self._lock:
                if self._log is not None:
                    self._log.write(request.told())
                    self._log.flush()

    def _end(self, client: Wire, asked: tuple[Head, Request], rule: Rule) -> bool:
        head, request = asked
        if rule.do == "die":
            self.die()
        if rule.do == "stall":
            _await_end(client.sock)
        if rule.do != "refuse":
            raise _Gone
        if "expect" not in head.headers:
            for _ in client.body(head, head.length or 0, BLOCK):
                pass
        request.status = rule.status
        client.sock.sendall(rule.answer(request))
        return False


def _await_end(sock: socket.socket) -> None:
    """Until the other side hangs up; what it still sends is left where it is."""
    watch = select.poll()
    watch.register(sock, getattr(select, "POLLRDHUP", 0))
    watch.poll()


def _reset(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@contextlib.contextmanager
def proxied(upstream: str, *rules: Rule, port: int = 0) -> Iterator[Proxy]:
    """A proxy on loopback before the server at `upstream`, a URL."""
    proxy = Proxy(upstream, port=port)
    proxy.rules = list(rules)
    try:
        yield proxy
    finally:
        proxy.die()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.proxy")
    parser.add_argument("--upstream", required=True)
    parser.add_argument("--port-file", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--rules", type=json.loads, default=[])
    words = parser.parse_args()
    with words.log.open("a") as log:
        proxy = Proxy(words.upstream, log=log)
        proxy.rules = [Rule(**rule) for rule in words.rules]
        part = words.port_file.with_suffix(".part")
        part.write_text(str(proxy.port))
        part.rename(words.port_file)
        proxy.is_dead.wait()
        time.sleep(0.2)  # the last lines of the log


if __name__ == "__main__":
    main()
