"""`imnetprep download ADDRESS…`: from any server the same file, whole or absent, and proved."""

import hashlib
import os
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from imnetprep.messages import ImnetprepError, SourceFailed, WrongBytes, WrongUsage
from imnetprep.sources.seeder import make_torrent, seeded
from tests.conftest import Run, receipt_of, tree
from tests.http_server import Answering, http_served
from tests.servers import WebServer, web_served
from tests.sources.downloads import (
    BODY,
    OTHER_BODY,
    Notes,
    StandIn,
    fail_from,
    fetched,
    names_in,
    served,
)
from tests.stopped import run_stopped

TRAIN, VAL = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
SHA256 = hashlib.sha256(BODY).hexdigest()
PIECE = 1 << 14


@pytest.fixture
def server(small: None) -> Iterator[StandIn]:
    with served() as server:
        yield server


def test_from_a_web_server_to_the_same_tree(
    packed: Path, organized_once: Path, tmp_path: Path, here: Run
) -> None:
    root = ["--root", tmp_path]
    with web_served(packed.parent) as web:
        web.fail_every, web.cut_every = 5, 7
        words = [*root, "--dataset", packed, web.address]
        done = here("download", *words, "--dry-run")
        assert f"{VAL}: to fetch" in done.stdout
        assert f"from {web.address}/{VAL}" in done.stdout
        assert not (tmp_path / "archives").exists()
        assert here("download", *words).returncode == 0
        requests = len(web.asked)
        done = here("download", *words)
        assert (done.returncode, done.stdout.count("nothing to fetch")) == (0, 2), done.stderr
        assert len(web.asked) == requests, "the second time nobody is asked"
    assert names_in(tmp_path) == [TRAIN, VAL]
    assert {receipt_of(tmp_path)["archives"][name]["proof"]["kind"] for name in (TRAIN, VAL)} == {  # type: ignore[index]
        "md5"
    }
    assert here("organize", *root).returncode == 0
    for split in ("train", "val"):
        assert tree(tmp_path / split) == tree(organized_once / split)


def test_a_dataset_is_fetched_from_where_it_is_published(packed: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(packed.parent, tmp_path / "published"))
    toml = folder / packed.name
    with web_served(packed.parent) as web:
        lines = []
        for line in toml.read_text().splitlines():
            lines.append(line)
            if match := re.fullmatch(r'name = "(.*\.tar)"', line):
                lines.append(f'url = "{web.address}/{match[1]}"')
        toml.write_text("\n".join(lines))
        results = fetched(tmp_path / "root", dataset=toml)
    assert [(each.name, each.is_new) for each in results] == [(TRAIN, True), (VAL, True)]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["imagenette-160"], "imagenette2-160.tgz: to fetch, 99 MB from https://s3.amazonaws"),
        (["https://h/x/imagewoof2-160.tgz"], "imagewoof2-160.tgz: to fetch, size not known from"),
        (["--split", "test"], "ILSVRC2012_img_test_v10102019.tar: to fetch, size not known from"),
        (["magnet:?xt=urn:btih:lvwq357nqhx5jhfjt2shg7qk4xr2l4xf", "--split", "val"],
         "ILSVRC2012_img_val.tar: to fetch, 6.74 GB\n"),
        (["kaggle:competitions/imagenet-object-localization-challenge"],
         "imagenet-object-localization-challenge.zip: to fetch"),
        (["gdrive:1AbCdEfGhIjKlMnOpQrStUvWxYz0123456"], "gdrive:1AbC"),
        (["github:me/x@v1#imagewoof2-160.tgz"], "imagewoof2-160.tgz: to fetch, "),
        (["mnist", "--split", "val"], "t10k-labels-idx1-ubyte.gz: to fetch, 4.54 kB from"),
    ],
)  # fmt: skip
def test_a_word_says_what_is_fetched(
    words: list[str], sentence: str, tmp_path: Path, here: Run
) -> None:
    done = here("download", *words, "--root", tmp_path, "--dry-run")
    assert sentence in done.stdout, done.stderr
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["imagenette", "cifar10"], 2, "two datasets"),
        (["imagenette", "--dataset", "cifar10"], 2, "two datasets"),
        (["ftp://host/x.tar"], 2, "is no source of archives"),
        (["/nowhere/x.tar"], 1, "/nowhere/x.tar is not there"),
        (["file://host/x.tar"], 2, "is a file of host"),
        (["-"], 2, "a pipe is no address"),
        (["https://h/x.tar", "--digest", "sha256:12"], 2, "is no digest"),
        (["https://h/x.tar", "https://h/y.tar", "--digest", f"md5:{'0' * 32}"], 2, "of one file"),
        (["//[x"], 1, "is not there"),
        (["https://h/x.tar", "--no-sign-request"], 2, "only a bucket"),
        (["https://h/..%2F..%2Fevil.tar"], 2, "is no name for a file here"),
        (["https://h/%2Ftmp%2Fevil.tar"], 2, "is no name for a file here"),
        (["https://h/a%0ab.tar"], 2, "is no name for a file here"),
        (["https://h/a%00b.tar"], 2, "is no name for a file here"),
        (["https://u:pw@[::1/set.tar"], 2, "is no address"),
        (["https://h/ILSVRC2012_img_val.tar", "--split", "train"], 2, "has val, not train"),
    ],
)
def test_a_word_that_says_nothing_is_refused(
    words: list[str], code: int, sentence: str, tmp_path: Path, here: Run
) -> None:
    done = here("download", *words, "--root", tmp_path)
    assert (done.returncode, sentence in done.stderr) == (code, True), done.stderr
    assert not any(tmp_path.iterdir())


