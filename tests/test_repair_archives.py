"""Of a damaged archive just the wrong pieces are fetched, from the swarm or a web server."""

import shutil
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from imnetprep.catalog.datasets import Root
from imnetprep.messages import ImnetprepError, Silent, SourceFailed, WrongBytes
from imnetprep.repair_archives import Swarm, carry_out_archive_repair, plan_archive_repair
from imnetprep.sources.part_files import PartFiles, record_path
from imnetprep.sources.seeder import Seed, add_seed
from imnetprep.sources.session import Network, listening_port, open_session, parse_peer
from imnetprep.sources.torrent import read_torrent
from tests.conftest import PIECE, TRAIN, VAL, Run, receipt_of, spoil, tree
from tests.http_server import Answering, http_served


class _Peer:
    """A seeder of the train archive by its published torrent."""

    def __init__(self, published: Path) -> None:
        self._session = open_session(Network(listen="127.0.0.1:0", dht=False))
        self._published = published.parent

    def __enter__(self) -> "_Peer":
        session = self._session.__enter__()
        torrent = (self._published / "train.torrent").read_bytes()
        self._handle = add_seed(session, Seed(torrent, {0: self._published / TRAIN}))
        self.address = f"127.0.0.1:{listening_port(session)}"
        return self

    def __exit__(self, *_: object) -> None:
        self._session.__exit__(None, None, None)

    def sent_bytes(self) -> int:
        return int(self._handle.status().total_payload_upload)


def _repair(path: Path, *, peer: str = "127.0.0.1:1", address: str | None = None) -> None:
    root, silent = Root(path), Silent()
    network = Network(listen="127.0.0.1:0", dht=False, peers=(parse_peer(peer),))
    plan = plan_archive_repair(root, None, splits=(), jobs=None, progress=silent)
    source = address or Swarm(network, wait_s=10)
    for _ in carry_out_archive_repair(plan, root, source=source, jobs=None, progress=silent):
        pass


def test_only_the_wrong_pieces_come_from_the_swarm(
    archived: Path, published: Path, run: Run
) -> None:
    path = archived / "archives" / TRAIN
    assert run("verify-archives", "--root", archived).returncode == 0
    for start in (9 * PIECE + 10_240, 20 * PIECE):
        spoil(path, start)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1000)
    (archived / "archives" / VAL).unlink()
    with _Peer(published) as peer:
        _repair(archived, peer=peer.address)
        assert 2 * PIECE < peer.sent_bytes() <= 3 * PIECE + 3 * 16384
    assert path.read_bytes() == (published.parent / TRAIN).read_bytes()
    assert {each.name for each in path.parent.iterdir()} == {".lock", TRAIN}
    assert receipt_of(archived)["archives"][TRAIN]
    assert run("verify-archives", "--root", archived).returncode == 0


def test_killed_before_it_has_a_record_it_trusts_no_older_one(
    archived: Path, published: Path
) -> None:
    path = archived / "archives" / TRAIN
    torrent = read_torrent((published.parent / "train.torrent").read_bytes())
    path.rename(path.with_name(f"{TRAIN}.part"))
    earlier = PartFiles(torrent, {0: path})
    earlier.recover(Silent())
    earlier.save()  # all right, and killed before this record went
    earlier.finish()
    spoil(path, 9 * PIECE)
    right = set(earlier.pieces) - {9}
    PartFiles(torrent, {0: path}).begin_with(right)
    assert not record_path(path.parent, torrent.info_hash).exists()
    again = PartFiles(torrent, {0: path})
    again.recover(Silent())
    assert again.proved_pieces == right


def test_without_a_torrent_nothing_is_called_right(archived: Path) -> None:
    (archived / "archives" / TRAIN).unlink()
    with pytest.raises(ImnetprepError, match="has no torrent of"):
        _repair(archived)


