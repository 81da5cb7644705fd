"""File names of samples to numbers and back: by a pattern, or by their place in a list."""

import itertools
import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol


class FileNames(Protocol):
    """Names to numbers and back. `says_wnid`: does every name say its class?"""

    says_wnid: bool

    def parse(self, name: str, wnid: str | None) -> tuple[str | None, int] | None:
        """The wnid, if the name says it, and the number; None if it is no name of this split.

        `wnid` is the class that the name was found in, which counts where several classes have it.
        """

    def format(self, wnid: str, number: int) -> str:
        """The name with that number."""


class NamePatterns:
    """Names made by patterns. Of n patterns, the k-th (from 0) has the numbers n * number + k."""

    def __init__(self, file_names: Sequence[str]) -> None:
        if not file_names:
            raise ValueError("no file_name is given")
        for file_name in file_names:
            rest = re.sub(r"\{number(:0[1-9][0-9]?)?\}", "", file_name, count=1)
            if not re.fullmatch(r"[^{}/\\\0]+", f".{rest.replace('{wnid}', '')}"):
                raise ValueError(f"the file_name {file_name!r} is not plain")
        self._formats = file_names
        self._regexes = [pattern_of(file_name) for file_name in file_names]
        for file_name, regex in zip(file_names, self._regexes, strict=True):
            if "number" not in regex.groupindex:
                raise ValueError(f"the file_name {file_name!r} has no {{number}}")
        self.says_wnid = all("wnid" in regex.groupindex for regex in self._regexes)

    def parse(self, name: str, wnid: str | None) -> tuple[str | None, int] | None:
        for at, regex in enumerate(self._regexes):
            if (match := regex.fullmatch(name)) is not None:
                groups = match.groupdict()
                return groups.get("wnid"), int(groups["number"]) * len(self._regexes) + at
        return None

    def format(self, wnid: str, number: int) -> str:
        number, at = divmod(number, len(self._formats))
        return self._formats[at].format(wnid=wnid, number=number)


_HEADERS = {f"{file}\t{label}" for file in ("file", "name", "filename", "file_name", "image")
            for label in ("class", "label", "wnid")}  # fmt: skip


class LabelledNames:
    """Names that follow no pattern, listed with their classes: lines `NAME<TAB>CLASS` in any order.

    The number of each is its place in the list by class and name, from 0. Two classes may both have
    an image `0001.jpg`. Raises ValueError at a line that is none.
    """

    says_wnid = True

    def __init__(self, lines: Sequence[str]) -> None:
        if lines and lines[0].lower() in _HEADERS:
            raise ValueError(f"line 1, {lines[0]!r}, is a header, and a list of labels has none")
        rows = sorted(_class_and_name(line, at) for at, line in enumerate(lines, start=1))
        self._names = [name for _, name in rows]
        self.ranges: dict[str, range] = {}
        for wnid, group in itertools.groupby(range(len(rows)), lambda at: rows[at][0]):
            numbers = list(group)
            self.ranges[wnid] = range(numbers[0], numbers[-1] + 1)
        for (wnid, name), successor in itertools.pairwise(rows):
            if (wnid, name) == successor:
                text = f"{name}\t{wnid}"
                numbers_of_lines = [str(at) for at, row in enumerate(lines, start=1) if row == text]
                raise ValueError(
                    f"lines {' and '.join(numbers_of_lines)}: {name} of {wnid} is listed twice"
                )

    @cached_property
    def _wnids(self) -> Mapping[str, str | None]:
        """The class of each name; None where several have it."""
        wnids: dict[str, str | None] = {}
        for wnid, numbers in self.ranges.items():
            for name in self._names[numbers.start : numbers.stop]:
                wnids[name] = None if name in wnids else wnid
        return wnids

    def parse(self, name: str, wnid: str | None) -> tuple[str | None, int] | None:
        for each in (wnid, self._wnids.get(name)):
            if each is not None and (numbers := self.ranges.get(each)):
                at = bisect_left(self._names, name, numbers.start, numbers.stop)
                if at in numbers and self._names[at] == name:
                    return each, at
        return None

    def format(self, wnid: str, number: int) -> str:
        return self._names[number]


def _class_and_name(line: str, at: int) -> tuple[str, str]:
    name, tab, wnid = line.partition("\t")
    if not tab or not is_plain(name) or not is_class_name(wnid):
        raise ValueError(f"line {at}: {line!r:.80} is no file name, tab and class")
    return wnid, name


def is_class_name(text: str) -> bool:
    """Can a folder of a class be called so, in any script: no folder in it, not hidden?"""
    return is_plain(text) and is_text(text) and len(text.encode()) <= 255


def is_text(name: str) -> bool:
    """Is it UTF-8, as a file's name need not be?"""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


_LITTER = {
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "__macosx",
    "@eadir",
    "icon\r",
    "$recycle.bin",
}


def is_litter(name: str) -> bool:
    """Is it what systems leave in folders: hidden, or a thumbnail of theirs?"""
    return name.startswith(".") or name.lower() in _LITTER


def is_plain(name: str) -> bool:
    """Is it a file's name that can be one everywhere: no folder in it, not hidden?"""
    return bool(name) and name[0] != "." and not re.search(r"[/\\\x00-\x1f\x7f-\x9f]", name)


def patterns_of(table: Mapping[str, Any]) -> NamePatterns:
    """The patterns of a split's table. Raises ValueError on one without a number."""
    names = table["file_name"]
    return NamePatterns([names] if isinstance(names, str) else names)


def pattern_of(text: str) -> re.Pattern[str]:
    """`"{wnid}_{number:08}.JPEG"` as the regular expression of just the names it formats.

    `{name}` is any file name. What stands twice is the same both times.
    """
    groups: set[str] = set()

    def group(field: re.Match[str]) -> str:
        name, width = field["name"], field["width"]
        if name in groups:
            return f"(?P={name})"
        groups.add(name)
        number = f"[0-9]{{{int(width)}}}" if width else "0|[1-9][0-9]{0,17}"
        return f"(?P<{name}>{number if name == 'number' else '[^/]+'})"

    field = r"\\\{(?P<name>wnid|number|name)(?::0(?P<width>[0-9]{1,2}))?\\\}"
    return re.compile(re.sub(field, group, re.escape(text)))
