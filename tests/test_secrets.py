"""No secret of an address, an option or the environment is shown or kept, whatever goes wrong.

A server that repeats what it was asked with answers each verb that takes an address; another one
redirects to a signed address. Output, all files below the root and TMPDIR, and the traceback of a
bug are looked through.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import libtorrent as lt
import pytest

from imnetprep.messages import OUR_BUG_EXIT_CODE
from imnetprep.sources.part_files import PartFiles
from imnetprep.sources.torrent import parse_magnet, read_torrent
from tests.conftest import TRAIN, VAL, Run, receipt_of

PASSWORD, SIGNATURE, TOKEN, KEY, PASSKEY = (
    "pl4nted-passw0rd", "5ignature0f1etters", "T0ken+0f/a=session", "SecretKey/0f+AWS",
    "0123456789abcdefpasskey",
)  # fmt: skip
SECRETS = PASSWORD, SIGNATURE, TOKEN, KEY, PASSKEY
QUERY = f"X-Amz-Signature={SIGNATURE}&X-Amz-Security-Token={TOKEN}"


@contextmanager
def _served(files: dict[str, bytes], status: int = 403) -> Iterator[str]:
    """A web server of `files` by ranges, which signs by redirects; all else it answers with an
    error that repeats the request.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, _query = self.path.partition("?")
            body = files.get(path.rpartition("/")[2])
            if body is not None and path.startswith("/redirect"):
                self.send_response(302)
                self.send_header("Location", f"/files/{path.rpartition('/')[2]}?{QUERY}")
                self.end_headers()
            elif body is not None and path.startswith("/files"):
                first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
                part = body[first : last + 1]
                self.send_response(206)
                end = f"{first}-{first + len(part) - 1}/{len(body)}"
                self.send_header("Content-Range", f"bytes {end}")
                self.send_header("Content-Length", str(len(part)))
                self.send_header("ETag", '"same"')
                self.end_headers()
                self.wfile.write(part)
            else:
                said = f"{self.path} {self.headers} {QUERY} {KEY}".replace("\n", " ")
                error = f"<Error><Code>AccessDenied</Code><Message>{said}\x1b[2J</Message></Error>"
                answer = error.replace("&", "&amp;").replace("\x1b", "").encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

        do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Secrets of the environment, and a place for temporary files."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOFNOBODY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    return tmp_path


def _keeps(folder: Path, *texts: str) -> None:
    """No secret is in the texts, nor in any file below `folder`."""
    bodies = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    bodies |= {Path(f"text {at}"): text.encode() for at, text in enumerate(texts)}
    for secret in SECRETS:
        for path, body in bodies.items():
            assert secret.encode() not in body, (secret, path, body[:2000])


