"""File names of samples to numbers and back: by a pattern, or by their place in a list."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class FileNames(Protocol):
    """Names to numbers and back. `says_wnid`: does every name say its class?"""

    says_wnid: bool

    def parse(self, name: str) -> tuple[str | None, int] | None:
        """The wnid, if the name says it, and the number; None if it is no name of this split."""

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

    def parse(self, name: str) -> tuple[str | None, int] | None:
        for at, regex in enumerate(self._regexes):
            if (match := regex.fullmatch(name)) is not None:
                groups = match.groupdict()
                return groups.get("wnid"), int(groups["number"]) * len(self._regexes) + at
        return None

    def format(self, wnid: str, number: int) -> str:
        number, at = divmod(number, len(self._formats))
        return self._formats[at].format(wnid=wnid, number=number)


class ListedNames:
    """Names that follow no pattern: the number of each is its place in a list, from 0."""

    says_wnid = False

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._numbers = {name: number for number, name in enumerate(names)}
        if len(self._numbers) != len(names) or not all(map(is_plain, names)):
            raise ValueError("its list of files has a name twice, or one that is not plain")

    def parse(self, name: str) -> tuple[str | None, int] | None:
        number = self._numbers.get(name)
        return None if number is None else (None, number)

    def format(self, wnid: str, number: int) -> str:
        return self._names[number]


def is_plain(name: str) -> bool:
    """Is it a file's name that can be one everywhere: no folder in it, not hidden?"""
    return bool(name) and name[0] != "." and not re.search(r"[/\\\x00-\x1f]", name)


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
