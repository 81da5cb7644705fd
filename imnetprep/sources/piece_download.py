"""Pieces of an archive from servers that have the whole of it, each proved by its torrent.

Any server will do, and several at once: a piece is right or wrong, wherever it comes from.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial

from imnetprep.archives.file import ArchiveFile
from imnetprep.messages import ImnetprepError, SourceFailed, WrongBytes
from imnetprep.sources.part_files import PartFiles
from imnetprep.sources.web import WebFile
from imnetprep.transfers.flow import Flow, side_by_side

_REQUEST_BYTES = 8 << 20
_TRIES = 2  # of a piece that comes wrong: a bit may have flipped on the way
_SECONDS_BETWEEN_SAVES = 30


class Lie(WrongBytes):
    """A server sends other bytes than those of the torrent."""


class Mirrors:
    """Servers of one and the same file, by their addresses.

    One that fails, or sends wrong bytes, is left out as long as there is another.
    """

    def __init__(
        self, files: Mapping[str, ArchiveFile], size_bytes: int, note: Callable[[str], None]
    ) -> None:
        """Leave out the `files` of another size than `size_bytes`. Raises WrongBytes for all."""
        self._files, self._note = dict(files), note
        self._requests, self._lock = Counter[str](), threading.Lock()
        for title, file in files.items():
            if isinstance(file, WebFile):  # hosts of one CDN call the same bytes by other ETags
                file.any_version = True
            if file.size_bytes != size_bytes:
                self.leave_out(title, _other_file(title, file, size_bytes))

    def pick(self) -> tuple[str, ArchiveFile]:
        """The one that was asked least often."""
        with self._lock:
            title = min(self._files, key=self._requests.__getitem__)
            self._requests[title] += 1
            return title, self._files[title]

    def leave_out(self, title: str, error: ImnetprepError) -> None:
        """Ask the one at `title` no more, because of `error`; raises it where that is the last."""
        with self._lock:
            if title not in self._files:
                return
            if len(self._files) == 1:
                raise error
            del self._files[title]
        self._note(f"{error}; left out, the others have it too")


def fetch_pieces(parts: PartFiles, mirrors: Mirrors, flow: Flow, *, jobs: int) -> None:
    """Fetch the pieces that `parts` lacks, of a torrent of one file, and give that its name.

    Whatever ends this, what was proved is on record. Raises SourceFailed where no server delivers,
    WrongBytes where what is sent is not the torrent's: all other pieces are fetched before.
    """
    wrong: list[int] = []
    parts.save()
    saved_s = time.monotonic()
    try:
        units = (partial(_fetch_run, parts, run, mirrors, flow) for run in _runs(parts))
        for wrong_pieces in side_by_side(units, jobs=jobs, stop=flow.stop):
            wrong += wrong_pieces
            if time.monotonic() - saved_s > _SECONDS_BETWEEN_SAVES:
                parts.save()
                saved_s = time.monotonic()
    finally:
        with suppress(OSError):  # a full disk: what the record lacks is found at the next start
            parts.save()
        parts.close()
    if wrong:
        name = next(iter(parts.paths.values())).name
        raise WrongBytes(
            f"{len(wrong):,} of the pieces of {name} that were sent (piece {min(wrong)} first)"
            f" are not those of torrent {parts.torrent.info_hash}",
            hint="another source may have them right: the swarm, or another address",
        )
    parts.finish()


def _runs(parts: PartFiles) -> Iterator[list[int]]:
    """Missing pieces, those of a request together."""
    limit = max(1, _REQUEST_BYTES // parts.torrent.info.piece_length())
    run: list[int] = []
    for piece in parts.pieces:
        if piece in parts.proved_pieces:
            continue
        if run and (piece != run[-1] + 1 or len(run) == limit):
            yield run
            run = []
        run.append(piece)
    if run:
        yield run


def _fetch_run(parts: PartFiles, run: list[int], mirrors: Mirrors, flow: Flow) -> list[int]:
    """Fetch neighbouring pieces; those that no server has right."""
    rest, wrong = list(run), list[int]()
    while rest:
        title, file = mirrors.pick()
        piece, tries = -1, 0
        try:
            while tries < _TRIES and not _take(parts, rest, file, flow):
                piece, tries = rest[0], tries + 1 if rest[0] == piece else 1
            if tries == _TRIES:
                mirrors.leave_out(title, _lie(parts, title, piece))
        except Lie:
            wrong.append(rest.pop(0))
        except (SourceFailed, WrongBytes) as error:
            mirrors.leave_out(title, error)
    return wrong


def _take(parts: PartFiles, rest: list[int], file: ArchiveFile, flow: Flow) -> bool:
    """Fetch the pieces `rest`, neighbours, until one comes wrong; the right ones leave it.

    Were all of them right, from where the last call ended?
    """
    length, size_of = parts.torrent.info.piece_length(), parts.torrent.info.piece_size
    for chunk in file.chunks(rest[0] * length, rest[-1] * length + size_of(rest[-1]), length):
        flow.moved(len(chunk))
        if not parts.put(rest[0], chunk):
            flow.moved(-len(chunk))
            return False
        rest.pop(0)
    return True


def _other_file(title: str, file: ArchiveFile, size_bytes: int) -> WrongBytes:
    return WrongBytes(
        f"{title} has {file.size_bytes or 0:,} bytes there; the torrent's has {size_bytes:,}",
        hint="this is another file than the torrent's; name the right place",
    )


def _lie(parts: PartFiles, title: str, piece: int) -> Lie:
    return Lie(
        f"{title}: piece {piece} came wrong twice: it is not that of torrent"
        f" {parts.torrent.info_hash}",
        hint="name another address",
    )
