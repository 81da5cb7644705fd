"""An archive is given up class by class, only when it is proved and its samples are safe."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from imnetprep.catalog.datasets import load_dataset
from imnetprep.fs import allocated_bytes, can_punch_holes, claim
from imnetprep.manifest import create_manifest
from imnetprep.sources.seeder import make_torrent
from imnetprep.synthetic import pack_dataset
from tests.conftest import Run, spoil, tree

TRAIN = "ILSVRC2012_img_train.tar"

# Runs the command, and kills it before the N-th of the steps that change what is on the disk.
_KILLED_AT = """
import os, signal, sys
from pathlib import Path
from imnetprep import cli
from imnetprep.organizing import committer, journal
from imnetprep.proving import consume

left = int(sys.argv[1])

def counted(act):
    def step(*arguments, **options):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return act(*arguments, **options)
    return step

consume.written_whole = counted(consume.written_whole)
consume.punch_hole = counted(consume.punch_hole)
consume.sync_folder = counted(consume.sync_folder)
committer.sync_file_system = counted(committer.sync_file_system)
journal.Journal.add = counted(journal.Journal.add)
journal.Journal.mark_whole = counted(journal.Journal.mark_whole)
journal.Journal.forget = counted(journal.Journal.forget)
Path.rename = counted(Path.rename)
Path.unlink = counted(Path.unlink)
sys.exit(cli.run(sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with the torrent of its train archive, and its definition; 4 classes of ~1 MB."""
    folder = tmp_path_factory.mktemp("published")
    if not can_punch_holes(folder):
        pytest.skip("the file system of the tests' folder cannot punch holes")
    toml = pack_dataset(folder, classes=4, train_per_class=40, val_per_class=0, image_bytes=25_000)
    torrent = make_torrent(folder / TRAIN, piece_bytes=1 << 16)
    (folder / "train.torrent").write_bytes(torrent)
    toml.write_text(toml.read_text() + 'torrent = "train.torrent"\n')
    return toml


def _root(tmp_path: Path, published: Path) -> Path:
    (tmp_path / "root" / "archives").mkdir(parents=True)
    shutil.copy(published.parent / TRAIN, tmp_path / "root" / "archives")
    return tmp_path / "root"


def _wanted(published: Path, tmp_path: Path, run: Run) -> dict[str, bytes]:
    words = ["--root", tmp_path / "whole", "--dataset", published]
    done = run("organize", *words, "--archives", published.parent)
    assert done.returncode == 0, done.stderr
    return tree(tmp_path / "whole" / "train")


def test_the_archive_is_gone_when_its_split_stands(
    published: Path, tmp_path: Path, run: Run
) -> None:
    root = _root(tmp_path, published)
    done = run("organize", "--root", root, "--dataset", published, "--consume")
    assert done.returncode == 0, done.stderr
    assert tree(root / "train") == _wanted(published, tmp_path, run)
    assert list((root / "archives").iterdir()) == []
    assert run("verify", "--root", root, "--digests").returncode == 0


@pytest.mark.slow
def test_a_kill_between_any_two_steps_loses_nothing(
    published: Path, tmp_path: Path, run: Run
) -> None:
    wanted = _wanted(published, tmp_path, run)
    steps, shrunk = 0, False
    while True:
        steps += 1
        root = _root(tmp_path / str(steps), published)
        words = ["organize", "--root", root, "--dataset", published, "--consume", "--jobs", "1"]
        script = [sys.executable, "-c", _KILLED_AT, str(steps), *map(str, words)]
        killed = subprocess.run(script, capture_output=True, check=False)
        consumed = root / "archives" / f"{TRAIN}.consumed"
        if consumed.exists():
            shrunk |= allocated_bytes(consumed) < consumed.stat().st_size * 3 // 4
        if (root / "train").exists():
            assert tree(root / "train") == wanted
        if killed.returncode != -signal.SIGKILL:
            break
        done = run(*words)
        assert done.returncode == 0, done.stderr
        assert tree(root / "train") == wanted, f"killed before step {steps}"
    assert killed.returncode == 0, killed.stderr
    assert steps > 12
    assert shrunk


def test_of_a_split_that_is_organized_it_is_said_that_the_archive_stays(
    tmp_path: Path, published: Path, run: Run
) -> None:
    root = _root(tmp_path, published)
    for layout in ("imagefolder", "webdataset"):
        words = ["organize", "--root", root, "--dataset", published, "--layout", layout]
        assert "stays" not in run(*words).stderr
        done = run(*words, "--consume")
        assert done.returncode == 0, done.stderr
        assert f"{root / 'archives' / TRAIN} stays: its images are organized already" in done.stderr
        assert "imnetprep clean --only archive" in done.stderr
        assert (root / "archives" / TRAIN).exists()


def test_without_proof_nothing_is_given_up(packed: Path, tmp_path: Path, run: Run) -> None:
    words = ["--root", tmp_path / "root", "--dataset", packed, "--split", "train", "--consume"]
    done = run("organize", *words, "--archives", packed.parent)
    assert done.returncode == 1
    assert "it must be verified first" in done.stderr
    assert "imnetprep verify-archives" in done.stderr
    assert (packed.parent / TRAIN).exists()


def test_a_wrong_piece_stops_it_with_the_rest_of_the_archive_kept(
    published: Path, tmp_path: Path, run: Run
) -> None:
    root = _root(tmp_path, published)
    archive = root / "archives" / TRAIN
    with archive.open("r+b") as file:
        file.seek(archive.stat().st_size // 2)
        file.write(b"not what it was")
    done = run("organize", "--root", root, "--dataset", published, "--consume")
    assert done.returncode == 4
    assert "is not what torrent" in done.stderr
    assert (root / "archives" / f"{TRAIN}.consumed").stat().st_size > 0
    assert not (root / "train").exists()


def test_afar_and_where_holes_cannot_be_cut_it_is_refused(
    published: Path, tmp_path: Path, run: Run
) -> None:
    words = ["--root", tmp_path, "--dataset", published, "--consume"]
    done = run("organize", *words, "--archives", "https://127.0.0.1:1/x")
    assert done.returncode == 2
    assert "nothing to consume" in done.stderr


def test_half_consumed_without_the_option_says_how_to_go_on(
    published: Path, tmp_path: Path, run: Run
) -> None:
    root = _root(tmp_path, published)
    words = ["organize", "--root", root, "--dataset", published]
    script = [sys.executable, "-c", _KILLED_AT, "6", *map(str, words), "--consume"]
    assert subprocess.run(script, check=False).returncode == -signal.SIGKILL
    done = run(*words)
    assert done.returncode == 1
    assert f"imnetprep organize --root {root} " in done.stderr and "--consume;" in done.stderr
    assert list((root / "archives").iterdir())


def _half_consumed(root: Path, published: Path) -> Path:
    """The archive of `root` after a kill when half of its classes were given up."""
    words = ["organize", "--root", root, "--dataset", published, "--consume", "--jobs", "1"]
    script = [sys.executable, "-c", _KILLED_AT, "14", *map(str, words)]
    assert subprocess.run(script, check=False).returncode == -signal.SIGKILL
    consumed = root / "archives" / f"{TRAIN}.consumed"
    assert allocated_bytes(consumed) < consumed.stat().st_size * 3 // 4
    return consumed


@pytest.fixture(scope="module")
def digested(published: Path) -> Path:
    """The same dataset without its torrent: the archive is proved by its MD5, before it goes."""
    toml = published.with_name("digested.toml")
    toml.write_text(published.read_text().replace('torrent = "train.torrent"\n', ""))
    return toml


def _proved_root(tmp_path: Path, dataset: Path, run: Run) -> Path:
    root = _root(tmp_path, dataset)
    create_manifest(root / "manifest.db", load_dataset(str(dataset)))
    done = run("verify-archives", "--root", root)
    assert done.returncode == 0, done.stderr
    return root


@pytest.mark.parametrize("by", ["published", "digested"])
def test_what_was_given_up_and_is_gone_is_told_plainly(
    by: str, request: pytest.FixtureRequest, tmp_path: Path, run: Run
) -> None:
    dataset: Path = request.getfixturevalue(by)
    proved_first = by == "digested"
    root = _proved_root(tmp_path, dataset, run) if proved_first else _root(tmp_path, dataset)
    consumed = _half_consumed(root, dataset)
    left_bytes = allocated_bytes(consumed)
    shutil.rmtree(root / ".organizing")
    words = ["organize", "--root", root, "--consume"]
    for _ in range(2):
        done = run(*words)
        assert done.returncode == 1, done.stderr
        error, hint = done.stderr.splitlines()[-2:]
        assert error.startswith(
            f"Error: what was organized of {TRAIN} is gone, and {consumed.name}"
        )
        assert error.endswith("n01440764 is the first that is in neither")
        index = root / "archives" / f"{TRAIN}.index.json"
        assert f"rm -f {consumed} {index}; then fetch {TRAIN} again" in hint
    assert allocated_bytes(consumed) == left_bytes
    consumed.unlink()
    index.unlink()
    shutil.copy(dataset.parent / TRAIN, root / "archives")
    assert run("verify-archives", "--root", root).returncode == 0
    assert run(*words).returncode == 0
    assert tree(root / "train") == _wanted(dataset, tmp_path, run)


def _edited(index: Path, **changed: object) -> bytes:
    return json.dumps({**json.loads(index.read_bytes()), **changed}).encode()


def test_an_index_that_cannot_be_used_is_told_and_nothing_is_touched(
    digested: Path, tmp_path: Path, here: Run, run: Run
) -> None:
    root = _proved_root(tmp_path, digested, run)
    consumed = _half_consumed(root, digested)
    index = consumed.with_name(f"{TRAIN}.index.json")
    right, words = index.read_bytes(), ["organize", "--root", root, "--consume"]
    before = tree(root / ".organizing" / "train"), allocated_bytes(consumed)
    md5 = json.loads(right)["proof"]
    for damage, told in {
        b"": "is damaged",
        b"\xff" + right: "is damaged",
        right[:-20]: "is damaged",
        b"[]": "is damaged",
        b"[" * 100_000: "is damaged",
        _edited(index, ranges=[[0]]): "is damaged",
        _edited(index, ranges=json.loads(right)["ranges"][1:]): "is of other bytes",
        _edited(index, proof="md5"): "is damaged",
        _edited(index, proof={}): "is damaged",
        _edited(index, proof=None): "does not say how this file was verified",
        _edited(index, proof={**md5, "digest": "0" * 32}): "does not say how this file",
        _edited(index, inode=index.stat().st_ino): "does not say how this file was verified",
    }.items():
        index.write_bytes(damage)
        done = here(*words)
        assert done.returncode == 1, (damage[:99], done.stderr)
        error, hint = done.stderr.splitlines()[-2:]
        assert error.startswith("Error: ") and told in error, (damage[:99], error)
        assert f"rm -f {consumed} {index}; " in hint, hint
    index.unlink()
    assert "index.json is not there" in here(*words).stderr
    assert (tree(root / ".organizing" / "train"), allocated_bytes(consumed)) == before
    index.write_bytes(right)
    assert here(*words).returncode == 0
    assert tree(root / "train") == _wanted(digested, tmp_path, run)


def test_an_index_does_not_speak_for_another_file(
    published: Path, tmp_path: Path, run: Run
) -> None:
    """With it wrong bytes of the right length would have passed for proved."""
    root = _proved_root(tmp_path, published, run)
    words = ["organize", "--root", root, "--consume"]
    script = [sys.executable, "-c", _KILLED_AT, "5", *map(str, words)]
    assert subprocess.run(script, check=False).returncode == -signal.SIGKILL
    consumed = root / "archives" / f"{TRAIN}.consumed"
    assert json.loads(consumed.with_name(f"{TRAIN}.index.json").read_bytes())["proof"]
    shutil.copy(consumed, root / "another")
    spoil(root / "another", 20_000)
    (root / "another").rename(consumed)
    done = run(*words)
    assert done.returncode == 4, done.stderr
    assert "is not what torrent" in done.stderr
    assert not (root / "train").exists()


def test_an_archive_with_two_names_or_two_states_or_two_users_is_not_given_up(
    published: Path, tmp_path: Path, here: Run
) -> None:
    root = _root(tmp_path, published)
    archive = root / "archives" / TRAIN
    consumed = archive.with_name(f"{TRAIN}.consumed")
    words = ["organize", "--root", root, "--dataset", published, "--consume"]
    body = archive.read_bytes()
    (root / "second").hardlink_to(archive)
    refused = here(*words)
    assert (refused.returncode, archive.exists()) == (1, True)
    assert "has another name" in refused.stderr
    archive.unlink()
    archive.symlink_to(root / "second")
    assert "has another name" in here(*words).stderr
    archive.unlink()
    shutil.copy(root / "second", archive)
    (root / "second").rename(consumed)
    assert f"{TRAIN} is there, and {consumed.name} too" in here(*words).stderr
    assert archive.read_bytes() == consumed.read_bytes() == body
    consumed.unlink()
    consumed = _half_consumed(root, published)
    left_bytes = allocated_bytes(consumed)
    with consumed.open("r+b") as file:
        claim(file.fileno(), consumed)
        assert f"another imnetprep is at work on {consumed}" in here(*words).stderr
    assert allocated_bytes(consumed) == left_bytes
    assert here(*words).returncode == 0


def _other_root(tmp_path: Path, published: Path, archives: Path) -> list[object]:
    """The words that organize `archives` into a root of its own."""
    return ["organize", "--root", tmp_path / "b", "--dataset", published, "--archives", archives]


def test_another_root_is_told_for_which_one_the_archive_is_given_up(
    published: Path, tmp_path: Path, here: Run, run: Run
) -> None:
    root = _root(tmp_path, published)
    consumed = _half_consumed(root, published)
    left_bytes = allocated_bytes(consumed)
    words = _other_root(tmp_path, published, consumed.parent)
    done = here(*words)
    error, hint = done.stderr.splitlines()[-2:]
    assert (done.returncode, error) == (
        1, f"Error: {consumed} was partly deleted by an unfinished organize --consume of {root}",
    )  # fmt: skip
    assert hint.startswith("Hint: resume there, with the options that it was begun with; or ")
    done = here(*words, "--consume")
    assert done.returncode == 1
    assert f"Hint: it is consumed for {root}: if that is another root, resume there" in done.stderr
    with consumed.open("r+b") as file:
        claim(file.fileno(), consumed)
        assert f"at work on {consumed}, for {root}\n" in here(*words, "--consume").stderr
    done = here("download", "--root", root)
    assert f"organize --consume for {root} is unfinished" in done.stderr
    assert allocated_bytes(consumed) == left_bytes
    own = here("organize", "--root", root)
    assert f"by an unfinished organize --consume of {root}\n" in own.stderr
    assert here("organize", "--root", root, "--consume").returncode == 0
    assert tree(root / "train") == _wanted(published, tmp_path, run)


def test_clean_says_for_whom_an_archive_is_given_up(
    published: Path, tmp_path: Path, here: Run
) -> None:
    root = _root(tmp_path, published)
    assert here("organize", "--root", root, "--dataset", published).returncode == 0
    words = [*_other_root(tmp_path, published, root / "archives"), "--consume", "--jobs", "1"]
    script = [sys.executable, "-c", _KILLED_AT, "14", *map(str, words)]
    assert subprocess.run(script, check=False).returncode == -signal.SIGKILL
    shown = here("clean", "--root", root)
    assert f"consumed in part, by {tmp_path / 'b'}, and train is organized" in shown.stdout
    assert here(*words).returncode == 0


def test_a_root_that_moves_goes_on_and_one_that_comes_first_is_named(
    published: Path, tmp_path: Path, here: Run, run: Run
) -> None:
    root = _root(tmp_path, published)
    consumed = _half_consumed(root, published)
    index = consumed.with_name(f"{TRAIN}.index.json")
    root.rename(tmp_path / "moved")
    assert here("organize", "--root", tmp_path / "moved", "--consume").returncode == 0
    assert tree(tmp_path / "moved" / "train") == _wanted(published, tmp_path, run)

    root = _root(tmp_path, published)
    words = ["organize", "--root", root, "--dataset", published, "--consume"]
    script = [sys.executable, "-c", _KILLED_AT, "5", *map(str, words)]
    assert subprocess.run(script, check=False).returncode == -signal.SIGKILL
    assert allocated_bytes(consumed) >= consumed.stat().st_size  # nothing is given up yet
    assert json.loads(index.read_bytes())["root"] == str(root)
    words = [*_other_root(tmp_path, published, consumed.parent), "--consume", "--jobs", "1"]
    script = [sys.executable, "-c", _KILLED_AT, "14", *map(str, words)]
    assert subprocess.run(script, check=False).returncode == -signal.SIGKILL
    assert f"--consume of {tmp_path / 'b'}\n" in here("organize", "--root", root).stderr
    assert here(*words).returncode == 0


def test_what_an_index_says_of_a_root_is_shown_only_if_it_is_a_plain_path(
    published: Path, tmp_path: Path, here: Run
) -> None:
    root = _root(tmp_path, published)
    consumed = _half_consumed(root, published)
    index = consumed.with_name(f"{TRAIN}.index.json")
    words = _other_root(tmp_path, published, consumed.parent)
    hostile = ["/a\x1b[2J", "/a\nError: b", "/a\u202eb", "/\ud800", "/" + "a" * 5000, "a", 7, None]
    for told in (*hostile, ["/a"]):
        index.write_bytes(_edited(index, root=told))
        for more in ([], ["--consume"]):
            done = here(*words, *more)
            assert done.returncode == 1, (told, done.stderr)
            assert len(done.stderr.splitlines()) == 2, (told, done.stderr)
            assert f"--consume of {tmp_path / 'b'}\n" in done.stderr or more
            assert "if another root is being made of it, resume there" in done.stderr or not more
    index.write_bytes(b"[" * 100_000)
    assert here(*words).returncode == 1
    index.unlink()
    assert here(*words).returncode == 1
