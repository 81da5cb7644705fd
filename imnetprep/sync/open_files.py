"""Files as a push reads them: by their path, or open from the start while a training replaces them.

A training writes each of its files under another name and renames it over the old one. Whoever has
the old one open reads it to its end, although its name is gone.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from imnetprep.archives.file import file_state


@dataclass(frozen=True)
class ReadFile:
    """A file at `place` to read; `state`: as it was when it was listed.

    `handle`: the file has been open since then, as one that a training may replace.
    """

    place: Path
    state: Mapping[str, int]
    handle: int | None = None

    @contextmanager
    def opened(self) -> Iterator[int]:
        """A handle to read at any offset."""
        if self.handle is not None:
            yield self.handle
        else:
            with self.place.open("rb", buffering=0) as stream:
                yield stream.fileno()

    def is_unchanged(self) -> bool:
        """Is it still what it was? A rename over its name changes the ctime of an open file."""
        if self.handle is None:
            return file_state(self.place) == self.state
        state = file_state(self.handle)
        return all(state[name] == self.state[name] for name in ("size_bytes", "mtime_ns"))


class OpenFiles:
    """Files that stay open, by their path relative to the root. To be closed."""

    def __init__(self) -> None:
        self._files: dict[str, ReadFile] = {}

    def open(self, path: str, place: Path) -> ReadFile | None:
        """Open the file at `place`, unless it is open already; None where there is none."""
        if path not in self._files:
            with suppress(FileNotFoundError):
                handle = os.open(place, os.O_RDONLY)
                self._files[path] = ReadFile(place, file_state(handle), handle)
        return self._files.get(path)

    def file(self, path: str, place: Path) -> ReadFile:
        """The file of this path: the open one, or that at `place`."""
        return self._files.get(path) or ReadFile(place, file_state(place))

    def close(self) -> None:
        """Close all of them."""
        while self._files:
            handle = self._files.popitem()[1].handle
            assert handle is not None
            os.close(handle)
