"""What there is to say about a tree."""

from typing import NamedTuple

# The kind that does not keep a tree from being adopted: its manifest says it.
CHANGED = "changed"


class Finding(NamedTuple):
    """One thing that is not as it should be. Paths are relative to the root.

    `belongs` is where the file or folder at `path` should lie; of a damaged file in its place,
    or of a missing one, it is `path` itself. None where nothing has a place for it.
    """

    kind: str
    path: str
    what: str
    belongs: str | None = None
