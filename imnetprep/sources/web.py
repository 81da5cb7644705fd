"""The missing pieces of an archive from a web server, by ranges; each proved before it is written.

HTTP semantics: RFC 9110, section 14. A body may end early without an error, so bytes are counted.
"""

import http.client
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from imnetprep import __version__
from imnetprep.errors import SourceFailed, WrongBytes, WrongUsage
from imnetprep.progress import Progress
from imnetprep.sources.growing import Growing

_TIMEOUT_S = 60
_TRIES = 5
_FIRST_WAIT_S = 0.2
_SECONDS_BETWEEN_SAVES = 30
_FINAL = (
    str,  # urllib's own objections
    http.client.InvalidURL,
    ssl.SSLCertVerificationError,
    socket.gaierror,
    ConnectionRefusedError,
)


def parse_web_address(text: str, name: str) -> str:
    """The address of the archive `name`: `text`, or the file of that name in it if it ends in `/`.

    Raises WrongUsage on what is neither http nor https.
    """
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise WrongUsage(
            f"{text!r} is not an address of a web server",
            hint=f"for example https://example.org/{name}, or the folder with a / at its end",
        )
    return urljoin(text, quote(name)) if parts.path.endswith("/") else text


def fetch_pieces(
    growing: Growing, address: str, *, progress: Progress, arrived: Callable[[Growing], None]
) -> None:
    """Fetch the pieces that `growing` lacks (a torrent of one file), one request a run of them.

    Whatever ends this, what was proved is on record. Raises SourceFailed where the server cannot
    deliver ranges, WrongBytes where what it delivers is not the torrent's.
    """
    info = growing.torrent.info
    name = info.name()
    growing.save()
    saved_s = time.monotonic()
    wrong: list[int] = []
    try:
        with progress.task(
            f"fetch {name}", total=growing.size_bytes, unit="B", done=growing.proved_bytes
        ) as task:
            for piece, body in _bodies(growing, address):
                if growing.put(piece, body):
                    task.advance(len(body))
                else:
                    wrong.append(piece)
                if time.monotonic() - saved_s > _SECONDS_BETWEEN_SAVES:
                    growing.save()
                    saved_s = time.monotonic()
    finally:
        with suppress(OSError):  # a full disk: what the record lacks is found at the next start
            growing.save()
        growing.close()
    if wrong:
        raise WrongBytes(
            f"{address}: {len(wrong):,} of the pieces it sent (piece {wrong[0]} first) are not"
            f" those of torrent {growing.torrent.info_hash}",
            hint="the same command without --from takes them from the swarm",
        )
    growing.finish()
    arrived(growing)
    growing.forget()


def _bodies(growing: Growing, address: str) -> Iterator[tuple[int, bytes]]:
    """Every missing piece once, whole; a connection that breaks is taken up where it broke."""
    info = growing.torrent.info
    missing = [piece for piece in growing.pieces if piece not in growing.proved]
    failures = 0
    while missing:
        run = 1
        while run < len(missing) and missing[run] == missing[0] + run:
            run += 1
        start = missing[0] * info.piece_length()
        end = start + sum(map(info.piece_size, missing[:run]))
        try:
            with _opened_range(address, start, end, size_bytes=info.total_size()) as response:
                for piece in missing[:run]:
                    body = _read_all(response, info.piece_size(piece))
                    missing.pop(0)
                    failures = 0
                    yield piece, body
        except (OSError, http.client.HTTPException) as error:
            failures += 1
            if failures == _TRIES or not _may_pass(error):
                raise SourceFailed(
                    f"{address}: {_reason(error)}",
                    hint="run the same command again; it goes on from the pieces that are right",
                ) from error
            time.sleep(_FIRST_WAIT_S * 2**failures)


def _opened_range(address: str, start: int, end: int, *, size_bytes: int) -> Any:
    """The response that has just bytes `start` to `end`. Raises SourceFailed, WrongBytes."""
    headers = {
        "Range": f"bytes={start}-{end - 1}",
        "Accept-Encoding": "identity",
        "User-Agent": f"imnetprep/{__version__}",
    }
    request = urllib.request.Request(address, headers=headers)  # noqa: S310 - http or https
    response = _OPENER.open(request, timeout=_TIMEOUT_S)
    told = response.headers.get("Content-Range", "")
    if response.status != http.HTTPStatus.PARTIAL_CONTENT:
        response.close()
        raise SourceFailed(
            f"{address}: the server has no ranges: it answers one with status {response.status}",
            hint="take a server that has (RFC 9110, section 14), or leave --from out: the swarm",
        )
    if told not in (f"bytes {start}-{end - 1}/{size_bytes}", f"bytes {start}-{end - 1}/*"):
        response.close()
        raise WrongBytes(
            f"{address}: the server sends {told or 'no Content-Range'} where bytes"
            f" {start}-{end - 1}/{size_bytes} were asked for",
            hint="this is another file than the torrent's; name the right address",
        )
    return response


def _read_all(response: Any, length: int) -> bytes:
    parts = []
    while length:
        part = response.read(min(length, 1 << 20))
        if not part:
            raise http.client.IncompleteRead(b"", length)
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


class _SameSafety(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never to anything less safe: https stays https."""

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        if urlsplit(newurl).scheme not in ("https", req.type):
            raise SourceFailed(
                f"{req.full_url}: the server sends us on to {newurl}, which is less safe",
                hint="name the address that it sends us to, if you trust that",
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_OPENER = urllib.request.build_opener(_SameSafety)


def _may_pass(error: Exception) -> bool:
    """Is it worth asking again? Where a server is busy or a connection broke; not where refused."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code in (408, 429) or error.code >= 500
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return not isinstance(reason, _FINAL)


def _reason(error: Exception) -> str:
    if isinstance(error, http.client.IncompleteRead):
        return f"the server ends {error.expected:,} bytes too early"
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} {error.reason}"
    return str(error.reason if isinstance(error, urllib.error.URLError) else error)
