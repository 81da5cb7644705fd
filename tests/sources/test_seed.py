"""`imnetprep seed`: verified archives, or any file, go to whoever asks."""

import shutil
import subprocess
from pathlib import Path

from imnetprep.sources.seeder import make_torrent
from imnetprep.sources.torrent import read_torrent
from tests.conftest import Run, command
from tests.servers import free_port

TRAIN, VAL = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"


def test_what_a_root_has_verified_is_seeded(packed: Path, tmp_path: Path, here: Run) -> None:
    folder = Path(shutil.copytree(packed.parent, tmp_path / "published"))
    toml = folder / packed.name
    (folder / "t").write_bytes(make_torrent(folder / TRAIN))
    line = f'name = "{TRAIN}"'
    toml.write_text(toml.read_text().replace(line, f'{line}\ntorrent = "t"'))
    one, other = tmp_path / "one", tmp_path / "other"
    done = here("seed", "--root", one, "--dataset", toml)
    assert (done.returncode, "has no archive that its torrent" in done.stderr) == (1, True)
    assert here("download", folder, "--root", one, "--dataset", toml).returncode == 0
    port = free_port()
    words = ["seed", "--root", one, "--no-dht", "--listen", f"127.0.0.1:{port}"]
    with subprocess.Popen(command(*words), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            info_hash = read_torrent((folder / "t").read_bytes()).info_hash
            assert info_hash in process.stdout.readline(), "the other has no torrent of its own"
            peer = ["--peer", f"127.0.0.1:{port}", "--no-dht", "--listen", "127.0.0.1:0"]
            words = ["download", "--root", other, "--dataset", toml, "--split", "train"]
            done = here(*words, *peer, "--wait", "20s")
            assert done.returncode == 0, done.stderr
        finally:
            process.kill()
    assert (other / "archives" / TRAIN).read_bytes() == (folder / TRAIN).read_bytes()


def test_a_torrent_is_made_of_any_file(tmp_path: Path, here: Run) -> None:
    path = tmp_path / "photos of mine.tar"
    path.write_bytes(b"photos" * 10_000)
    for _ in range(2):  # the second finds it there
        done = here("seed", path, "--make-torrent")
        assert done.returncode == 0, done.stderr
    torrent = read_torrent((tmp_path / "photos of mine.tar.torrent").read_bytes())
    assert f"urn:btih:{torrent.info_hash}&dn=photos%20of%20mine.tar" in done.stdout
    path.write_bytes(b"others" * 10_000)
    done = here("seed", path, "--make-torrent")
    assert (done.returncode, "is there, of another file" in done.stderr) == (1, True)
    done = here("seed", "--make-torrent", "--root", tmp_path)
    assert (done.returncode, "is for files" in done.stderr) == (2, True)
    done = here("seed", path, "--for", "1s", "--no-dht", "--listen", "127.0.0.1:0")
    assert done.returncode == 0, done.stderr
