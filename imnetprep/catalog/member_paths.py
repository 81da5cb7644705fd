"""A member's path in an archive to its split, label and file name; strangers are refused."""

import re
from fnmatch import fnmatchcase
from typing import NamedTuple

from imnetprep.catalog.datasets import Archive, Dataset, Split
from imnetprep.catalog.file_names import pattern_of


class Place(NamedTuple):
    """The split, label and file name of a sample."""

    split: Split
    label: int
    name: str


class MemberPaths:
    """The places of the members of `archive`, by its patterns (docs/catalog.md).

    For a part of a dataset the other samples of the whole are passed over.
    """

    def __init__(self, archive: Archive, dataset: Dataset) -> None:
        self._dataset, self._whole = dataset, dataset.published
        self._other_members = archive.other_members
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
        is_hidden = path.rpartition("/")[2].startswith(".")
        if is_hidden or not path.startswith(self._folders):
            return None
        if any(fnmatchcase(path, glob) for glob in self._other_members):
            return None
        raise ValueError(f"which {self._whole.name} does not have there")

    def place(self, path: str) -> Place | None:
        """Where the sample at `path` belongs; None for what is to be passed over.

        Raises ValueError for a name that the dataset does not have, or has in another class.
        """
        if (found := self.match(path)) is None:
            return None
        split, groups = found[0], found[1].groupdict()
        wnid = groups.get("wnid")
        name = groups.get("name")
        if name is None:
            name = self._whole.name_of(split, wnid or "", int(groups["number"]))
        elif name.startswith("."):
            return None
        label = self._whole.label_of(split, name, wnid)
        if label is None:
            raise ValueError(f"which {self._whole.name} does not have there")
        own = self._whole.synsets[label].wnid
        if wnid not in (None, own):
            raise ValueError(f"which {self._whole.name} has in {own}")
        if self._dataset is not self._whole:
            label = self._dataset.label_of(split, name, own)
        return None if label is None else Place(split, label, name)
