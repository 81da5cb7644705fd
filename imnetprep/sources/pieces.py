"""Missing pieces of an archive fetched from a bucket, the web or a folder, proved on arrival."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from imnetprep.archives.file import ArchiveFile
from imnetprep.messages import Progress, WrongBytes
from imnetprep.sources.part_files import PartFiles

_PIECES_A_READ = 4  # which a kill costs; 8 MiB of the published torrents
_SECONDS_BETWEEN_SAVES = 30


def fetch_pieces(
    parts: PartFiles,
    file: ArchiveFile,
    *,
    progress: Progress,
    on_whole: Callable[[PartFiles], None],
) -> None:
    """Fetch the pieces that `parts` lacks (a torrent of one file), neighbours in one read.

    Whatever ends this, what was proved is on record. Raises SourceFailed where the server cannot
    deliver, WrongBytes where what it delivers is not the torrent's.
    """
    wrong: list[int] = []
    parts.save()
    saved_s = time.monotonic()
    try:
        with progress.task(
            f"fetch {file.name}", total=parts.size_bytes, unit="B", initial=parts.proved_bytes
        ) as task:
            for piece, body in _bodies(parts, file):
                if parts.put(piece, body):
                    task.advance(len(body))
                else:
                    wrong.append(piece)
                if time.monotonic() - saved_s > _SECONDS_BETWEEN_SAVES:
                    parts.save()
                    saved_s = time.monotonic()
    finally:
        with suppress(OSError):  # a full disk: what the record lacks is found at the next start
            parts.save()
        parts.close()
    if wrong:
        raise WrongBytes(
            f"{len(wrong):,} of the pieces of {file.name} that were sent (piece {wrong[0]} first)"
            f" are not those of torrent {parts.torrent.info_hash}",
            hint="the same command without --from takes them from the swarm",
        )
    parts.finish()
    on_whole(parts)


def _bodies(parts: PartFiles, file: ArchiveFile) -> Iterator[tuple[int, bytes]]:
    """Every missing piece once, whole."""
    info = parts.torrent.info
    if file.size_bytes != info.total_size():
        raise WrongBytes(
            f"{file.name} has {file.size_bytes or 0:,} bytes there; the torrent's has"
            f" {info.total_size():,}",
            hint="this is another file than the torrent's; name the right place",
        )
    pieces = [piece for piece in parts.pieces if piece not in parts.proved_pieces]
    while pieces:
        run = 1
        while run < min(len(pieces), _PIECES_A_READ) and pieces[run] == pieces[0] + run:
            run += 1
        sizes = [info.piece_size(piece) for piece in pieces[:run]]
        body = file.read_at(pieces[0] * info.piece_length(), sum(sizes))
        for piece, size_bytes in zip(pieces[:run], sizes, strict=True):
            yield piece, body[:size_bytes]
            body = body[size_bytes:]
        pieces = pieces[run:]
