"""No secret of an address, an option or the environment is shown or kept, whatever goes wrong.

A server that repeats what it was asked with answers each verb that takes an address; another one
redirects to a signed address. Output, all files below the root and TMPDIR, and the traceback of a
bug are looked through.
"""

import re
from pathlib import Path
from typing import Any

import libtorrent as lt
import pytest

from imnetprep.messages import OUR_BUG_EXIT_CODE
from imnetprep.sources.part_files import PartFiles
from imnetprep.sources.torrent import parse_magnet, read_torrent
from tests.conftest import TRAIN, VAL, Run, receipt_of
from tests.planted import (
    KEY,
    PASSKEY,
    PASSWORD,
    QUERY,
    SIGNATURE,
    TOKEN,
    environment_of,
    repeating_served,
    require_no_secret,
)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in environment_of(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))


def test_a_signed_address_is_read_and_not_kept(
    packed: Path, tmp_path: Path, here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with a password, by a redirect, and resumed by another signature."""
    files = {name: (packed.parent / name).read_bytes() for name in (TRAIN, VAL)}
    words = ["--dataset", packed, "--root", tmp_path / "root"]
    with repeating_served(files) as host:
        plain = f"http://me:{PASSWORD}@{host}/files"
        dry = here("organize", *words, "--archives", f"{plain}?{QUERY}", "--dry-run", "--json")
        assert dry.returncode == 0, dry.stderr
        require_no_secret(tmp_path, dry.stdout, dry.stderr)
        with monkeypatch.context() as broken:  # before the first split has its name
            broken.setattr("imnetprep.organizing.publish._counts", _bug)
            done = here("organize", *words, "--archives", f"{plain}?{QUERY}")
        assert done.returncode == OUR_BUG_EXIT_CODE
        require_no_secret(tmp_path, done.stdout, done.stderr)
        done = here("organize", *words, "--archives", f"http://{host}/files?sig=another")
        assert done.returncode == 0, done.stderr
        (tmp_path / "list.txt").write_text("n01440764\n")
        subset = ["subset", tmp_path / "list.txt", "--dataset", packed, "--root", tmp_path / "part"]
        done = here(*subset, "--archives", f"http://{host}/redirect?{QUERY}")
        assert done.returncode == 0, done.stderr
        place = receipt_of(tmp_path / "part")["splits"]["train"]["source"]["place"]  # type: ignore
        assert place == f"http://{host}/redirect"
        require_no_secret(tmp_path, done.stdout, done.stderr)


def _bug(*_: Any) -> None:
    raise RuntimeError(f"about https://me:{PASSWORD}@host/a?{QUERY}, with {KEY} and {TOKEN}")


@pytest.mark.parametrize("status", [400, 403])
def test_no_verb_says_what_a_server_repeats(
    status: int, organized: Path, packed: Path, tmp_path: Path, here: Run
) -> None:
    with repeating_served({}, status) as host:
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
            require_no_secret(
                tmp_path, done.stdout, done.stderr, done_in_words.stdout, done_in_words.stderr
            )


def test_a_proxy_is_named_without_its_password(
    organized: Path, here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:{PASSWORD}@127.0.0.1:9")
    words = ["--root", organized, "--push", "--region", "eu-west-1"]
    done = here("sync-s3", "s3://bucket/a", *words)
    assert done.returncode == 3
    require_no_secret(organized, done.stdout, done.stderr)


def test_trackers_are_neither_shown_nor_kept(published: Path, tmp_path: Path, here: Run) -> None:
    words = ["download", "--dataset", published, "--root", tmp_path / "root", "--no-dht"]
    words += ["--listen", "127.0.0.1:0", "--wait", "1s"]
    hash_ = read_torrent((published.parent / "train.torrent").read_bytes()).info_hash
    for magnet in (f"magnet:?xt=urn:btih:{hash_}", "magnet:?xt=urn:btih:0"):
        full = f"{magnet}&tr=http%3A%2F%2F127.0.0.1%3A9%2F{PASSKEY}%2Fannounce"
        done = here(*words, "--magnet", full, "--split", "train")
        assert done.returncode in (2, 3), done
        require_no_secret(tmp_path, done.stdout, done.stderr)


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
