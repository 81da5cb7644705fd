"""Every field of every file that is read back, with every value that does not belong there."""

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Any

from imnetprep import cli
from imnetprep.archives.file import LocalFile
from imnetprep.archives.range_index import format_index
from imnetprep.archives.ranges import plan_ranges
from imnetprep.catalog.datasets import Root, Split, load_dataset
from imnetprep.catalog.definition_text import KEYS
from imnetprep.manifest import create_manifest
from imnetprep.messages import Silent
from imnetprep.sources.part_files import PartFiles
from imnetprep.sources.seeder import make_torrent
from imnetprep.sources.torrent import read_torrent
from imnetprep.synthetic import pack_dataset
from tests.fuzzing.buckets import bucket_cases
from tests.fuzzing.cases import (
    TOML_VALUES,
    Case,
    bencode_cases,
    body_case,
    json_cases,
    run_command,
    sql_cases,
)
from tests.fuzzing.lists import list_cases
from tests.stopped import run_stopped


class Subjects:
    """The files of a root that has one of each, and the commands that read them.

    `endpoint`: of a server whose bucket is `folder`.
    """

    def __init__(self, folder: Path, packed: Path, endpoint: str) -> None:
        self._folder, self._endpoint = folder, endpoint
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
        run_command("organize", *at, "--dataset", self._packed, "--archives", source)
        run_command("organize", *at, "--layout", "webdataset", "--split", "val")
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
            "receipt": json_cases(root, "receipt.json", self._reading),
            "manifest": sql_cases(root, "manifest.db", self._reading),
            "definition": self._definition_cases(),
            "shards": json_cases(root, in_shards, self._reading),
            "ranges": self._range_index_cases(),
            "pieces": self._record_cases(),
            "journal": self._journal_cases(),
            "torrent": self._torrent_cases(),
            **bucket_cases(self._folder, self._root.path, self._endpoint),
            **list_cases(self._folder, self._root.path, self._packed),
        }

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
                yield body_case(self._packed.parent, file, name, body, check)

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
        yield from json_cases(folder, index, commands)

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
        yield from bencode_cases(root.path, file, commands)

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
            run_stopped(folder, at, *(each for each in organize if each not in ("--root", "ROOT")))
            dry = [["status", "--root", "ROOT"], ["clean", "--root", "ROOT"]]
            dry.append([*organize, "--dry-run"])
            yield from sql_cases(folder, ".organizing/journal.db", dry)
            yield from sql_cases(folder, ".organizing/journal.db", [organize], is_copied=True)

    def _torrent_cases(self) -> Iterator[Case]:
        file = "train.torrent"
        words = ["download", "--dry-run", "--dataset", str(self._published), "--root", "none"]
        commands = [[*words, "--torrent", f"ROOT/{file}"], words]
        yield from bencode_cases(self._published.parent, file, commands)


def _with_torrent(folder: Path) -> Path:
    """A dataset whose train archive has a torrent."""
    toml = pack_dataset(folder, classes=3, train_per_class=6, val_per_class=2, image_bytes=9000)
    name = load_dataset(str(toml)).archive(Split.TRAIN).name
    (folder / "train.torrent").write_bytes(make_torrent(folder / name, piece_bytes=1 << 16))
    line = f'name = "{name}"\n'
    toml.write_text(toml.read_text().replace(line, f'{line}torrent = "train.torrent"\n'))
    return toml
