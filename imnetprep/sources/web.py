"""A file on a web server, read by byte ranges (RFC 9110, section 14), whoever hands it out.

From its origin a redirect leads to where the bytes are, often by a signature that runs out.
"""

import base64
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any, NamedTuple, NoReturn
from urllib.parse import unquote, urljoin, urlsplit

import urllib3

from imnetprep.digests import Checksum
from imnetprep.messages import ChangedFile, SourceFailed
from imnetprep.outside_text import quoted
from imnetprep.retry import resumed, retried
from imnetprep.sources.connections import Connections
from imnetprep.sources.origin import Origin, Refusal

_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 8
# What a signed address says when its time is over: Google's storage 400, S3 and CDNs 403.
_EXPIRED_STATUSES = (400, 401, 403, 410)
_PASSING_STATUSES = (429, 500, 502, 503, 504)
_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")
_MOST_BYTES_OF_A_REFUSAL = 100_000
_DIGEST_BYTES = {"sha256": 32, "md5": 16, "crc32c": 4}
_NAME = re.compile(r"(?i)filename\s*=\s*\"?([^\";]+)|filename\*\s*=\s*UTF-8''([^;\s]+)")


class _PassingFailure(Exception):
    """A failure that may pass at the next try, not before `after_s` seconds."""

    after_s = 0.0


MAY_PASS = (
    _PassingFailure,
    urllib3.exceptions.ProtocolError,
    urllib3.exceptions.TimeoutError,
    urllib3.exceptions.NewConnectionError,
)


class NoRanges(SourceFailed):
    """A server gives a file as a whole, and no part of it."""


class _Place(NamedTuple):
    """Where the bytes are, and how often the origin was asked for that before."""

    url: str
    times: int


