"""Downloads within the test's process, and one server that stands in for every source."""

import base64
import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType

from imnetprep.catalog.datasets import Root
from imnetprep.digests import Checksum
from imnetprep.download import DownloadResult, carry_out_download, plan_download
from imnetprep.messages import Silent
from imnetprep.sources.seeder import SeedLimits
from imnetprep.sources.session import Network
from tests.http_server import Answering, http_served

BODY, OTHER_BODY = random.Random(3).randbytes(500_000), random.Random(4).randbytes(500_000)
_DRIVE_ID = "1AbCdEfGhIjKlMnOpQrStUvWxYz0123456"
_PORTION_BYTES = 1 << 20
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})
# A thousandth of what ranges, records and requests are: `small` for this process, and for others.
SIZES = {
    "downloads.fetch_file._RANGE_BYTES": 1 << 15,
    "transfers.range_download._JOURNALLED_BYTES": 1 << 13,
    "transfers.range_download._CHUNK_BYTES": 1 << 12,
    "transfers.range_download._REQUEST_BYTES": 1 << 16,
    "sources.piece_download._REQUEST_BYTES": 1 << 15,
}
# What names each source, where `site` is the server that stands in for all of them.
ADDRESSES = {
    "https": "{site}/plain/set.tar",
    "s3": "s3://stored/set.tar",
    "gs": "gs://bucket/set.tar",
    "kaggle": "kaggle:datasets/me/pets/set.tar",
    "hf": "hf:datasets/me/pets/set.tar",
    "gdrive": f"gdrive:{_DRIVE_ID}",
    "github": "github:me/tool@v1#set.tar",
    "github, sources": "github:me/tool@v1",
}


