"""The text of a definition: its files written, its keys checked, each with its line."""

import itertools
import json
import re
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from imnetprep.outside_text import has_secret

DIGEST_DIGITS = {"md5": 32, "sha1": 40, "sha256": 64, "xxh64": 16}
Path = tuple[str | int, ...]  # ("archives", 0, "md5")

KEYS = {
    "": "name title terms synsets archives part_of orientation odd_files train val",
    "split": "file_name samples samples_per_class names labels",
    "archives": "name split form members beside content labels packaging size_bytes url torrent "
    + "magnet "
    + " ".join(DIGEST_DIGITS),
}


def format_toml(table: Mapping[str, Any]) -> str:
    """A table as TOML: strings, numbers and lists of them, then tables and lists of tables."""
    lines: list[str] = []
    tables: list[str] = []
    for key, value in table.items():
        if isinstance(value, Mapping):
            tables += [f"[{key}]", format_toml(value)]
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            tables += [f"[[{key}]]\n{format_toml(each)}" for each in value]
        else:
            lines.append(f"{key} = {json.dumps(value, ensure_ascii=False)}")
    return "\n".join([*lines, *tables, ""])


def format_rows(rows: Iterable[Iterable[object]]) -> str:
    """A line a row, tabs between its values; None is an empty one."""
    texts = ("\t".join("" if each is None else str(each) for each in row) for row in rows)
    return "".join(f"{text}\n" for text in texts)


def format_numbers(wnids: Iterable[str], numbers: Iterable[Sequence[int]]) -> str:
    """A line a class: its wnid, then the difference of each number to the one before it."""
    lines = []
    for wnid, of_class in zip(wnids, numbers, strict=True):
        pairs = itertools.pairwise([0, *of_class])
        differences = " ".join(str(successor - number) for number, successor in pairs)
        lines.append(f"{wnid} {differences}\n")
    return "".join(lines)


def key_problems(text: str, splits: Collection[str]) -> Iterator[str]:
    """What is no TOML, the keys that no definition has, and values that cannot be: each with its
    line.
    """
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        yield f"it is no TOML: {error}"
        return
    archives = table.get("archives")
    tables: list[tuple[Path, str, Any]] = [((), "", table)]
    tables += [((split,), "split", table[split]) for split in splits if split in table]
    tables += [
        (("archives", at), "archives", each)
        for at, each in enumerate(archives if isinstance(archives, list) else ())
    ]
    for path, kind, each in tables:
        for key, value in each.items() if isinstance(each, Mapping) else ():
            place = f"{line_of(text, (*path, key))}{'.'.join([*map(str, path[:1]), key])}"
            if key not in KEYS[kind].split():
                yield f"{place} is no key of a definition"
            elif key in DIGEST_DIGITS and not _is_digest(key, value):
                yield f"{place} is not {DIGEST_DIGITS[key]} digits of 0-9 and a-f"
            elif key in ("url", "magnet") and isinstance(value, str) and has_secret(value):
                yield f"{place} has a password or a key, which the manifest would pass on"
    if table.get("orientation") not in (None, "applied"):
        yield f'{line_of(text, ("orientation",))}orientation is "applied", or is not there'


def line_of(text: str, path: Path) -> str:
    """`line 12: ` for the key at `path`; nothing where it stands on no line of its own."""
    number = _lines(text).get(path)
    return f"line {number}: " if number else ""


def _is_digest(kind: str, value: Any) -> bool:
    return isinstance(value, str) and bool(
        re.fullmatch(f"[0-9a-f]{{{DIGEST_DIGITS[kind]}}}", value)
    )


def _lines(text: str) -> dict[Path, int]:
    """The line of each key that stands at the start of one, by its path."""
    lines: dict[Path, int] = {}
    path: Path = ()
    tables = 0
    for number, line in enumerate(text.splitlines(), start=1):
        if match := re.match(r"\s*\[\[\s*([\w.-]+)\s*\]\]", line):
            path, tables = (match[1], tables), tables + 1
        elif match := re.match(r"\s*\[\s*([\w.-]+)\s*\]", line):
            path = (match[1],)
        elif match := re.match(r"\s*([\w-]+)[\w.-]*\s*=", line):
            lines.setdefault((*path, match[1]), number)
            continue
        lines.setdefault(path, number)
    return lines