class WebFile:
    """A file behind an origin; it must stay the same while it is read.

    What a server says of this version must stay: the size, and a digest of the bytes; where it says
    none its ETag, or its date where that is no strong one. A redirect is followed until its
    signature runs out, never from https to http.
    """

    seekable, is_far = True, True

    def __init__(self, origin: Origin) -> None:
        self._origin, self._title = origin, origin.title
        self._headers = dict(origin.headers)
        self._connections = Connections()
        self._place, self._lock = _Place(origin.address, 0), threading.Lock()
        # Where a redirect leads on: one reader at a time asks the origin; failures of that so far.
        self._redirects, self._turn, self._failures = False, threading.Lock(), 0
        self._version = ""
        self.any_version = False  # where each piece is proved, whatever the server calls the file
        self.size_bytes: int | None = None
        self.digests: dict[str, str] = {}  # what the source says of the whole, in hex
        self.name = origin.name
        self._is_open = False
        self._begin()
        self._is_open = True
        self.checksum: Checksum | None = None
        if "crc32c" in self.digests and Checksum.is_known("crc32c"):
            value = int(self.digests["crc32c"], 16)
            self.checksum = Checksum("crc32c", value, self.size_bytes or 0)

    def _begin(self) -> None:
        """Learn what the server says of the file."""
        self._ask(0, 1)

    @property
    def has_version(self) -> bool:
        """Does the server say anything that tells these bytes from others of that size?"""
        return bool(self.digests) or self._version != version_of({})

    @property
    def identity(self) -> str:
        """The address, and what the server calls this version of the file."""
        digests = " ".join(f"{kind} {value}" for kind, value in sorted(self.digests.items()))
        return f"{self._title} {self.size_bytes} {digests or self._version}"

    def read_at(self, offset: int, length: int) -> bytes:
        """As `ArchiveFile.read_at`. Raises ChangedFile where it is another by now."""
        end = min(offset + length, self.size_bytes or 0)
        return self._ask(offset, end) if offset < end else b""

    def chunks(self, start: int, end: int, length: int) -> Iterator[memoryview]:
        """As `ArchiveFile.chunks`: one request, and one more for each time that it breaks."""
        with self._errors():
            yield from resumed(
                lambda at: self._open(at, end), start, end, length=length, on=MAY_PASS
            )

    def close(self) -> None:
        self._connections.close()

    def _ask(self, start: int, end: int) -> bytes:
        times = 7 if self._version else 3  # one that never answered may not be there at all
        with self._errors():
            return retried(lambda: self._get(start, end), on=MAY_PASS, times=times)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, _PassingFailure, urllib3.exceptions.HTTPError) as error:
            raise SourceFailed(
                f"{self._title}: {_problem(error)}",
                hint="check the network; run the same command to resume",
            ) from error

    def _get(self, start: int, end: int) -> bytes:
        with closing(self._open(start, end)) as response:
            body: bytes = response.read(end - start + 1)
        if len(body) != end - start:
            raise _PassingFailure(f"the server sent other than {end - start:,} bytes")
        return body

    def _open(self, start: int, end: int) -> Any:
        """The response that has the bytes from `start` to `end` of this very file."""
        failures = self._failures
        if not self._redirects or self._place.url != self._origin.address:
            return self._open_at(self._place, start, end)
        with self._turn:  # one asks where the bytes are, and all others find its answer
            if self._place.url == self._origin.address and self._failures != failures:
                raise _PassingFailure("the server does not say where the file is")
            try:
                return self._open_at(self._place, start, end)
            except MAY_PASS:
                self._failures += 1
                raise

    def _open_at(self, place: _Place, start: int, end: int) -> Any:
        headers = dict(self._headers)
        response, url = self._follow(place.url, headers, f"bytes={start}-{end - 1}")
        try:
            match = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if response.status != 206 or match is None or is_page(response.headers):
                self._refuse(response, url, place, headers)
            self._check(response, url, place, match, start, end)
        except BaseException:
            response.close()
            raise
        return response

    def _refuse(
        self, response: Any, url: str, place: _Place, headers: Mapping[str, str]
    ) -> NoReturn:
        """Raise `_PassingFailure` where an answer without a range may pass, SourceFailed else."""
        failure = _PassingFailure(f"the server says {response.status}")
        # Where the origin has just led on within its own host, it is the origin that refuses.
        is_signed = url != self._origin.address and (
            place.url != self._origin.address or _host(url) != _host(self._origin.address)
        )
        if is_signed and response.status in _EXPIRED_STATUSES:
            self._ask_anew(place)
            raise failure
        if response.status in _PASSING_STATUSES:
            wait = response.headers.get("Retry-After", "")
            failure.after_s = float(wait) if re.fullmatch("[0-9]{1,4}", wait) else 0.0
            raise failure
        if response.status in (401, 403) and self._signs_in(headers):
            raise failure
        raise self._failure(response)

    def _check(
        self, response: Any, url: str, place: _Place, match: re.Match[str], start: int, end: int
    ) -> None:
        """Raise ChangedFile where it is another version, `_PassingFailure` on other bytes of it.

        `match`: its range and the size of the whole.
        """
        first, last, size = map(int, match.groups())
        version = version_of(response.headers)
        with self._lock:
            if self.size_bytes is None:
                self.size_bytes = size
                self.name = self.name or name_of(response.headers, self._origin.address)
                self._version = version
            # What the hub tells the SHA-256 of lies at an address of these bytes alone; any other
            # digest that was told at first is told of these, and is the same (see `_learn`).
            kinds = {kind for kind, _ in _digests_in(response.headers)}
            has_digest = "sha256" in self.digests or not kinds.isdisjoint(self.digests)
            is_same = self.any_version or has_digest or version == self._version
            is_same = is_same and size == self.size_bytes
            if self._place == place:
                self._place = place._replace(url=url)
            self._redirects |= url != self._origin.address
        if not is_same:
            raise self._change()
        if (first, last + 1) != (start, end) or end > size:
            raise _PassingFailure(f"the server sent other bytes than {start:,} to {end:,}")

    def _change(self) -> ChangedFile:
        return ChangedFile(
            f"{self._title} has changed while it was read",
            hint="run the same command again: what was made of the old one is dropped",
        )

    def _ask_anew(self, place: _Place) -> None:
        """Let the next reader ask the origin where the bytes are, once for all that were there."""
        with self._lock:
            if self._place.times == place.times:
                self._place = _Place(self._origin.address, place.times + 1)

    def _signs_in(self, headers: Mapping[str, str]) -> bool:
        """Are there other credentials than those in `headers`, with which it was refused?"""
        with self._lock:
            if self._headers == headers:
                self._headers |= self._origin.sign_in()
            return self._headers != headers

    def _failure(self, response: Any) -> SourceFailed:
        """What the server says in place of bytes, and what to do about it."""
        body: bytes = response.read(_MOST_BYTES_OF_A_REFUSAL)
        if words := self._origin.explain(Refusal(response.status, response.headers, body)):
            return SourceFailed(f"{self._title}: {words.reason}", hint=words.hint)
        if response.status == 416:
            return SourceFailed(f"{self._title}: the file is empty", hint="look at it there")
        if response.status in (200, 206) and is_page(response.headers):
            return SourceFailed(
                f"{self._title}: the server sends a web page",
                hint="open it in a browser: it may ask for a login, or lead to the file",
            )
        if response.status == 200:
            return NoRanges(
                f"{self._title}: the server gives no byte ranges", hint="imnetprep download"
            )
        return SourceFailed(
            f"{self._title}: the server says {response.status}",
            hint="check the address, and that it can be had without a login; user and password may"
            " stand in ~/.netrc",
        )

    def _follow(self, url: str, headers: Mapping[str, str], span: str | None) -> tuple[Any, str]:
        """The answer at the end of all redirects from `url`, and the address that gave it.

        `span`: the bytes to ask for; None: all of them.
        """
        for _ in range(_MOST_REDIRECTS):
            fields = {"Accept-Encoding": "identity"} | ({"Range": span} if span else {})
            if _host(url) == _host(self._origin.address):
                fields |= headers
            response = self._connections.get(url, fields)
            try:
                self._learn(response.headers)
            except ChangedFile:
                response.close()
                raise
            if response.status not in _REDIRECTS:
                return response, url
            response.close()
            url = self._target(url, response.headers.get("Location", ""))
        raise SourceFailed(f"{self._title} redirects in a circle", hint="open it in a browser")

    def _learn(self, headers: Mapping[str, str]) -> None:
        """Note the digests of the whole that a source tells when it is opened.

        Raises ChangedFile where one is another than before.
        """
        for kind, value in _digests_in(headers):
            if not self._is_open:
                self.digests.setdefault(kind, value)
            if self.digests.get(kind, value) != value:
                raise self._change()

    def _target(self, url: str, location: str) -> str:
        try:
            target = urljoin(url, location)
            scheme = urlsplit(target).scheme
        except ValueError:
            scheme = ""
        if scheme not in ("http", "https"):
            raise SourceFailed(
                f"{self._title} redirects to no address of the web", hint="open it in a browser"
            )
        if urlsplit(url).scheme == "https" and scheme != "https":
            raise SourceFailed(
                f"{self._title} redirects from https to {scheme}",
                hint="name an address that stays encrypted",
            )
        return target


