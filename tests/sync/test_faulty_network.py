"""Bad days of a network: what passes is waited for, what is wrong is never taken for right."""

import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from imnetprep import retry
from imnetprep.s3 import bucket
from tests.proxy import Proxy, Request, Rule
from tests.servers import BUCKET, S3Server
from tests.sync.conftest import BIG, Sync, keys_there, names

SMALL = "archives/small.tar"
PART = 16 << 20
SIZE = PART + 4321


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with an archive of two parts, and one that is a single body."""
    folder = tmp_path / "root" / "archives"
    folder.mkdir(parents=True)
    (folder / "big.tar").write_bytes(os.urandom(SIZE))
    (folder / "small.tar").write_bytes(os.urandom(5000))
    return tmp_path / "root"


@pytest.fixture
def sent(root: Path, sync: Sync) -> Path:
    """The same, and the bucket has it."""
    done = sync(root, "--push")
    assert done.returncode == 0, done.stderr
    return root


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """All waits are short ones."""
    monkeypatch.setattr(retry, "_FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(bucket, "_SILENT_S", 1)
    monkeypatch.setattr(bucket, "_CONNECT_S", 1)


def is_sent(root: Path, s3: S3Server, prefix: str) -> None:
    """The bucket has what is here, and no upload is left over."""
    client = s3.client()
    for path in (BIG, SMALL):
        there = client.get_object(Bucket=BUCKET, Key=f"{prefix}/{path}")["Body"].read()
        assert there == (root / path).read_bytes()
    left = client.list_multipart_uploads(Bucket=BUCKET, Prefix=prefix)
    assert not left.get("Uploads")


def is_fetched(root: Path, other: Path) -> None:
    for path in (BIG, SMALL):
        assert (other / path).read_bytes() == (root / path).read_bytes()


def failed(done: subprocess.CompletedProcess[str], *, code: int) -> tuple[str, str]:
    """The two lines."""
    assert done.returncode == code, done.stderr
    error, hint = done.stderr.splitlines()[-2:]
    assert error.startswith("Error: ") and hint.startswith("Hint: "), done.stderr
    return error, hint


def test_the_waits_for_a_busy_server_are_bearable_and_outlast_a_storm() -> None:
    waits_s = [retry.wait_s(failures) for failures in range(1, bucket.TRIES)]
    assert 10 < sum(waits_s) < 40
    assert 3 * bucket._SILENT_S + sum(waits_s[:3]) < 45  # three stalls, one after the other


def test_a_storm_that_passes(
    sync: Sync, root: Path, tmp_path: Path, proxy: Proxy, s3: S3Server, prefix: str
) -> None:
    until = time.monotonic() + 1
    proxy.rules = [Rule("refuse", lambda _: time.monotonic() < until)]
    assert sync(root, "--push").returncode == 0
    is_sent(root, s3, prefix)
    until = time.monotonic() + 1.5
    proxy.rules = [
        Rule("refuse", lambda r: r.operation.name == "GetObject" and time.monotonic() < until)
    ]
    assert sync(tmp_path / "other", "--pull").returncode == 0
    is_fetched(root, tmp_path / "other")


@pytest.mark.parametrize(
    ("way", "operation"), [("--push", "ListObjectsV2"), ("--push", "UploadPart"), ("--pull", "Get")]
)
def test_a_storm_that_lasts_is_told_and_the_next_day_goes_on(
    way: str, operation: str, sync: Sync, sent: Path, tmp_path: Path, proxy: Proxy, hurried: None
) -> None:
    if operation == "UploadPart":
        (sent / BIG).unlink()
        (sent / "archives" / "next.tar").write_bytes(os.urandom(SIZE))
    place = sent if way == "--push" else tmp_path / "other"
    proxy.rules = [Rule("refuse", f"^{operation}")]
    error, hint = failed(sync(place, way), code=3)
    assert error.endswith("Please reduce your request rate. (503)")
    assert hint.startswith("Hint: run the same command later, or with fewer --jobs")
    refused = [request.path for request in proxy.requests if request.status == 503]
    assert refused.count(refused[0]) >= bucket.TRIES
    proxy.rules = []
    assert sync(place, way).returncode == 0


@pytest.mark.parametrize(
    ("do", "match", "words"),
    [
        ("truncate", "^GetObject", {"every": 2}),
        ("reset", "", {"every": 3}),
        ("truncate", "^ListObjectsV2", {"times": 1}),
    ],
)
def test_answers_that_break_off_on_a_pull(
    do: str, match: str, words: dict[str, Any],
    sync: Sync, sent: Path, tmp_path: Path, proxy: Proxy, hurried: None,
) -> None:  # fmt: skip
    proxy.rules = [rule := Rule(do, match, **words)]
    done = sync(tmp_path / "other", "--pull")
    assert done.returncode == 0, done.stderr
    assert rule.fired
    is_fetched(sent, tmp_path / "other")


@pytest.mark.parametrize(
    "rule",
    [
        Rule("reset", every=3),
        Rule("truncate", "^UploadPart", side="request", times=1),
        Rule("truncate", "^PutObject", side="request", times=1),
        Rule("lose", "^CreateMultipartUpload", times=1),
        Rule("lose", "^UploadPart", times=1),
        Rule("lose", "^CompleteMultipartUpload", times=1),
        Rule("lose", "^PutObject", times=1),
    ],
    ids=lambda rule: f"{rule.do} {rule.match}",
)
def test_requests_and_answers_that_are_lost_on_a_push(
    rule: Rule, sync: Sync, root: Path, proxy: Proxy, s3: S3Server, prefix: str, hurried: None
) -> None:
    proxy.rules = [rule]
    done = sync(root, "--push")
    assert done.returncode == 0, done.stderr
    assert rule.fired
    is_sent(root, s3, prefix)
    if rule.do == "lose":
        assert names(proxy).count("CreateMultipartUpload") == 1
    assert sync(root, "--check").returncode == 0


@pytest.mark.parametrize("way", ["--push", "--pull"])
def test_three_silences_in_a_row_cost_as_many_waits(
    way: str, sync: Sync, root: Path, tmp_path: Path, proxy: Proxy, hurried: None
) -> None:
    if way == "--pull":
        assert sync(root, "--push").returncode == 0
    operation = "UploadPart" if way == "--push" else "GetObject.*big"
    do, where = ("stall", "") if way == "--push" else ("hang", "response")
    rule = Rule(do, f"^{operation}", times=3, side=where or "response")
    proxy.rules = [rule]
    begun = time.monotonic()
    done = sync(root if way == "--push" else tmp_path / "other", way, "--jobs", 1)
    assert done.returncode == 0, done.stderr
    assert rule.fired == 3
    assert time.monotonic() - begun < 15


FLIPPED = [(BIG, PART + 99), (SMALL, 77)]


def flip(side: str, path: str, offset: int, **words: Any) -> Rule:
    """A bit of the object at that offset, on its way there or back."""

    def carries(request: Request) -> bool:
        return request.path.endswith(path)

    return Rule("flip", carries, side=side, offset=offset, part_bytes=PART, **words)


def named(path: str) -> str:
    """How the part with that bit is told."""
    return r"part 2\b" if path == BIG else ""


@pytest.mark.parametrize(("path", "offset"), FLIPPED)
def test_a_bit_that_flips_once_on_a_push_is_told_and_sent_again(
    path: str, offset: int, sync: Sync, root: Path, proxy: Proxy, s3: S3Server, prefix: str
) -> None:
    proxy.rules = [rule := flip("request", path, offset, times=1)]
    done = sync(root, "--push")
    assert done.returncode == 0, done.stderr
    assert rule.fired == 1
    assert re.search(rf"{path}: .*{named(path)}.*wrong; sent again", done.stderr)
    is_sent(root, s3, prefix)


@pytest.mark.parametrize(("path", "offset"), FLIPPED)
def test_a_bit_that_flips_every_time_on_a_push_makes_no_object(
    path: str, offset: int, sync: Sync, root: Path, proxy: Proxy, s3: S3Server, prefix: str
) -> None:
    proxy.rules = [flip("request", path, offset)]
    error, hint = failed(sync(root, "--push"), code=4)
    assert re.search(rf"{path}: .*{named(path)}.*wrong, 3 times", error)
    assert "the network or the memory of this machine changes bytes" in hint
    assert path not in keys_there(s3, prefix)
    proxy.rules = []
    assert sync(root, "--push").returncode == 0
    is_sent(root, s3, prefix)


@pytest.mark.parametrize(("path", "offset"), FLIPPED)
def test_a_bit_that_flips_once_on_a_pull_is_told_and_fetched_again(
    path: str, offset: int, sync: Sync, sent: Path, tmp_path: Path, proxy: Proxy
) -> None:
    proxy.rules = [rule := flip("response", path, offset, times=1)]
    done = sync(tmp_path / "other", "--pull")
    assert done.returncode == 0, done.stderr
    assert rule.fired == 1
    assert re.search(rf"{path}: {named(path)}.* came with wrong bytes", done.stderr)
    is_fetched(sent, tmp_path / "other")


@pytest.mark.parametrize(("path", "offset"), FLIPPED)
def test_a_bit_that_flips_every_time_on_a_pull_makes_no_file(
    path: str, offset: int, sync: Sync, sent: Path, tmp_path: Path, proxy: Proxy
) -> None:
    proxy.rules = [flip("response", path, offset)]
    other = tmp_path / "other"
    error, hint = failed(sync(other, "--pull"), code=4)
    assert re.search(rf"{path}: {named(path)}.*came with wrong bytes, twice", error)
    assert hint.startswith("Hint: imnetprep sync-s3 s3://") and " --check --deep " in hint
    assert not (other / path).exists()
    proxy.rules = []
    assert sync(other, "--pull").returncode == 0
    is_fetched(sent, other)


def test_a_flipped_bit_is_found_where_nobody_wrote_down_the_parts(
    sync: Sync, root: Path, tmp_path: Path, proxy: Proxy, s3: S3Server, prefix: str
) -> None:
    with (root / BIG).open("r+b") as file:
        file.truncate(33 << 20)  # two ranges
    assert sync(root, "--push").returncode == 0
    s3.client().delete_object(Bucket=BUCKET, Key=f"{prefix}/receipt.json")
    other = tmp_path / "other"
    proxy.rules = [flip("response", BIG, 99)]
    error, hint = failed(sync(other, "--pull"), code=4)
    assert "which part is wrong cannot be told" in error
    assert hint.endswith(f" --root {other} --check --deep tells whether the bucket has them right")
    assert not (other / BIG).exists()
    proxy.rules = [flip("response", BIG, 99, times=1)]
    done = sync(other, "--pull")
    assert done.returncode == 0, done.stderr
    assert re.search(rf"{BIG}: part 1 .* was wrong", done.stderr)
    is_fetched(root, other)


def test_a_flipped_bit_in_the_receipt_is_not_believed(
    sync: Sync, sent: Path, tmp_path: Path, proxy: Proxy, s3: S3Server, prefix: str
) -> None:
    key = f"{prefix}/receipt.json"
    body = s3.client().get_object(Bucket=BUCKET, Key=key)["Body"].read()
    checksum = json.loads(body)["objects"][SMALL]["checksum"].encode()
    offset = body.index(checksum) + 3
    proxy.rules = [flip("response", "receipt.json", offset)]
    error, _ = failed(sync(tmp_path / "other", "--pull"), code=4)
    assert error.endswith("/receipt.json came with wrong bytes, 3 times")
    proxy.rules = [flip("response", "receipt.json", offset, times=1)]
    assert sync(tmp_path / "other", "--pull").returncode == 0
    is_fetched(sent, tmp_path / "other")