@pytest.mark.parametrize("kind", ["swarm", "web"])
def test_killed_it_goes_on_with_the_pieces_that_it_has(
    kind: str, archived: Path, published: Path, served: "_Served"
) -> None:
    path = archived / "archives" / TRAIN
    (archived / "archives" / VAL).unlink()
    spoil(path, 2 * PIECE, 12 * PIECE)
    part = path.with_name(f"{TRAIN}.part")
    with _Peer(published) as peer:
        address = served.address if kind == "web" else None
        served.pieces_until_held = 4
        words = "from tests.test_repair_archives import _repair; from pathlib import Path;"
        words += f"_repair(Path({str(archived)!r}), peer={peer.address!r}, address={address!r})"
        process = subprocess.Popen([sys.executable, "-c", words])
        while process.poll() is None and not part.exists():
            time.sleep(0.002)
        while kind == "web" and _wrong_pieces(part, published) > 12 - 3:
            assert process.poll() is None
            time.sleep(0.002)
        process.kill()
        process.wait()
        assert not path.exists() or path.read_bytes() == (published.parent / TRAIN).read_bytes()
        served.release.set()
        _repair(archived, peer=peer.address, address=address)
        if kind == "web":
            assert served.sent_bytes < 12 * PIECE + 2 * PIECE, "and not all of it twice"
    assert path.read_bytes() == (published.parent / TRAIN).read_bytes()


def _wrong_pieces(path: Path, published: Path) -> int:
    found, right = path.read_bytes(), (published.parent / TRAIN).read_bytes()
    starts = range(0, len(right), PIECE)
    return sum(found[at : at + PIECE] != right[at : at + PIECE] for at in starts)


