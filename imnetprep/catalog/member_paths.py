"""A member's path in an archive to its split, label and file name; strangers are refused."""

import itertools
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import NamedTuple

from imnetprep.catalog.datasets import Archive, Dataset, Split
from imnetprep.catalog.file_names import pattern_of

_FOLDERS = "(?:[^/]+/)*"


class Place(NamedTuple):
    """The split, label and file name of a sample."""

    split: Split
    label: int
    name: str


class MemberPaths:
    """The places of the members of `archive`, by its patterns (docs/catalog.md).

    For a part of a dataset the other samples of the whole are passed over. Who packed the archive
    again may have put other folders on top, or none: then the first sample says which, by its name.
    `has_samples`: was one found? `may_move`: is a sample looked for under other folders?
    """

    def __init__(self, archive: Archive, dataset: Dataset) -> None:
        self._dataset, self._whole = dataset, dataset.published
        self._archive, self.has_samples, self.may_move = archive, False, True
        texts = archive.members.values()
        folders = [text.partition("{")[0].split("/")[:-1] for text in texts]
        self._published_top = _common(folders)
        suffixes = [text.removeprefix(self._published_top) for text in texts]
        self._anywhere = [
            (split, re.compile(f"(?P<top>{_FOLDERS}){pattern_of(suffix).pattern}"))
            for split, suffix in zip(archive.members, suffixes, strict=True)
        ]
        self._example = ""
        self._move(self._published_top)

    def _move(self, top: str) -> None:
        """From now on the samples are where `top` stands in place of the published folders."""
        self._top = top

        def moved(text: str) -> str:
            return top + text.removeprefix(self._published_top)

        texts = {split: moved(text) for split, text in self._archive.members.items()}
        self._patterns = [(split, pattern_of(text)) for split, text in texts.items()]
        folders = (text.partition("{")[0] for text in texts.values())
        self._folders = tuple(folder[: folder.rfind("/") + 1] for folder in folders)
        self._other_members = tuple(map(moved, self._archive.other_members))

    def match(self, path: str) -> tuple[Split, re.Match[str]] | None:
        """The split whose pattern `path` fits; None for what is to be passed over.

        Raises ValueError for what is neither, in a folder of samples.
        """
        for split, pattern in self._patterns:
            if (match := pattern.fullmatch(path)) is not None:
                self.has_samples = True
                return split, match
        if (top := self._other_top(path)) is not None:
            if self._top != self._published_top:
                raise ValueError(f"beside images in {self._top or 'no folder'}")
            self._move(top)
            return self.match(path)
        self._example = self._example or path
        if not path.startswith(self._folders):
            return None
        if any(fnmatchcase(path, glob) for glob in self._other_members):
            return None
        raise ValueError(self._refusal())

    def place(self, path: str) -> Place | None:
        """Where the sample at `path` belongs; None for what is to be passed over.

        Raises ValueError for a name that the dataset does not have, or has in another class.
        """
        if (found := self.match(path)) is None:
            return None
        split = found[0]
        label, name = self._sample(*found)
        if self._dataset is not self._whole:
            wnid = self._whole.synsets[label].wnid
            if (own := self._dataset.label_of(split, name, wnid)) is None:
                return None
            label = own
        return Place(split, label, name)

    def nowhere(self) -> str:
        """What is wrong with an archive without samples: what it has, and what it should have."""
        if not self._example:
            return "it has no files"
        return f"it has {self._example!r}; {self._whole.name} has {self._expected()!r}"

    def _sample(self, split: Split, match: re.Match[str]) -> tuple[int, str]:
        """The label and name of a sample of the whole. Raises as `place`."""
        groups = match.groupdict()
        wnid, name = groups.get("wnid"), groups.get("name")
        if name is None:
            name = self._whole.name_of(split, wnid or "", int(groups["number"]))
        label = self._whole.label_of(split, name, wnid)
        if label is None:
            raise ValueError(f"which {self._whole.name} does not have there")
        own = self._whole.synsets[label].wnid
        if wnid not in (None, own):
            raise ValueError(f"which {self._whole.name} has in {own}")
        return label, name

    def _other_top(self, path: str) -> str | None:
        """The folders on top of a sample that is not where the others are; None if it is none."""
        is_settled = self.has_samples and self._top == self._published_top
        for split, pattern in () if is_settled or not self.may_move else self._anywhere:
            if (match := pattern.fullmatch(path)) is not None:
                with suppress(ValueError):
                    if self._archive.content is None:
                        self._sample(split, match)
                    return match["top"]
        return None

    def _refusal(self) -> str:
        if self.has_samples:
            return f"which {self._whole.name} does not have there"
        return f"where {self._whole.name} has {self._expected()!r}"

    def _expected(self) -> str:
        """The path of a sample, as published."""
        split, text = next(iter(self._archive.members.items()))
        label = next(label for label, size in enumerate(self._whole.counts(split)) if size)
        wnid, number = self._whole.synsets[label].wnid, 1
        name = next(self._whole.names(split, label) or iter(()), None)
        if name is None:
            name = self._whole.name_of(split, wnid, number)
        elif self._archive.content is None:
            number = self._whole.number_of(split, wnid, name)
        return text.format(wnid=wnid, number=number, name=name)


def _common(paths: Iterable[Sequence[str]]) -> str:
    """The folders with which all of the paths begin."""
    levels = itertools.takewhile(lambda names: len(set(names)) == 1, zip(*paths, strict=False))
    return "".join(f"{names[0]}/" for names in levels)
