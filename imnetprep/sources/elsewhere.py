"""The missing pieces of an archive from a bucket or the web, proved before they are written."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from imnetprep.archives.file import ArchiveFile
from imnetprep.errors import WrongBytes
from imnetprep.progress import Progress
from imnetprep.sources.growing import Growing

_PIECES_A_READ = 4  # which a kill costs; 8 MiB of the published torrents
_SECONDS_BETWEEN_SAVES = 30


def fetch_pieces(
    growing: Growing,
    file: ArchiveFile,
    *,
    progress: Progress,
    arrived: Callable[[Growing], None],
) -> None:
    """Fetch the pieces that `growing` lacks (a torrent of one file), neighbours in one read.

    Whatever ends this, what was proved is on record. Raises SourceFailed where the server cannot
    deliver, WrongBytes where what it delivers is not the torrent's.
    """
    wrong: list[int] = []
    growing.save()
    saved_s = time.monotonic()
    try:
        with progress.task(
            f"fetch {file.name}", total=growing.size_bytes, unit="B", initial=growing.proved_bytes
        ) as task:
            for piece, body in _bodies(growing, file):
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
            f"{len(wrong):,} of the pieces of {file.name} that were sent (piece {wrong[0]} first)"
            f" are not those of torrent {growing.torrent.info_hash}",
            hint="the same command without --from takes them from the swarm",
        )
    growing.finish()
    arrived(growing)


def _bodies(growing: Growing, file: ArchiveFile) -> Iterator[tuple[int, bytes]]:
    """Every missing piece once, whole."""
    info = growing.torrent.info
    if file.size_bytes != info.total_size():
        raise WrongBytes(
            f"{file.name} has {file.size_bytes or 0:,} bytes there; the torrent's has"
            f" {info.total_size():,}",
            hint="this is another file than the torrent's; name the right place",
        )
    missing = [piece for piece in growing.pieces if piece not in growing.proved]
    while missing:
        run = 1
        while run < min(len(missing), _PIECES_A_READ) and missing[run] == missing[0] + run:
            run += 1
        sizes = [info.piece_size(piece) for piece in missing[:run]]
        body = file.read_at(missing[0] * info.piece_length(), sum(sizes))
        for piece, size_bytes in zip(missing[:run], sizes, strict=True):
            yield piece, body[:size_bytes]
            body = body[size_bytes:]
        missing = missing[run:]
