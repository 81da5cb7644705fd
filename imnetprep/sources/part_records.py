"""How much of each part is proved, by the records beside them; no part is read."""

from pathlib import Path
from typing import NamedTuple

from imnetprep.errors import ImnetprepError
from imnetprep.sources.growing import Growing, read_record
from imnetprep.sources.torrent import read_torrent


class PartRecord(NamedTuple):
    """What a record says of one part: how much of it is proved, and of how much."""

    proved_bytes: int
    size_bytes: int


def read_part_records(folder: Path) -> dict[str, PartRecord]:
    """What the records in `folder` say of its parts, by the name of the archive; reads no part.

    A record that cannot be read says nothing.
    """
    found = {}
    for path in sorted(folder.glob(".*.resume")):
        record = read_record(path)
        try:
            torrent = read_torrent(record[b"torrent"])
            bits = record[b"proved"]
            for file in torrent.files:
                part = folder / f"{file.name}.part"
                if not part.exists():
                    continue
                pieces = Growing(torrent, {file.index: folder / file.name}).pieces
                proved = (piece for piece in pieces if bits[piece // 8] >> (piece % 8) & 1)
                proved_bytes = sum(map(torrent.info.piece_size, proved))
                size_bytes = file.size_bytes
                found[file.name] = PartRecord(min(proved_bytes, size_bytes), size_bytes)
        except (ImnetprepError, LookupError, TypeError):
            continue
    return found
