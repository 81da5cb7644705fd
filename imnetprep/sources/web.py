"""A file on a web server, read by byte ranges (RFC 9110, section 14), whoever hands it out.

From its origin a redirect leads to where the bytes are, often by a signature that runs out.
"""

import base64
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any, NamedTuple
from urllib.parse import unquote, urljoin, urlsplit

import urllib3

from imnetprep.digests import Checksum
from imnetprep.messages import SourceFailed, WrongBytes
from imnetprep.outside_text import quoted
from imnetprep.retry import resumed, retried
from imnetprep.sources.origin import Origin, Refusal

_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 8
# What a signed address says when its time is over: Google's storage 400, S3 and CDNs 403.
_EXPIRED_STATUSES = (400, 401, 403, 410)
_PASSING_STATUSES = (429, 500, 502, 503, 504)
_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")
_MOST_BYTES_OF_A_REFUSAL = 100_000


class _PassingFailure(Exception):
    """A failure that may pass at the next try."""


_MAY_PASS = (
    _PassingFailure,
    urllib3.exceptions.ProtocolError,
    urllib3.exceptions.TimeoutError,
    urllib3.exceptions.NewConnectionError,
)


class _Place(NamedTuple):
    """Where the bytes are, and how often that was asked of the origin before."""

    url: str
    times: int


