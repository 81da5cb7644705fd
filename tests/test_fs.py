"""Files are whole or absent, and what only Linux has falls back to what all systems have."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from imnetprep import fs, jobs


def test_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    with pytest.raises(RuntimeError), fs.written_whole(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert list(path.parent.iterdir()) == []
    with fs.written_whole(path) as file:
        file.write(b"whole")
    assert [path.read_bytes() for path in path.parent.iterdir()] == [b"whole"]


def _sparse(path: Path) -> int:
    with path.open("wb") as file:
        file.write(b"x" * 4096)
        file.seek(1 << 20)
        file.write(b"y" * 4096)
        file.truncate(2 << 20)
    return os.open(path, os.O_RDONLY)


def test_data_ranges_leave_holes_out(tmp_path: Path) -> None:
    ranges = list(fs.data_ranges(_sparse(tmp_path / "file"), 2 << 20))
    assert ranges == [(0, 4096), (1 << 20, (1 << 20) + 4096)]


def test_without_seek_data_all_is_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = _sparse(tmp_path / "file")
    monkeypatch.delattr(os, "SEEK_DATA")
    assert list(fs.data_ranges(handle, 2 << 20)) == [(0, 2 << 20)]


@pytest.mark.parametrize("platform", [sys.platform, "darwin"])
def test_file_systems_are_synced(
    tmp_path: Path, platform: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    fs.sync_file_system(tmp_path)


def test_without_affinity_all_cores_are_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert jobs.usable_cores() == os.cpu_count()


@pytest.mark.parametrize("platform", [sys.platform, "darwin"])
def test_a_process_at_work_is_seen_and_not_disturbed(
    tmp_path: Path, platform: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    assert not fs.is_locked(tmp_path / "nowhere")
    code = "import sys; from pathlib import Path; from imnetprep.fs import locked\n"
    code += "with locked(Path(sys.argv[1])): print('at work', flush=True); input()"
    words = [sys.executable, "-c", code, str(tmp_path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdin is not None and other.stdout is not None
        assert other.stdout.readline() == "at work\n"
        assert fs.is_locked(tmp_path)
        other.stdin.close()
        other.wait()
    assert not fs.is_locked(tmp_path)
    with fs.locked(tmp_path):
        pass