def _problem(error: Exception) -> str:
    """What went wrong with a connection, in words."""
    if isinstance(error, urllib3.exceptions.NewConnectionError):
        return f"no connection: {quoted(str(error).rpartition(': ')[2])}"
    for each in error.args:
        if isinstance(each, urllib3.exceptions.IncompleteRead):
            return f"the connection broke {each.expected or 0:,} bytes before the end"
    return quoted(str(error))


def _host(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def is_page(headers: Mapping[str, str]) -> bool:
    """Is it a page for people, such as one that asks for a login, and not a file?"""
    kind = headers.get("Content-Type", "").lower().strip()
    return kind.startswith("text/html") and not headers.get("Content-Disposition")


def name_of(headers: Mapping[str, str], url: str) -> str:
    """What a server calls the file at `url` (RFC 6266), else the last part of that."""
    match = _NAME.search(headers.get("Content-Disposition", ""))
    if match and (name := unquote(match[1] or match[2]).strip().rpartition("/")[2]):
        return name
    return unquote(urlsplit(url).path.rpartition("/")[2])


def version_of(headers: Mapping[str, str]) -> str:
    """What tells this version of a file from others, as well as its server can."""
    etag = headers.get("ETag", "")
    if etag and not etag.startswith("W/"):
        return etag
    return f"{etag} of {headers.get('Last-Modified', 'no date')}"


def _digests_in(headers: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What Google's storage and the Hugging Face hub say of a whole file, in hex."""
    for pair in headers.get("x-goog-hash", "").split(","):
        kind, _, text = pair.strip().partition("=")
        try:
            value = base64.b64decode(text, validate=True)
        except ValueError:
            continue
        if len(value) == _DIGEST_BYTES.get(kind):
            yield kind, value.hex()
    etag = headers.get("X-Linked-Etag", "").removeprefix("W/").strip('"')
    if re.fullmatch("[0-9a-f]{64}", etag):
        yield "sha256", etag
