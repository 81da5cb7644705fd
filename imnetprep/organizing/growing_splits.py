"""What the journal says of the splits that grow, read beside the process that writes it."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple


class GrowingSplit(NamedTuple):
    """What the journal says of a split that grows."""

    split: str
    dataset: str  # the fingerprint
    ranges: int
    samples: int
    size_bytes: int
    is_whole: bool


def read_growing(path: Path) -> list[GrowingSplit]:
    """The splits that the journal at `path` has, while another process may be writing it.

    Waits for nobody: what a writer has half done, alive or killed, is counted in. Raises
    sqlite3.DatabaseError where nothing can be read.
    """
    if not path.exists():
        return []
    place = path.absolute().as_uri()
    try:
        return _read_growing(f"{place}?mode=ro")
    except sqlite3.OperationalError:  # a writer commits, or one that was killed did
        return _read_growing(f"{place}?mode=ro&immutable=1")


def _read_growing(place: str) -> list[GrowingSplit]:
    with closing(sqlite3.connect(place, uri=True, timeout=0)) as database:
        splits = database.execute("SELECT name, dataset, proof FROM split").fetchall()
        found = []
        for name, dataset, proof in splits:
            sums = "SELECT count(*), coalesce(sum(size_bytes), 0) FROM range WHERE split = ?"
            ranges, size_bytes = database.execute(sums, [name]).fetchone()
            sums = "SELECT coalesce(sum(length(xxh128)), 0) / 16 FROM samples WHERE split = ?"
            (samples,) = database.execute(sums, [name]).fetchone()
            found.append(
                GrowingSplit(
                    split=name,
                    dataset=dataset,
                    ranges=ranges,
                    samples=samples,
                    size_bytes=size_bytes,
                    is_whole=proof is not None,
                )
            )
        return found
