"""What there is to say about something that was checked, and how closely to look."""

from dataclasses import dataclass
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


@dataclass(frozen=True)
class Checks:
    """What to look at beyond counts, names and sizes: every byte, and every image decoded."""

    digests: bool = False
    decode: bool = False

    @property
    def read_every_file(self) -> bool:
        """Is any byte of a file needed whose size is right?"""
        return self.digests or self.decode