class Notes(Silent):
    """Keeps the remarks, and what its tasks are told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.initial, self.total, self.bytes, self.lock = 0, 0, 0, threading.Lock()

    def note(self, line: str) -> None:
        self.lines.append(line)

    @contextmanager
    def task(self, title: str, *, total: int, unit: str, initial: int = 0) -> Iterator["Notes"]:
        self.total, self.bytes = total, initial
        yield self

    def advance(self, amount: int) -> None:
        self.bytes += amount
        assert not self.total or self.bytes <= self.total, "more than all of it"


class StandIn:
    """A server of one file, called whatever is asked for, as each service would hand it out.

    `change_at` makes it another file, `spoil` what is sent another, `cuts` breaks bodies, `stalls`
    lets them fall silent after a megabyte, `rate` slows each down, in bytes a second.
    """

    def __init__(self) -> None:
        self.body, self.etag, self.headers = BODY, '"one"', dict[str, str]()
        self.requests, self.sent_bytes = 0, 0
        self.asked_bytes = Counter[str]()  # by the address of who asks
        self.change_at, self.cuts, self.ranges = 0, 0, True
        self.refusals = 0  # so many requests are answered 503
        self.stalls, self.rate, self.over = 0, 0, threading.Event()
        self.spoil: Callable[[int, bytes], bytes] = lambda _start, body: body
        self.lock = threading.Lock()
        self.site, self.address = "", ""  # the latter as of a plain server

    def environment(self) -> dict[str, str]:
        """What leads the sources that can be led by it."""
        return {
            "HF_ENDPOINT": self.site, "STORAGE_EMULATOR_HOST": self.site,
            "AWS_ENDPOINT_URL": self.site, "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1",
        }  # fmt: skip

    def constants(self) -> dict[str, object]:
        """What is another in the package, by its name, so that the rest is led here too."""
        names = ("kaggle._API", "drive._SITE", "github._SITE", "github._TARS")
        return {f"sources.{name}": self.site for name in names}

    def answer(self, request: Answering) -> None:
        """Answer as the service that has such a path."""
        path, _, query = request.path.partition("?")
        digest = sha256(self.body).hexdigest()
        if path.endswith("manifest.db") or (query.startswith("of=") and query[3:] != digest):
            request.answer(b"", 404 if "of=" not in query else 403)
        elif path.startswith("/datasets/me/pets/resolve/"):  # the hub: an address has its bytes
            place = f"{self.site.replace('127.0.0.1', 'localhost')}/plain/set.tar?of={digest}"
            request.answer(b"", 302, {"Location": place, "X-Linked-Etag": f'"{digest}"'})
        elif path.startswith(("/datasets/", "/me/tool/releases/")):
            place = f"{self.site.replace('127.0.0.1', 'localhost')}/plain/set.tar?Signature=5igned"
            request.answer(b"", 302, {"Location": place})
        elif path.startswith("/bucket/"):
            crc32c = Checksum.empty("crc32c").over(self.body).value.to_bytes(4, "big")
            told = {"x-goog-hash": f"crc32c={base64.b64encode(crc32c).decode()}"}
            self._send(request, told)
        elif path == "/download":
            self._send(request, {"Content-Disposition": 'attachment; filename="set.tar"'})
        else:
            self._send(request, _NO_HEADERS, ranges=not path.startswith("/me/tool/tar.gz/"))

    def _send(self, request: Answering, more: Mapping[str, str], *, ranges: bool = True) -> None:
        """Send the range that is asked for, or all of it."""
        with self.lock:
            self.requests += 1
            if self.requests == self.change_at:
                self.body, self.etag = OTHER_BODY, '"two"'
            whole, etag = self.body, self.etag
            is_refused = self.refusals > 0
            self.refusals -= is_refused
        wanted = request.headers.get("If-Match", etag)  # S3 refuses another version by itself
        if is_refused or wanted.strip('"') != etag.strip('"'):
            request.answer(b"", 503 if is_refused else 412)
            return
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range", ""))
        match = match if self.ranges and ranges else None
        start, end = 0, len(whole)
        if match:
            start, end = int(match[1]), min(int(match[2]) + 1, len(whole))
        body = whole[start:end]
        if request.command != "HEAD":
            body = self.spoil(start, body)
        request.send_response(206 if match else 200)
        headers = {"ETag": etag, "Content-Length": str(len(body)), **more, **self.headers}
        if match:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(whole)}"
        for name, value in headers.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command == "HEAD":
            return
        with self.lock:
            self.asked_bytes[request.client_address[0]] += len(body)
            if self.cuts and len(body) > 1:
                self.cuts -= 1
                body = body[: len(body) // 2]
            is_stalled = self.stalls > 0 and len(body) > _PORTION_BYTES
            self.stalls -= is_stalled
        rest = memoryview(body)
        while rest:
            portion, rest = rest[:_PORTION_BYTES], rest[_PORTION_BYTES:]
            with self.lock:  # before it goes, or who has all of it could look too early
                self.sent_bytes += len(portion)
            request.wfile.write(portion)
            if is_stalled or self.rate:
                self.over.wait(None if is_stalled else len(portion) / self.rate)


@contextmanager
def served() -> Iterator[StandIn]:
    stand_in = StandIn()

    class Handler(Answering):
        def do_GET(self) -> None:
            try:
                stand_in.answer(self)
            except OSError:  # the other side hung up
                self.close_connection = True

        do_HEAD = do_GET

    with http_served(Handler) as server:
        stand_in.site = f"http://127.0.0.1:{server.server_port}"
        stand_in.address = ADDRESSES["https"].format(site=stand_in.site)
        yield stand_in
        stand_in.over.set()


def fetched(
    root: Path,
    *addresses: object,
    dataset: Path | None = None,
    digest: tuple[str, str] | None = None,
    jobs: int = 8,
    notes: Notes | None = None,
    network: Network | None = None,
) -> list[DownloadResult]:
    """What `download` with these words gives."""
    words = [str(address) for address in addresses]
    plan = plan_download(Root(root), words, dataset=str(dataset) if dataset else None, splits=())
    return list(
        carry_out_download(
            plan, Root(root), network=network or Network(), wait_s=1, seed_limits=SeedLimits(),
            progress=notes or Notes(), jobs=jobs, digest=digest,
        )
    )  # fmt: skip


def names_in(root: Path) -> list[str]:
    """What lies in ROOT/archives, beside the lock."""
    return sorted(path.name for path in (root / "archives").iterdir() if path.name != ".lock")


def fail_from(at: int) -> Callable[[int, bytes], bytes]:
    """What spoils a server: it has no bytes from `at` on."""

    def fail(start: int, body: bytes) -> bytes:
        if start >= at:
            raise OSError
        return body

    return fail
