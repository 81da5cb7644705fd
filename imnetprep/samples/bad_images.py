"""Images that cannot be read and are skipped: told and listed once each."""

from collections.abc import Callable, Iterable
from pathlib import Path

from imnetprep.fs import written_whole
from imnetprep.messages import Progress, count
from imnetprep.outside_text import shown

_MOST_NAMES = 10


class BadImages:
    """The images that could not be read: a line each, with path and reason.

    With a folder its `bad-images.txt` lists them, and those of earlier times.
    """

    def __init__(self, progress: Progress, folder: Path | None = None) -> None:
        self._progress, self._file = progress, folder and folder / "bad-images.txt"
        text = (
            self._file.read_text("utf-8", "replace") if self._file and self._file.exists() else ""
        )
        self.lines = text.splitlines()
        self._news: list[str] = []

    def add(self, reasons: Iterable[str]) -> None:
        """Note what was met; it may be listed already."""
        self._news += map(shown, reasons)

    def tell(self, shares: Callable[[bytes], Iterable[bytes]] = lambda body: [body]) -> None:
        """Tell and list what was met since the last time: `shares` has what each process met."""
        bodies, earlier = shares("\n".join(self._news).encode()), set(self.lines)
        news = {line for body in bodies for line in body.decode().splitlines()} - earlier
        self._news.clear()
        if not news:
            return
        first = sorted(news)[: max(0, _MOST_NAMES - len(earlier))]
        for line in first:
            self._progress.note(f"skipped: {line}")
        if rest := len(news) - len(first):
            place = f": {self._file} lists them" if self._file else ": --json lists them"
            self._progress.note(f"skipped: {count(rest, 'more image')}{place}")
        self.lines = sorted(news | earlier)
        if self._file:
            with written_whole(self._file) as file:
                file.writelines(f"{line}\n".encode() for line in self.lines)