def test_a_signed_address_is_read_and_not_kept(
    packed: Path, tmp_path: Path, here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with a password, by a redirect, and resumed by another signature."""
    files = {name: (packed.parent / name).read_bytes() for name in (TRAIN, VAL)}
    words = ["--dataset", packed, "--root", tmp_path / "root"]
    with _served(files) as host:
        plain = f"http://me:{PASSWORD}@{host}/files"
        dry = here("organize", *words, "--archives", f"{plain}?{QUERY}", "--dry-run", "--json")
        assert dry.returncode == 0, dry.stderr
        _keeps(tmp_path, dry.stdout, dry.stderr)
        with monkeypatch.context() as broken:  # before the first split has its name
            broken.setattr("imnetprep.organizing.publish._counts", _bug)
            done = here("organize", *words, "--archives", f"{plain}?{QUERY}")
        assert done.returncode == OUR_BUG_EXIT_CODE
        _keeps(tmp_path, done.stdout, done.stderr)
        done = here("organize", *words, "--archives", f"http://{host}/files?sig=another")
        assert done.returncode == 0, done.stderr
        (tmp_path / "list.txt").write_text("n01440764\n")
        subset = ["subset", tmp_path / "list.txt", "--dataset", packed, "--root", tmp_path / "part"]
        done = here(*subset, "--archives", f"http://{host}/redirect?{QUERY}")
        assert done.returncode == 0, done.stderr
        place = receipt_of(tmp_path / "part")["splits"]["train"]["source"]["place"]  # type: ignore
        assert place == f"http://{host}/redirect"
        _keeps(tmp_path, done.stdout, done.stderr)


def _bug(*_: Any) -> None:
    raise RuntimeError(f"about https://me:{PASSWORD}@host/a?{QUERY}, with {KEY} and {TOKEN}")


@pytest.mark.parametrize("status", [400, 403])
def test_no_verb_says_what_a_server_repeats(
    status: int, organized: Path, packed: Path, tmp_path: Path, here: Run
) -> None:
    with _served({}, status) as host:
        web = f"http://me:{PASSWORD}@{host}/a?{QUERY}"
        endpoint = ["--endpoint-url", f"http://me:{PASSWORD}@{host}"]
        root = ["--root", organized]
        (organized / "val" / "n01440764" / "extra.JPEG").write_bytes(b"x")
        next((organized / "train" / "n01440764").iterdir()).unlink()
        (tmp_path / "list.txt").write_text("n01440764\n")
        cases: list[list[object]] = [
            ["organize", "--root", tmp_path / "new", "--dataset", packed, "--archives", web],
            ["organize", "--root", tmp_path / "new", "--dataset", packed, "--archives", web, "x"],
            ["organize", "--root", tmp_path / "new", "--archives", f"ftp://me:{PASSWORD}@{host}"],
            ["organize", "--root", tmp_path / "new", "--archives", f"https://me:{PASSWORD}@[::"],
            ["organize", "--root", tmp_path / "new", "--archives", f"s3://{KEY}:{PASSWORD}@b/a"],
            ["repair", *root, "--from", web],
            ["repair", *root, "--from", web, "--dry-run"],
            ["subset", tmp_path / "list.txt", "--root", tmp_path / "new", "--archives", web],
            ["verify-archives", *root, "--archives", web],
            ["repair-archives", *root, "--archives", web],
            ["divide", web, "--root", tmp_path / "new"],
            ["adopt", web],
            ["sync-s3", f"s3://bucket/a?{QUERY}", *root, *endpoint, "--push"],
            ["sync-s3", web, *root, "--push"],
            *(["sync-s3", "s3://bucket/a", *root, *endpoint, *act]
              for act in ([], ["--push"], ["--pull"], ["--check"])),
            ["sync-s3", "s3://bucket/a", *root, "--endpoint-url", f"me:{PASSWORD}@{host}"],
        ]  # fmt: skip
        for words in cases:
            done = here(*words, "--json")
            assert done.returncode in range(6), (words, done)
            done_in_words = here(*words)
            _keeps(tmp_path, done.stdout, done.stderr, done_in_words.stdout, done_in_words.stderr)


def test_a_proxy_is_named_without_its_password(
    organized: Path, here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:{PASSWORD}@127.0.0.1:9")
    words = ["--root", organized, "--push", "--region", "eu-west-1"]
    done = here("sync-s3", "s3://bucket/a", *words)
    assert done.returncode == 3
    _keeps(organized, done.stdout, done.stderr)


def test_trackers_are_neither_shown_nor_kept(published: Path, tmp_path: Path, here: Run) -> None:
    words = ["download", "--dataset", published, "--root", tmp_path / "root", "--no-dht"]
    words += ["--listen", "127.0.0.1:0", "--wait", "1s"]
    hash_ = read_torrent((published.parent / "train.torrent").read_bytes()).info_hash
    for magnet in (f"magnet:?xt=urn:btih:{hash_}", "magnet:?xt=urn:btih:0"):
        full = f"{magnet}&tr=http%3A%2F%2F127.0.0.1%3A9%2F{PASSKEY}%2Fannounce"
        done = here(*words, "--magnet", full, "--split", "train")
        assert done.returncode in (2, 3), done
        _keeps(tmp_path, done.stdout, done.stderr)


def test_the_record_of_pieces_has_no_tracker(published: Path, tmp_path: Path) -> None:
    body = (published.parent / "train.torrent").read_bytes()
    tracker = f"http://host/{PASSKEY}/announce".encode()
    body = bytes(lt.bencode(lt.bdecode(body) | {b"announce": tracker}))
    torrent = read_torrent(body, magnet=parse_magnet("magnet:?xt=urn:btih:" + "a" * 40))
    parts = PartFiles(torrent, {0: tmp_path / TRAIN})
    parts.save()
    parts.close()
    (record,) = tmp_path.glob(".*.resume")
    assert PASSKEY.encode() in body and PASSKEY.encode() not in record.read_bytes()
    assert read_torrent(torrent.public_body).info_hash == torrent.info_hash


def test_a_definition_with_a_password_is_refused(packed: Path, tmp_path: Path, here: Run) -> None:
    for key in (f"https://me:{PASSWORD}@host/a.tar", f"https://host/a.tar?sig={SIGNATURE}"):
        text = packed.read_text().replace("[[archives]]", f'[[archives]]\nurl = "{key}"', 1)
        place = tmp_path / "definition"
        place.mkdir(exist_ok=True)
        for path in packed.parent.glob("*.t[sx]*"):
            (place / path.name).write_bytes(path.read_bytes())
        (place / packed.name).write_text(text)
        done = here("datasets", "check", place / packed.name)
        assert done.returncode != 0
        assert "has a password or a key" in done.stdout + done.stderr
        assert not re.search(f"{PASSWORD}|{SIGNATURE}", done.stdout + done.stderr)
