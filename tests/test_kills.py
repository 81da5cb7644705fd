"""Killed with -9 at twenty moments and run again with the same words, all comes out the same."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from imnetprep.sources.seeder import seeded
from imnetprep.synthetic import pack_dataset
from tests.conftest import Run, command, tree

pytestmark = pytest.mark.slow

_KILLS = 20


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kills")
    return pack_dataset(
        folder, classes=40, train_per_class=30, val_per_class=10, image_bytes=40_000
    )


def _grown_bytes(folder: Path) -> int:
    """What lies below a folder that others write to and rename at the same time."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += Path(path, name).stat().st_blocks * 512
            except FileNotFoundError:
                continue
    return total


def _kill_at(words: list[str], folder: Path, target_bytes: int) -> bool:
    """Run until `folder` holds `target_bytes`, then kill; True if the process still ran."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and _grown_bytes(folder) < target_bytes:
        time.sleep(0.001)
    process.kill()
    return process.wait() == -9


def test_organize_ends_the_same_and_shows_nothing_half_made(
    dataset: Path, tmp_path: Path, run: Run
) -> None:
    whole, root = tmp_path / "whole", tmp_path / "root"
    words = ["--dataset", dataset, "--archives", dataset.parent]
    assert run("organize", "--root", whole, *words).returncode == 0
    wanted = {split: tree(whole / split) for split in ("train", "val")}
    total = _grown_bytes(whole / "train") + _grown_bytes(whole / "val")
    killed_inside = 0
    for number in range(1, _KILLS + 1):
        target = total * number // (_KILLS + 1)
        killed_inside += _kill_at(command("organize", "--root", root, *words), root, target)
        for split in ("train", "val"):
            if (root / split).exists():
                assert tree(root / split) == wanted[split]
    assert killed_inside >= 15
    done = run("organize", "--root", root, *words)
    assert done.returncode == 0, done.stderr
    assert {split: tree(root / split) for split in ("train", "val")} == wanted
    assert run("verify", "--root", root, "--digests").returncode == 0


def test_subset_ends_the_same_and_shows_nothing_half_made(
    dataset: Path, tmp_path: Path, run: Run
) -> None:
    whole, listed, to = tmp_path / "whole", tmp_path / "listed.txt", tmp_path / "to"
    words = ["--dataset", dataset, "--archives", dataset.parent]
    assert run("organize", "--root", whole, *words).returncode == 0
    wnids = sorted(path.name for path in (whole / "train").iterdir())[5:35]
    listed.write_text("\n".join(wnids))
    wanted = {
        split: {name: body for name, body in tree(whole / split).items() if name[:9] in wnids}
        for split in ("train", "val")
    }
    total = sum(len(body) for bodies in wanted.values() for body in bodies.values())
    words = ["subset", listed, "--root", whole, "--to", to, "--copy"]
    killed_inside = 0
    for number in range(1, 9):
        killed_inside += _kill_at(command(*words), to, total * number // 9)
        for split in ("train", "val"):
            if (to / split).exists():
                assert tree(to / split) == wanted[split]
    assert killed_inside >= 5
    done = run(*words)
    assert done.returncode == 0, done.stderr
    assert {split: tree(to / split) for split in wanted} == wanted
    assert run("verify", "--root", to, "--digests").returncode == 0


def test_download_ends_the_same_and_fetches_little_twice(
    dataset: Path, tmp_path: Path, run: Run
) -> None:
    archives = sorted(dataset.parent.glob("*.tar"))
    total = sum(archive.stat().st_size for archive in archives)
    with seeded(archives) as seeder:
        words = ["download", "--root", tmp_path, "--dataset", dataset, "--no-dht"]
        words += ["--listen", "127.0.0.1:0", "--peer", seeder.peer, "--max-down", "8MB"]
        words += [word for magnet in seeder.magnets for word in ("--magnet", magnet)]
        killed_inside = 0
        for number in range(1, _KILLS + 1):
            target = total * number // (_KILLS + 1)
            killed_inside += _kill_at(command(*words), tmp_path / "archives", target)
            for archive in archives:
                arrived = tmp_path / "archives" / archive.name
                assert not arrived.exists() or arrived.read_bytes() == archive.read_bytes()
        assert killed_inside >= 15
        done = run(*words)
        assert done.returncode == 0, done.stderr
        # 1.34 times the bytes here; without going on it would be ten times.
        assert seeder.sent_bytes() < 2 * total
    for archive in archives:
        assert (tmp_path / "archives" / archive.name).read_bytes() == archive.read_bytes()
    left = {path.name for path in (tmp_path / "archives").iterdir()}
    assert left == {".lock", *(archive.name for archive in archives)}