def test_a_file_is_copied_from_this_machine(packed: Path, tmp_path: Path) -> None:
    path = packed.parent / VAL
    for number, address in enumerate((path, f"file://{path}", packed.parent)):
        (result, *_) = fetched(tmp_path / str(number), address, dataset=packed)
        copy = tmp_path / str(number) / "archives" / result.name
        assert copy.read_bytes() == (packed.parent / result.name).read_bytes()
        assert copy.stat().st_nlink == 1, "--consume and repair write into it"
        assert result.proof.as_json()["kind"] == "md5"


def test_what_proves_a_file_of_ones_own(server: StandIn, tmp_path: Path) -> None:
    (result,) = fetched(tmp_path / "a", server.address, digest=("sha256", SHA256))
    assert result.proof.as_json() == {"kind": "sha256", "digest": SHA256}
    server.headers["x-goog-hash"] = "md5=" + "AAAAAAAAAAAAAAAAAAAAAA=="
    with pytest.raises(WrongBytes, match="its md5 is not 0000"):
        fetched(tmp_path / "b", server.address)
    server.headers = {"X-Linked-Etag": f'"{SHA256}"'}
    (result,) = fetched(tmp_path / "c", server.address)
    assert result.proof.as_json() == {"kind": "sha256", "digest": SHA256, "of": server.address}
    server.headers = {}
    (result,) = fetched(tmp_path / "d", server.address)
    assert result.proof.describe() == "not verified: its server says nothing of its bytes"
    assert not (tmp_path / "d" / "manifest.db").exists(), "it is of no known dataset"


def test_a_wrong_digest_leaves_nothing_under_the_name(server: StandIn, tmp_path: Path) -> None:
    with pytest.raises(WrongBytes, match="its sha256 is not 1111") as refused:
        fetched(tmp_path, server.address, digest=("sha256", "1" * 64))
    assert names_in(tmp_path) == ["set.tar.wrong"]
    assert "set.tar.wrong" in refused.value.hint
    assert refused.value.exit_code == 4
    fetched(tmp_path, server.address, digest=("sha256", SHA256))
    assert names_in(tmp_path) == ["set.tar", "set.tar.wrong"]


def test_a_file_of_that_name_is_not_replaced(server: StandIn, tmp_path: Path) -> None:
    path = tmp_path / "archives" / "set.tar"
    path.parent.mkdir()
    path.write_bytes(BODY)
    with pytest.raises(ImnetprepError, match="nothing says what it is"):
        fetched(tmp_path, server.address)
    with pytest.raises(ImnetprepError, match="its sha256 is not 1111"):
        fetched(tmp_path, server.address, digest=("sha256", "1" * 64))
    (result,) = fetched(tmp_path, server.address, digest=("sha256", SHA256))
    assert (result.is_new, server.requests, path.read_bytes()) == (False, 0, BODY)


def test_a_file_of_another_address_is_not_taken_for_that_of_this_one(
    server: StandIn, tmp_path: Path
) -> None:
    """They share a name, and nothing but a digest would tell them apart."""
    fetched(tmp_path, server.address)
    (result,) = fetched(tmp_path, server.address)
    assert not result.is_new
    other = server.address.replace("/set.tar", "/sub/set.tar")
    with pytest.raises(ImnetprepError, match=f"is there, and it is from {server.address}"):
        fetched(tmp_path, other)
    (result,) = fetched(tmp_path, other, digest=("sha256", SHA256))
    assert not result.is_new


