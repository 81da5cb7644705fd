"""What all tests share: the command as a user runs it, real images, and a guard on the network."""

import ipaddress
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from imnetprep import cli
from imnetprep.catalog.datasets import load_dataset
from imnetprep.manifest import create_manifest
from imnetprep.sources.seeder import make_torrent
from imnetprep.synthetic import pack_dataset

DATASETS = Path(__file__).parent / "datasets"
TRAIN, VAL = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
PIECE = 65536  # bytes, of the torrent of `published`
Run = Callable[..., subprocess.CompletedProcess[str]]


def _guard(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "socket.connect" or not isinstance(arguments[1], tuple):
        return
    host = arguments[1][0]
    if host == "localhost" or ipaddress.ip_address(host).is_loopback:
        return
    raise AssertionError(f"{os.environ.get('PYTEST_CURRENT_TEST')} connects to {host}")


sys.addaudithook(_guard)
# Read when they are imported: what of Hugging Face's the tests use asks nobody and reports nothing.
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
# Keras without TensorFlow, and without a file of settings in the home of who runs the tests.
os.environ |= {"KERAS_BACKEND": "torch", "KERAS_HOME": os.devnull}


def command(*arguments: object) -> list[str]:
    """The argument list of one imnetprep command."""
    return [sys.executable, "-m", "imnetprep", *map(str, arguments)]


def pytest_configure() -> None:
    """Let ^C interrupt, also where a shell began the tests with `&`, which has it ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


_OF_SERVERS = {"s3", "server", "aria2_seed"}  # fixtures that start a program that is not ours


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `scripts/test --fast` cannot run: what trains, and what asks a real server."""
    for item in items:
        if "training" in item.path.parts:
            item.add_marker("training")
        if _OF_SERVERS & {*getattr(item, "fixturenames", ())}:
            item.add_marker("network")


@pytest.fixture(autouse=True)
def _no_bucket_is_kept() -> Iterator[None]:
    """A process keeps the buckets that it opened; the next test has another server of them."""
    yield
    if s3_object := sys.modules.get("imnetprep.s3.object"):
        s3_object._opened.cache_clear()


@pytest.fixture(scope="session")
def run() -> Run:
    """Run one command as a user would; its output is text, its exit code is looked at by tests."""

    def run_command(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*arguments), capture_output=True, text=True, check=False, **options
        )

    return run_command


@pytest.fixture
def here(capfd: pytest.CaptureFixture[str]) -> Run:
    """The command without a process of its own: for tests that need many of them."""

    def run_command(*arguments: object) -> subprocess.CompletedProcess[str]:
        words = list(map(str, arguments))
        capfd.readouterr()
        code = cli.run(words)
        return subprocess.CompletedProcess(words, code, *capfd.readouterr())

    return run_command


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images."""
    place = os.environ.get("IMNETPREP_TEST_DATA")
    if not place:
        pytest.skip("IMNETPREP_TEST_DATA does not name the folder of real images")
    return Path(place)


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small dataset of noise in the published form: the .toml, its archives beside it."""
    folder = tmp_path_factory.mktemp("packed")
    return pack_dataset(folder, classes=5, train_per_class=12, val_per_class=4)


@pytest.fixture(scope="session")
def organized_once(
    tmp_path_factory: pytest.TempPathFactory, packed: Path, run: Run
) -> Iterator[Path]:
    """An organized root of `packed`; not to be changed."""
    root = tmp_path_factory.mktemp("organized") / "root"
    done = run("organize", "--root", root, "--dataset", packed, "--archives", packed.parent)
    assert done.returncode == 0, done.stderr
    before = tree(root)
    yield root
    assert tree(root) == before, "a test has changed what all tests share"


@pytest.fixture
def organized(tmp_path: Path, organized_once: Path) -> Path:
    """An organized root of `packed` to do anything to."""
    return Path(shutil.copytree(organized_once, tmp_path / "root"))


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset whose train archive (about 2 MB) has a torrent; its validation archive has MD5."""
    folder = tmp_path_factory.mktemp("published")
    toml = pack_dataset(folder, classes=5, train_per_class=40, val_per_class=8, image_bytes=9000)
    (folder / "train.torrent").write_bytes(make_torrent(folder / TRAIN, piece_bytes=PIECE))
    name = f'name = "{TRAIN}"\n'
    toml.write_text(toml.read_text().replace(name, name + 'torrent = "train.torrent"\n'))
    return toml


@pytest.fixture
def archived(published: Path, tmp_path: Path) -> Path:
    """A root with both archives of `published` and nothing organized, to do anything to."""
    root = tmp_path / "root"
    (root / "archives").mkdir(parents=True)
    create_manifest(root / "manifest.db", load_dataset(str(published)))
    for name in (TRAIN, VAL):
        shutil.copy(published.parent / name, root / "archives")
    return root


def spoil(path: Path, start: int, length: int = 1) -> None:
    """Make these bytes of a file wrong."""
    with path.open("r+b") as file:
        file.seek(start)
        body = file.read(length)
        file.seek(start)
        file.write(bytes(byte ^ 0x5A for byte in body))


def receipt_of(root: Path) -> dict[str, dict[str, object]]:
    """What the receipt of a root says."""
    receipt: dict[str, dict[str, object]] = json.loads((root / "receipt.json").read_text())
    return receipt


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below `folder` by its relative path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def snapshot(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every file and folder below `folder`: its inode, when it changed, its bytes."""
    return {
        str(path.relative_to(folder)): (
            path.lstat().st_ino,
            path.lstat().st_mtime_ns,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in folder.rglob("*")
    }


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system than `tmp_path`."""
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system here")
    with tempfile.TemporaryDirectory(prefix="imnetprep-", dir=shm) as folder:
        yield Path(folder)
