"""Archives come in by torrent, resumable and proved; a bad day ends in one error and one hint."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import libtorrent as lt
import pytest

from imnetprep.messages import Silent
from imnetprep.sources.part_files import PartFiles, read_record, record_path
from imnetprep.sources.seeder import make_torrent, seeded
from imnetprep.sources.torrent import read_torrent
from imnetprep.synthetic import pack_dataset
from tests.conftest import DATASETS, Run, command, spoil, tree
from tests.sources.conftest import Seed
from tests.sources.peers import peer

CLOSED = ["--no-dht", "--listen", "127.0.0.1:0"]
TRAIN, VAL = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"


def _magnets(magnets: list[str]) -> list[str]:
    return [word for magnet in magnets for word in ("--magnet", magnet)]


def test_real_images_from_magnet_to_a_verified_tree(
    real_data: Path, aria2_seed: Seed, tmp_path: Path, run: Run
) -> None:
    archives = Path(shutil.copytree(real_data / "tiny10", tmp_path / "seed"))
    magnets, peer = aria2_seed(archives)
    root = ["--root", tmp_path / "root"]
    dataset = ["--dataset", DATASETS / "tiny10.toml"]
    done = run("download", *root, *dataset, *_magnets(magnets), "--peer", peer, *CLOSED)
    assert done.returncode == 0, done.stderr
    assert "13.5 MB, all 207 pieces right" in done.stdout
    for verb in (["organize"], ["verify", "--digests", "--decode"]):
        done = run(*verb, *root)
        assert done.returncode == 0, done.stderr + done.stdout
    wanted: dict[str, bytes] = {}
    for name in subprocess.check_output(["tar", "-tf", archives / TRAIN], text=True).split():
        place = tmp_path / "tar" / Path(name).stem
        place.mkdir(parents=True)
        inner = subprocess.Popen(["tar", "-xOf", archives / TRAIN, name], stdout=subprocess.PIPE)
        subprocess.run(["tar", "-x", "-C", place], stdin=inner.stdout, check=True)
        inner.communicate()
    assert tree(tmp_path / "root" / "train") == tree(tmp_path / "tar")
    flat = tmp_path / "flat"
    flat.mkdir()
    subprocess.run(["tar", "-xf", archives / VAL, "-C", flat], check=True)
    labels = dict(line.split() for line in (archives / "val_labels.tsv").read_text().splitlines())
    wanted = {f"{labels[name]}/{name}": body for name, body in tree(flat).items()}
    assert tree(tmp_path / "root" / "val") == wanted


def test_known_pieces_are_the_proof_and_no_second_read_is_made(tmp_path: Path, run: Run) -> None:
    toml = pack_dataset(tmp_path / "seed", classes=3, train_per_class=5, val_per_class=2)
    for name in (TRAIN, VAL):
        torrent = make_torrent(tmp_path / "seed" / name)
        (toml.parent / f"{name}.torrent").write_bytes(torrent)
    text = toml.read_text()
    for name in (TRAIN, VAL):
        text = text.replace(f'name = "{name}"', f'name = "{name}"\ntorrent = "{name}.torrent"')
    toml.write_text(text)
    root = tmp_path / "root"
    with seeded([toml.parent / TRAIN, toml.parent / VAL]) as seeder:
        words = ["--root", root, "--dataset", toml, "--peer", seeder.peer]
        done = run("download", *words, *CLOSED)
        assert done.returncode == 0, done.stderr
    assert run("organize", "--root", root).returncode == 0
    receipt = json.loads((root / "receipt.json").read_text())
    proofs = [receipt["archives"][TRAIN]["proof"], receipt["splits"]["train"]["proof"]]
    info_hash = read_torrent((toml.parent / f"{TRAIN}.torrent").read_bytes()).info_hash
    assert [proof["info_hash"] for proof in proofs] == [info_hash] * 2


def test_the_torrents_pieces_prove_an_archive_from_elsewhere(tmp_path: Path, run: Run) -> None:
    toml = pack_dataset(tmp_path, classes=4, train_per_class=40, val_per_class=0, image_bytes=9000)
    body = make_torrent(tmp_path / TRAIN, piece_bytes=65536)
    (tmp_path / "train.torrent").write_bytes(body)
    toml.write_text(toml.read_text().replace('form = "', 'torrent = "train.torrent"\nform = "'))
    with (tmp_path / TRAIN).open("r+b") as file:
        file.seek(600_000)
        right = file.read(1)
        file.seek(600_000)
        file.write(bytes([right[0] ^ 1]))
    words = ["--root", tmp_path / "root", "--dataset", toml, "--archives", tmp_path]
    done = run("organize", *words)
    assert done.returncode == 4
    assert "piece 9 (bytes 589,824 to 655,360) is not what" in done.stderr
    with (tmp_path / TRAIN).open("r+b") as file:
        file.seek(600_000)
        file.write(right)
    assert run("organize", *words).returncode == 0, "and resumes from the classes that were right"


def test_an_archive_that_was_read_in_part_is_not_called_proved(tmp_path: Path, run: Run) -> None:
    """What an earlier run proved may have been replaced since."""
    toml = pack_dataset(tmp_path, classes=4, train_per_class=40, val_per_class=0, image_bytes=9000)
    archives = tmp_path / "root" / "archives"
    archives.mkdir(parents=True)
    body = (tmp_path / TRAIN).read_bytes()
    (tmp_path / "train.torrent").write_bytes(make_torrent(tmp_path / TRAIN, piece_bytes=65536))
    toml.write_text(toml.read_text().replace('form = "', 'torrent = "train.torrent"\nform = "'))
    words = ["--root", tmp_path / "root", "--dataset", toml]
    for wrong_at, code in ((len(body) * 7 // 8, 4), (2000, 0)):
        wrong = bytearray(body)
        wrong[wrong_at] ^= 1  # the second copy is wrong where the first was read, and right
        (archives / TRAIN).write_bytes(wrong)
        done = run("organize", *words, "--jobs", "1")
        assert done.returncode == code, done.stderr
    receipt = json.loads((tmp_path / "root" / "receipt.json").read_text())
    assert TRAIN not in receipt["archives"]
    assert run("verify", "--root", tmp_path / "root", "--digests").returncode == 0


def test_an_archive_longer_than_its_torrent_is_refused(tmp_path: Path, run: Run) -> None:
    toml = pack_dataset(tmp_path, classes=2, train_per_class=3, val_per_class=0)
    (tmp_path / "train.torrent").write_bytes(make_torrent(tmp_path / TRAIN))
    text = toml.read_text().replace('form = "', 'torrent = "train.torrent"\nform = "')
    toml.write_text("\n".join(line for line in text.splitlines() if "size_bytes" not in line))
    with (tmp_path / TRAIN).open("ab") as file:
        file.write(bytes(100_000))
    words = ["--root", tmp_path / "root", "--dataset", toml, "--archives", tmp_path]
    done = run("organize", *words)
    assert done.returncode == 4, done.stderr
    assert "bytes; packed has" in done.stderr


def _growing(folder: Path, archive: Path) -> PartFiles:
    torrent = read_torrent(make_torrent(archive, piece_bytes=16384))
    return PartFiles(torrent, {0: folder / archive.name})


def _recorded(folder: Path, archive: Path) -> set[int]:
    """A whole part of `archive` in `folder`, all of it on record; the pieces."""
    (folder / f"{archive.name}.part").write_bytes(archive.read_bytes())
    growing = _growing(folder, archive)
    growing.recover(Silent())
    growing.save()
    growing.close()
    return growing.proved_pieces


def test_pieces_that_no_record_covers_are_found(packed: Path, tmp_path: Path) -> None:
    archive = packed.parent / TRAIN
    body = archive.read_bytes()
    with (tmp_path / f"{TRAIN}.part").open("wb") as part:
        part.seek(32768)
        part.write(body[32768:65536])  # pieces 2 and 3, holes around them
        part.seek(81920)
        part.write(bytes(16384))  # piece 5, wrong
    growing = _growing(tmp_path, archive)
    growing.recover(Silent())
    assert growing.proved_pieces == {2, 3}


def test_a_record_of_pieces_that_are_holes_is_not_trusted(packed: Path, tmp_path: Path) -> None:
    archive = packed.parent / TRAIN
    assert _recorded(tmp_path, archive)
    with (tmp_path / f"{TRAIN}.part").open("wb") as part:
        part.truncate(archive.stat().st_size)
    again = _growing(tmp_path, archive)
    again.recover(Silent())
    assert again.proved_pieces == set()


def test_a_record_of_another_file_is_not_trusted(packed: Path, tmp_path: Path) -> None:
    archive = packed.parent / TRAIN
    pieces = _recorded(tmp_path, archive)
    (tmp_path / f"{TRAIN}.part").unlink()
    wrong = bytearray(archive.read_bytes())
    wrong[40_000] ^= 1
    (tmp_path / TRAIN).write_bytes(wrong)
    again = _growing(tmp_path, archive)
    again.recover(Silent())
    assert again.proved_pieces == pieces - {40_000 // 16384}


# Runs the command on a disk that is full when the archive has arrived.
_WITHOUT_ROOM_FOR_THE_RECEIPT = """
import sys
from imnetprep import cli, download

