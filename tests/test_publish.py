"""Killed before any step from its first journal entry on, the same command ends the same: files,
listings, and every record of the receipt.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imnetprep import cli
from imnetprep.catalog.datasets import Layout, Root, Split
from imnetprep.manifest import Manifest, open_manifest
from imnetprep.organizing import publish
from imnetprep.organizing.journal import Journal, read_unfinished
from imnetprep.proving import receipt
from imnetprep.sync.journal import SyncJournal
from tests.conftest import Run, receipt_of, tree
from tests.packings import openable
from tests.servers import BUCKET, s3_served

SHARDS = ["--layout", "webdataset", "--shard-size", "25", "--jobs", "1", "--split", "val"]
# Of a record: when it was written, and of an archive, which file that was.
_PASSING = {"recorded_at", "imnetprep", "mtime_ns", "ctime_ns", "inode"}


def _kill_before(step: int) -> None:
    """SIGKILL before that one of the steps from the first on that is journalled."""
    steps, counts = 0, False

    def counted(act: Callable[..., Any], *, first: bool = False) -> Callable[..., Any]:
        def acted(*arguments: Any, **options: Any) -> Any:
            nonlocal steps, counts
            counts |= first
            steps += counts
            if counts and steps == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return act(*arguments, **options)

        return acted

    for owner, name in (
        (receipt, "_record"),
        (publish, "sync_folder"),
        (Manifest, "drop_split"),
        (Manifest, "add_columns"),
        (Journal, "add"),
        (Journal, "add_shard"),
        (Journal, "mark_whole"),
        (Journal, "forget"),
        (SyncJournal, "together"),
        (Path, "rename"),
        (Path, "replace"),
    ):
        setattr(owner, name, counted(getattr(owner, name)))
    Journal.begin = counted(Journal.begin, first=True)  # type: ignore[method-assign]
    SyncJournal.syncing = counted(SyncJournal.syncing, first=True)  # type: ignore[method-assign]
    publish._rename = counted(publish._rename, first=True)
    publish._counts = counted(publish._counts, first=True)


def _run(words: list[str], kill_before: int | None) -> int:
    """The exit code of the command in a fork of this process, its output in `out`."""
    if (child := os.fork()) == 0:
        handle = os.open("out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        if kill_before is not None:
            _kill_before(kill_before)
        os._exit(cli.run(words))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _state(root: Path) -> dict[str, object]:
    """What a root holds, but for dates: files, receipt, listings; and what still grows."""
    listed: dict[str, object] = {}
    if (root / "manifest.db").exists():
        with open_manifest(root / "manifest.db") as manifest:
            for key, record in manifest.splits().items():
                listed["/".join(key)] = [*record, manifest.fingerprint(record, with_places=True)]
    growths = read_unfinished(root / ".organizing" / "journal.db")
    growing = [f"{each.split} into {each.stage}" for each in growths]
    folders = (path for path in (root / ".organizing").rglob("*") if path.is_dir())
    growing += [path.name for path in folders if any(each.is_file() for each in path.iterdir())]
    recorded = {
        f"{kind} {name}": {key: facts[key] for key in facts.keys() - _PASSING}  # type: ignore
        for kind, records in receipt_of(root).items()
        for name, facts in records.items()
    }
    orders = [list(listed), list(recorded)]
    return {
        "files": _splits(root),
        "listed": listed,
        "recorded": recorded,
        "orders": orders,
        "unfinished": growing,
    }


def _splits(root: Path) -> dict[str, dict[str, bytes]]:
    folders = [Root(root).split(split, layout) for split in Split for layout in Layout]
    return {str(each.relative_to(root)): tree(each) for each in folders if each.exists()}


def rounds(begun: Path, words: list[str]) -> None:
    """Kill the command before each step, each time on a copy of `begun`, and run it again."""

    def root_of(name: str) -> tuple[Path, list[str]]:
        root = Path(name)
        if begun.exists():
            shutil.copytree(begun, root)
        return root, [str(root.absolute()) if word == "ROOT" else word for word in words]

    root, full = root_of("whole")
    assert _run(full, None) == 0, Path("out").read_text()
    whole, step, code = _state(root), 0, -signal.SIGKILL
    assert whole["unfinished"] == []
    while code == -signal.SIGKILL:
        step += 1
        root, full = root_of(str(step))
        code = _run(full, step)
        wanted: Any = whole["files"]
        for name, files in _splits(root).items():
            assert files == wanted[name], f"killed before step {step}: half of {name}"
        assert code == -signal.SIGKILL or code == 0, Path("out").read_text()
        assert _run(full, None) == 0, (step, Path("out").read_text())
        state = _state(root)
        wrong = [name for name, found in state.items() if found != whole[name]]
        assert not wrong, (step, wrong, [(state[name], whole[name]) for name in wrong][:1])
        shutil.rmtree(root)
    print(step)


def _killed_at_each(folder: Path, begun: Path, *words: object) -> None:
    """In one process that forks each run: it has imported everything, and has one thread."""
    code = "import sys, json, pathlib; from tests.test_publish import rounds;"
    code += "rounds(pathlib.Path(sys.argv[1]), json.loads(sys.argv[2]))"
    full = json.dumps([str(word) for word in (*words, "--quiet")])
    script = [sys.executable, "-c", code, str(begun), full]
    path = [str(Path(__file__).parent.parent), os.getenv("PYTHONPATH", "")]
    done = subprocess.run(
        script,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 5, done.stdout


def test_organize(packed: Path, tmp_path: Path) -> None:
    words = ["--root", "ROOT", "--dataset", packed, "--archives", packed.parent]
    _killed_at_each(tmp_path, tmp_path / "none", "organize", *words, "--jobs", 1)


@pytest.mark.parametrize(("split", "words"), [("train", []), ("val", []), ("val", SHARDS)])
def test_archives_of_the_root(
    split: str, words: list[str], published: Path, archived: Path, tmp_path: Path
) -> None:
    """By the pieces of a torrent (train), or by MD5 (val): the receipt says so of the archive."""
    words = ["--root", "ROOT", "--split", split, "--jobs", "1", *words]
    _killed_at_each(tmp_path, archived, "organize", *words)


def test_shards_of_class_folders(organized_once: Path, tmp_path: Path) -> None:
    _killed_at_each(tmp_path, organized_once, "organize", "--root", "ROOT", *SHARDS)


def test_shards_of_archives(packed: Path, tmp_path: Path) -> None:
    words = ["--root", "ROOT", "--dataset", packed, "--archives", packed.parent]
    _killed_at_each(tmp_path, tmp_path / "none", "organize", *words, *SHARDS)


def test_subset(organized_once: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("n01440764\nn01443537\n")
    words = [tmp_path / "list.txt", "--root", organized_once, "--to", "ROOT"]
    _killed_at_each(tmp_path, tmp_path / "none", "subset", *words)


def _photographs(source: Path, target: Path) -> None:
    """Files of the same names that can be opened as images."""
    shutil.copytree(source, target)
    for path in target.rglob("*.JPEG"):
        path.write_bytes(openable(path.name))


def test_divide(organized_once: Path, tmp_path: Path) -> None:
    _photographs(organized_once / "train", tmp_path / "photos")
    words = [tmp_path / "photos", "--root", "ROOT", "--val-fraction", "0.2"]
    _killed_at_each(tmp_path, tmp_path / "none", "divide", *words)


def test_adopt(organized_once: Path, packed: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        shutil.copytree(organized_once / split, tmp_path / "tree" / split)
    words = ["ROOT", "--dataset", packed]
    _killed_at_each(tmp_path, tmp_path / "tree", "adopt", *words)


def test_adopt_images_of_ones_own(organized_once: Path, tmp_path: Path) -> None:
    _photographs(organized_once / "train", tmp_path / "tree" / "train")
    _photographs(organized_once / "val", tmp_path / "tree" / "valid")
    _killed_at_each(tmp_path, tmp_path / "tree", "adopt", "ROOT")


def test_pull(
    organized: Path, packed: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weed").mkdir()
    with s3_served(tmp_path / "weed") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        assert run("organize", "--root", organized, *SHARDS[:-2]).returncode == 0
        (organized / "archives").mkdir()
        for archive in packed.parent.glob("*.tar"):
            shutil.copy(archive, organized / "archives")
        assert run("verify-archives", "--root", organized).returncode == 0
        words = ["sync-s3", f"s3://{BUCKET}/publish", "--root"]
        done = run(*words, organized, "--push")
        assert done.returncode == 0, done.stderr
        _killed_at_each(tmp_path, tmp_path / "none", *words, "ROOT", "--pull")


@pytest.mark.parametrize(
    ("link", "words"),
    [
        ("shards", ["--layout", "webdataset"]),
        (".organizing", ["--layout", "webdataset"]),
        (".organizing", []),
    ],
)
def test_nothing_is_made_that_no_rename_could_name(
    link: str, words: list[str], packed: Path, tmp_path: Path, other_disk: Path, run: Run
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / link).symlink_to(other_disk)
    done = run("organize", "--root", root, "--dataset", packed, "--archives", packed.parent, *words)
    assert done.returncode == 1
    assert "is on another disk than" in done.stderr
    assert not list(other_disk.iterdir()) and {path.name for path in root.iterdir()} == {link}


def test_shards_of_class_folders_stay_on_the_disk_of_the_root(
    organized: Path, other_disk: Path, run: Run
) -> None:
    (organized / "shards").symlink_to(other_disk)
    before = tree(organized)
    done = run("organize", "--root", organized, "--layout", "webdataset")
    assert done.returncode == 1
    assert "is on another disk than" in done.stderr
    assert tree(organized) == before and not list(other_disk.iterdir())
