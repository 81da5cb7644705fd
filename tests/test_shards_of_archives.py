"""Shards straight from archives: the same bytes as of class folders, whichever way they come."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from imnetprep.fs import allocated_bytes, can_punch_holes
from tests.conftest import TRAIN, VAL, Run, receipt_of, spoil, tree
from tests.servers import web_served

WORDS = ["--layout", "webdataset", "--shard-size", 7]


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory, packed: Path, run: Run) -> dict[str, bytes]:
    """The shards of both splits of `packed`, made of class folders."""
    return _of_folders(tmp_path_factory.mktemp("wanted"), packed, run)


@pytest.fixture(scope="module")
def wanted_published(
    tmp_path_factory: pytest.TempPathFactory, published: Path, run: Run
) -> dict[str, bytes]:
    return _of_folders(tmp_path_factory.mktemp("wanted"), published, run)


def _of_folders(root: Path, dataset: Path, run: Run) -> dict[str, bytes]:
    words = ["--root", root, "--dataset", dataset]
    assert run("organize", *words, "--archives", dataset.parent).returncode == 0
    done = run("organize", *words, *WORDS, "--jobs", 1)
    assert done.returncode == 0, done.stderr
    return tree(root / "shards")


def _without_digests(packed: Path, folder: Path) -> Path:
    shutil.copytree(packed.parent, folder)
    lines = [line for line in packed.read_text().splitlines() if not line.startswith("md5")]
    (folder / packed.name).write_text("\n".join(lines))
    return folder / packed.name


def _nothing_is_left(root: Path) -> None:
    left = {path.name for path in (root / ".organizing").rglob("*") if not path.is_dir()}
    assert left <= {".lock", "journal.db"}
    assert not (root / "train").exists()


@pytest.mark.parametrize("jobs", [1, 3])
@pytest.mark.parametrize("digests", [True, False])
def test_they_are_the_shards_of_class_folders(
    packed: Path, wanted: dict[str, bytes], tmp_path: Path, run: Run, digests: bool, jobs: int
) -> None:
    dataset = packed if digests else _without_digests(packed, tmp_path / "plain")
    root = tmp_path / "root"
    words = ["--root", root, "--dataset", dataset, "--archives", dataset.parent, *WORDS]
    shown = run("organize", *words, "--dry-run")
    way = "read once, with a spool on the disk" if digests else "shard by shard"
    assert f"train shards: from {dataset.parent / TRAIN}, {way}" in shown.stdout, shown.stderr
    assert not root.exists()
    done = run("organize", *words, "--jobs", jobs)
    assert done.returncode == 0, done.stderr
    assert tree(root / "shards") == wanted
    _nothing_is_left(root)
    told = receipt_of(root)["splits"]["shards/train"]
    assert isinstance(told, dict)
    assert (told["archive"], told["samples"]) == (TRAIN, 60)
    assert told["proof"]["kind"] == ("md5" if digests else "none")
    verified = run("verify", "--root", root, "--digests")
    assert (verified.returncode, verified.stdout[:10]) == (0, "0 findings"), verified.stdout
    again = run("organize", *words)
    assert again.stdout == done.stdout


def test_an_archive_that_is_proved_is_read_shard_by_shard(
    archived: Path, wanted_published: dict[str, bytes], run: Run
) -> None:
    assert run("verify-archives", "--root", archived).returncode == 0
    words = ["organize", "--root", archived, *WORDS]
    shown = run(*words, "--dry-run")
    assert shown.stdout.count("shard by shard") == 2, shown.stdout
    done = run(*words)
    assert done.returncode == 0, done.stderr
    assert tree(archived / "shards") == wanted_published
    told = receipt_of(archived)["splits"]["shards/train"]
    assert isinstance(told, dict) and told["proof"]["kind"] == "torrent"
    _nothing_is_left(archived)


def test_pieces_and_digests_are_proved_on_the_one_read(
    archived: Path, wanted_published: dict[str, bytes], run: Run
) -> None:
    done = run("organize", "--root", archived, *WORDS)
    assert done.returncode == 0, done.stderr
    assert tree(archived / "shards") == wanted_published
    receipt = receipt_of(archived)
    kinds = {name: told["proof"]["kind"] for name, told in receipt["archives"].items()}  # type: ignore[index]
    assert kinds == {TRAIN: "torrent", VAL: "md5"}


def test_from_a_pipe_and_from_a_web_server(
    packed: Path, wanted: dict[str, bytes], tmp_path: Path, run: Run
) -> None:
    words = ["--root", tmp_path / "root", "--dataset", packed, *WORDS]
    with (packed.parent / TRAIN).open("rb") as archive:
        done = run("organize", *words, "--archives", "-", "--split", "train", stdin=archive)
    assert done.returncode == 0, done.stderr
    with web_served(packed.parent) as web:
        done = run("organize", *words, "--archives", web.address)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "root" / "shards") == wanted
    plain = _without_digests(packed, tmp_path / "plain")
    with web_served(packed.parent) as web:
        words = ["--root", tmp_path / "other", "--dataset", plain, *WORDS]
        done = run("organize", *words, "--archives", web.address)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "other" / "shards") == wanted


@pytest.mark.parametrize(("name", "told"), [(TRAIN, "is not what torrent"), (VAL, "md5 is")])
def test_of_a_wrong_archive_there_are_no_shards(
    archived: Path, run: Run, name: str, told: str
) -> None:
    archive = archived / "archives" / name
    spoil(archive, archive.stat().st_size - 12_000)
    split = "train" if name == TRAIN else "val"
    done = run("organize", "--root", archived, *WORDS, "--split", split)
    assert done.returncode == 4
    assert told in done.stderr
    assert not (archived / "shards").exists()
    assert not list((archived / ".organizing").rglob("*.tar"))


def test_an_archive_that_lacks_an_image_or_has_another_is_refused(
    packed: Path, tmp_path: Path, run: Run
) -> None:
    dataset = _without_digests(packed, tmp_path / "plain")
    names = dataset.parent / "val_names.txt"
    lines = [line.split() for line in names.read_text().splitlines()]
    lines[0] = [*lines[0], "1000"]
    names.write_text("\n".join(map(" ".join, lines)))
    definition = dataset.read_text()
    dataset.write_text(definition.replace("samples = 20", "samples = 21"))
    words = ["--root", tmp_path / "root", "--dataset", dataset, "--archives", dataset.parent]
    done = run("organize", *words, *WORDS, "--split", "val")
    assert (done.returncode, "lacks 1 image" in done.stderr) == (4, True), done.stderr
    lines[0] = [*lines[0][:-2], "500"]
    names.write_text("\n".join(map(" ".join, lines)))
    dataset.write_text(definition)
    words[1] = tmp_path / "other"
    done = run("organize", *words, *WORDS, "--split", "val")
    assert (done.returncode, "does not have there" in done.stderr) == (4, True), done.stderr


def test_without_names_class_folders_come_first(packed: Path, tmp_path: Path, run: Run) -> None:
    dataset = _without_digests(packed, tmp_path / "plain")
    line = 'names = "train_names.txt"\n'
    dataset.write_text(dataset.read_text().replace(line, "samples_per_class = 12\n"))
    words = ["--root", tmp_path / "root", "--dataset", dataset, "--archives", dataset.parent]
    words += ["--split", "train"]
    done = run("organize", *words, *WORDS)
    assert done.returncode == 1
    assert "does not list the names" in done.stderr
    assert "Hint: make class folders first" in done.stderr
    assert run("organize", *words).returncode == 0
    words = ["--root", tmp_path / "root", "--split", "train"]
    assert run("organize", *words, *WORDS).returncode == 0


# Every step has been killed at (1 here, then minutes); in the suite some of them are.
_KILLS_APART = 5
# Runs the command, and kills it before the N-th of the steps that change what is on the disk.
_KILLED_AT = """
import os, signal, sys
from pathlib import Path
from imnetprep import cli
from imnetprep.layouts import webdataset
from imnetprep.organizing import committer, journal, publish
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
webdataset.written_whole = counted(webdataset.written_whole)
publish.record_split = counted(publish.record_split)
committer.sync_file_system = counted(committer.sync_file_system)
for name in ("begin", "add", "add_shard", "mark_whole", "forget"):
    setattr(journal.Journal, name, counted(getattr(journal.Journal, name)))
