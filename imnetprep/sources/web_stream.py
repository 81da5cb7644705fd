"""A file on a web server that gives no byte ranges: read once, from its start to its end."""

import re
from collections.abc import Iterator
from typing import Any

from imnetprep.archives.file import read_all
from imnetprep.messages import SourceFailed
from imnetprep.retry import retried
from imnetprep.sources.web import MAY_PASS, WebFile, is_page, name_of, version_of


class BrokenStream(SourceFailed):
    """A file that only comes as a whole has not come whole."""


class WebStream(WebFile):
    """A file behind an origin, of which only the whole can be had. Read as a pipe is."""

    seekable, is_far = False, False

    def _begin(self) -> None:
        self._position = 0
        with self._errors():
            self._body: Any = retried(self._open_whole, on=MAY_PASS, times=3)

    def _open_whole(self) -> Any:
        place, headers = self._place, dict(self._headers)
        response, url = self._follow(place.url, headers, None)
        if response.status != 200 or is_page(response.headers):
            self._refuse(response, url, place, headers)
        length = response.headers.get("Content-Length", "")
        self.size_bytes = int(length) if re.fullmatch("[0-9]{1,18}", length) else None
        # Else it ends where the connection does, whatever ended that.
        self.has_end = "chunked" in response.headers.get("Transfer-Encoding", "") or bool(length)
        self.name = self.name or name_of(response.headers, self._origin.address)
        self._version = version_of(response.headers)
        self.link = response.headers.get("Link", "")  # to what comes behind it (RFC 8288)
        return response

    def read_at(self, offset: int, length: int) -> bytes:
        """The bytes at `offset`, which is where the last ones ended; fewer at the end of the file.

        Raises BrokenStream where the connection breaks, and SourceFailed for any others: only a new
        connection has them.
        """
        if offset != self._position:
            raise SourceFailed(
                f"{self._title}: the server gives no byte ranges",
                hint="imnetprep download fetches it whole first",
            )
        parts, rest = [], length
        hint = "its server gives no byte ranges: run the same command to begin anew"
        try:
            with self._errors():
                while rest and (part := self._body.read(rest)):
                    parts.append(part)
                    rest -= len(part)
        except SourceFailed as error:
            raise BrokenStream(str(error), hint=hint) from error
        self._position += length - rest
        if rest and self.size_bytes not in (None, self._position):
            problem = f"the server sent {self._position:,} of {self.size_bytes:,} bytes"
            raise BrokenStream(f"{self._title}: {problem}", hint=hint)
        return b"".join(parts)

    def chunks(self, start: int, end: int, length: int) -> Iterator[memoryview]:
        """As `ArchiveFile.chunks`, in order."""
        for at in range(start, end, length):
            yield memoryview(read_all(self, at, min(at + length, end)))

    def close(self) -> None:
        """Hang up."""
        self._body.close()
        super().close()
