"""What breaks from outside, in both engines: nothing is lost or half there, and it says what to do.

A dataset with an MD5 of its archive is read in order; one without, side by side.
"""

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from imnetprep.organizing.journal import read_unfinished
from imnetprep.synthetic import pack_dataset
from tests.conftest import Run, command, tree
from tests.servers import web_served

pytestmark = pytest.mark.slow

TRAIN = "ILSVRC2012_img_train.tar"
_DISK_BYTES = 40 << 20
Done = subprocess.CompletedProcess[str]

# Runs the command; from the N-th read of an archive on, the disk reports an error.
_EIO_FROM = """
import errno, os, sys
from imnetprep import cli

left = int(sys.argv[1])

def failing(read):
    def fails(*arguments):
        global left
        left -= 1
        if left <= 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(*arguments)
    return fails

os.pread, os.preadv = failing(os.pread), failing(os.preadv)
sys.exit(cli.run(sys.argv[2:]))
"""

# Runs the command; while it writes its N-th image, somebody else fills the disk.
_FULL_FROM = """
import sys
from imnetprep import cli

left, ballast = int(sys.argv[1]), sys.argv[2]

def fill(event, arguments):
    global left
    if event != "open" or "/.organizing/train/" not in str(arguments[0]):
        return
    left -= 1
    if left == 0:
        with open(ballast, "ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1 << 20))
            except OSError:
                pass

sys.addaudithook(fill)
sys.exit(cli.run(sys.argv[3:]))
"""


