"""`imnetprep prepare`: from archives elsewhere to verified images, whatever interrupts it."""

import json
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from imnetprep.messages import Silent
from imnetprep.sources.seeder import make_torrent, seeded
from imnetprep.sources.session import Network, open_session
from imnetprep.sources.swarm import Reading, fetch_metadata
from imnetprep.sources.torrent import parse_magnet, read_torrent
from imnetprep.synthetic import pack_dataset
from imnetprep.transfers.flow import Cancellation
from tests.conftest import Run, command, receipt_of, spoil, tree
from tests.servers import web_served
from tests.sources.peers import peer
from tests.stopped import halted, run_stopped

TRAIN, VAL = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, packed: Path) -> Path:
    """The definition of `packed`, with a torrent of each archive."""
    folder = Path(shutil.copytree(packed.parent, tmp_path_factory.mktemp("published") / "all"))
    toml = folder / packed.name
    text = toml.read_text()
    for name in (TRAIN, VAL):
        (folder / f"{name}.torrent").write_bytes(make_torrent(folder / name))
        text = text.replace(f'name = "{name}"', f'name = "{name}"\ntorrent = "{name}.torrent"')
    toml.write_text(text)
    return toml


@pytest.fixture(scope="module")
def swarm(published: Path) -> Iterator[list[object]]:
    """The words that lead a command to a peer that has both archives."""
    with seeded([published.parent / name for name in (TRAIN, VAL)]) as seeder:
        peer = ["--peer", seeder.peer, "--no-dht", "--listen", "127.0.0.1:0", "--wait", "20s"]
        yield ["--dataset", published, *peer]


def is_prepared(root: Path, organized: Path) -> bool:
    return all(tree(root / split) == tree(organized / split) for split in ("train", "val"))


def test_from_a_swarm_the_images_come_with_the_archives(
    swarm: list[object], organized_once: Path, tmp_path: Path, here: Run
) -> None:
    root = ["--root", tmp_path]
    done = here("prepare", *root, *swarm, "--dry-run")
    assert f"train: organized while {TRAIN} comes by torrent" in done.stdout, done.stderr
    assert not any(tmp_path.iterdir())
    done = here("prepare", *root, *swarm)
    assert done.returncode == 0, done.stderr
    assert is_prepared(tmp_path, organized_once)
    assert "0 findings in train, val (counts, names, sizes)" in done.stdout
    assert re.search(r"download \d+:\d\d, organize", done.stdout)
    receipt = receipt_of(tmp_path)
    proofs = [receipt["archives"][name]["proof"] for name in (TRAIN, VAL)]  # type: ignore[index]
    assert [proof["kind"] for proof in proofs] == ["torrent"] * 2
    assert receipt["splits"]["train"]["proof"] == proofs[0]  # type: ignore[index]
    done = here("prepare", *root, "--no-dht", "--json")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line.get("split") for line in lines[:2]] == ["train", "val"]
    assert set(lines[-1]["seconds"]) == {"organize", "verify"}, "nothing is downloaded again"


def test_from_a_server_nothing_but_images_is_written(
    packed: Path, organized_once: Path, tmp_path: Path, here: Run
) -> None:
    with web_served(packed.parent) as web:
        words = [f"{web.address}/{VAL}", web.address, "--root", tmp_path, "--dataset", packed]
        done = here("prepare", web.address, "--root", tmp_path, "--dataset", packed, "--dry-run")
        assert f"val: read from {web.address}" in done.stdout
        done = here("prepare", *words[:1], *words[2:])
        assert done.returncode == 0, done.stderr
        assert "0 findings in val " in done.stdout, "the split of that archive alone"
        done = here("prepare", *words[1:])
        assert done.returncode == 0, done.stderr
    assert is_prepared(tmp_path, organized_once)
    assert not (tmp_path / "archives").exists()


