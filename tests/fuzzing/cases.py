"""A case writes one wrong value into one field of a file, and runs the commands that read it.

Each must answer in two lines at most: neither a traceback nor "a bug in imnetprep".
"""

import contextlib
import io
import json
import os
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from unittest.mock import patch

import libtorrent as lt
from botocore.loaders import create_loader

from imnetprep import cli
from imnetprep.messages import OUR_BUG_EXIT_CODE

_HUGE = (1 << 63, 10**23, -(1 << 63) - 1, 10**5000)
_PLAIN = (0, -1, 1, 1 << 31, "", "x", "\x1b[2J\n\u202e", "../x", "9" * 5000)
JSON_VALUES: tuple[Any, ...] = (
    *(None, True, *_PLAIN, *_HUGE[:3], 1.5, float("nan"), float("inf"), -float("inf"), 1e300),
    *("\ud800", [], [1], ["x"], {}, {"a": 1}, [[]]),
)
SQL_VALUES: tuple[Any, ...] = (
    *(None, *_PLAIN, (1 << 63) - 1, -(1 << 63), 1.5, float("inf"), b"", b"\xff\xfe", b"x" * 16),
    *("[]", "{}", "NaN", "[NaN]", '{"kind": "none", "why": 1}', '{"a": Infinity}'),
)
BENCODE_VALUES: tuple[Any, ...] = (
    *(0, -1, (1 << 63) - 1, -(1 << 63), b"", b"x", b"\xff\x1b[2J", [], [1], [[1]], [[b"x", 1]]),
    *({}, {b"a": 1}, b"\0" * 5000),
)
TOML_VALUES = (
    *('""', '"x"', '"\\u001b[2J"', '"../x"', "true", "-1", "0", "1.5", "nan", "inf", "-inf"),
    *("9" * 19, "9" * 30, "[]", "[1]", '["x"]', "{}", "{a = 1}", "1979-05-27", '"{wnid}"'),
)
_NO_UTF8 = b"\xff\x1b"
_loader = cache(create_loader)  # half of a sync of a few files is botocore's reading of its data


class Case(NamedTuple):
    """A file below the folder ROOT of the commands, what writes the wrong value into it, and the
    commands that read it. `is_copied`: they write, and run on a copy of the folder.

    `environment`: what they need of it.
    """

    name: str
    folder: Path
    file: str
    write: Callable[[Path], object]
    commands: Sequence[Sequence[str]]
    is_copied: bool = False
    environment: Mapping[str, str] = MappingProxyType({})


def run_case(case: Case) -> str | None:
    """What is wrong with how a command answers; None: nothing."""
    folder = case.folder
    if case.is_copied:
        folder = folder.with_name(f"{folder.name} copied")
        shutil.copytree(case.folder, folder, symlinks=True)
    path = folder / case.file
    body = path.read_bytes()
    try:
        with contextlib.suppress(sqlite3.IntegrityError):  # the database itself refuses it
            case.write(path)
            for words in case.commands:
                full = [
                    word.replace("ROOT", str(folder)).replace("PREFIX", folder.name)
                    for word in words
                ]
                with (
                    patch.dict(os.environ, case.environment),
                    patch("botocore.session.create_loader", _loader),
                ):
                    problem = _problem(full)
                if problem:
                    return f"{case.name}: {' '.join(words)}: {problem}"
    finally:
        if case.is_copied:
            shutil.rmtree(folder)
        else:
            path.write_bytes(body)
    return None


def _problem(words: Sequence[str]) -> str | None:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = cli.run(list(words))
        except BaseException as error:
            return f"{type(error).__name__}: {error}"
    said = err.getvalue()
    if code == OUR_BUG_EXIT_CODE:
        path = Path(re.search(r"the traceback is in (\S+);", said)[1])  # type: ignore[index]
        traceback = path.read_text()
        path.unlink()
        return traceback
    if code not in range(6):
        return f"exit code {code}"
    if "Traceback" in said or len(re.findall("^Error: ", said, re.MULTILINE)) > 1:
        return said
    if not all(line.isprintable() for line in (out.getvalue() + said).split("\n")):
        return f"not printable: {out.getvalue() + said!r}"
    return None


