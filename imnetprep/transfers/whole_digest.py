"""The digest of a whole file that comes by ranges in any order, computed while it comes.

A thread follows from the start of the file, and reads what was just written out of the page cache.
"""

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from imnetprep.fs import read_range
from imnetprep.transfers.range_download import RangeDownload

_CHUNK_BYTES = 1 << 20


class WholeDigest:
    """A digest on its way, of `download` once that is open; `kind` as hashlib has it.

    Inside `with`, which ends the thread.
    """

    def __init__(self, download: RangeDownload, kind: str) -> None:
        self._download, self._kind = download, kind
        self._thread = ThreadPoolExecutor(1)
        self._digest: Future[str] = self._thread.submit(self._follow)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if error is not None:
            self._download.end_waiting()
        self._thread.shutdown()

    def is_right(self, value: str) -> bool:
        """Is `value` the digest of the part, which is all written?

        A range that was fetched again may have been read too early: then all is read once more.
        """
        if self._digest.result() == value:
            return True
        return digest_of(self._download.part, self._kind) == value

    def _follow(self) -> str:
        digest, at = hashlib.new(self._kind), 0
        with self._download.part.open("rb") as file:
            while at < self._download.remote.size_bytes:
                end = self._download.wait_for(at)
                while at < end:
                    chunk = read_range(file.fileno(), min(_CHUNK_BYTES, end - at), at)
                    digest.update(chunk)
                    at += len(chunk)
        return digest.hexdigest()


def digest_of(path: Path, kind: str) -> str:
    """The digest of the file at `path`, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()
