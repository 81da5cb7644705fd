"""One request of a client: who may ask, how much may arrive and for how long, who answers it.

A request names no file: what it asks for is one of a few words, or the number of a class.
"""

import io
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_address
from typing import Any, NamedTuple

from imnetprep.serving.refusals import Limits, Refusal

_EXAMPLE = re.compile(r"/examples/([0-9]{1,6})")
_PICTURE = "/predict"
_FAILURE = {"error": "the server failed", "hint": "what it prints says why"}
_SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",  # the next network may have the same port
}


class Page(NamedTuple):
    """The page, as a browser gets it, and what it is allowed to load (Content-Security-Policy)."""

    body: bytes
    policy: str


class Site(NamedTuple):
    """What there is to ask for: the page, facts of the network, answers and examples.

    `places` are those of images that are received or wait. `is_local`: only this machine reaches
    it, so that its names for itself are the only ones.
    """

    page: Page
    about: Mapping[str, Any]
    answer: Callable[[bytes], Mapping[str, Any]]
    example: Callable[[int], bytes]
    limits: Limits
    places: threading.BoundedSemaphore
    is_local: bool


class _Arrival(io.RawIOBase):
    """What a client sends, byte by byte if it likes, but only until `end_s`."""

    def __init__(self, connection: socket.socket, end_s: float) -> None:
        self._connection, self._end_s = connection, end_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._connection.settimeout(max(self._end_s - time.monotonic(), 0.001))
        return self._connection.recv_into(buffer)


def _is_of_loopback(host: str) -> bool:
    """Is the name in this `Host` header one of the loopback interface? No DNS is asked."""
    name = re.sub(r":[0-9]*$", "", host)
    with suppress(ValueError):
        return ip_address(name.strip("[]")).is_loopback
    return name.lower() == "localhost"


