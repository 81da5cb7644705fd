"""What takes the place of a sample that cannot be read: an error, nothing, or another image."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from imnetprep.messages import WrongBytes
from imnetprep.samples.sample_list import SampleList

Item = TypeVar("Item")


@dataclass(frozen=True)
class Substitution:
    """A sample that cannot be read is an error, unless `skips_bad`: then it is left out.

    With `replaces_bad` the next one of its class takes its place, so that all labels stay.
    """

    samples: SampleList
    skips_bad: bool = False
    replaces_bad: bool = False

    def item(self, index: int, bad: dict[int, str], read: Callable[[int], Item]) -> Item | None:
        """What `read` makes of sample `index`, or of the one in its place; None: it is left out.

        `bad` gets the reasons. Raises OSError, and WrongBytes where that is an error.
        """
        for number in self._candidates(index):
            try:
                return read(number)
            except WrongBytes as error:
                if not self.skips_bad:
                    error.hint += "; --on-bad-image skip goes on without them"
                    raise
                bad[number] = str(error)
        if not self.replaces_bad:
            return None
        wnid = self.samples.wnids[self.samples.labels[index]]
        raise WrongBytes(
            f"no image of class {wnid} can be read, such as {bad[index]}",
            hint="imnetprep verify --decode names every such image",
        )

    def _candidates(self, index: int) -> Iterator[int]:
        """The sample, and where it may be replaced all others of its class, from it on."""
        yield index
        if self.replaces_bad:
            labels = self.samples.labels
            start, end = np.searchsorted(labels, [labels[index], labels[index] + 1]).tolist()
            yield from (*range(index + 1, end), *range(start, index))
