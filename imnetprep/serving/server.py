"""A server of the page: it listens, bounds how many are served at once, and ends cleanly."""

import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from ipaddress import ip_address
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, NamedTuple

from imnetprep.messages import ImnetprepError, Progress, shell_command
from imnetprep.outside_text import quoted
from imnetprep.serving.answers import Answerer
from imnetprep.serving.examples import Examples
from imnetprep.serving.page import read_page
from imnetprep.serving.refusals import Limits
from imnetprep.serving.requests import RequestHandler, Site


class Listener(NamedTuple):
    """The server as it listens: its address for a browser, and whether only this machine has it.

    `serve` serves until it is interrupted, or until `stop` is called in another thread.
    """

    address: str
    is_local: bool
    serve: Callable[[], None]
    stop: Callable[[], None]


@contextmanager
def listening(
    answerer: Answerer, examples: Examples, *, network: str, host: str, port: int,
    limits: Limits, progress: Progress,
) -> Iterator[Listener]:  # fmt: skip
    """Listen at `host`, at any free port where `port` is 0, for pictures and what the page asks.

    Raises ImnetprepError where nothing can listen. At the end the image under way is waited for.
    """
    server = _server(host, port, limits.connections, progress)
    with server:
        bound_host, bound_port = server.socket.getsockname()[:2]
        is_local = ip_address(bound_host.partition("%")[0]).is_loopback
        site = Site(
            read_page(), _about(answerer, examples, network=network, limits=limits),
            lambda body: answerer.answer(body).as_json(), examples.jpeg, limits,
            threading.BoundedSemaphore(limits.images), is_local,
        )  # fmt: skip
        setattr(server, "RequestHandlerClass", partial(RequestHandler, site))  # noqa: B010
        name = f"[{host}]" if ":" in host else host
        try:
            address = f"http://{name}:{bound_port}/"
            yield Listener(address, is_local, server.serve_forever, server.shutdown)
        finally:
            answerer.close()


def _about(
    answerer: Answerer, examples: Examples, *, network: str, limits: Limits
) -> dict[str, Any]:
    """What the page says of the network, and which classes have an example."""
    classes = answerer.predictor.classes
    pairs = zip(classes.wnids, classes.names, strict=True)
    return {
        "network": network,
        "dataset": classes.dataset,
        "image_size_px": answerer.predictor.preprocessing.image_size,
        "body_bytes": limits.body_bytes,
        "classes": [
            {"wnid": wnid, "name": name, "has_example": label in examples.places}
            for label, (wnid, name) in enumerate(pairs)
        ],
    }


def _server(host: str, port: int, connections: int, progress: Progress) -> "_Server":
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return _Server(family, address, connections, progress)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no name of a machine"
        words = shell_command("--host", "127.0.0.1", "--port", "0")
        raise ImnetprepError(
            f"nothing can listen at {host}, port {port}: {reason}",
            hint=f"{words} takes a free port of this machine",
        ) from error


class _Server(ThreadingMixIn, TCPServer):
    """A thread for each connection, of which only so many are accepted at once."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self, family: socket.AddressFamily, address: Any, connections: int, progress: Progress
    ) -> None:
        self.address_family = family
        self._slots = threading.BoundedSemaphore(connections)
        self._progress = progress
        super().__init__(address, RequestHandler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection; the next is accepted when there is a slot, which each leaves soon."""
        self._slots.acquire()
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection, in its thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tell a failure of ours; a client that goes away is none."""
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, ConnectionError | TimeoutError):
            text = quoted(traceback.format_exception_only(error)[-1])
            self._progress.note(f"a request failed: {text}")
