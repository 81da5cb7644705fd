"""An archive on a web server, read by byte ranges (RFC 9110, section 14)."""

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urljoin, urlsplit

import urllib3

from imnetprep.digests import Checksum
from imnetprep.messages import SourceFailed, WrongBytes
from imnetprep.outside_text import public_address, quoted
from imnetprep.retry import resumed, retried

_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 8
_EXPIRED_STATUSES = (401, 403, 410)  # what a signed address says when its time is over
_PASSING_STATUSES = (429, 500, 502, 503, 504)


class _PassingFailure(Exception):
    """A failure that may pass at the next try."""


_MAY_PASS = (
    _PassingFailure,
    urllib3.exceptions.ProtocolError,
    urllib3.exceptions.TimeoutError,
    urllib3.exceptions.NewConnectionError,
)


class HttpFile:
    """An archive behind an address; it must stay the same, by its ETag or date, while it is read.

    A redirect is followed once and for all, never from https to http.
    """

    seekable, is_far = True, True
    checksum: Checksum | None = None

    def __init__(self, address: str) -> None:
        self.address, self.name = address, urlsplit(address).path.rpartition("/")[2]
        self._title = public_address(address)
        timeout = urllib3.Timeout(connect=5, read=15)
        self._pool = urllib3.PoolManager(maxsize=64, timeout=timeout, retries=False)
        self._url = address
        self._state: tuple[str | None, ...] | None = None
        self.size_bytes: int | None = None
        self._ask(0, 1)

    @property
    def identity(self) -> str:
        """The address, the size, and what the server calls this version of it."""
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
        response = self._follow(
            {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
        )
        try:
            self._check(response, start, end)
        except BaseException:
            response.close()
            raise
        return response

    def _check(self, response: Any, start: int, end: int) -> None:
        if response.status in _EXPIRED_STATUSES and self._url != self.address:
            self._url = self.address  # ask for a fresh redirect
            raise _PassingFailure(f"the server says {response.status}")
        if response.status in _PASSING_STATUSES:
            raise _PassingFailure(f"the server says {response.status}")
        content_range = response.headers.get("Content-Range", "")
        found = re.fullmatch(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})", content_range)
        if response.status == 200:
            raise SourceFailed(
                f"{self._title}: the server gives no byte ranges",
                hint=f"curl -L {self._title} | imnetprep organize --archives - --split SPLIT",
            )
        if response.status != 206 or found is None:
            raise SourceFailed(
                f"{self._title}: the server says {response.status}",
                hint="check the address, and that it can be had without a login",
            )
        state = (found[3], response.headers.get("ETag"), response.headers.get("Last-Modified"))
        if self._state is None:
            self._state, self.size_bytes = state, int(found[3])
        if state != self._state:
            raise WrongBytes(
                f"{self._title} has changed while it was read",
                hint="run the same command again: what was made of the old one is dropped",
            )
        if (int(found[1]), int(found[2]) + 1) != (start, end):
            raise _PassingFailure(f"the server sent other bytes than {start:,} to {end:,}")

    def _follow(self, headers: dict[str, str]) -> Any:
        for _ in range(_MOST_REDIRECTS):
            response = self._pool.request(
                "GET", self._url, headers=headers, redirect=False, preload_content=False
            )
            if response.status not in _REDIRECTS:
                return response
            response.close()
            url = self._target(response.headers.get("Location", ""))
            if urlsplit(self._url).scheme == "https" and urlsplit(url).scheme != "https":
                raise SourceFailed(
                    f"{self._title} redirects from https to {urlsplit(url).scheme}",
                    hint="name an address that stays encrypted",
                )
            self._url = url
        raise SourceFailed(f"{self._title} redirects in a circle", hint="open it in a browser")

    def _target(self, location: str) -> str:
        try:
            return urljoin(self._url, location)
        except ValueError as error:
            raise SourceFailed(
                f"{self._title} redirects to no address: {error}", hint="open it in a browser"
            ) from error