class _Served:
    """A web server of the published folder that does ranges, and can cut, lie or do without."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.sent_bytes, self.requests = folder, 0, 0
        self.cut_after: int | None = None  # bytes of the next response
        self.ranges, self.lies = True, False
        self.pieces_until_held: int | None = None  # then it sends nothing until `release`
        self.release = threading.Event()
        self.address = ""

    def send(self, request: Answering) -> None:
        self.requests += 1
        body = (self.folder / request.path.strip("/")).read_bytes()
        size_bytes = len(body)
        if self.ranges:
            start, last = map(int, request.headers["Range"].removeprefix("bytes=").split("-"))
            body = body[start : last + 1]
            if self.lies:
                body = bytes(len(body))
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {start}-{last}/{size_bytes}")
        else:
            request.send_response(200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if self.cut_after is not None:
            body, self.cut_after = body[: self.cut_after], None
        for at in range(0, len(body), PIECE):
            if self.sent_bytes // PIECE == self.pieces_until_held:
                self.release.wait()
            try:
                request.wfile.write(body[at : at + PIECE])
            except OSError:
                return
            self.sent_bytes += len(body[at : at + PIECE])


@pytest.fixture
def served(published: Path) -> Iterator[_Served]:
    state = _Served(published.parent)

    class Handler(Answering):
        def do_GET(self) -> None:
            state.send(self)

    with http_served(Handler) as server:
        state.address = f"http://127.0.0.1:{server.server_port}/"
        yield state


@pytest.fixture
def spoiled(archived: Path) -> Path:
    """The root with two wrong pieces of its train archive, and no other archive."""
    (archived / "archives" / VAL).unlink()
    for start in (9 * PIECE + 10_240, 20 * PIECE):
        spoil(archived / "archives" / TRAIN, start)
    return archived


def _is_right(root: Path, published: Path) -> bool:
    path = root / "archives" / TRAIN
    return path.exists() and path.read_bytes() == (published.parent / TRAIN).read_bytes()


def test_only_the_wrong_pieces_come_from_a_web_server(
    spoiled: Path, published: Path, served: _Served
) -> None:
    _repair(spoiled, address=served.address)
    assert _is_right(spoiled, published)
    assert (served.sent_bytes, served.requests) == (2 * PIECE + 1, 3)  # one asks for the size
    assert receipt_of(spoiled)["archives"][TRAIN]


def test_a_dry_run_says_how_much_is_wrong_and_touches_nothing(spoiled: Path, here: Run) -> None:
    before = tree(spoiled)
    done = here("repair-archives", "--root", spoiled, "--dry-run")
    assert done.stdout == f"{spoiled / 'archives' / TRAIN}: 131 kB to fetch\n", done.stderr
    assert tree(spoiled) == before


def test_archives_are_judged_by_the_dataset_that_is_named(
    published: Path, tmp_path: Path, here: Run
) -> None:
    folder = ["--archives", published.parent, "--root", tmp_path / "none", "--dry-run"]
    done = here("repair-archives", *folder, "--dataset", published, "--split", "train")
    assert (done.returncode, done.stdout) == (0, f"{published.parent / TRAIN}: all pieces right\n")
    done = here("repair-archives", *folder, "--split", "train")
    assert done.returncode == 1, "by ilsvrc2012, the default, it is another file"
    assert "this is another file" in done.stderr
    assert not (tmp_path / "none").exists()


def test_a_body_that_ends_early_is_taken_up_where_it_ended(
    spoiled: Path, published: Path, served: _Served
) -> None:
    served.cut_after = 0
    _repair(spoiled, address=f"{served.address}{TRAIN}")
    assert _is_right(spoiled, published)
    assert served.requests == 4


def test_a_server_that_cannot_be_used_is_refused_and_harms_nothing(
    spoiled: Path, published: Path, served: _Served
) -> None:
    archive, part = (spoiled / "archives" / name for name in (TRAIN, f"{TRAIN}.part"))
    before = archive.read_bytes()
    served.ranges = False
    with pytest.raises(SourceFailed, match="gives no byte ranges"):
        _repair(spoiled, address=served.address)
    assert archive.read_bytes() == before
    served.ranges, served.lies = True, True
    with pytest.raises(WrongBytes, match=r"2 of the pieces of .* that were sent"):
        _repair(spoiled, address=served.address)
    assert part.read_bytes() == before
    served.lies = False
    with pytest.raises(SourceFailed, match="refused"):
        _repair(spoiled, address="http://127.0.0.1:1/")
    with pytest.raises(ImnetprepError, match="is no source of archives"):
        _repair(spoiled, address="ftp://127.0.0.1/")
    assert not (spoiled / "archives" / TRAIN).exists()
    _repair(spoiled, address=served.address)
    assert _is_right(spoiled, published)


def test_a_certificate_must_be_vouched_for_and_https_stays_https(
    spoiled: Path, tmp_path: Path, served: _Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    words += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    if not shutil.which("openssl"):
        pytest.skip("openssl, which makes the certificate, is not installed")
    pair = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    subprocess.run([*words, *pair], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")

    class SendsOn(Answering):
        def do_GET(self) -> None:
            self.answer(status=302, headers={"Location": f"{served.address}{TRAIN}"})

    with http_served(SendsOn) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        address = f"https://127.0.0.1:{server.server_port}/"
        with pytest.raises(SourceFailed, match="CERTIFICATE_VERIFY_FAILED"):
            _repair(spoiled, address=address)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        with pytest.raises(SourceFailed, match="from https to http"):
            _repair(spoiled, address=address)
        assert served.requests == 0


def test_another_file_and_one_that_is_too_long_are_left_alone(archived: Path, here: Run) -> None:
    (archived / "archives" / VAL).unlink()
    path = archived / "archives" / TRAIN
    right = path.read_bytes()
    for body, told in ((right + b"more", "has .* bytes; the torrent's"), (b"mine" * 9, "another")):
        path.write_bytes(body)
        with pytest.raises(ImnetprepError, match=told):
            _repair(archived)
        assert path.read_bytes() == body
    path.write_bytes(right)
    shutil.copy(path, path.with_name(f"{TRAIN}.part"))
    with pytest.raises(ImnetprepError, match=r"both .* are there"):
        _repair(archived)
    path.with_name(f"{TRAIN}.part").unlink()
    done = here("repair-archives", "--root", archived)
    assert "all pieces right" in done.stdout, done.stderr
