"""What the journal says of the splits that grow, read beside the process that writes it."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from imnetprep.organizing.journal import Stage, is_begun

_QUERY = """
SELECT split, stage, dataset,
    (SELECT count(*) FROM range WHERE (split, stage) = (growth.split, growth.stage)),
    (SELECT coalesce(sum(length(xxh128)), 0) / 16 FROM samples
        WHERE (split, stage) = (growth.split, growth.stage)),
    (SELECT coalesce(sum(size_bytes), 0) FROM range
        WHERE (split, stage) = (growth.split, growth.stage)),
    folder_inode IS NOT NULL
FROM growth
"""


class GrowingSplit(NamedTuple):
    """What the journal says of a split that grows in one stage."""

    split: str
    stage: Stage
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
    address = path.absolute().as_uri()
    try:
        return _read_growing(f"{address}?mode=ro")
    except sqlite3.OperationalError:  # a writer commits, or one that was killed did
        return _read_growing(f"{address}?mode=ro&immutable=1")


def _read_growing(address: str) -> list[GrowingSplit]:
    with closing(sqlite3.connect(address, uri=True, timeout=0)) as database:
        rows = database.execute(_QUERY).fetchall() if is_begun(database) else []
    return [
        GrowingSplit(split, Stage(stage), dataset, ranges, samples, size_bytes, bool(is_whole))
        for split, stage, dataset, ranges, samples, size_bytes, is_whole in rows
    ]
