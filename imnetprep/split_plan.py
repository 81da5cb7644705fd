"""What organize, organize_shards, subset and divide plan: splits to be made under a root."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from imnetprep.catalog.datasets import Layout, Root, Split
from imnetprep.manifest import SplitRecord
from imnetprep.messages import Progress
from imnetprep.organizing.disk_needs import Needs


class PlannedSplit(NamedTuple):
    """A split of the plan. `source` says in words what it is made of."""

    split: Split
    layout: Layout
    source: str
    is_done: bool


class SplitPlan(Protocol):
    """Splits to be made under `root`. Planning changes nothing on the disk."""

    @property
    def root(self) -> Root:
        """Where the splits will lie."""

    @property
    def needs(self) -> Needs:
        """The disk space and the files that the splits still take."""

    def described(self) -> Iterator[PlannedSplit]:
        """Every split of the plan, those that are done too."""

    def carry_out(self, progress: Progress) -> Iterator[SplitRecord]:
        """Make what is not done; yields every split of the plan once it lies under its name.

        Raises ImnetprepError where there is no room, and WrongBytes where the source is not what
        was promised.
        """
