"""Where a member of an archive belongs: its path to split, label and the dataset's own name."""

import re
from fnmatch import fnmatchcase
from typing import NamedTuple

from imnetprep.catalog.datasets import Archive, Dataset, Split
from imnetprep.catalog.naming import pattern_of


class Place(NamedTuple):
    """The place of a sample."""

    split: Split
    label: int
    name: str


class Placing:
    """The places of the members of `archive`, by its patterns (docs/catalog.md).

    Of part of a dataset the rest is passed over, as long as the dataset has it there.
    """

    def __init__(self, archive: Archive, dataset: Dataset) -> None:
        self._dataset, self._published = dataset, dataset.published
        self._beside = archive.beside
        self._patterns = [(split, pattern_of(text)) for split, text in archive.members.items()]
        folders = (text.partition("{")[0] for text in archive.members.values())
        self._folders = tuple(folder[: folder.rfind("/") + 1] for folder in folders)

    def match(self, path: str) -> tuple[Split, re.Match[str]] | None:
        """The split whose pattern `path` fits; None for what is to be passed over.

        Raises ValueError for what is neither, in a folder of samples.
        """
        for split, pattern in self._patterns:
            if (match := pattern.fullmatch(path)) is not None:
                return split, match
        hidden = path.rpartition("/")[2].startswith(".")
        if hidden or not path.startswith(self._folders):
            return None
        if any(fnmatchcase(path, glob) for glob in self._beside):
            return None
        raise ValueError(f"which {self._published.name} does not have there")

    def place(self, path: str) -> Place | None:
        """Where the sample at `path` belongs; as `match` otherwise.

        Raises ValueError for a name that the dataset does not have, or has in another class.
        """
        if (found := self.match(path)) is None:
            return None
        split, groups = found[0], found[1].groupdict()
        wnid = groups.get("wnid")
        name = groups.get("name")
        if name is None:
            name = self._published.name_of(split, wnid or "", int(groups["number"]))
        elif name.startswith("."):
            return None
        label = self._published.label_of(split, name)
        if label is None:
            raise ValueError(f"which {self._published.name} does not have there")
        own = self._published.synsets[label].wnid
        if wnid not in (None, own):
            raise ValueError(f"which {self._published.name} has in {own}")
        if self._dataset is not self._published:
            label = self._dataset.label_of(split, name)
        return None if label is None else Place(split, label, name)