Path.rename = counted(Path.rename)
Path.unlink = counted(Path.unlink)
sys.exit(cli.run(sys.argv[2:]))
"""


def _killed_at(step: int, words: list[object]) -> int:
    script = [sys.executable, "-c", _KILLED_AT, str(step), *map(str, words)]
    return subprocess.run(script, capture_output=True, check=False).returncode


def _of(split: str, shards: dict[str, bytes]) -> dict[str, bytes]:
    return {name: body for name, body in shards.items() if name.startswith(f"{split}/")}


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_kill_between_two_steps_is_made_up(
    published: Path, tmp_path: Path, here: Run, split: str
) -> None:
    """Train: pieces, given up as it goes. Val: a digest, so that what was done is read again."""
    consume = ["--consume"] if split == "train" else []
    if consume and not can_punch_holes(tmp_path):
        pytest.skip("the file system of the tests' folder cannot punch holes")
    name = TRAIN if split == "train" else VAL
    size = ["--layout", "webdataset", "--shard-size", 25, "--jobs", 1, "--split", split, "--quiet"]
    folders = ["organize", "--dataset", published, "--split", split, "--quiet"]
    assert here(*folders, "--root", tmp_path / "f", "--archives", published.parent).returncode == 0
    assert here("organize", "--root", tmp_path / "f", *size).returncode == 0
    wanted = tree(tmp_path / "f" / "shards")
    steps, shrunk, spooled, assembling = -1, False, False, False
    while True:
        steps += _KILLS_APART
        root = tmp_path / str(steps)
        (root / "archives").mkdir(parents=True)
        shutil.copy(published.parent / name, root / "archives")
        words = ["organize", "--root", root, "--dataset", published, *size, *consume]
        code = _killed_at(steps, words)
        if (root / "shards").exists() and any((root / "shards").iterdir()):
            assert tree(root / "shards") == wanted
        consumed = root / "archives" / f"{name}.consumed"
        if consumed.exists():
            shrunk |= allocated_bytes(consumed) < consumed.stat().st_size * 3 // 4
        made = len(list((root / ".organizing/shards").rglob("*.tar")))
        spools = len(list((root / ".organizing/spool").rglob("*.spool")))
        spooled, assembling = spooled or spools > 0, assembling or (made > 0 and spools > 0)
        if code != -9:
            break
        done = here(*words)
        assert done.returncode == 0, (steps, done.stderr)
        assert tree(root / "shards") == wanted, f"killed before step {steps}"
        _nothing_is_left(root)
        assert not list((root / "archives").iterdir()) or not consume
        shutil.rmtree(root)
    assert code == 0
    assert steps > 20 and spooled and assembling
    assert shrunk or not consume


def test_other_words_start_over_and_the_same_words_go_on(
    archived: Path, wanted_published: dict[str, bytes], run: Run
) -> None:
    words = ["organize", "--root", archived, *WORDS, "--jobs", 1]
    assert _killed_at(40, [*words, "--seed", 5, "--split", "train"]) == -9
    assert list((archived / ".organizing/spool/train").iterdir())
    assert run("clean", "--root", archived, "--yes").returncode == 0
    assert list((archived / ".organizing/spool/train").iterdir())
    shown = run("clean", "--root", archived, "--only", "unfinished")
    assert "--layout webdataset would resume it" in shown.stdout
    done = run(*words)
    assert done.returncode == 0, done.stderr
    assert tree(archived / "shards") == wanted_published
    _nothing_is_left(archived)


def test_of_an_archive_that_is_given_up_nothing_is_dropped_for_one_lost_shard(
    published: Path, tmp_path: Path, run: Run
) -> None:
    if not can_punch_holes(tmp_path):
        pytest.skip("the file system of the tests' folder cannot punch holes")
    growing = tmp_path / "root" / ".organizing"
    words = ["organize", "--root", tmp_path / "root", "--dataset", published, *WORDS, "--jobs", 1]
    words += ["--split", "train", "--consume", "--quiet"]
    shards: list[Path] = []
    step = 60
    while not shards:
        shutil.rmtree(tmp_path / "root", ignore_errors=True)
        (tmp_path / "root" / "archives").mkdir(parents=True)
        shutil.copy(published.parent / TRAIN, tmp_path / "root" / "archives")
        step += 10
        assert _killed_at(step, words) == -9
        shards = sorted((growing / "shards" / "train").glob("*.tar"))[:-1]
    whole = shards[0].read_bytes()
    shards[0].write_bytes(whole[:-512])
    before = {name for name in tree(growing) if name.endswith((".tar", ".spool"))}
    for again in (words, words, [word for word in words if word != "--consume"]):
        done = run(*again)
        assert done.returncode == 1
        assert f"{shards[0]} is gone or has changed" in done.stderr
        now = {name for name in tree(growing) if name.endswith((".tar", ".spool"))}
        assert now == before
    shards[0].write_bytes(whole)
    done = run(*words)
    assert done.returncode == 0, done.stderr
    words = ["verify", "--root", tmp_path / "root", "--digests", "--split", "train"]
    assert run(*words).returncode == 0


def test_for_a_spoiled_shard_whose_spool_is_gone_the_archive_is_read_again(
    archived: Path, wanted_published: dict[str, bytes], run: Run
) -> None:
    words = ["organize", "--root", archived, *WORDS, "--jobs", 1]
    shards: list[Path] = []
    step = 40
    while not shards:
        step += 5
        assert _killed_at(step, [*words, "--split", "train"]) == -9
        shards = sorted((archived / ".organizing" / "shards" / "train").glob("*.tar"))[:-1]
    shards[0].write_bytes(shards[0].read_bytes()[:-512])
    done = run(*words)
    assert done.returncode == 0, done.stderr
    assert tree(archived / "shards") == wanted_published
    _nothing_is_left(archived)


def test_spools_go_when_the_shards_are_made_of_class_folders(
    archived: Path, wanted_published: dict[str, bytes], run: Run
) -> None:
    words = ["organize", "--root", archived, *WORDS, "--jobs", 1]
    assert _killed_at(40, [*words, "--split", "train"]) == -9
    assert list((archived / ".organizing").rglob("*.spool"))
    assert run("organize", "--root", archived).returncode == 0
    done = run(*words)
    assert done.returncode == 0, done.stderr
    assert tree(archived / "shards") == wanted_published
    assert not list((archived / ".organizing").rglob("*.spool"))
    told = run("status", "--root", archived).stdout
    assert "unfinished" not in told
