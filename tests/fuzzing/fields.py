"""Every field of every file that is read back, with every value that does not belong there.

A case writes one wrong value into one field of a root's file, runs the commands that read it, and
each must answer in two lines at most: neither a traceback nor "a bug in imnetprep".
"""

import contextlib
import io
import json
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import libtorrent as lt

from imnetprep import cli
from imnetprep.archives.file import LocalFile
from imnetprep.archives.range_index import format_index
from imnetprep.archives.ranges import plan_ranges
from imnetprep.catalog.datasets import Root, Split, load_dataset
from imnetprep.catalog.definition_text import KEYS
from imnetprep.manifest import create_manifest
from imnetprep.messages import OUR_BUG_EXIT_CODE, Silent
from imnetprep.sources.part_files import PartFiles
from imnetprep.sources.seeder import make_torrent
from imnetprep.sources.torrent import read_torrent
from imnetprep.synthetic import pack_dataset

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


class Case(NamedTuple):
    """A file below the folder ROOT of the commands, what writes the wrong value into it, and the
    commands that read it. `is_copied`: they write, and run on a copy of the folder.
    """

    name: str
    folder: Path
    file: str
    write: Callable[[Path], object]
    commands: Sequence[Sequence[str]]
    is_copied: bool = False


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
                full = [word.replace("ROOT", str(folder)) for word in words]
                if problem := _problem(full):
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


def _run(*words: object) -> None:
    assert cli.run([*map(str, words), "--quiet"]) == 0, words


def _stopped(root: Path, at: str, *words: object) -> None:
    """Run a command that ends, as if killed, before a call: `MODULE:NAME.NAME:NUMBER`."""
    code = """
import os, sys
from imnetprep import cli
module, name, number = sys.argv[1].split(":")
__import__(module)
owner, calls = sys.modules[module], 0
*owners, name = name.split(".")
for each in owners:
    owner = getattr(owner, each)
act = getattr(owner, name)
def counted(*arguments, **options):
    global calls
    calls += 1
    if calls == int(number):
        os._exit(9)
    return act(*arguments, **options)
setattr(owner, name, counted)
cli.run(sys.argv[2:])
"""
    full = [sys.executable, "-c", code, at, *map(str, words), "--root", str(root), "--quiet"]
    assert subprocess.run(full, check=False).returncode == 9, words


