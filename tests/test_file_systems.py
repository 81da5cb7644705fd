"""What file systems lack and machines refuse: all works without it, or it is told in words."""

import errno
import fcntl
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from imnetprep import cli, fs, outside_files
from imnetprep.database import Busy, open_database
from imnetprep.layouts.webdataset import INDEX, read_index
from imnetprep.machine import explain
from imnetprep.messages import (
    FINDINGS_EXIT_CODE,
    UNREAD_EXIT_CODE,
    ImnetprepError,
    Lack,
    shell_word,
)
from imnetprep.own_images.content import file_problem
from imnetprep.sources.seeder import seeded
from tests.conftest import TRAIN, Run, command, tree
from tests.faults import Fault, Faults
from tests.fuzzing.folder_bucket import folder_served
from tests.packings import openable
from tests.servers import BUCKET, S3Server

UNABLE = [errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL]
_OURS = {errno.EBADF, errno.EFAULT, errno.ESPIPE, errno.ENOTSOCK, errno.ECHILD}


_exists = Path.exists


def _refusing(number: int) -> object:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Faults:
    return Faults(tmp_path_factory.mktemp("faults"))


@pytest.fixture
def failing(faults: Faults, tmp_path: Path) -> Iterator[Run]:
    """Run one command below `tmp_path` with a fault."""

    def run_command(*words: object, fault: str = "") -> subprocess.CompletedProcess[str]:
        faults.tell((Fault.parse(fault) if fault else Fault("", 0, "EIO")).packed(tmp_path))
        return subprocess.run(
            command(*words),
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **faults.environment},
        )

    yield run_command


def _told(done: subprocess.CompletedProcess[str]) -> tuple[str, str]:
    """The two lines of an error."""
    assert done.returncode == 1, done.stderr
    error, hint = done.stderr.splitlines()[-2:]
    assert error.startswith("Error: ") and hint.startswith("Hint: ")
    return error, hint


# Without locks.


