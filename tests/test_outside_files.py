"""What is no file, in the place of one, is named and never opened: a pipe would be waited for."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import TRAIN, Run
from tests.packings import openable


@pytest.fixture
def mine(tmp_path: Path, here: Run) -> Path:
    """A root of images of one's own, with shards, and a list of classes beside it."""
    for wnid in ("cat", "dog"):
        folder = tmp_path / "mine" / "train" / wnid
        folder.mkdir(parents=True)
        for at in range(3):
            (folder / f"{at}.jpg").write_bytes(openable(f"{wnid} {at}"))
    assert here("adopt", tmp_path / "mine").returncode == 0
    assert here("organize", "--root", tmp_path / "mine", "--layout", "webdataset").returncode == 0
    return tmp_path / "mine"


def _pipe(path: Path) -> str:
    os.mkfifo(path)
    return "a pipe"


def _socket(path: Path) -> str:
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(path.parent)  # a socket's path has a hundred bytes
        server.bind(path.name)
        os.chdir(here)
    return "a socket"


def _device(path: Path) -> str:
    path.symlink_to("/dev/zero")
    return "a device"


@pytest.mark.parametrize("make", [_pipe, _socket, _device])
@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("mine/receipt.json", ["verify", "--root", "mine", "--layout", "imagefolder"]),
        ("mine/manifest.db", ["verify", "--root", "mine"]),
        ("labels.csv", ["divide", "mine/train/cat", "--labels", "labels.csv", "--root", "other"]),
        ("own.toml", ["datasets", "check", "own.toml"]),
        ("list.txt", ["subset", "list.txt", "--root", "mine", "--to", "other"]),
        (
            "mine/train/cat/1.jpg",
            ["verify", "--root", "mine", "--digests", "--layout", "imagefolder"],
        ),
        ("mine/train/cat/1.jpg", ["divide", "mine/train", "--root", "other"]),
        ("mine/train/cat/1.jpg", ["organize", "--root", "mine", "--layout", "webdataset"]),
        ("mine/shards/train/train-000000.tar", ["verify", "--root", "mine"]),
        ("mine/shards/train/index.json", ["verify", "--root", "mine"]),
    ],
)
def test_what_is_no_file_is_named(
    place: str, words: list[str], make: Callable[[Path], str], mine: Path, here: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(mine.parent)
    words = [*words, "--layout", "webdataset"] if "shards" in place else words
    if words[0] == "organize":
        (mine / "shards").rename(mine.parent / "away")
    Path(place).unlink(missing_ok=True)
    kind = make(Path(place))
    done = here(*words)
    told = done.stdout + done.stderr
    assert done.returncode in (1, 5), told
    sentences = (f"{place} is {kind}, and no file", "is no file", "is no regular file",
                 "is not a regular file")  # fmt: skip
    assert place.removeprefix("mine/") in told and any(each in told for each in sentences), told


def test_an_archive_that_is_a_pipe_is_named(archived: Path, here: Run) -> None:
    (archived / "archives" / TRAIN).unlink()
    os.mkfifo(archived / "archives" / TRAIN)
    for words in (["organize"], ["organize", "--layout", "webdataset"], ["verify-archives"]):
        done = here(*words, "--root", archived, "--split", "train")
        assert done.returncode == 1, done.stdout + done.stderr
        assert f"{TRAIN} is a pipe, and no file" in done.stderr, done.stderr
