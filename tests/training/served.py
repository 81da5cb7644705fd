"""A small network served in this process, and requests to it as any client could write them."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from imnetprep import cli
from imnetprep.catalog.datasets import Root
from imnetprep.messages import Progress, Silent
from imnetprep.serving.refusals import DEFAULT_LIMITS, Limits
from imnetprep.serving.serve import served
from tests.drawn import draw_root

_RECIPE = "--arch cnn-small --image-size 32 --batch-size 12 --epochs 1 --lr 0.01 --run r"


class Reply(NamedTuple):
    """The answer of a server."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.body)
        return value


class Site(NamedTuple):
    """A server on this machine."""

    address: str

    @property
    def place(self) -> tuple[str, int]:
        parts = urlsplit(self.address)
        assert parts.hostname and parts.port
        return parts.hostname, parts.port

    def ask(
        self, target: str, body: bytes | None = None, *, method: str = "", **headers: str
    ) -> Reply:
        """One request; `headers` replace those that a client would send, `_` stands for `-`."""
        connection = HTTPConnection(*self.place, timeout=60)
        own = {name.replace("_", "-").title(): value for name, value in headers.items()}
        method = method or ("GET" if body is None else "POST")
        connection.putrequest(method, target, skip_host="Host" in own, skip_accept_encoding=True)
        if body is not None and not own.keys() & {"Content-Length", "Transfer-Encoding"}:
            own["Content-Length"] = str(len(body))
        for name, value in own.items():
            for each in value.split("|"):  # a header that is sent twice
                connection.putheader(name, each)
        connection.endheaders(body)
        return _reply(connection.getresponse())


def _reply(response: HTTPResponse) -> Reply:
    return Reply(response.status, dict(response.getheaders()), response.read())


def learn(place: Path) -> Root:
    """A drawn root with a run `r`, whose network is small."""
    root = draw_root(place)
    words = ["train", *_RECIPE.split(), "--root", str(root.path), "--workers", "0"]
    assert cli.run([*words, "--device", "cpu", "--quiet"]) == 0
    return root


@contextmanager
def serving(
    checkpoint: Path,
    root: Root,
    *,
    limits: Limits = DEFAULT_LIMITS,
    arch: str | None = None,
    progress: Progress | None = None,
) -> Iterator[Site]:
    """A checkpoint, served as by the command."""
    with served(
        checkpoint, root, arch=arch, device="cpu", limits=limits, progress=progress or Silent()
    ) as listener:
        thread = threading.Thread(target=listener.serve)
        thread.start()
        try:
            yield Site(listener.address)
        finally:
            listener.stop()
            thread.join()
