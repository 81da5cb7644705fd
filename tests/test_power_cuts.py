"""The power is cut on a real ext4: what was synced is there, and the same command ends the same.

`scripts/bench cuts` cuts more commands at more places, on xfs too.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Run, command, receipt_of, tree
from tests.faults import Fault, Faults, mounted

Words = list[str]
# A file that is synced, and one that is not; then a rename.
_WRITES = """
import os
from pathlib import Path
with Path("synced").open("wb") as file:
    file.write(b"body")
    file.flush()
    os.fsync(file.fileno())
Path("lost").write_bytes(b"body")
os.rename("synced", "renamed")
"""


@pytest.fixture
def disk(tmp_path: Path, other_disk: Path) -> Path:
    """A file in memory that holds an empty ext4, which can be mounted here."""
    image, place = other_disk / "disk", tmp_path / "place"
    if os.geteuid() != 0 or not shutil.which("mkfs.ext4"):
        pytest.skip("root and mkfs.ext4 are needed to cut the power of a file system")
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    place.mkdir()
    try:
        with mounted(image, place):
            pass
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no loop device can be mounted here: {error.stderr.decode()}")
    return image


@pytest.fixture
def cut(disk: Path, tmp_path: Path) -> Iterator[Callable[[Words, str], int]]:
    """Run a command on the disk, mounted at tmp_path/place, until the power is cut: its code."""
    faults, place = Faults(tmp_path), tmp_path / "place"

    def run_command(words: Words, fault: str) -> int:
        with mounted(disk, place):
            faults.tell(Fault.parse(fault).packed(place))
            done = subprocess.run(
                words,
                cwd=place,
                env={**os.environ, **faults.environment},
                start_new_session=True,  # which is killed
                capture_output=True,
                check=False,
            )
        return done.returncode

    yield run_command


@pytest.mark.parametrize(
    ("fault", "files"),
    [
        ("rename:1:CUT", {"synced": b"body"}),
        ("rename:1:CUT_NAMED", {"synced": b"body", "lost": b""}),
    ],
)
def test_a_cut_leaves_what_was_synced(
    fault: str,
    files: dict[str, bytes],
    cut: Callable[[Words, str], int],
    disk: Path,
    tmp_path: Path,
) -> None:
    assert cut([sys.executable, "-c", _WRITES], fault) == -9
    with mounted(disk, tmp_path / "place"):
        assert tree(tmp_path / "place") == files


@pytest.mark.parametrize("fault", ["rename:1:CUT", "rename:2:CUT_NAMED"])
def test_organize_ends_the_same_after_a_cut(
    fault: str,
    cut: Callable[[Words, str], int],
    disk: Path,
    packed: Path,
    organized_once: Path,
    tmp_path: Path,
    run: Run,
) -> None:
    root = tmp_path / "place" / "root"
    words = ["organize", "--root", root, "--dataset", packed, "--archives", packed.parent]
    assert cut(command(*words), fault) == -9
    with mounted(disk, tmp_path / "place"):
        assert run(*words).returncode == 0
        assert run("verify", "--root", root, "--digests").returncode == 0
        for split in ("train", "val"):
            assert tree(root / split) == tree(organized_once / split)
        assert receipt_of(root).keys() == receipt_of(organized_once).keys()