def test_an_address_that_is_no_archive_is_refused(packed: Path, tmp_path: Path, here: Run) -> None:
    root = ["--root", tmp_path, "--dataset", packed]
    done = here("prepare", "https://example.org/mine.zip", *root)
    assert (done.returncode, "is no archive of packed" in done.stderr) == (2, True), done.stderr
    done = here("prepare", f"https://a.org/{VAL}", f"https://b.org/{VAL}", *root)
    assert (done.returncode, "has several addresses" in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize(
    "at",
    [
        "imnetprep.sources.part_files:PartFiles.wait_for:2",
        "imnetprep.sources.part_files:PartFiles.finish:1",
        "imnetprep.organizing.journal:Journal.mark_whole:1",
        "imnetprep.organizing.publish:publish:1",
    ],
)
def test_a_kill_costs_nothing_but_time(
    swarm: list[object], organized_once: Path, tmp_path: Path, here: Run, at: str
) -> None:
    run_stopped(tmp_path, at, "prepare", *swarm)
    done = here("prepare", "--root", tmp_path, *swarm)
    assert done.returncode == 0, done.stderr
    assert is_prepared(tmp_path, organized_once)


def test_an_interruption_ends_both_halves(swarm: list[object], tmp_path: Path, here: Run) -> None:
    words = ["prepare", "--root", tmp_path / "root", *swarm]
    at, output = "imnetprep.sources.part_files:PartFiles.wait_for:1", tmp_path / "output"
    with halted(at, *words, environment={}, output=output) as process:
        process.send_signal(signal.SIGINT)
        process.wait()
    assert "run the same command to resume" in output.read_text()


def test_an_interruption_ends_the_wait_for_metadata() -> None:
    reading = Reading(lambda _parts: None, threading.Event())
    reading.stop.set()
    magnet = parse_magnet(f"magnet:?xt=urn:btih:{'ab' * 20}")
    with (
        open_session(Network(listen="127.0.0.1:0", dht=False)) as session,
        pytest.raises(Cancellation),
    ):
        fetch_metadata(
            session, [magnet], addresses=(), wait_s=60, progress=Silent(), reading=reading
        )


def test_what_is_organized_needs_no_archive(organized: Path, here: Run) -> None:
    done = here("prepare", "--root", organized, "--split", "val", "--no-dht", "--wait", "1s")
    assert done.returncode == 0, done.stderr
    assert "0 findings in val" in done.stdout


def test_archives_that_lie_there_are_organized(
    packed: Path, organized_once: Path, tmp_path: Path, here: Run
) -> None:
    """Of a dataset that has digests and no torrent."""
    shutil.copytree(packed.parent, tmp_path / "archives")
    done = here("prepare", "--root", tmp_path, "--dataset", packed)
    assert done.returncode == 0, done.stderr
    assert is_prepared(tmp_path, organized_once)


def test_a_swarm_that_ends_before_the_archive_ends_both_halves(tmp_path: Path) -> None:
    """What came was organized while it came."""
    folder = tmp_path / "published"
    toml = pack_dataset(folder, classes=5, train_per_class=12, val_per_class=1, image_bytes=100_000)
    body, torrent = (folder / TRAIN).read_bytes(), make_torrent(folder / TRAIN)
    (folder / "t").write_bytes(torrent)
    line = f'name = "{TRAIN}"'
    toml.write_text(toml.read_text().replace(line, f'{line}\ntorrent = "t"'))
    root = tmp_path / "root"
    with peer(torrent, body) as other:
        other.lacks = {read_torrent(torrent).info.num_pieces() - 1}
        words = ["prepare", "--root", root, "--dataset", toml, "--split", "train", "--wait", "2s"]
        words += ["--peer", other.address, "--no-dht", "--listen", "127.0.0.1:0"]
        done = subprocess.run(command(*words), capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert done.stderr.count("Error:") == 1
    assert "1 of " in done.stderr
    assert not (root / "train").exists()
    assert len(list((root / ".organizing" / "train").rglob("*.JPEG"))) > 12


def test_a_piece_that_is_wrong_on_the_disk_is_never_organized(
    published: Path, swarm: list[object], organized_once: Path, tmp_path: Path, here: Run
) -> None:
    """A part whose record says more than is true any more, as a failing disk leaves one."""
    root = tmp_path / "root"
    at = "imnetprep.sources.part_files:PartFiles.finish:1"
    run_stopped(root, at, "prepare", *swarm, "--split", "train")
    spoil(root / "archives" / f"{TRAIN}.part", 50_000)
    done = here("prepare", "--root", root, *swarm)
    assert done.returncode == 0, done.stderr
    assert is_prepared(root, organized_once)