def test_a_file_of_another_folder_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever folder it is named from."""
    for name, body in (("one", BODY), ("two", OTHER_BODY)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "set.tar").write_bytes(body)
    monkeypatch.chdir(tmp_path / "one")
    fetched(tmp_path / "root", "set.tar")
    monkeypatch.chdir(tmp_path)
    (result,) = fetched(tmp_path / "root", "one/set.tar")
    assert not result.is_new
    monkeypatch.chdir(tmp_path / "two")
    with pytest.raises(ImnetprepError, match=r"it is from .*one/set\.tar"):
        fetched(tmp_path / "root", "set.tar")


def test_a_file_that_may_be_cut_short_is_not_called_there(tmp_path: Path) -> None:
    class Handler(Answering):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(BODY)

    with http_served(Handler) as server:
        address = f"http://127.0.0.1:{server.server_port}/set.tar"
        (result,) = fetched(tmp_path, address)
        assert "may be cut short" in result.proof.describe()
        with pytest.raises(ImnetprepError, match="it may be cut short") as refused:
            fetched(tmp_path, address)
        assert "set.tar.old" in refused.value.hint


@pytest.mark.parametrize("cuts", [0, 1])
def test_a_file_that_changes_is_begun_anew(server: StandIn, tmp_path: Path, cuts: int) -> None:
    """Between two requests, and behind a body that broke."""
    server.change_at, server.cuts = 5, 10 * cuts
    notes = Notes()
    fetched(tmp_path, server.address, jobs=1, notes=notes)
    assert (tmp_path / "archives" / "set.tar").read_bytes() == OTHER_BODY
    assert [line for line in notes.lines if "has changed while it was read; begun anew" in line]


def test_a_file_that_changes_all_the_time_is_given_up(server: StandIn, tmp_path: Path) -> None:
    def change(_start: int, body: bytes) -> bytes:
        server.etag = f'"{server.requests}"'
        return body

    server.spoil = change
    with pytest.raises(WrongBytes, match="has changed"):
        fetched(tmp_path, server.address)
    assert "set.tar" not in names_in(tmp_path)
    fetched(tmp_path, server.address, digest=("sha256", SHA256))  # which proves them the same


def test_the_part_of_a_pull_is_left_alone(server: StandIn, tmp_path: Path) -> None:
    """Its journal would believe what a download wrote over it."""
    part = tmp_path / "archives" / ".set.tar.fetching"
    part.parent.mkdir()
    part.write_bytes(bytes(len(BODY)))
    server.spoil = fail_from(6 << 15)
    with pytest.raises(SourceFailed):
        fetched(tmp_path, server.address, jobs=1)
    assert part.read_bytes() == bytes(len(BODY))


def test_what_came_before_an_interruption_is_not_fetched_again(
    server: StandIn, tmp_path: Path
) -> None:
    server.spoil = fail_from(6 << 15)
    with pytest.raises(SourceFailed):
        fetched(tmp_path, server.address, jobs=1)
    assert names_in(tmp_path)[:2] == [".download.db", ".set.tar.download"]
    server.spoil = lambda _start, body: body
    before = server.sent_bytes
    notes = Notes()
    fetched(tmp_path, server.address, jobs=1, notes=notes)
    assert (tmp_path / "archives" / "set.tar").read_bytes() == BODY
    assert server.sent_bytes - before < len(BODY) - (6 << 15) + 2
    assert notes.bytes == notes.total == len(BODY)


def test_a_kill_costs_what_was_not_yet_recorded(tmp_path: Path, here: Run) -> None:
    body = random.Random(8).randbytes(12 << 20)
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    with served() as server:
        server.body = body
        words = ["download", server.address, "--jobs", "1", "--digest", digest]
        at = "imnetprep.transfers.journal:PartJournal.keep_fetched:4"
        run_stopped(tmp_path, at, *words)
        assert names_in(tmp_path)[:1] == [".download.db"]
        done = here("status", "--root", tmp_path)
        assert "set.tar  6.29 MB of 12.6 MB fetched (50 %)" in re.sub("  +", "  ", done.stdout)
        done = here("clean", "--root", tmp_path, "--only", "part")
        assert "not whole; imnetprep download" in done.stdout
        before = server.sent_bytes
        fetched(tmp_path, server.address, digest=("sha256", digest[7:]))
        assert server.sent_bytes - before == len(body) - (6 << 20) + 1
    assert (tmp_path / "archives" / "set.tar").read_bytes() == body
    assert names_in(tmp_path) == ["set.tar"]


def test_a_kill_between_the_name_and_the_receipt_loses_no_proof(tmp_path: Path) -> None:
    with served() as server:
        words = ["download", server.address, "--digest", f"sha256:{SHA256}"]
        run_stopped(tmp_path, "imnetprep.proving.receipt:record_archives:1", *words)
        assert not (tmp_path / "receipt.json").exists()
        requests = server.requests
        (result,) = fetched(tmp_path, server.address)
        assert (result.is_new, server.requests) == (False, requests)
    assert result.proof.as_json() == {"kind": "sha256", "digest": SHA256}
    assert names_in(tmp_path) == ["set.tar"]


def test_a_server_without_ranges_is_read_in_one_stream(server: StandIn, tmp_path: Path) -> None:
    server.ranges, server.cuts = False, 3
    notes = Notes()
    fetched(tmp_path, server.address, digest=("sha256", SHA256), notes=notes)
    assert (tmp_path / "archives" / "set.tar").read_bytes() == BODY
    assert sum("begun anew" in line for line in notes.lines) == 1, notes.lines
    assert any("comes in one stream" in line for line in notes.lines)
    server.headers["Content-Type"] = "text/html; charset=utf-8"
    with pytest.raises(SourceFailed, match="the server sends a web page"):
        fetched(tmp_path / "other", server.address)


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("../evil.tar", "evil.tar"),
        ("..", None),
        (".hidden", None),
        ("%2e%2e", None),
        ("a%2Fb", "b"),
    ],
)
def test_a_name_that_a_server_gives_leads_nowhere(
    server: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, name: str | None
) -> None:
    monkeypatch.setattr("imnetprep.sources.drive._SITE", server.address.rpartition("/")[0])
    server.headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{said}"
    root = tmp_path / "root"
    if name is None:
        with pytest.raises(SourceFailed, match="is no name for a file here"):
            fetched(root, f"gdrive:{'1' * 30}")
    else:
        fetched(root, f"gdrive:{'1' * 30}")
        assert names_in(root) == [name]
    assert list(tmp_path.iterdir()) == [root]


@pytest.fixture
def torrents(packed: Path, tmp_path: Path) -> Path:
    """The definition of `packed`, with a torrent of each archive."""
    folder = Path(shutil.copytree(packed.parent, tmp_path / "published"))
    toml = folder / packed.name
    text = toml.read_text()
    for name in (TRAIN, VAL):
        (folder / f"{name}.torrent").write_bytes(make_torrent(folder / name, piece_bytes=PIECE))
        text = text.replace(f'name = "{name}"', f'name = "{name}"\ntorrent = "{name}.torrent"')
    toml.write_text(text)
    return toml


def test_a_torrent_file_on_a_server_is_read_there(packed: Path, tmp_path: Path, here: Run) -> None:
    folder = Path(shutil.copytree(packed.parent, tmp_path / "published"))
    (folder / "own.torrent").write_bytes(make_torrent(folder / VAL))
    (folder / "no.torrent").write_bytes(b"<html>")
    with web_served(folder) as web, seeded([folder / VAL]) as seeder:
        words = ["download", "--dataset", packed, "--split", "val", "--peer", seeder.peer]
        words += ["--no-dht", "--listen", "127.0.0.1:0", "--root"]
        for number, ranges in enumerate((True, False)):
            web.ranges = ranges
            root = tmp_path / str(number)
            done = here(*words, root, f"{web.address}/own.torrent")
            assert done.returncode == 0, done.stderr
            assert (root / "archives" / VAL).read_bytes() == (folder / VAL).read_bytes()
        done = here(*words, tmp_path / "no", f"{web.address}/no.torrent")
        assert (done.returncode, ".torrent cannot be read" in done.stderr) == (1, True)


class Liar(WebServer):
    """Serves files with a bit flipped in each range."""

    def lie(self, folder: Path) -> None:
        """Serve copies of the files in `folder`, all of them wrong."""
        for name in (TRAIN, VAL):
            body = bytearray((folder / name).read_bytes())
            for at in range(PIECE // 2, len(body), PIECE):
                body[at] ^= 1
            (self.folder / name).write_bytes(body)


def test_of_two_mirrors_the_one_that_lies_is_named(torrents: Path, tmp_path: Path) -> None:
    lies = tmp_path / "lies"
    lies.mkdir()
    Liar(lies).lie(torrents.parent)
    notes = Notes()
    with web_served(torrents.parent) as web, web_served(lies) as liar:
        addresses = [f"{liar.address}/{TRAIN}", f"{web.address}/{TRAIN}"]
        (result,) = fetched(tmp_path / "root", *addresses, dataset=torrents, notes=notes)
        assert result.proof.as_json()["kind"] == "torrent"
        assert any(line.startswith(f"{liar.address}/{TRAIN}: piece") for line in notes.lines)
        assert not any(web.address in line for line in notes.lines)
        with pytest.raises(WrongBytes, match="of the pieces of"):
            fetched(tmp_path / "other", addresses[0], dataset=torrents)
    copy = tmp_path / "root" / "archives" / TRAIN
    assert copy.read_bytes() == (torrents.parent / TRAIN).read_bytes()


def test_a_mirror_that_is_down_or_has_another_file_is_left_out(
    torrents: Path, packed: Path, tmp_path: Path
) -> None:
    """By pieces, and by a digest of the whole, one after the other."""
    lies = tmp_path / "lies"
    lies.mkdir()
    Liar(lies).lie(torrents.parent)
    with web_served(torrents.parent) as web, web_served(lies) as liar, served() as other:
        other.address = other.address.replace("set.tar", VAL)
        for number, dataset in enumerate((torrents, packed)):
            notes = Notes()
            addresses = [f"http://127.0.0.1:1/{VAL}", other.address, f"{liar.address}/{VAL}"]
            words = [*addresses, f"{web.address}/{VAL}"]
            fetched(tmp_path / str(number), *words, dataset=dataset, notes=notes)
            copy = tmp_path / str(number) / "archives" / VAL
            assert copy.read_bytes() == (torrents.parent / VAL).read_bytes()
            for address in addresses:
                assert any(address in line for line in notes.lines), (address, notes.lines)
        with served() as third, pytest.raises(WrongUsage, match="nothing proves that 2 addresses"):
            fetched(tmp_path / "own", third.address, other.address.replace(VAL, "set.tar"))


def test_pieces_prove_a_file_whatever_its_server_calls_it(torrents: Path, tmp_path: Path) -> None:
    """Each host of a CDN has an ETag of its own for the same bytes."""
    with served() as server:
        server.body = (torrents.parent / TRAIN).read_bytes()

        def change(_start: int, body: bytes) -> bytes:
            server.etag = f'"{server.requests}"'
            return body

        server.spoil = change
        address, notes = server.address.replace("set.tar", TRAIN), Notes()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("imnetprep.sources.piece_download._REQUEST_BYTES", PIECE)
            fetched(tmp_path / "root", address, dataset=torrents, notes=notes)
        assert server.requests > 5
    assert not notes.lines
    assert (tmp_path / "root" / "archives" / TRAIN).read_bytes() == server.body


def test_a_swarm_and_a_server_go_on_with_the_same_part(torrents: Path, tmp_path: Path) -> None:
    """A part that a torrent left is resumed from an address: a piece is a piece."""
    body = (torrents.parent / TRAIN).read_bytes()
    part = tmp_path / "root" / "archives" / f"{TRAIN}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(body[: 5 * PIECE])
    with web_served(torrents.parent) as web:
        fetched(tmp_path / "root", f"{web.address}/{TRAIN}", dataset=torrents)
        starts = [span.partition("=")[2].partition("-")[0] for _, span in web.asked[1:] if span]
    assert min(map(int, starts)) == 5 * PIECE
    assert part.with_suffix("").read_bytes() == body


def test_a_digest_that_is_named_must_be_right_whatever_else_proves_the_file(
    server: StandIn, torrents: Path, tmp_path: Path
) -> None:
    (result,) = fetched(tmp_path / "a", server.address)
    assert result.proof.as_json()["kind"] == "none"
    with pytest.raises(ImnetprepError, match="its sha256 is not 1111"):
        fetched(tmp_path / "a", server.address, digest=("sha256", "1" * 64))
    (result,) = fetched(tmp_path / "a", server.address, digest=("sha256", SHA256))
    assert result.proof.as_json() == {"kind": "sha256", "digest": SHA256}
    with web_served(torrents.parent) as web, pytest.raises(WrongBytes, match="its md5 is not 1111"):
        address = f"{web.address}/{VAL}"
        fetched(tmp_path / "b", address, dataset=torrents, digest=("md5", "1" * 32))


def test_a_stream_is_judged_by_pieces_and_size_too(torrents: Path, tmp_path: Path) -> None:
    lines = [line for line in torrents.read_text().splitlines() if not line.startswith("md5")]
    torrents.write_text("\n".join(lines))
    body = (torrents.parent / VAL).read_bytes()
    with served() as server:
        server.ranges = False
        address = server.address.replace("set.tar", VAL)
        for wrong in (body[:9000] + b"?" + body[9001:], body[:-512], body + bytes(512)):
            server.body = wrong
            with pytest.raises(WrongBytes):
                fetched(tmp_path, address, dataset=torrents)
            assert not (tmp_path / "archives" / VAL).exists()
        server.body = body
        (result,) = fetched(tmp_path, address, dataset=torrents)
    assert result.proof.as_json()["kind"] == "torrent"


def test_a_file_without_a_version_is_not_resumed(server: StandIn, tmp_path: Path) -> None:
    """Nothing tells that what is there is of what comes."""
    server.etag = ""
    server.spoil = fail_from(6 << 15)
    with pytest.raises(SourceFailed):
        fetched(tmp_path, server.address, jobs=1)
    server.spoil, server.body = (lambda _start, body: body), OTHER_BODY
    fetched(tmp_path, server.address, jobs=1)
    assert (tmp_path / "archives" / "set.tar").read_bytes() == OTHER_BODY


def test_a_digest_that_is_told_too_late_proves_nothing(server: StandIn, tmp_path: Path) -> None:
    """A file that changes, from a server that begins to tell checksums."""

    def change(_start: int, body: bytes) -> bytes:
        if server.requests >= 4:
            server.headers["x-goog-hash"] = "crc32c=AAAAAA=="
        return body

    server.spoil, server.change_at = change, 5
    notes = Notes()
    with pytest.raises(WrongBytes):
        fetched(tmp_path, server.address, jobs=1, notes=notes)
    assert any("has changed" in line for line in notes.lines)
    assert not (tmp_path / "archives" / "set.tar").exists()


def test_what_a_liar_left_does_not_spoil_what_another_sends(tmp_path: Path, small: None) -> None:
    with served() as liar, served() as server:
        liar.body, liar.spoil = OTHER_BODY, fail_from(6 << 15)
        notes, digest = Notes(), ("sha256", SHA256)
        fetched(tmp_path, liar.address, server.address, digest=digest, jobs=1, notes=notes)
    assert (tmp_path / "archives" / "set.tar").read_bytes() == BODY
    assert any(line.startswith(liar.address) for line in notes.lines)
    assert any("another address left is wrong; begun anew" in line for line in notes.lines)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_page_is_never_the_file(server: StandIn, tmp_path: Path, ranges: bool) -> None:
    server.ranges, server.headers["Content-Type"] = ranges, "Text/HTML"
    with pytest.raises(SourceFailed, match="the server sends a web page"):
        fetched(tmp_path, server.address)


def test_a_file_of_that_name_is_not_replaced_by_a_stream(torrents: Path, tmp_path: Path) -> None:
    """Its pieces are known, and a server without ranges gives none of them."""
    path = tmp_path / "archives" / VAL
    path.parent.mkdir()
    with served() as server:
        server.ranges, server.body = False, (torrents.parent / VAL).read_bytes()
        address = server.address.replace("set.tar", VAL)
        path.write_bytes(b"mine")
        with pytest.raises(ImnetprepError, match="its md5 is not"):
            fetched(tmp_path, address, dataset=torrents)
        assert path.read_bytes() == b"mine"
        path.write_bytes(server.body)
        (result,) = fetched(tmp_path, address, dataset=torrents)
        assert (result.is_new, result.proof.as_json()["kind"]) == (False, "md5")


def test_what_is_on_record_is_synced_before(
    torrents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut takes what was written and not synced, and leaves the record."""
    inodes, fsync = list[int](), os.fsync

    def noted(handle: int) -> None:
        inodes.append(os.fstat(handle).st_ino)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    with web_served(torrents.parent) as web:
        fetched(tmp_path, f"{web.address}/{TRAIN}", dataset=torrents)
    assert inodes.count((tmp_path / "archives" / TRAIN).stat().st_ino) >= 2
