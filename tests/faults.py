"""System calls that fail when they are told to: `faults.c` compiled, and the page that tells it."""

import errno
import mmap
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCE = Path(__file__).with_suffix(".c")
PAGE_BYTES = 4096
_FORM = struct.Struct("1024s16siiq")  # below, kind, error, lasting, at; then calls, then names
_MOST_KINDS = 40
_UNMOUNTS, _SECONDS_BETWEEN_UNMOUNTS = 200, 0.05
_NO_ERRORS = {"HALF": -1, "CUT": -2, "CUT_NAMED": -3}


class Fault(NamedTuple):
    """The call with this number, of this kind, fails so; `lasting`: those after it, too."""

    kind: str
    at: int
    error: str
    lasting: bool = False

    def __str__(self) -> str:
        return f"{self.kind}:{self.at}:{self.error}{':on' if self.lasting else ''}"

    @classmethod
    def parse(cls, text: str) -> "Fault":
        """The fault that `str` made `text` of."""
        kind, at, error, *lasting = text.split(":")
        return cls(kind, int(at), error, bool(lasting))

    def packed(self, folder: Path) -> bytes:
        """What faults.c is told, to fail below `folder`.

        HALF moves half of the bytes. Of the file system mounted at `folder` CUT keeps what is on
        its disk, as a power cut does, and CUT_NAMED every name beside.
        """
        number = _NO_ERRORS.get(self.error) or getattr(errno, self.error)
        place = str(folder).encode()
        return _FORM.pack(place, self.kind.encode(), number, self.lasting, self.at)


NO_FAULT = Fault("", 0, "EPERM")


class Faults:
    """The library in `folder`, and its page. Skips a test where it cannot be compiled."""

    def __init__(self, folder: Path) -> None:
        gcc = shutil.which("gcc")
        if gcc is None or sys.platform != "linux":
            pytest.skip("calls can be made to fail on Linux with gcc")
        self._library, self._path = folder / "faults.so", folder / "page"
        words = [gcc, "-O1", "-shared", "-fPIC", "-o", self._library, SOURCE, "-ldl"]
        subprocess.run([*map(str, words)], check=True)
        self._path.write_bytes(bytes(PAGE_BYTES))
        with self._path.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), PAGE_BYTES)

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs whose calls are counted and fail."""
        return {"LD_PRELOAD": str(self._library), "FAULTS": str(self._path)}

    def tell(self, packed: bytes) -> None:
        """From here on count from nothing, and fail as `Fault.packed` says."""
        self._page[: _FORM.size + 8 * _MOST_KINDS] = packed + bytes(8 * _MOST_KINDS)

    def calls(self) -> dict[str, int]:
        """How often each kind was called."""
        counts = struct.unpack_from(f"{_MOST_KINDS}q", self._page, _FORM.size)
        names = struct.unpack_from("16s" * _MOST_KINDS, self._page, _FORM.size + 8 * _MOST_KINDS)
        pairs = zip((name.rstrip(b"\0").decode() for name in names), counts, strict=True)
        return {name: count for name, count in pairs if name}


@contextmanager
def mounted(image: Path, place: Path) -> Iterator[None]:
    """The file system in the file `image` at `place`, for root; raises CalledProcessError.

    Its journal is replayed where the power was cut. What was killed may not have ended when the
    block does: it is waited for.
    """
    subprocess.run(["mount", "-o", "loop", image, place], check=True, capture_output=True)
    try:
        yield
    finally:
        for _ in range(_UNMOUNTS):
            done = subprocess.run(["umount", place], check=False, capture_output=True, text=True)
            if done.returncode == 0:
                break
            time.sleep(_SECONDS_BETWEEN_UNMOUNTS)
        else:
            raise TimeoutError(done.stderr)