@pytest.mark.parametrize("number", [errno.ENOLCK, *UNABLE])
def test_without_locks_the_processes_of_one_machine_are_kept_apart(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for call in ("lockf", "flock", "fcntl"):
        monkeypatch.setattr(fcntl, call, _refusing(number))
    with pytest.warns(Lack, match="a file system without locks"), fs.locked(tmp_path, forks=True):
        assert fs.is_locked(tmp_path)
        with (
            pytest.raises(ImnetprepError, match="another imnetprep is at work"),
            pytest.warns(Lack),
            fs.locked(tmp_path),
        ):
            pass
    assert not fs.is_locked(tmp_path)
    with (tmp_path / "file").open("wb") as file:
        fs.claim(file.fileno(), tmp_path / "file")


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_a_lock_that_fails_is_told_by_name(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "lockf", _refusing(number))
    with pytest.raises(OSError, match=rf"{os.strerror(number)}.*\.lock"), fs.locked(tmp_path):
        pass


def test_on_a_file_system_without_locks_all_works(
    packed: Path, organized_once: Path, tmp_path: Path, failing: Run
) -> None:
    """SQLite too, which says of ENOLCK that the database is locked."""
    root, lacking = tmp_path / "root", "lock:1:ENOLCK:on"
    words = ["organize", "--root", root, "--dataset", packed, "--archives", packed.parent]
    done = failing(*words, fault=lacking)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("is a file system without locks") == 1
    assert tree(root / "train") == tree(organized_once / "train")
    photos = tmp_path / "photos"
    for name in ("cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/2.jpg"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_bytes(openable(name))
    (tmp_path / "list.txt").write_text(min(path.name for path in (root / "val").iterdir()))
    for words in (
        ["verify", "--root", root],
        ["divide", photos, "--root", tmp_path / "divided", "--jobs", 1],
        ["subset", tmp_path / "list.txt", "--root", root, "--to", tmp_path / "part"],
        ["organize", "--root", root, "--layout", "webdataset"],
        ["repair", "--root", root, "--from", packed.parent],
        ["status", "--root", root],
    ):
        done = failing(*words, fault=lacking)
        assert done.returncode == 0, done.stderr
        works = words[0] != "status"
        assert done.stderr.count("is a file system without locks") == works, words
    assert "another process" not in done.stdout


def test_a_database_that_another_process_writes_is_told(tmp_path: Path) -> None:
    path = tmp_path / "some.db"
    with open_database(path) as database:
        database.executescript("CREATE TABLE one (number); BEGIN EXCLUSIVE")
        with (
            pytest.raises(Busy, match="another imnetprep is at work"),
            open_database(path, wait_s=0) as other,
        ):
            other.execute("SELECT * FROM one")


def test_what_is_no_database_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "some.db")
    with pytest.raises(ImnetprepError, match="is no file"), open_database(tmp_path / "some.db"):
        pass


# Without other calls.


@pytest.mark.parametrize("number", UNABLE)
def test_a_folder_that_cannot_be_synced_is_left_at_that(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", _refusing(number))
    fs.sync_folder(tmp_path)


def test_a_folder_whose_sync_fails_is_told_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", _refusing(errno.EIO))
    with pytest.raises(OSError, match=str(tmp_path)):
        fs.sync_folder(tmp_path)


@pytest.mark.parametrize("number", [errno.EPERM, errno.EMLINK, *UNABLE])
def test_a_file_system_without_hard_links_is_told(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one").touch()
    monkeypatch.setattr(os, "link", _refusing(number))
    with pytest.raises(ImnetprepError, match="cannot be a hard link") as raised:
        fs.hard_link(tmp_path / "one", tmp_path / "two")
    assert "--copy" in raised.value.hint


@pytest.mark.parametrize(
    "fault", ["syncfs:1:ENOSYS:on", "fsyncdir:1:EINVAL:on", "pread:1:HALF", "write:2:HALF"]
)
def test_what_a_file_system_does_otherwise_changes_nothing(
    fault: str, packed: Path, organized_once: Path, tmp_path: Path, failing: Run
) -> None:
    words = ["--root", tmp_path / "root", "--dataset", packed, "--archives", packed.parent]
    done = failing("organize", *words, fault=fault)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "root" / "train") == tree(organized_once / "train")


def test_free_space_that_is_not_told_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FUSE file systems without statfs say that they have no blocks at all."""
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(total=0, free=0))
    fs.require_free(tmp_path, 1 << 40, purpose="this")


# Names.


def test_a_name_of_255_bytes_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 125 + ".JPEG")
    with fs.written_whole(path) as file:
        file.write(b"whole")
    assert [each.read_bytes() for each in tmp_path.iterdir()] == [b"whole"]


def test_names_that_a_file_system_takes_for_one_are_refused_before_any_work(
    tmp_path: Path, here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cat", "Cat"):
        for number in range(4):
            path = tmp_path / "photos" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    monkeypatch.setattr(Path, "exists", lambda path: _exists(path) or "IMNETPREP-" in path.name)
    words = ["divide", tmp_path / "photos", "--root", tmp_path / "root"]
    error, hint = _told(here(*words))
    assert "takes train/cat/ and train/Cat/" in error or "takes train/Cat/ and train/cat/" in error
    assert "--root" in hint and not list((tmp_path / "root").glob("*"))
    monkeypatch.undo()
    assert here(*words).returncode == 0


def test_a_device_is_not_replaced_by_a_file() -> None:
    null = Path(os.devnull)
    with pytest.raises(ImnetprepError, match="is a device"), fs.written_whole(null):
        pass


@pytest.mark.parametrize(
    "name", ["a b", "it's", "狗", "caf\udce9", "new\nline", "back\\slash\udce9'"]
)
def test_a_hint_can_be_typed_whatever_the_name_is(name: str) -> None:
    done = subprocess.run(
        ["bash", "-c", f"printf %s {shell_word(name)}"], capture_output=True, check=True
    )
    assert done.stdout == os.fsencode(name)


def test_a_root_whose_path_is_nearly_too_long(packed: Path, tmp_path: Path, here: Run) -> None:
    root = tmp_path
    while len(os.fsencode(root)) < 4093 - 200:
        root /= "f" * 199
    root /= "f" * (4093 - len(os.fsencode(root)) - 1)
    done = here("organize", "--root", root, "--dataset", packed, "--archives", packed.parent)
    _, hint = _told(done)
    assert "shorter" in hint
    assert here("status", "--root", root).returncode == 1


def test_a_folder_may_be_called_anything(
    packed: Path, tmp_path: Path, here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / os.fsdecode(b"\xff")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system has names of text only")
    there, back, seeds = folder / "there", folder / "back", folder / "seeds"
    dataset = ["--dataset", packed, "--archives", packed.parent]
    assert here("organize", "--root", there, *dataset, "--layout", "webdataset").returncode == 0
    with folder_served(tmp_path / "bucket") as endpoint:
        for name, value in S3Server(0).environment_of(endpoint=endpoint).items():
            monkeypatch.setenv(name, value)
        words = ["sync-s3", f"s3://{BUCKET}/a", "--root"]
        assert here(*words, there, "--push").returncode == 0
        assert here(*words, back, "--pull").returncode == 0
    shutil.copytree(packed.parent, seeds)
    with seeded([seeds / TRAIN]) as seeder:
        met = ["--magnet", seeder.magnets[0], "--peer", seeder.peer, "--no-dht"]
        met += ["--split", "train", "--listen", "127.0.0.1:0", "--seed-ratio", "0"]
        done = here("download", "--root", back, "--dataset", packed, *met)
    assert done.returncode == 0, done.stderr
    assert (back / "archives" / TRAIN).read_bytes() == (seeds / TRAIN).read_bytes()


def test_names_are_utf8_in_a_locale_of_ascii_alone(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python takes UTF-8 in the locale C, unlike in others of ASCII, unless PYTHONUTF8 is 0."""
    for number in range(4):
        path = tmp_path / "é" / "猫" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    for name, value in (("LC_ALL", "C"), ("PYTHONUTF8", "0"), ("PYTHONCOERCECLOCALE", "0")):
        monkeypatch.setenv(name, value)
    root = tmp_path / "é root"
    done = run("divide", tmp_path / "é", "--one-class", "--root", root)
    assert done.returncode == 0, done.stderr
    assert {path.parent.name for path in root.glob("*/*/*.png")} == {"猫"}


# What the machine refuses.


def test_locks_that_fail_for_long_are_told_by_the_systems_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `scripts/bench faults` has it of a pull, by lock:42:ESTALE:on; SQLite waits 10 s first."""
    given_up = sqlite3.OperationalError("locking protocol")
    given_up.sqlite_errorcode = sqlite3.SQLITE_PROTOCOL
    with pytest.raises(OSError, match=r"x\.db") as told, open_database(tmp_path / "x.db"):
        monkeypatch.setattr(fcntl, "lockf", _refusing(errno.ESTALE))
        raise given_up
    assert told.value.errno == errno.ESTALE


@pytest.mark.parametrize(("number", "is_bad"), [(errno.EIO, True), (errno.EMFILE, False)])
def test_an_image_is_bad_where_it_cannot_be_read_and_not_where_none_can(
    number: int, is_bad: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What --skip-bad leaves out is not what there were no file handles for."""
    path = tmp_path / "image.jpg"
    Image.new("RGB", (8, 8)).save(path)
    assert file_problem(str(path), decode=False) is None
    monkeypatch.setattr(os, "pread", _refusing(number))
    if is_bad:
        assert file_problem(str(path), decode=False) == f"cannot be read: {os.strerror(number)}"
    else:
        with pytest.raises(OSError, match=str(path)):
            file_problem(str(path), decode=False)


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ENFILE])
def test_an_index_that_cannot_be_read_is_not_called_damaged(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pull would say that the bucket lacks it, and organize make all shards anew."""
    (tmp_path / INDEX).touch()
    monkeypatch.setattr(outside_files, "FileIO", _refusing(number))
    with pytest.raises(OSError, match=os.strerror(number)):
        read_index(tmp_path)


def test_an_index_that_cannot_be_read_is_a_finding(
    organized: Path, monkeypatch: pytest.MonkeyPatch, here: Run
) -> None:
    words = ["organize", "--root", organized, "--layout", "webdataset", "--split", "val"]
    assert here(*words).returncode == 0
    monkeypatch.setattr("imnetprep.layouts.webdataset.read_file", _refusing(errno.EIO))
    found = here("verify", "--root", organized, "--layout", "webdataset")
    assert found.returncode == FINDINGS_EXIT_CODE
    told = f"index: shards/val/{INDEX} cannot be read: {os.strerror(errno.EIO)}"
    assert told in found.stdout.splitlines()


def test_a_machine_without_devices_is_told_as_torch_says_it() -> None:
    told = explain(RuntimeError("Unable to open /dev/urandom"))
    assert told is not None and "mount /dev" in told[1]


@pytest.mark.parametrize("number", errno.errorcode)
def test_every_error_of_the_system_is_told_but_those_that_a_program_earns(number: int) -> None:
    told = explain(OSError(number, os.strerror(number), "some/file"))
    if number in _OURS:
        assert told is None
    else:
        assert told is not None and told[0] == f"some/file: {os.strerror(number)}"


@pytest.mark.parametrize(
    ("fault", "problem", "hinted"),
    [
        ("pwrite:1:ENOSPC:on", "No space left on device", "free some space"),
        ("pwrite:1:EDQUOT:on", "Disk quota exceeded", "free some space"),
        ("pwrite:1:EIO:on", "Input/output error", "dmesg"),
        ("open:1:EMFILE:on", "Too many open files", "ulimit -n"),
        ("fsync:1:EIO:on", "Input/output error", "dmesg"),
        ("lock:1:ESTALE:on", "Stale file handle", "mounted"),
        ("thread:1:EAGAIN:on", "starts no more threads", "ulimit -u"),
    ],
)
def test_the_machine_is_told_from_the_program(
    fault: str, problem: str, hinted: str, packed: Path, tmp_path: Path, failing: Run
) -> None:
    """Inside SQLite, which keeps the number of the error to itself, as everywhere else."""
    root = tmp_path / "root"
    words = ["organize", "--root", root, "--dataset", packed, "--archives", packed.parent]
    error, hint = _told(failing(*words, "--jobs", 2, fault=fault))
    assert problem in error and hinted in hint
    assert failing(*words).returncode == 0


@pytest.mark.parametrize("at", [1, 4, 8, 12])
def test_a_download_without_its_threads_is_told_and_no_abort(
    at: int, published: Path, tmp_path: Path, failing: Run
) -> None:
    """Before libtorrent starts its own, where nobody catches what the system refuses."""
    words = ["--root", tmp_path / "root", "--dataset", published, "--split", "train"]
    network = ["--no-dht", "--listen", "127.0.0.1:0", "--peer", "127.0.0.1:1", "--wait", "0s"]
    error, hint = _told(failing("download", *words, *network, fault=f"thread:{at}:EAGAIN:on"))
    assert "starts no more threads" in error and "ulimit -u" in hint


def test_a_manifest_that_the_disk_cannot_read_is_not_called_damaged(
    organized: Path, failing: Run
) -> None:
    """SQLite calls it so (SQLITE_IOERR_CORRUPTFS), and the hint would be to move it away."""
    error, hint = _told(failing("verify", "--root", organized, fault="pread:3:EIO:on"))
    assert error.endswith("manifest.db: Input/output error") and "dmesg" in hint


def test_a_limit_on_open_files(packed: Path, tmp_path: Path, run: Run) -> None:
    words = ["organize", "--root", tmp_path / "root", "--dataset", packed]
    limited = f"ulimit -n 6; exec {' '.join(command(*words, '--archives', packed.parent))}"
    done = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, check=False)
    error, hint = _told(done)
    assert "Too many open files" in error and "ulimit -n" in hint
    assert run(*words, "--archives", packed.parent).returncode == 0


def test_a_file_system_without_inodes_is_told_as_that(
    packed: Path, tmp_path: Path, here: Run
) -> None:
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "nr_inodes=4", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no small disk can be mounted here (that takes root)")
    try:
        words = ["--root", place / "root", "--dataset", packed, "--archives", packed.parent]
        error, _ = _told(here("organize", *words))
        assert "inodes" in error
    finally:
        subprocess.run(["umount", place], check=True)


def test_results_that_cannot_be_written_are_told(organized_once: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command("status", "--root", organized_once),
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    error, _ = _told(done)
    assert "No space left on device" in error and "Traceback" not in done.stderr


@pytest.mark.parametrize(("verb", "hint"), [("train", "with --resume"), ("verify", "again")])
def test_results_that_cannot_be_written_hint_at_how_a_verb_resumes(
    verb: str, hint: str, here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise cli._Unwritten(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))

    monkeypatch.setattr(os, "dup2", lambda *_: None)  # stdout is the one of the tests
    monkeypatch.setattr(cli.imnetprep.commands[verb], "callback", refuse)
    error, last = _told(here(verb))
    assert error == "Error: the results cannot be written: No space left on device"
    assert last == f"Hint: look where stdout goes, then run the same command {hint}"


def test_a_stdout_that_may_only_be_read_is_told(organized_once: Path) -> None:
    with Path(os.devnull).open() as stdout:
        done = subprocess.run(
            command("status", "--root", organized_once),
            stdout=stdout, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    error, _ = _told(done)
    assert error == f"Error: the results cannot be written: {os.strerror(errno.EBADF)}"


@pytest.mark.parametrize("verb", ["verify", "--help"])
def test_results_that_nobody_reads_are_not_called_done(verb: str, organized: Path) -> None:
    """As after `| head`: exit code 0 would say that there is no finding, or that all is made."""
    reading, writing = os.pipe()
    os.close(reading)
    words = command(verb, *(["--root", organized] if verb == "verify" else []))
    done = subprocess.run(words, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (UNREAD_EXIT_CODE, b"")


def test_a_broken_pipe_that_is_not_of_results_is_told(
    monkeypatch: pytest.MonkeyPatch, here: Run
) -> None:
    """click ends a command without a word at any."""
    monkeypatch.setattr(cli.imnetprep.commands["verify"], "callback", _refusing(errno.EPIPE))
    error, hint = _told(here("verify"))
    assert "Broken pipe" in error and "other end" in hint


def test_what_cannot_be_said_on_stderr_changes_nothing(packed: Path, tmp_path: Path) -> None:
    """As of a terminal that is gone, or a log on a full disk."""
    words = ["--dataset", packed, "--archives", packed.parent]
    with Path("/dev/full").open("w") as full:
        for root, code in ((tmp_path / "root", 0), (packed, 2)):
            full_words = command("organize", "--root", root, *words)
            done = subprocess.run(full_words, stderr=full, stdout=subprocess.DEVNULL, check=False)
            assert done.returncode == code


def test_what_has_no_stderr_says_nothing_and_is_no_bug(tmp_path: Path) -> None:
    words = " ".join(command("verify", "--root", tmp_path))
    done = subprocess.run(["bash", "-c", f"{words} <&- >&- 2>&-"], check=False)
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("error", "hinted"),
    [
        (MemoryError(), "memory"),
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (RuntimeError(os.strerror(errno.EAGAIN)), "ulimit -u"),
        (RuntimeError("Symlink loop from 'train'"), "remove it"),
        (RuntimeError("No such file or directory [generic:2]"), "removed it meanwhile"),
        (RuntimeError("Unknown error [system:4000]"), "dmesg"),
        (ImportError("some.so: failed to map segment from shared object"), "ulimit -v"),
        (FileNotFoundError(2, "No usable temporary directory found in ['/tmp']"), "TMPDIR"),
        (ImportError("some.so: cannot open shared object file: Too many open files"), "ulimit -n"),
    ],
)
def test_a_limit_without_a_number_is_told(
    error: Exception, hinted: str, monkeypatch: pytest.MonkeyPatch, here: Run
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cli.imnetprep.commands["verify"], "callback", fail)
    _, hint = _told(here("verify"))
    assert hinted in hint
