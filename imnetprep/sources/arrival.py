"""An archive while a swarm sends it, read in order: each read waits for its proved pieces."""

import os
from collections.abc import Iterator
from pathlib import Path

from imnetprep.archives.file import read_all
from imnetprep.digests import Checksum
from imnetprep.fs import read_range
from imnetprep.machine import named
from imnetprep.sources.part_files import PartFiles

# Forms that are read from their start to their end, whatever they hold.
FORMS_IN_ORDER = ("tar", "tar-of-tars", "tar.gz", "tar.xz")


class ArrivingFile:
    """The file of `parts` that is to be called `path`. To be read once, in order, as a pipe is."""

    seekable, is_far = False, False
    checksum: Checksum | None = None

    def __init__(self, parts: PartFiles, path: Path) -> None:
        self.name, self._path, self._parts = path.name, path, parts
        self._index = next(index for index, each in parts.paths.items() if each == path)
        self.size_bytes: int | None = parts.torrent.info.layout().file_size(self._index)
        self.identity = f"torrent {parts.torrent.info_hash}"
        self._handle = parts.open(self._index)

    def read_at(self, offset: int, length: int) -> bytes:
        """As `ArchiveFile.read_at`. Raises what ended the download, if it ends before."""
        end = min(offset + length, self.size_bytes or 0)
        if offset >= end:
            return b""
        self._parts.wait_for(self._index, offset, end)
        with named(self._path):
            return read_range(self._handle, end - offset, offset)

    def chunks(self, start: int, end: int, length: int) -> Iterator[memoryview]:
        """As `ArchiveFile.chunks`."""
        for at in range(start, end, length):
            yield memoryview(read_all(self, at, min(at + length, end)))

    def close(self) -> None:
        os.close(self._handle)