def full(*_):
    raise OSError(28, "No space left on device")

download.record_archive = full
sys.exit(cli.run(sys.argv[1:]))
"""

# Runs the command, and kills it when the archive has its name and no receipt yet.
_KILLED_AT_ARRIVAL = """
import os, signal, sys
from imnetprep import cli, download
download.record_archive = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
sys.exit(cli.run(sys.argv[1:]))
"""


def test_after_a_kill_at_the_arrival_no_later_file_is_believed(
    packed: Path, tmp_path: Path, run: Run
) -> None:
    archive = tmp_path / "archives" / TRAIN
    right = (packed.parent / TRAIN).read_bytes()
    with seeded([packed.parent / TRAIN]) as seeder:
        words = ["download", "--root", tmp_path, "--dataset", packed, "--split", "train", *CLOSED]
        words += [*_magnets(seeder.magnets), "--peer", seeder.peer]
        script = [sys.executable, "-c", _KILLED_AT_ARRIVAL, *map(str, words)]
        assert subprocess.run(script, check=False).returncode == -signal.SIGKILL
        assert archive.read_bytes() == right
        assert not list(archive.parent.glob(".*.resume"))
        status = archive.stat()
        spoil(archive, 40_000)
        os.utime(archive, ns=(status.st_atime_ns, status.st_mtime_ns))
        done = run(*words)
    assert done.returncode == 0, done.stderr
    assert archive.read_bytes() == right


def test_a_receipt_that_cannot_be_written_leaves_the_archive_alone(
    packed: Path, tmp_path: Path, run: Run
) -> None:
    archive = tmp_path / "archives" / TRAIN
    with seeded([packed.parent / TRAIN]) as seeder:
        words = ["download", "--root", tmp_path, "--dataset", packed, "--split", "train", *CLOSED]
        words += [*_magnets(seeder.magnets), "--peer", seeder.peer]
        script = [sys.executable, "-c", _WITHOUT_ROOM_FOR_THE_RECEIPT, *map(str, words)]
        assert subprocess.run(script, check=False, capture_output=True).returncode == 1
        assert not archive.with_name(f"{TRAIN}.part").exists()
        done = run(*words)
    assert done.returncode == 0, done.stderr


def test_a_damaged_record_is_no_record(packed: Path, tmp_path: Path) -> None:
    archive = packed.parent / TRAIN
    pieces = _recorded(tmp_path, archive)
    path = record_path(tmp_path, _growing(tmp_path, archive).torrent.info_hash)
    record = lt.bdecode(path.read_bytes())
    other = make_torrent(packed.parent / VAL)
    damages: list[dict[bytes, object]] = [
        {b"proved": b""}, {b"proved": 5}, {b"files": [7]}, {b"files": {}}, {b"torrent": b"?"},
        {b"torrent": other, b"proved": b"\xff"},
    ]  # fmt: skip
    for damage in damages:
        path.write_bytes(lt.bencode({**record, **damage}))
        again = _growing(tmp_path, archive)
        again.recover(Silent())
        assert again.proved_pieces == pieces, damage
    path.write_bytes(lt.bencode({b"torrent": record[b"torrent"]}))
    assert read_record(path) is None


def test_a_file_that_is_something_else_is_left_alone(
    packed: Path, tmp_path: Path, run: Run
) -> None:
    mine = tmp_path / "archives" / TRAIN
    mine.parent.mkdir()
    with seeded([packed.parent / TRAIN]) as seeder:
        words = ["--root", tmp_path, "--dataset", packed, "--split", "train", *CLOSED]
        words += [*_magnets(seeder.magnets), "--peer", seeder.peer]
        for body in (b"mine" * 20_000, b"mine" * 2_000_000):
            mine.write_bytes(body)
            done = run("download", *words)
            assert done.returncode == 1, done.stderr
            assert f"Hint: mv {mine} " in done.stderr
            assert mine.read_bytes() == body


def test_the_same_magnet_twice_is_one(packed: Path, tmp_path: Path, run: Run) -> None:
    with seeded([packed.parent / VAL]) as seeder:
        words = ["--root", tmp_path, "--dataset", packed, "--split", "val", *CLOSED]
        words += [*_magnets(seeder.magnets * 2), "--peer", seeder.peer]
        done = run("download", *words)
    assert done.returncode == 0, done.stderr


def test_a_torrent_that_gives_nothing_is_refused(packed: Path, tmp_path: Path, run: Run) -> None:
    torrents: list[object] = []
    for name in (TRAIN, VAL):
        torrents += ["--torrent", tmp_path / f"{name}.torrent"]
        (tmp_path / f"{name}.torrent").write_bytes(make_torrent(packed.parent / name))
    words = ["--root", tmp_path / "root", "--dataset", packed, "--split", "val", *CLOSED]
    done = run("download", *words, *torrents)
    assert done.returncode == 2, done.stderr
    assert f"is not used: it has {TRAIN}, which --split leaves out" in done.stderr


def test_an_archive_nobody_proved_is_completed_not_fetched_again(
    packed: Path, tmp_path: Path, run: Run
) -> None:
    folder = tmp_path / "archives"
    folder.mkdir()
    body = (packed.parent / TRAIN).read_bytes()
    (folder / TRAIN).write_bytes(body[: len(body) * 3 // 4])
    with seeded([packed.parent / TRAIN]) as seeder:
        words = ["--root", tmp_path, "--dataset", packed, "--split", "train"]
        words += [*_magnets(seeder.magnets), "--peer", seeder.peer, *CLOSED]
        assert run("download", *words).returncode == 0
        assert seeder.sent_bytes() < len(body) * 0.3 + 3 * 65536
    assert (folder / TRAIN).read_bytes() == body


def _wait_until_seeding(handle: Any) -> None:
    while not handle.status().is_seeding:
        time.sleep(0.01)


def test_a_torrent_of_several_files_gives_just_the_wanted_one(
    packed: Path, tmp_path: Path, run: Run
) -> None:
    folder = tmp_path / "seed" / "imagenet"
    folder.mkdir(parents=True)
    for name in (TRAIN, VAL):
        shutil.copy(packed.parent / name, folder)
    (folder / "README").write_text("read me")
    torrent = lt.create_torrent(lt.list_files(str(folder)), 16384, lt.create_torrent.v1_only)
    lt.set_piece_hashes(torrent, str(folder.parent))
    body = lt.bencode(torrent.generate())
    (tmp_path / "all.torrent").write_bytes(body)
    session = lt.session({"listen_interfaces": "127.0.0.1:0", "enable_dht": False})
    params = lt.load_torrent_buffer(body)
    params.save_path = str(folder.parent)
    _wait_until_seeding(session.add_torrent(params))
    words = ["--root", tmp_path / "root", "--dataset", packed, "--split", "val"]
    words += ["--torrent", tmp_path / "all.torrent", "--peer"]
    done = run("download", *words, f"127.0.0.1:{session.listen_port()}", *CLOSED)
    assert done.returncode == 0, done.stderr
    assert set(tree(tmp_path / "root" / "archives")) == {".lock", VAL}
    assert tree(tmp_path / "root" / "archives")[VAL] == (packed.parent / VAL).read_bytes()


@pytest.mark.parametrize("as_magnet", [True, False])
def test_a_v2_torrent_is_proved_by_reading_it_back(
    as_magnet: bool, packed: Path, tmp_path: Path, run: Run
) -> None:
    torrent = lt.create_torrent(
        lt.list_files(str(packed.parent / TRAIN)), 16384, lt.create_torrent.v2_only
    )
    lt.set_piece_hashes(torrent, str(packed.parent))
    body = lt.bencode(torrent.generate())
    (tmp_path / "v2.torrent").write_bytes(body)
    session = lt.session({"listen_interfaces": "127.0.0.1:0", "enable_dht": False})
    params = lt.load_torrent_buffer(body)
    params.save_path = str(packed.parent)
    info_hash = str(params.ti.info_hashes().v2)
    _wait_until_seeding(session.add_torrent(params))
    source = ["--torrent", tmp_path / "v2.torrent"]
    if as_magnet:
        source = ["--magnet", f"magnet:?xt=urn:btmh:1220{info_hash}"]
    words = ["--root", tmp_path / "root", "--dataset", packed, "--split", "train", *source]
    done = run("download", *words, "--peer", f"127.0.0.1:{session.listen_port()}", *CLOSED)
    assert done.returncode == 0, done.stderr
    arrived = tmp_path / "root" / "archives" / TRAIN
    assert arrived.read_bytes() == (packed.parent / TRAIN).read_bytes()


def test_a_hostile_name_cannot_leave_the_root(packed: Path, tmp_path: Path, run: Run) -> None:
    info = {
        b"name": b"../../../escaped",
        b"piece length": 16384,
        b"pieces": hashlib.sha1(b"x").digest(),
        b"files": [{b"length": 1, b"path": [b"..", b"..", b"escaped"]}],
    }
    (tmp_path / "bad.torrent").write_bytes(lt.bencode({b"info": info}))
    words = ["--root", tmp_path / "root", "--dataset", packed, "--torrent"]
    done = run("download", *words, tmp_path / "bad.torrent", *CLOSED)
    assert done.returncode == 4, done.stderr
    assert "escaped; packed has" in done.stderr
    assert not list(tmp_path.rglob("escaped*"))


def test_a_torrent_of_another_size_is_refused(packed: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / VAL).write_bytes(b"not it")
    (tmp_path / "val.torrent").write_bytes(make_torrent(tmp_path / VAL))
    words = ["--root", tmp_path / "root", "--dataset", packed, "--split", "val", "--torrent"]
    done = run("download", *words, tmp_path / "val.torrent", *CLOSED)
    assert done.returncode == 4
    assert "has 6 bytes; packed has" in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--magnet", "magnet:?xt=urn:btih:12"], 2, "has 2 digits"),
        (["--peer", "nowhere"], 2, "is not HOST:PORT"),
        (["--listen", "nowhere"], 2, "is not an address"),
        (["--max-down", "fast"], 2, "is not a number of bytes"),
        (["--torrent", __file__], 1, "cannot be read"),
    ],
)
def test_a_bad_word_is_told(
    words: list[str], code: int, told: str, tmp_path: Path, run: Run
) -> None:
    done = run("download", "--root", tmp_path / "root", *words)
    assert done.returncode == code, done.stderr
    assert told in done.stderr
    assert "Hint: " in done.stderr
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("with_metadata", [True, False])
def test_a_dead_swarm_is_given_up(
    with_metadata: bool, packed: Path, tmp_path: Path, run: Run
) -> None:
    body = make_torrent(packed.parent / TRAIN)
    (tmp_path / "train.torrent").write_bytes(body)
    source = ["--torrent", tmp_path / "train.torrent"]
    if not with_metadata:
        source = ["--magnet", f"magnet:?xt=urn:btih:{read_torrent(body).info_hash}"]
    words = ["--root", tmp_path / "root", "--dataset", packed, "--split", "train", *source]
    done = run("download", *words, "--wait", "2s", *CLOSED)
    assert done.returncode == 3
    assert "no peer was found; --wait ends in" in done.stderr
    assert "no peer was found; nothing came for 0:02" in done.stderr
    assert ("metadata" in done.stderr) == (not with_metadata)


@pytest.mark.parametrize(
    ("manners", "reason", "hint"),
    [
        ({"lacks": {12}}, r"1 of 13 pieces missing, and no connected peer \(of 1\) has", "another"),
        ({"wrong": {0, 12}}, r"127.0.0.1:PORT sent \d wrong pieces?, and \d+ of 13", "another"),
        ({"choking": True}, r"13 of 13 pieces missing, and 1 conn.* \(choked\)", "--wait"),
        ({"answers": False}, r"no peer stays connected \(127.0.0.1:PORT: [A-Z]", "firewall"),
        (None, r"no peer stays connected \(127.0.0.1:PORT: Connection refused\)", "firewall"),
    ],
    ids=["lacks the last piece", "sends wrong pieces", "chokes", "hangs up", "is not there"],
)
def test_what_the_peers_do_in_place_of_sending_is_told(
    manners: dict[str, object] | None, reason: str, hint: str,
    packed: Path, tmp_path: Path, here: Run,
) -> None:  # fmt: skip
    archive = packed.parent / TRAIN
    torrent = make_torrent(archive, piece_bytes=16384)
    (tmp_path / "train.torrent").write_bytes(torrent)
    with peer(torrent, archive.read_bytes()) as other:
        vars(other).update(manners or {})
        if manners is None:
            other.close()
        words = ["--root", tmp_path / "root", "--dataset", packed, "--split", "train", *CLOSED]
        words += ["--torrent", tmp_path / "train.torrent", "--peer", other.address]
        reason = re.sub("PORT", other.address.rpartition(":")[2], reason)
        told = given_up(here, words, reason)
    assert hint in told


def given_up(run: Run, words: list[object], reason: str) -> str:
    """The hint of a download that is given up for `reason`: on a busy machine, where the peer was
    not reached in three seconds, after a longer wait.
    """
    for wait_s in (3, 10, 30):
        done = run("download", *words, "--wait", f"{wait_s}s")
        assert done.returncode == 3, done.stderr
        error, hint = done.stderr.splitlines()[-2:]
        assert error.endswith(f"; nothing came for 0:{wait_s:02}")
        if re.search(reason, error):
            return str(hint)
    raise AssertionError(done.stderr)


def test_a_peer_that_tells_no_metadata_is_told(packed: Path, tmp_path: Path, here: Run) -> None:
    torrent = make_torrent(packed.parent / TRAIN)
    with peer(torrent, b"") as other:
        magnet = f"&quot;magnet:?xt=urn:btih:{read_torrent(torrent).info_hash}&amp;dn=a&quot;"
        words = ["--root", tmp_path, "--dataset", packed, "--split", "train", "--magnet", magnet]
        words += [*CLOSED, "--peer", other.address]
        given_up(here, words, "metadata of a: 1 connected peer sent nothing")


def test_terminated_it_keeps_what_is_proved(four_megabytes: Path, tmp_path: Path) -> None:
    toml, archive = four_megabytes, four_megabytes.parent / TRAIN
    with seeded([archive]) as seeder:
        words = ["download", "--root", tmp_path / "root", "--dataset", toml, *CLOSED]
        words += [*_magnets(seeder.magnets), "--peer", seeder.peer, "--max-down", "1MB"]
        process = subprocess.Popen(command(*words), stderr=subprocess.PIPE, text=True)
        part = tmp_path / "root" / "archives" / f"{TRAIN}.part"
        while not part.exists() or part.stat().st_blocks * 512 < 1_500_000:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate()
    assert process.returncode == 143
    assert "run the same command to resume" in stderr
    body = make_torrent(archive)
    record = lt.bdecode(record_path(part.parent, read_torrent(body).info_hash).read_bytes())
    assert sum(byte.bit_count() for byte in record[b"proved"]) > 0


@pytest.fixture(scope="module")
def four_megabytes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("four")
    return pack_dataset(folder, classes=2, train_per_class=50, val_per_class=0, image_bytes=40_000)


def test_a_disk_that_is_too_small_is_told_before_the_first_byte(
    four_megabytes: Path, small_disk: Path, run: Run
) -> None:
    (small_disk / "full").write_bytes(bytes(3_000_000))
    with seeded([four_megabytes.parent / TRAIN]) as seeder:
        words = ["--root", small_disk, "--dataset", four_megabytes, *CLOSED]
        done = run("download", *words, *_magnets(seeder.magnets), "--peer", seeder.peer)
    assert done.returncode == 1
    assert "to download packed needs" in done.stderr and "Hint: free " in done.stderr
    assert not (small_disk / "archives" / f"{TRAIN}.part").exists()


def test_a_disk_that_fills_up_loses_nothing(
    four_megabytes: Path, small_disk: Path, run: Run
) -> None:
    with seeded([four_megabytes.parent / TRAIN]) as seeder:
        words = ["download", "--root", small_disk, "--dataset", four_megabytes, *CLOSED]
        words += [*_magnets(seeder.magnets), "--peer", seeder.peer]
        slow = command(*words, "--max-down", "1MB")
        process = subprocess.Popen(slow, stderr=subprocess.PIPE, text=True)
        part = small_disk / "archives" / f"{TRAIN}.part"
        while not part.exists() or part.stat().st_blocks * 512 < 1_000_000:
            time.sleep(0.01)
        with contextlib.suppress(OSError), (small_disk / "full").open("wb") as full:
            full.write(bytes(6_000_000))
        _, stderr = process.communicate()
        assert process.returncode == 1
        assert f"{part}: No space left on device" in stderr, stderr
        (small_disk / "full").unlink()
        done = run(*words)
        assert done.returncode == 0, done.stderr
    assert part.with_suffix("").read_bytes() == (four_megabytes.parent / TRAIN).read_bytes()


def test_seeds_afterwards_as_long_as_asked(packed: Path, tmp_path: Path, run: Run) -> None:
    with seeded([packed.parent / VAL]) as seeder:
        words = ["--root", tmp_path, "--dataset", packed, "--split", "val", *CLOSED]
        words += [*_magnets(seeder.magnets), "--peer", seeder.peer, "--seed-for", "1s"]
        begun = time.monotonic()
        done = run("download", *words)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - begun > 1


def test_dry_run_asks_nobody_and_touches_nothing(tmp_path: Path, run: Run) -> None:
    done = run("download", "--root", tmp_path / "root", "--dry-run")
    assert done.returncode == 0
    assert done.stdout == (
        "ILSVRC2012_img_train.tar: to fetch, 148 GB\nILSVRC2012_img_val.tar: to fetch, 6.74 GB\n"
    )
    assert not (tmp_path / "root").exists()


def test_nothing_is_fetched_beside_another_state_of_an_archive(
    packed: Path, tmp_path: Path, run: Run
) -> None:
    words = ["download", "--root", tmp_path, "--dataset", packed, "--split", "val"]
    words += ["--magnet", f"magnet:?xt=urn:btih:{'a' * 40}", "--dry-run"]
    (tmp_path / "archives").mkdir()
    archive = tmp_path / "archives" / "ILSVRC2012_img_val.tar"
    archive.write_bytes(b"whole")
    archive.with_name(f"{archive.name}.part").write_bytes(b"part")
    assert "both" in run(*words).stderr
    archive.rename(f"{archive}.consumed")
    assert "--consume resumes it" in run(*words).stderr