class RequestHandler(BaseHTTPRequestHandler):
    """The request of one connection, which is closed behind it."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "imnetprep", ""

    def __init__(self, site: Site, *arguments: Any) -> None:
        self.site, self.limits = site, site.limits
        super().__init__(*arguments)  # which serves the request

    def setup(self) -> None:
        """Bound the time in which the request arrives."""
        super().setup()
        self._end_s = time.monotonic() + self.limits.seconds
        self.rfile = io.BufferedReader(_Arrival(self.connection, self._end_s))

    def do_GET(self) -> None:
        """Give the page, the facts of the network, or the example of a class."""
        self._carry_out(self._get)

    def do_POST(self) -> None:
        """Answer for the image that is sent."""
        self._carry_out(self._post)

    do_HEAD = do_GET

    def _carry_out(self, act: Callable[[], None]) -> None:
        self.close_connection = True
        try:
            self._refuse_strangers()
            act()
        except Refusal as refusal:
            self._send_json({"error": str(refusal), "hint": refusal.hint}, status=refusal.status)
            if self.command == "POST":
                self._discard()
        except (ConnectionError, TimeoutError):  # of the client
            raise
        except Exception:
            self._send_json(_FAILURE, status=HTTPStatus.INTERNAL_SERVER_ERROR)
            raise

    def _get(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/":
            page = self.site.page
            self._send(page.body, "text/html; charset=utf-8", policy=page.policy)
        elif path == "/about":
            self._send_json(self.site.about)
        elif match := _EXAMPLE.fullmatch(path):
            self._send(self.site.example(int(match[1])), "image/jpeg")
        elif path == _PICTURE:
            raise Refusal(405, "an image is sent by POST", hint=f"POST {_PICTURE}")
        else:
            raise Refusal(404, "there is nothing of that name", hint=f"GET / or POST {_PICTURE}")

    def _post(self) -> None:
        if self.path.partition("?")[0] != _PICTURE:
            raise Refusal(404, "nothing is sent there", hint=f"POST {_PICTURE}")
        size_bytes = self._announced_bytes()
        if not self.site.places.acquire(blocking=False):
            raise Refusal(503, "too many images wait", hint="send the image again in a moment")
        try:
            self._send_json(self.site.answer(self._body(size_bytes)))
        finally:
            self.site.places.release()

    def _refuse_strangers(self) -> None:
        """Refuse what the page of another site asks for in the name of a browser on this machine.

        A name that leads here without being one of this machine's is a rebound one (DNS rebinding).
        """
        hosts = self.headers.get_all("Host", [])
        if self.site.is_local and not (len(hosts) == 1 and _is_of_loopback(hosts[0])):
            hint = "ask for it as http://127.0.0.1:PORT/"
            raise Refusal(403, "this machine is not called that", hint=hint)
        if self.command != "POST":
            return
        origin = self.headers.get("Origin")
        is_foreign = origin is not None and (not hosts or origin.partition("://")[2] != hosts[0])
        if is_foreign or self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            raise Refusal(403, "the page of another site asks", hint="open the page of this server")

    def _announced_bytes(self) -> int:
        lengths = self.headers.get_all("Content-Length", [])
        hint = "send one image as the body, with its Content-Length"
        if not lengths or "Transfer-Encoding" in self.headers:
            raise Refusal(411, "the length of the image is not said", hint=hint)
        if len(lengths) > 1 or not re.fullmatch(r"[0-9]{1,18}", lengths[0]):
            raise Refusal(400, "the length of the image is no number of bytes", hint=hint)
        limit = self.limits.body_bytes
        if int(lengths[0]) > limit:
            sentence = f"the file is too large: at most {limit / 1e6:g} MB are taken"
            raise Refusal(413, sentence, hint="make it smaller")
        return int(lengths[0])

    def _body(self, size_bytes: int) -> bytes:
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(HTTPStatus.CONTINUE)
            self.end_headers()
        hint = "send it again"
        try:
            body = self.rfile.read(size_bytes)
        except TimeoutError as error:
            raise Refusal(408, "the image did not arrive in time", hint=hint) from error
        if len(body) < size_bytes:
            sentence = f"the image ended after {len(body):,} of {size_bytes:,} bytes"
            raise Refusal(400, sentence, hint=hint)
        return body

    def _discard(self) -> None:
        """Read what a refused client still sends: it would not see the answer of a socket that is
        closed before.
        """
        self.connection.shutdown(socket.SHUT_WR)
        left_over = 2 * self.limits.body_bytes
        while left_over > 0 and (part := self.rfile.read1(1 << 16)):
            left_over -= len(part)

    def _send_json(self, value: Mapping[str, Any], *, status: int = HTTPStatus.OK) -> None:
        self._send(json.dumps(value).encode(), "application/json", status=status)

    def _send(
        self, body: bytes, kind: str, *, status: int = HTTPStatus.OK, policy: str = ""
    ) -> None:
        self.connection.settimeout(self.limits.seconds)
        self.send_response(status)
        headers = {**_SECURITY, "Content-Type": kind, "Content-Length": str(len(body))}
        headers["Content-Security-Policy"] = policy or "default-src 'none'"
        headers["Connection"] = "close"
        headers |= {"Allow": "POST"} if status == HTTPStatus.METHOD_NOT_ALLOWED else {}
        headers |= {"Retry-After": "1"} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle_expect_100(self) -> bool:
        """Leave it to `_body` to ask for the image, once its length is known to be right."""
        return True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Tell in JSON, and not as a page, what of a request is no HTTP, or an unusual method."""
        is_unusual = code == HTTPStatus.NOT_IMPLEMENTED
        status = HTTPStatus.METHOD_NOT_ALLOWED if is_unusual else HTTPStatus(code)
        self.close_connection = True
        self._send_json({"error": status.phrase, "hint": f"POST {_PICTURE}"}, status=status)

    def log_message(self, *_words: Any) -> None:
        """Print nothing: what clients send is not ours to show."""
