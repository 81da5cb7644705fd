"""`clean` shows what a root can do without, and removes it only with --yes, only where it is."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imnetprep.catalog.datasets import Split
from imnetprep.fs import locked
from imnetprep.messages import Silent
from imnetprep.organizing.journal import Origin, Stage, open_journal, read_unfinished
from imnetprep.sources.part_files import PartFiles
from imnetprep.sources.seeder import make_torrent
from imnetprep.sources.torrent import read_torrent
from tests.conftest import TRAIN, VAL, Run, command, tree


def _shown(run: Run, root: Path, *words: str) -> list[dict[str, Any]]:
    done = run("clean", "--root", root, "--json", *words)
    assert done.returncode == 0, done.stderr
    *things, total = map(json.loads, done.stdout.splitlines())
    assert total["found"] == len(things)
    assert total["total_bytes"] == sum(each["size_bytes"] for each in things)
    return things


def _dead_process() -> int:
    with subprocess.Popen(["true"]) as process:
        process.wait()
        return process.pid


def _temporary(root: Path, _packed: Path) -> list[Path]:
    (root / "runs" / "one").mkdir(parents=True)
    places = [root, root / "archives", root / "runs" / "one"]
    paths = [place / f".file.{_dead_process()}.tmp" for place in places]
    for path in paths:
        path.write_bytes(b"half")
    (root / f".file.{os.getpid()}.tmp").write_bytes(b"of a process that is alive")
    return paths


def _part(root: Path, packed: Path) -> list[Path]:
    part = root / "archives" / f"{VAL}.part"
    shutil.copy(packed.parent / VAL, part)
    torrent = read_torrent(make_torrent(packed.parent / VAL))
    growing = PartFiles(torrent, {0: part.with_suffix("")})
    growing.recover(Silent())
    growing.save()
    growing.close()
    edge = root / "archives" / f".{torrent.info_hash}-1.unwanted"
    edge.write_bytes(b"edge")
    return [part, edge, root / "archives" / f".{torrent.info_hash}.resume"]


def _journal(root: Path, split: str, dataset: str) -> None:
    with sqlite3.connect(root / ".organizing" / "journal.db") as database:
        query = "INSERT INTO growth VALUES (?, 'folders', ?, '', '{}', NULL, NULL, NULL)"
        database.execute(query, [split, dataset])
        database.execute("INSERT INTO range VALUES (?, 'folders', 0, 0, NULL)", [split])
    database.close()


def _fingerprint(root: Path) -> str:
    from imnetprep.manifest import open_manifest

    with open_manifest(root / "manifest.db") as manifest:
        return manifest.dataset().fingerprint


def _grown(root: Path, split: str) -> list[Path]:
    folder = root / ".organizing" / split / "n01440764"
    folder.mkdir(parents=True)
    (folder / "n01440764_1.JPEG").write_bytes(b"image" * 5000)
    return [folder.parent]


def _unknown_growth(root: Path, _packed: Path) -> list[Path]:
    return _grown(root, "train")


def _growth_of_another_dataset(root: Path, _packed: Path) -> list[Path]:
    _journal(root, "train", "another dataset")
    return _grown(root, "train")


def _growth_of_an_organized_split(root: Path, _packed: Path) -> list[Path]:
    _journal(root, "train", _fingerprint(root))
    return _grown(root, "train")


def _damaged_journal(root: Path, _packed: Path) -> list[Path]:
    journal = root / ".organizing" / "journal.db"
    journal.write_bytes(b"no journal" * 999)
    return [journal, *_grown(root, "train")]


def _archive(root: Path, packed: Path) -> list[Path]:
    paths = [root / "archives" / name for name in (TRAIN, VAL)]
    for path in paths:
        shutil.copy(packed.parent / path.name, path)
    from imnetprep.catalog.datasets import Root
    from imnetprep.proving.receipt import DigestProof, NoProof, record_archive

    record_archive(Root(root), paths[0], DigestProof("md5", "0"))
    record_archive(Root(root), paths[1], NoProof("nothing"))
    (root / "archives" / "mine.tar").write_bytes(b"mine")
    return paths[:1]


def _consumed(root: Path, packed: Path) -> list[Path]:
    path = root / "archives" / f"{TRAIN}.consumed"
    shutil.copy(packed.parent / TRAIN, path)
    index = path.with_name(f"{TRAIN}.index.json")
    index.write_text("{}")
    return [index, path]


def _cached_shards(root: Path, _packed: Path) -> list[Path]:
    folder = root / ".shards"
    folder.mkdir()
    for name in ("train-000007-{}.tar", ".val-000000-{}.tar.fetching"):
        (folder / name.format("0f" * 16)).write_bytes(b"shard" * 5000)
    return [folder]


def _run_without_a_step(root: Path, _packed: Path) -> list[Path]:
    for name, files in (("early", ["recipe.json"]), ("trained", ["last.pt", "best.pt"])):
        folder = root / "runs" / name
        folder.mkdir(parents=True)
        for file in (".lock", *files):
            (folder / file).write_text("{}")
    return [root / "runs" / "early"]


def _run_without_an_epoch(root: Path, packed: Path) -> list[Path]:
    paths = _run_without_a_step(root, packed)
    (paths[0] / "last.pt").write_bytes(b"checkpoint")
    return paths


@pytest.fixture
def root(organized: Path) -> Path:
    (organized / "archives").mkdir()
    return organized


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (_temporary, "temporary"),
        (_part, "part"),
        (_unknown_growth, "leftover"),
        (_growth_of_another_dataset, "leftover"),
        (_growth_of_an_organized_split, "leftover"),
        (_damaged_journal, "leftover"),
        (_archive, "archive"),
        (_consumed, "archive"),
        (_cached_shards, "cache"),
        (_run_without_a_step, "leftover"),
        (_run_without_an_epoch, "unfinished"),
    ],
)
def test_each_kind_is_shown_first_and_removed_when_asked(
    spoil: Callable[[Path, Path], list[Path]], kind: str, root: Path, packed: Path, run: Run
) -> None:
    paths = spoil(root, packed)
    before = tree(root)
    words = ["--only", kind] if kind in ("archive", "part", "unfinished") else []
    shown = _shown(run, root, *words)
    assert {each["kind"] for each in shown} == {kind}
    assert {each["path"] for each in shown} == set(map(str, paths))
    assert all(each["reason"] and not each["removed"] for each in shown)
    assert tree(root) == before, "and nothing is changed"
    assert {each["path"] for each in _shown(run, root, *words, "--yes")} == set(map(str, paths))
    gone = {str(path.relative_to(root)) for path in paths}
    kept = {
        name: body
        for name, body in before.items()
        if not any(name == each or name.startswith(f"{each}/") for each in gone)
    }
    after = tree(root)
    locks = ("archives/.lock", ".organizing/.lock", ".shards/.readers")
    for left in (*locks, ".organizing/journal.db"):
        after.pop(left, None)
        kept.pop(left, None)
    assert after == kept
    assert _shown(run, root) == []
    assert run("verify", "--root", root, "--digests").returncode == 0


def test_an_archive_comes_with_the_way_to_get_it_again(root: Path, packed: Path, run: Run) -> None:
    _archive(root, packed)
    (shown,) = _shown(run, root, "--only", "archive")
    assert shown["source"] == f"the dataset names no place that has {TRAIN}"
    assert shown["size_bytes"] == (root / "archives" / TRAIN).stat().st_blocks * 512
    assert _shown(run, root) == []  # nobody could give it back
    told = run("clean", "--root", root, "--only", "archive").stdout.splitlines()
    assert "verified, and train is organized; again: " in told[0]
    assert told[-1].startswith("1 thing, ") and "--yes" in told[-1]
    shutil.rmtree(root / "train")
    assert _shown(run, root) == [], "its images are gone, so it is wanted"


def test_a_part_that_no_known_place_has_is_taken_by_its_kind_only(
    archived: Path, published: Path, here: Run
) -> None:
    """The dataset has a torrent of train, and nothing but an MD5 of val."""
    archives = archived / "archives"
    paths = _part(archived, published)
    known = (archives / TRAIN).rename(archives / f"{TRAIN}.part")
    (archives / VAL).rename(archives / f".{VAL}.fetching")
    assert [each["path"] for each in _shown(here, archived)] == [str(known)]
    _shown(here, archived, "--yes")
    assert not known.exists() and all(path.exists() for path in paths)
    assert _shown(here, archived) == []
    every = {*map(str, paths), str(archives / f".{VAL}.fetching")}
    assert {each["path"] for each in _shown(here, archived, "--only", "part")} == every


def test_what_may_be_all_there_is_of_a_consumed_archive_is_taken_by_its_kind_only(
    root: Path, packed: Path, here: Run
) -> None:
    shutil.rmtree(root / "train")
    _consumed(root, packed)
    (folder,) = _growth_of_another_dataset(root, packed)
    assert _shown(here, root) == []
    assert [each["path"] for each in _shown(here, root, "--only", "leftover")] == [str(folder)]


def test_growth_that_can_go_on_is_taken_by_its_name_only(
    packed: Path, tmp_path: Path, run: Run
) -> None:
    root = tmp_path / "root"
    words = ["--root", root, "--dataset", packed, "--archives", packed.parent]
    process = subprocess.Popen(command("organize", *words), stdout=subprocess.DEVNULL)
    while not (root / ".organizing" / "train").exists():
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert _shown(run, root) == []
    assert _shown(run, root, "--yes") == []
    (shown,) = _shown(run, root, "--only", "unfinished")
    assert (shown["kind"], Path(shown["path"]).name) == ("unfinished", "train")
    _shown(run, root, "--only", "unfinished", "--yes")
    assert not (root / ".organizing" / "train").exists()
    assert run("organize", *words).returncode == 0
    assert run("verify", "--root", root, "--digests").returncode == 0


@pytest.mark.parametrize("busy", ["archives", ".organizing"])
def test_where_another_process_is_at_work_nothing_is_removed(
    busy: str, root: Path, packed: Path, run: Run
) -> None:
    _archive(root, packed)
    _part(root, packed)
    _grown(root, "train")
    before = set(tree(root))
    words = ["clean", "--root", root, "--only", "part", "--only", "leftover"]
    with locked(root / busy):
        done = run(*words, "--json")
        things = [json.loads(line) for line in done.stdout.splitlines()][:-1]
        assert f"another imnetprep is at work in {root / busy}" in done.stderr
        assert {each["kind"] for each in things} == (
            {"leftover"} if busy == "archives" else {"part"}
        )
        done = run(*words, "--yes")
        assert (done.returncode, "is at work" in done.stderr) == (1, True)
    assert set(tree(root)) >= before


def test_its_own_locks_hold_until_the_end(root: Path, packed: Path) -> None:
    """Closing any file that a lock is on ends it, so `clean` may not look at those it holds."""
    from imnetprep.catalog.datasets import Root
    from imnetprep.clean import carry_out_clean

    paths = [*_part(root, packed), *_grown(root, "train")]
    code = "import sys; from pathlib import Path; from imnetprep.fs import is_locked;"
    code += "print([is_locked(Path(each)) for each in sys.argv[1:]])"
    words = [sys.executable, "-c", code, str(root / "archives"), str(root / ".organizing")]
    removing = carry_out_clean(Root(root), kinds=("part", "leftover"))
    for _ in paths:
        next(removing)
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        assert done.stdout == "[True, True]\n"
    assert list(removing) == []


def test_links_are_left_alone(organized: Path, packed: Path, tmp_path: Path, run: Run) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in (TRAIN, f"{VAL}.part"):
        shutil.copy(packed.parent / VAL, elsewhere / name)
    (elsewhere / f".file.{_dead_process()}.tmp").write_bytes(b"half")
    (organized / "runs").symlink_to(tmp_path)
    (organized / "archives").symlink_to(elsewhere)
    (organized / ".organizing" / "train").symlink_to(elsewhere)
    before = tree(elsewhere)
    assert _shown(run, organized, "--yes") == []
    (organized / "archives").unlink()
    (organized / "archives").mkdir()
    (organized / "archives" / f"{VAL}.part").symlink_to(elsewhere / TRAIN)
    folder = _grown(organized, "val")[0]
    (folder / "link").symlink_to(elsewhere)
    assert [each["path"] for each in _shown(run, organized, "--yes")] == [str(folder)]
    assert not folder.exists()
    assert tree(elsewhere) == before


def test_of_a_cache_nothing_but_shards_is_removed(root: Path, packed: Path, here: Run) -> None:
    (folder,) = _cached_shards(root, packed)
    names = ("train-7.tar", "notes.txt", f"train-000007-{'0f' * 16}.tar.gz")
    for name in names:
        (folder / name).write_bytes(b"mine")
    (shown,) = _shown(here, root)
    assert shown["path"] == str(folder) and 50_000 <= shown["size_bytes"] < 60_000
    assert [each["removed"] for each in _shown(here, root, "--yes")] == [True]
    assert set(tree(folder)) == {*names, ".readers"}
    assert _shown(here, root) == []


def test_without_a_manifest_growth_is_not_called_of_another_dataset(root: Path, run: Run) -> None:
    _journal(root, "train", _fingerprint(root))
    _grown(root, "train")
    (root / "manifest.db").unlink()
    assert _shown(run, root) == []
    assert [each["kind"] for each in _shown(run, root, "--only", "unfinished")] == ["unfinished"]


def test_an_empty_root_has_nothing_and_gets_nothing(tmp_path: Path, run: Run) -> None:
    for words in ((), ("--yes",)):
        done = run("clean", "--root", tmp_path / "root", *words)
        assert (done.returncode, done.stdout) == (0, "nothing to remove\n")
    assert not (tmp_path / "root").exists()


def test_shards_on_their_way_are_kept_and_a_draft_of_repair_goes(organized: Path, run: Run) -> None:
    growing = organized / ".organizing"
    for name in ("shards/train", "shards/val", "spool/train", "repair"):
        (growing / name).mkdir(parents=True)
        (growing / name / "0").write_bytes(b"x")
    origin = Origin(_fingerprint(organized), "some", {})
    for stage in (Stage.SHARDS, Stage.SPOOL):
        with open_journal(growing / "journal.db", stage) as journal:
            journal.begin(Split.TRAIN, origin)
    done = run("clean", "--root", organized, "--yes")
    assert done.returncode == 0, done.stderr
    assert set(tree(growing)) >= {"shards/train/0", "spool/train/0"}
    assert not set(tree(growing)) & {"shards/val/0", "repair/0"}
    assert run("clean", "--root", organized, "--only", "unfinished", "--yes").returncode == 0
    assert not set(tree(growing)) & {"shards/train/0", "spool/train/0"}
    assert read_unfinished(growing / "journal.db") == []


def test_class_folders_that_grow_beside_shards_are_kept_and_so_is_their_archive(
    organized: Path, packed: Path, run: Run
) -> None:
    words = ["organize", "--root", organized, "--layout", "webdataset"]
    assert run(*words).returncode == 0
    shutil.rmtree(organized / "train")
    (organized / "archives").mkdir()
    shutil.copy(packed.parent / TRAIN, organized / "archives")
    assert run("verify-archives", "--root", organized).returncode == 0
    assert [each["kind"] for each in _shown(run, organized, "--only", "archive")] == ["archive"]
    _journal(organized, "train", _fingerprint(organized))
    _grown(organized, "train")
    assert _shown(run, organized, "--only", "archive") == []
    assert "unfinished: " in run("status", "--root", organized).stdout