@pytest.fixture(scope="module", params=["in order", "side by side"])
def dataset(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults")
    toml = pack_dataset(folder, classes=20, train_per_class=25, val_per_class=0, image_bytes=30_000)
    if request.param == "side by side":
        lines = [line for line in toml.read_text().splitlines() if not line.startswith("md5")]
        toml.write_text("\n".join(lines))
    return toml


@pytest.fixture(scope="module")
def wanted(dataset: Path, tmp_path_factory: pytest.TempPathFactory, run: Run) -> dict[str, bytes]:
    root = tmp_path_factory.mktemp("wanted")
    done = run("organize", "--root", root, "--dataset", dataset, "--archives", dataset.parent)
    assert done.returncode == 0, done.stderr
    return tree(root / "train")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk that has room for the dataset and little more."""
    place = tmp_path / "disk"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "tmpfs", str(place)]
    if subprocess.run(words, capture_output=True, check=False).returncode != 0:
        pytest.skip("no small disk can be mounted here (that takes root)")
    yield place
    subprocess.run(["umount", place], check=True)


def _words(root: Path, dataset: Path, *, archives: object = None) -> list[object]:
    place = dataset.parent if archives is None else archives
    return ["organize", "--root", root, "--dataset", dataset, "--archives", place, "--jobs", 2]


def _told(done: Done, *, code: int) -> tuple[str, str]:
    """The two lines."""
    assert done.returncode == code, done.stderr
    error, hint = done.stderr.splitlines()[-2:]
    assert error.startswith("Error: ") and hint.startswith("Hint: "), done.stderr
    return error, hint


def _goes_on(root: Path, words: list[object], wanted: dict[str, bytes], run: Run) -> None:
    """Nothing was half there, and the same words bring all."""
    assert not (root / "train").exists()
    done = run(*words)
    assert done.returncode == 0, done.stderr
    assert tree(root / "train") == wanted
    assert run("verify", "--root", root, "--digests").returncode == 0


def test_a_disk_that_fills_up(
    dataset: Path, wanted: dict[str, bytes], small_disk: Path, run: Run
) -> None:
    root, ballast = small_disk / "root", small_disk / "ballast"
    words = _words(root, dataset)
    filled = list(map(str, [sys.executable, "-c", _FULL_FROM, 100, ballast, *words]))
    done = subprocess.run(filled, capture_output=True, text=True, check=False)
    error, hint = _told(done, code=1)
    assert "No space left on device" in error or "full" in error
    assert "free some space" in hint
    ballast.unlink()
    _goes_on(root, words, wanted, run)


def test_what_a_killed_run_has_written_counts_as_room(
    dataset: Path, wanted: dict[str, bytes], small_disk: Path, run: Run
) -> None:
    """Written, and not journalled yet: it is written over, so it needs no room of its own."""
    root, size_bytes = small_disk / "root", sum(map(len, wanted.values()))
    for name in sorted(wanted)[::2]:
        path = root / ".organizing" / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(wanted[name])
    free_bytes = shutil.disk_usage(small_disk).free
    with (small_disk / "ballast").open("wb") as file:
        file.write(bytes(free_bytes - size_bytes * 3 // 4))
    _goes_on(root, _words(root, dataset), wanted, run)
    (root / "train").rename(root / "elsewhere")
    done = run(*_words(small_disk / "other", dataset))
    error, _ = _told(done, code=1)
    assert "needs" in error and "free" in error


def test_what_grew_and_was_removed_by_hand_grows_again(
    dataset: Path, wanted: dict[str, bytes], tmp_path: Path, run: Run
) -> None:
    growing = tmp_path / ".organizing"
    process = subprocess.Popen(command(*_words(tmp_path, dataset)))
    while not (growing / "journal.db").exists() or not _done(growing):
        time.sleep(0.001)
        assert process.poll() is None
    process.kill()
    process.wait()
    shutil.rmtree(growing / "train")
    _goes_on(tmp_path, _words(tmp_path, dataset), wanted, run)


def _done(growing: Path) -> bool:
    with contextlib.suppress(sqlite3.DatabaseError):
        return any(each.ranges for each in read_unfinished(growing / "journal.db"))
    return False


def test_a_signal_as_the_workers_start(
    dataset: Path, wanted: dict[str, bytes], tmp_path: Path, run: Run
) -> None:
    """Whatever the moment is, it stops at once, and leaves nobody behind."""
    for attempt in range(8):
        words = command(*_words(tmp_path, dataset)[:-1], 4)
        process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while process.poll() is None and not children.read_text():
            time.sleep(0.0005)
        time.sleep(0.001 * attempt)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT if attempt % 2 else signal.SIGTERM)
        _, stderr = process.communicate()
        assert process.returncode in (0, 130, 143), stderr
        assert "Traceback" not in stderr and "ignored" not in stderr
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)
        shutil.rmtree(tmp_path / "train", ignore_errors=True)
    assert run(*_words(tmp_path / "other", dataset)).returncode == 0
    assert tree(tmp_path / "other" / "train") == wanted


def test_a_limit_on_the_size_of_files(
    dataset: Path, wanted: dict[str, bytes], tmp_path: Path, run: Run
) -> None:
    root = tmp_path / "root"
    limited = f"ulimit -f 20; exec {' '.join(command(*_words(root, dataset)))}"
    done = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, check=False)
    error, hint = _told(done, code=1)
    assert "File too large" in error
    assert "ulimit -f" in hint
    _goes_on(root, _words(root, dataset), wanted, run)


@pytest.mark.parametrize("at", [1, 3, 6])
def test_a_disk_that_cannot_read_any_more(
    at: int, dataset: Path, wanted: dict[str, bytes], tmp_path: Path, run: Run
) -> None:
    root = tmp_path / "root"
    words = [sys.executable, "-c", _EIO_FROM, at, *_words(root, dataset)]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
    error, hint = _told(done, code=1)
    assert f"{dataset.parent / TRAIN}: Input/output error" in error
    assert "dmesg" in hint
    _goes_on(root, _words(root, dataset), wanted, run)


def test_a_server_that_dies_for_good(
    dataset: Path, wanted: dict[str, bytes], tmp_path: Path, run: Run
) -> None:
    root = tmp_path / "root"
    with web_served(dataset.parent) as web:
        web.dies_after = 3 if "md5" in dataset.read_text() else 10
        words = _words(root, dataset, archives=web.address)
        error, hint = _told(run(*words), code=3)
        assert web.address in error and "run the same command to resume" in hint
        web.dies_after = None
        _goes_on(root, words, wanted, run)


def test_a_root_that_may_not_be_written(
    dataset: Path, wanted: dict[str, bytes], tmp_path: Path, run: Run
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    root.chmod(0o500)
    error, hint = _told(_without_rights(*_words(root, dataset)), code=1)
    assert f"{root}" in error and "Permission denied" in error
    assert "--root" in hint
    assert not list(root.iterdir())
    root.chmod(0o700)
    _goes_on(root, _words(root, dataset), wanted, run)


def test_an_archive_that_may_not_be_read(
    dataset: Path, wanted: dict[str, bytes], tmp_path: Path, run: Run
) -> None:
    folder = Path(shutil.copytree(dataset.parent, tmp_path / "archives"))
    words = _words(tmp_path / "root", folder / dataset.name)
    (folder / TRAIN).chmod(0)
    error, hint = _told(_without_rights(*words), code=1)
    assert f"{folder / TRAIN}: Permission denied" in error
    assert "permission" in hint
    (folder / TRAIN).chmod(0o600)
    _goes_on(tmp_path / "root", words, wanted, run)


def _without_rights(*words: object) -> Done:
    """The command, as one whom permissions bind: root loses what lets it pass by them."""
    rights = "-dac_override,-dac_read_search"
    drop = ["setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}"]
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("root without setpriv (util-linux) passes by all permissions")
    prefix = drop if os.geteuid() == 0 else []
    return subprocess.run([*prefix, *command(*words)], capture_output=True, text=True, check=False)


@contextlib.contextmanager
def _through_a_pipe(root: Path, dataset: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """organize half-way through a pipe whose other end is given."""
    out, into = os.pipe()
    words = command(*_words(root, dataset, archives="-"), "--split", "train")
    with subprocess.Popen(words, stdin=out, stderr=subprocess.PIPE, text=True) as process:
        os.close(out)
        try:
            yield process, into
        finally:
            process.kill()


def test_two_at_once_on_one_root(
    dataset: Path, wanted: dict[str, bytes], tmp_path: Path, run: Run
) -> None:
    root, body = tmp_path / "root", (dataset.parent / TRAIN).read_bytes()
    with _through_a_pipe(root, dataset) as (process, into), os.fdopen(into, "wb") as pipe:
        pipe.write(body[: len(body) // 2])
        pipe.flush()
        error, hint = _told(run(*_words(root, dataset)), code=1)
        assert f"another imnetprep is at work in {root / '.organizing'}" in error
        assert "wait until it is done" in hint
        pipe.write(body[len(body) // 2 :])
        pipe.close()
        assert process.wait() == 0
    assert tree(root / "train") == wanted


def test_sigterm_while_a_pipe_is_read(
    dataset: Path, wanted: dict[str, bytes], tmp_path: Path, run: Run
) -> None:
    root, body = tmp_path / "root", (dataset.parent / TRAIN).read_bytes()
    with _through_a_pipe(root, dataset) as (process, into), os.fdopen(into, "wb") as pipe:
        pipe.write(body[: len(body) // 2])
        pipe.flush()
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate()
        with contextlib.suppress(BrokenPipeError):
            pipe.close()
    assert process.returncode == 143
    assert stderr.splitlines()[-1] == "Stopped: run the same command to resume"
    _goes_on(root, _words(root, dataset), wanted, run)


def test_sigterm_while_a_server_is_read(
    dataset: Path, wanted: dict[str, bytes], tmp_path: Path, run: Run
) -> None:
    root = tmp_path / "root"
    with web_served(dataset.parent) as web:
        words, web.wait_s = _words(root, dataset, archives=web.address), 0.05
        process = subprocess.Popen(command(*words), stderr=subprocess.PIPE, text=True)
        while process.poll() is None and not list((root / ".organizing").glob("train/*/*")):
            time.sleep(0.001)
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate()
        web.wait_s = 0
        assert process.returncode == 143, stderr
        assert stderr.splitlines()[-1] == "Stopped: run the same command to resume"
        _goes_on(root, words, wanted, run)
