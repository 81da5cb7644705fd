"""Which sample lies in which shard: fixed before a byte is read.

The order is a function of dataset, split and seed (`shuffling`), the cut one of the shard size.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from itertools import accumulate

from imnetprep.catalog.datasets import Dataset, Split
from imnetprep.digests import xxh128
from imnetprep.messages import ImnetprepError


def shuffling(dataset: Dataset, split: Split, seed: int) -> Callable[[int, str], bytes]:
    """A key of (label, name): sorted by it, the samples of `split` are in the order of `seed`."""
    wnids = [synset.wnid for synset in dataset.synsets]
    return lambda label, name: xxh128(
        f"{dataset.name} {split} {seed} {wnids[label]}/{name}".encode()
    )


class Placement:
    """The place of each sample of `split` by its label and name, in shards of `shard_size`.

    Raises ImnetprepError where the dataset knows how many samples a class has and not their names.
    A million samples take 8 MB, and 150 MB while they are sorted.
    """

    def __init__(self, dataset: Dataset, split: Split, *, seed: int, shard_size: int) -> None:
        numbers = require_names(dataset, split)
        self.dataset, self.split, self.shard_size = dataset, split, shard_size
        self._numbers = numbers
        self._first = [0, *accumulate(map(len, numbers))]
        key = shuffling(dataset, split, seed)
        keys = [
            key(label, name)
            for label in range(len(numbers))
            for name in dataset.names(split, label) or ()
        ]
        self._ranks = array("I", [0]) * len(keys)
        self._order = array("I", sorted(range(len(keys)), key=keys.__getitem__))
        for rank, at in enumerate(self._order):
            self._ranks[at] = rank

    def __len__(self) -> int:
        return len(self._ranks)

    def rank(self, label: int, name: str) -> int:
        """The place in the split of a sample that the dataset has."""
        wnid = self.dataset.synsets[label].wnid
        number = self.dataset.number_of(self.split, wnid, name)
        return self._ranks[self._first[label] + bisect_left(self._numbers[label], number)]

    def sample(self, rank: int) -> tuple[int, str]:
        """The label and the name of the sample that has this place."""
        at = self._order[rank]
        label = bisect_right(self._first, at) - 1
        number = self._numbers[label][at - self._first[label]]
        return label, self.dataset.name_of(self.split, self.dataset.synsets[label].wnid, number)

    def shard(self, label: int, name: str) -> int:
        """The number of its shard."""
        return self.rank(label, name) // self.shard_size


def require_names(dataset: Dataset, split: Split) -> "tuple[array[int], ...]":
    """The numbers in the names of `split`; ImnetprepError where only their counts are known."""
    numbers = dataset.numbers(split)
    if numbers is None:
        raise ImnetprepError(
            f"{dataset.name} does not list the names of its {split} images, so which shard each"
            " lies in cannot be told before all are read",
            hint="make class folders first, imnetprep organize --layout imagefolder; then the same"
            " command without --archives",
        )
    return numbers