class WebFile:
    """A file behind an origin; it must stay the same while it is read.

    It is known by a digest of its bytes, else by a strong ETag, else by size and date. A redirect
    is followed until its signature runs out, never from https to http.
    """

    seekable, is_far = True, True

    def __init__(self, origin: Origin) -> None:
        self._origin, self._title = origin, origin.title
        self.name = origin.name or unquote(urlsplit(origin.address).path.rpartition("/")[2])
        self._headers, self._is_anybody = dict(origin.headers), True
        timeout = urllib3.Timeout(connect=5, read=15)
        self._pool = urllib3.PoolManager(maxsize=64, timeout=timeout, retries=False)
        self._place, self._lock = _Place(origin.address, 0), threading.Lock()
        self._turn, self._leads_on = threading.Lock(), False
        self._state: tuple[str, ...] | None = None
        self.size_bytes: int | None = None
        self.digests: dict[str, str] = {}  # what the source says of the whole, in hex
        self._ask(0, 1)
        self.checksum: Checksum | None = None
        if "crc32c" in self.digests and Checksum.is_known("crc32c"):
            value = int(self.digests["crc32c"], 16)
            self.checksum = Checksum("crc32c", value, self.size_bytes or 0)

    @property
    def identity(self) -> str:
        """The address, and what the server calls this version of the file."""
        return f"{self._title} {self._state}"

    def read_at(self, offset: int, length: int) -> bytes:
        """As `ArchiveFile.read_at`. Raises WrongBytes where the file has changed meanwhile."""
        end = min(offset + length, self.size_bytes or 0)
        return self._ask(offset, end) if offset < end else b""

    def chunks(self, start: int, end: int, length: int) -> Iterator[memoryview]:
        """As `ArchiveFile.chunks`: one request, and one more for each time that it breaks."""
        with self._errors():
            yield from resumed(
                lambda at: self._open(at, end), start, end, length=length, on=_MAY_PASS
            )

    def close(self) -> None:
        self._pool.clear()

    def _ask(self, start: int, end: int) -> bytes:
        times = 7 if self._state else 3  # one that never answered may not be there at all
        with self._errors():
            return retried(lambda: self._get(start, end), on=_MAY_PASS, times=times)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, _PassingFailure, urllib3.exceptions.HTTPError) as error:
            raise SourceFailed(
                f"{self._title}: {quoted(str(error))}",
                hint="check the network; run the same command to resume",
            ) from error

    def _get(self, start: int, end: int) -> bytes:
        with closing(self._open(start, end)) as response:
            body: bytes = response.read()
        if len(body) != end - start:
            raise _PassingFailure(f"the server sent {len(body):,} bytes of {end - start:,}")
        return body

    def _open(self, start: int, end: int) -> Any:
        """The response that has the bytes from `start` to `end` of this very file."""
        if self._leads_on and self._place.url == self._origin.address:
            with self._turn:  # one asks where the bytes are, and all others find its answer
                return self._open_at(self._place, start, end)
        return self._open_at(self._place, start, end)

    def _open_at(self, place: _Place, start: int, end: int) -> Any:
        response, url = self._follow(place.url, start, end)
        try:
            self._check(response, url, place, start, end)
        except BaseException:
            response.close()
            raise
        return response

    def _check(self, response: Any, url: str, place: _Place, start: int, end: int) -> None:
        if response.status in _EXPIRED_STATUSES and url != self._origin.address:
            self._ask_anew(place)
            raise _PassingFailure(f"the server says {response.status}")
        if response.status in (401, 403) and self._is_anybody:
            self._is_anybody = False
            if headers := self._origin.sign_in():
                self._headers |= headers
                raise _PassingFailure(f"the server says {response.status}")
        if response.status in _PASSING_STATUSES:
            raise _PassingFailure(f"the server says {response.status}")
        match = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if response.status != 206 or match is None:
            self._refuse(response)
            return
        first, last, size = match.groups()
        state = self._state_of(response, size)
        with self._lock:
            if self._state is None:
                self._state, self.size_bytes = state, int(size)
            if self._place == place:
                self._place = place._replace(url=url)
            self._leads_on |= url != self._origin.address
        if state != self._state:
            raise WrongBytes(
                f"{self._title} has changed while it was read",
                hint="run the same command again: what was made of the old one is dropped",
            )
        if (int(first), int(last) + 1) != (start, end):
            raise _PassingFailure(f"the server sent other bytes than {start:,} to {end:,}")

    def _ask_anew(self, place: _Place) -> None:
        """Let the next reader ask the origin where the bytes are, once for all that were there."""
        with self._lock:
            if self._place.times == place.times:
                self._place = _Place(self._origin.address, place.times + 1)

    def _state_of(self, response: Any, size: str) -> tuple[str, ...]:
        """What tells this version of the file from others, as well as the server can."""
        for kind in ("sha256", "md5", "crc32c"):
            if kind in self.digests:
                return size, kind, self.digests[kind]
        etag = response.headers.get("ETag", "")
        if etag and not etag.startswith("W/"):
            return size, etag
        return size, etag, response.headers.get("Last-Modified", "")

    def _refuse(self, response: Any) -> None:
        """Raise SourceFailed with what the server says in place of bytes."""
        body: bytes = response.read(_MOST_BYTES_OF_A_REFUSAL)
        if words := self._origin.explain(Refusal(response.status, response.headers, body)):
            raise SourceFailed(f"{self._title}: {words.reason}", hint=words.hint)
        if response.status == 200:
            raise SourceFailed(
                f"{self._title}: the server gives no byte ranges",
                hint=f"curl -L {self._title} | imnetprep organize --archives - --split SPLIT",
            )
        raise SourceFailed(
            f"{self._title}: the server says {response.status}",
            hint="check the address, and that it can be had without a login; user and password may"
            " stand in ~/.netrc",
        )

    def _follow(self, url: str, start: int, end: int) -> tuple[Any, str]:
        """The answer at the end of all redirects from `url`, and the address that gave it."""
        for _ in range(_MOST_REDIRECTS):
            headers = {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
            if _host(url) == _host(self._origin.address):
                headers |= self._headers
            response = self._pool.request(
                "GET", url, headers=headers, redirect=False, preload_content=False
            )
            self._learn(response.headers)
            if response.status not in _REDIRECTS:
                return response, url
            response.close()
            target = self._target(url, response.headers.get("Location", ""))
            if urlsplit(url).scheme == "https" and urlsplit(target).scheme != "https":
                raise SourceFailed(
                    f"{self._title} redirects from https to {urlsplit(target).scheme}",
                    hint="name an address that stays encrypted",
                )
            url = target
        raise SourceFailed(f"{self._title} redirects in a circle", hint="open it in a browser")

    def _learn(self, headers: Mapping[str, str]) -> None:
        """Note the digests of the whole that a source tells before any byte of it is here.

        Raises WrongBytes where one is another than before.
        """
        for kind, value in _digests_in(headers):
            if self.digests.setdefault(kind, value) != value:
                raise WrongBytes(
                    f"{self._title} has changed while it was read",
                    hint="run the same command again: what was made of the old one is dropped",
                )

    def _target(self, url: str, location: str) -> str:
        try:
            return urljoin(url, location)
        except ValueError as error:
            raise SourceFailed(
                f"{self._title} redirects to no address: {error}", hint="open it in a browser"
            ) from error


def _host(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def _digests_in(headers: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What Google's storage and the Hugging Face hub say of a whole file, in hex."""
    for pair in headers.get("x-goog-hash", "").split(","):
        kind, _, value = pair.strip().partition("=")
        if kind in ("md5", "crc32c"):
            try:
                yield kind, base64.b64decode(value, validate=True).hex()
            except ValueError:
                continue
    etag = headers.get("X-Linked-Etag", "").removeprefix("W/").strip('"')
    if re.fullmatch("[0-9a-f]{64}", etag):
        yield "sha256", etag