class Subjects:
    """The files of a root that has one of each, and the commands that read them."""

    def __init__(self, folder: Path, packed: Path) -> None:
        self._folder = folder
        self._packed = Path(shutil.copytree(packed.parent, folder / "packed")) / packed.name
        self._published = _with_torrent(folder / "published")
        self._root = Root(folder / "root")
        here = ["--root", "ROOT"]
        archives = str(self._packed.parent)
        self._reading = [
            ["status", *here],
            ["status", *here, "--json"],
            ["verify", *here, "--quiet", "--dry-run", "--layout", "imagefolder"],
            ["verify", *here, "--quiet", "--dry-run", "--layout", "webdataset", "--digests"],
            ["repair", *here, "--dry-run", "--quiet", "--from", archives, "--split", "train"],
            ["clean", *here],
            ["organize", *here, "--dry-run", "--archives", archives],
            ["organize", *here, "--dry-run", "--layout", "webdataset"],
        ]
        self._organize = ["organize", *here, "--dataset", str(self._packed), "--quiet"]
        self._organize += ["--archives", archives, "--jobs", "1"]
        self._make_root()

    def _make_root(self) -> None:
        root = self._root
        at, source = ("--root", root.path, "--jobs", 1), self._packed.parent
        _run("organize", *at, "--dataset", self._packed, "--archives", source)
        _run("organize", *at, "--layout", "webdataset", "--split", "val")
        assert cli.run(["verify", "--root", str(root.path), "--quiet", "--split", "train"]) == 0
        table = json.loads(root.receipt.read_text())
        proofs: list[dict[str, Any]] = [
            {"kind": "md5", "digest": "0"},
            {"kind": "torrent", "info_hash": "0", "pieces": 1, "of": "what was read"},
            {
                "kind": "several",
                "of": {"a.tar": {"kind": "crc32", "digest": "0", "of": "s3://a/b"}},
            },
        ]
        for at_, proof in enumerate(proofs):
            table["archives"][f"{at_}.tar"] = {"size_bytes": 1, "mtime_ns": 1, "proof": proof}
        table["splits"]["val"] |= {"skipped": {"a/b.jpg": "is empty"}, "source": {"dataset": "x"}}
        root.receipt.write_text(json.dumps(table))

    def cases(self) -> dict[str, Iterator[Case]]:
        """All of them, by the kind of file."""
        root, in_shards = self._root.path, "shards/val/index.json"
        return {
            "receipt": self._json_cases(root, "receipt.json", self._reading),
            "manifest": self._sql_cases(root, "manifest.db", self._reading),
            "definition": self._definition_cases(),
            "shards": self._json_cases(root, in_shards, self._reading),
            "ranges": self._range_index_cases(),
            "pieces": self._record_cases(),
            "journal": self._journal_cases(),
            "torrent": self._torrent_cases(),
        }

    def _json_cases(
        self, folder: Path, file: str, commands: Sequence[Sequence[str]]
    ) -> Iterator[Case]:
        table = json.loads((folder / file).read_text())
        bodies: list[tuple[str, bytes]] = [
            (f"{keys} = {value!r:.30}", json.dumps(with_value(table, keys, value)).encode())
            for keys in paths_in(table)
            for value in JSON_VALUES
        ]
        odd = (b"", b"{", b"[" * 100_000, b"\xff", b"9" * 5000, b'{"a": 1e999}')
        bodies += [(repr(body[:20]), body) for body in odd]
        for name, body in bodies:
            yield _case(folder, file, name, body, commands)

    def _sql_cases(
        self, folder: Path, file: str, commands: Sequence[Sequence[str]], *, is_copied: bool = False
    ) -> Iterator[Case]:
        with closing(sqlite3.connect(folder / file)) as database:
            names = "SELECT name FROM sqlite_schema WHERE type = 'table'"
            columns = [
                (table, column)
                for (table,) in database.execute(names).fetchall()
                if database.execute(f"SELECT 1 FROM {table}").fetchone()
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

    def _definition_cases(self) -> Iterator[Case]:
        """The definition as a file, and as the manifest has it."""
        file = self._packed.name
        check = [["datasets", "check", f"ROOT/{file}"]]
        check.append(["organize", "--dry-run", "--dataset", f"ROOT/{file}", "--root", "none"])
        check[1] += ["--archives", "ROOT"]
        lines = self._packed.read_text().splitlines()
        heads = {"": 0} | {line: at + 1 for at, line in enumerate(lines) if line.startswith("[")}
        for head, first in heads.items():
            kind = "archives" if "archives" in head else "split" if head else ""
            for key, value in product(KEYS[kind].split(), TOML_VALUES):
                end = next((at for at in heads.values() if at > first), len(lines) + 1) - 1
                rest = [each for each in lines[first:end] if not each.startswith(f"{key} = ")]
                name = f"{head} {key} = {value}"
                changed = [*lines[:first], f"{key} = {value}", *rest, *lines[end:]]
                body = "\n".join(changed).encode()
                yield _case(self._packed.parent, file, name, body, check)

                def write(path: Path, body: bytes = body) -> None:
                    query = "UPDATE definition SET body = ? WHERE file = 'dataset.toml'"
                    with closing(sqlite3.connect(path)) as database, database:
                        database.execute(query, [body])

                name = f"the definition in manifest.db: {name}"
                yield Case(name, self._root.path, "manifest.db", write, self._reading)

    def _range_index_cases(self) -> Iterator[Case]:
        dataset = load_dataset(str(self._packed))
        archive = dataset.archive(Split.TRAIN)
        folder = self._folder / "consumed"
        (folder / "archives").mkdir(parents=True)
        remnant = folder / "archives" / f"{archive.name}.consumed"
        shutil.copy(self._packed.parent / archive.name, remnant)
        with closing(LocalFile(self._packed.parent / archive.name)) as file:
            size_bytes = file.size_bytes or 0
            ranges = plan_ranges(archive, dataset, size_bytes=size_bytes, read_at=file.read_at)
            proof, inode = {"kind": "md5", "digest": "0"}, remnant.stat().st_ino
            body = format_index(list(ranges), of=file, proof=proof, inode=inode, root=folder)
        index = f"archives/{archive.name}.index.json"
        (folder / index).write_bytes(body)
        of_split = ["--root", "ROOT", "--dataset", str(self._packed), "--split", "train"]
        commands = [
            ["organize", *of_split, "--consume", "--dry-run"],
            ["download", *of_split, "--dry-run"],
            ["organize", *of_split, "--dry-run"],
            ["clean", "--root", "ROOT"],
        ]
        yield from self._json_cases(folder, index, commands)

    def _record_cases(self) -> Iterator[Case]:
        """What is known of the pieces of an archive that arrives."""
        root, torrent = Root(self._folder / "parts"), self._published.parent / "train.torrent"
        archive = load_dataset(str(self._published)).archive(Split.TRAIN)
        create_manifest(root.manifest, load_dataset(str(self._published)))
        root.archives.mkdir()
        shutil.copy(self._published.parent / archive.name, root.archives)
        parts = PartFiles(read_torrent(torrent.read_bytes()), {0: root.archives / archive.name})
        parts.recover(Silent())
        parts.save()
        parts.close()
        here = ["--root", "ROOT"]
        commands = [["status", *here], ["clean", *here], ["download", *here, "--dry-run"]]
        magnet = f"magnet:?xt=urn:btih:{parts.torrent.info_hash}"
        commands.append([*commands[-1], "--magnet", magnet])
        (path,) = root.archives.glob(".*.resume")
        file = str(path.relative_to(root.path))
        yield from self._bencode_cases(root.path, file, commands)

    def _bencode_cases(
        self, folder: Path, file: str, commands: Sequence[Sequence[str]]
    ) -> Iterator[Case]:
        table = lt.bdecode((folder / file).read_bytes())
        bodies = [
            (f"{keys} = {value!r:.30}", bytes(lt.bencode(with_value(table, keys, value))))
            for keys in paths_in(table)
            for value in BENCODE_VALUES
        ]
        odd = (b"", b"d", b"l" * 5000, b"i9e", b"\xff", b"i" + b"9" * 5000 + b"e")
        for name, body in [*bodies, *((repr(body[:9]), body) for body in odd)]:
            yield _case(folder, file, name, body, commands)

    def _journal_cases(self) -> Iterator[Case]:
        """Of splits that are unfinished: on their way, whole, in shards, and in spools."""
        journal, publish = "imnetprep.organizing.journal:Journal", "imnetprep.organizing.publish"
        shards = ["--layout", "webdataset", "--shard-size", "2"]
        for at, words in (
            (f"{journal}.mark_whole:1", []),
            (f"{publish}:publish:1", []),
            (f"{journal}.add_shard:2", [*shards, "--split", "val"]),
            (f"{journal}.mark_whole:1", [*shards, "--split", "train"]),
        ):
            folder = self._folder / f"begun {at.rpartition('.')[2]} {len(words)}"
            organize = [*self._organize, *words]
            _stopped(folder, at, *(each for each in organize if each not in ("--root", "ROOT")))
            dry = [["status", "--root", "ROOT"], ["clean", "--root", "ROOT"]]
            dry.append([*organize, "--dry-run"])
            yield from self._sql_cases(folder, ".organizing/journal.db", dry)
            yield from self._sql_cases(folder, ".organizing/journal.db", [organize], is_copied=True)

    def _torrent_cases(self) -> Iterator[Case]:
        file = "train.torrent"
        words = ["download", "--dry-run", "--dataset", str(self._published), "--root", "none"]
        commands = [[*words, "--torrent", f"ROOT/{file}"], words]
        yield from self._bencode_cases(self._published.parent, file, commands)


_NO_UTF8 = b"\xff\x1b"


def _with_torrent(folder: Path) -> Path:
    """A dataset whose train archive has a torrent."""
    toml = pack_dataset(folder, classes=3, train_per_class=6, val_per_class=2, image_bytes=9000)
    name = load_dataset(str(toml)).archive(Split.TRAIN).name
    (folder / "train.torrent").write_bytes(make_torrent(folder / name, piece_bytes=1 << 16))
    line = f'name = "{name}"\n'
    toml.write_text(toml.read_text().replace(line, f'{line}torrent = "train.torrent"\n'))
    return toml


def _case(
    folder: Path, file: str, name: str, body: bytes, commands: Sequence[Sequence[str]]
) -> Case:
    return Case(f"{file}: {name}", folder, file, lambda path: path.write_bytes(body), commands)


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
    if not keys:
        return new
    copy = value.copy()
    copy[keys[0]] = with_value(value[keys[0]], keys[1:], new)
    return copy