def run_command(*words: object) -> None:
    """Run a command that succeeds."""
    with contextlib.redirect_stdout(io.StringIO()):
        assert cli.run([*map(str, words), "--quiet"]) == 0, words


def body_case(
    folder: Path,
    file: str,
    name: str,
    body: bytes,
    commands: Sequence[Sequence[str]],
    *,
    is_copied: bool = False,
) -> Case:
    """The file with another body."""
    name = f"{file}: {name}"
    return Case(name, folder, file, lambda path: path.write_bytes(body), commands, is_copied)


def json_cases(
    folder: Path, file: str, commands: Sequence[Sequence[str]], *, is_copied: bool = False
) -> Iterator[Case]:
    """Every field of a JSON file with every value, and files that are no JSON."""
    table = json.loads((folder / file).read_text())
    bodies: list[tuple[str, bytes]] = [
        (f"{keys} = {value!r:.30}", json.dumps(with_value(table, keys, value)).encode())
        for keys in paths_in(table)
        for value in JSON_VALUES
    ]
    odd = (b"", b"{", b"[" * 100_000, b"\xff", b"9" * 5000, b'{"a": 1e999}')
    bodies += [(repr(body[:20]), body) for body in odd]
    for name, body in bodies:
        yield body_case(folder, file, name, body, commands, is_copied=is_copied)


def sql_cases(
    folder: Path,
    file: str,
    commands: Sequence[Sequence[str]],
    *,
    is_copied: bool = False,
    tables: Sequence[str] = (),
) -> Iterator[Case]:
    """Every column of every table of a database, or of these `tables`, with every value."""
    with closing(sqlite3.connect(folder / file)) as database:
        names = "SELECT name FROM sqlite_schema WHERE type = 'table'"
        columns = [
            (table, column)
            for (table,) in database.execute(names).fetchall()
            if table in (tables or [table])
            and database.execute(f"SELECT 1 FROM {table}").fetchone()
            for _, column, *_ in database.execute(f"PRAGMA table_info({table})").fetchall()
        ]
    for table, column in columns:
        for value in (*SQL_VALUES, _NO_UTF8):

            def write(
                path: Path, table: str = table, column: str = column, value: Any = value
            ) -> None:
                place = "CAST(? AS TEXT)" if value is _NO_UTF8 else "?"
                with closing(sqlite3.connect(path)) as database, database:
                    database.execute(f"UPDATE {table} SET {column} = {place}", [value])

            name = f"{file}: {table}.{column} = {value!r:.30}"
            yield Case(name, folder, file, write, commands, is_copied)


def bencode_cases(folder: Path, file: str, commands: Sequence[Sequence[str]]) -> Iterator[Case]:
    """Every field of a bencoded file with every value, and files that are none."""
    table = lt.bdecode((folder / file).read_bytes())
    bodies = [
        (f"{keys} = {value!r:.30}", bytes(lt.bencode(with_value(table, keys, value))))
        for keys in paths_in(table)
        for value in BENCODE_VALUES
    ]
    odd = (b"", b"d", b"l" * 5000, b"i9e", b"\xff", b"i" + b"9" * 5000 + b"e")
    for name, body in [*bodies, *((repr(body[:9]), body) for body in odd)]:
        yield body_case(folder, file, name, body, commands)


def paths_in(value: Any) -> Iterator[tuple[Any, ...]]:
    """Where each field of a table is; of a list the first item stands for all."""
    keys: list[Any] = []
    if isinstance(value, dict):
        keys = list(value)
    elif isinstance(value, list):
        keys = list(range(min(1, len(value))))
    for key in keys:
        yield (key,)
        for rest in paths_in(value[key]):
            yield (key, *rest)


def with_value(value: Any, keys: tuple[Any, ...], new: Any) -> Any:
    """`value` with `new` in the field that `keys` lead to."""
    if not keys:
        return new
    copy = value.copy()
    copy[keys[0]] = with_value(value[keys[0]], keys[1:], new)
    return copy
