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
            # Class by class: a long query would keep the writer waiting.
            ranges = "SELECT count(*) FROM range WHERE split = ?"
            last = "SELECT max(label) FROM sample WHERE split = ?"
            of_class = (
                "SELECT count(*), coalesce(sum(size_bytes), 0) FROM sample"
                " WHERE split = ? AND label = ?"
            )
            labels = (database.execute(last, [name]).fetchone()[0] or 0) + 1
            sums = [database.execute(of_class, [name, label]).fetchone() for label in range(labels)]
            found.append(
                GrowingSplit(
                    split=name,
                    dataset=dataset,
                    ranges=database.execute(ranges, [name]).fetchone()[0],
                    samples=sum(samples for samples, _ in sums),
                    size_bytes=sum(size_bytes for _, size_bytes in sums),
                    is_whole=proof is not None,
                )
            )
        return found
