"""A run that is being trained: a push sends it as it stands, a check and a pull leave it alone."""

from pathlib import Path

import pytest

from tests.proxy import Proxy, Request, Rule, operations
from tests.servers import BUCKET, S3Server
from tests.sync.conftest import Sync, keys_there, locked_elsewhere, make_run

LAST, BEST = "runs/second/last.pt", "runs/second/best.pt"


@pytest.fixture
def root(whole: Path) -> Path:
    make_run(whole, "second")
    return whole


def body_of(s3: S3Server, prefix: str, path: str) -> bytes:
    body: bytes = s3.client().get_object(Bucket=BUCKET, Key=f"{prefix}/{path}")["Body"].read()
    return body


def replace(path: Path, body: bytes) -> None:
    """Write a file as a training does."""
    new = path.with_name(f".{path.name}.tmp")
    new.write_bytes(body)
    new.replace(path)


def test_a_push_sends_it_and_its_checkpoint_last(
    sync: Sync, s3: S3Server, proxy: Proxy, prefix: str, root: Path
) -> None:
    with locked_elsewhere(root / "runs/second"):
        done = sync(root, "--push", "--what", "runs")
        assert done.returncode == 0, done.stderr
        keys = [each.key for each in operations(proxy.requests) if each.name == "PutObject"]
        assert {key.rpartition("/")[2] for key in keys[-3:-1]} == {"last.pt"}
        assert sync(root, "--push", "--what", "runs").stdout.endswith(
            "push: 0 files to send; 8 files the same already\n"
        )
    for path in (LAST, BEST):
        assert body_of(s3, prefix, path) == (root / path).read_bytes()


def test_what_replaces_a_file_meanwhile_is_left_for_the_next_push(
    sync: Sync, s3: S3Server, proxy: Proxy, prefix: str, root: Path
) -> None:
    old = {path: (root / path).read_bytes() for path in (LAST, BEST)}

    def train_on(request: Request) -> bool:
        if request.operation.name == "PutObject":
            for path in old:
                replace(root / path, b"another epoch")
        return False

    with locked_elsewhere(root / "runs/second"):
        proxy.rules = [Rule("stall", match=train_on)]
        done = sync(root, "--push", "--what", "runs")
        assert done.returncode == 0, done.stderr
        assert {path: body_of(s3, prefix, path) for path in old} == old
        proxy.rules = []
        assert sync(root, "--push", "--what", "runs").returncode == 0
    assert body_of(s3, prefix, LAST) == body_of(s3, prefix, BEST) == b"another epoch"


def test_a_check_and_a_pull_leave_it_out(sync: Sync, s3: S3Server, prefix: str, root: Path) -> None:
    assert sync(root, "--push", "--what", "runs").returncode == 0
    with locked_elsewhere(root / "runs/second"):
        replace(root / LAST, b"another epoch")
        for way in ("--check", "--pull"):
            done = sync(root, way, "--what", "runs")
            assert done.returncode == 0, done.stderr
            assert "runs/second is being trained: left out" in done.stderr
    assert (root / LAST).read_bytes() == b"another epoch"


def test_one_run_is_synced_alone(sync: Sync, s3: S3Server, prefix: str, root: Path) -> None:
    words = ["--what", "runs", "--run"]
    assert sync(root, "--push", *words, "second").returncode == 0
    assert {path.split("/")[1] for path in keys_there(s3, prefix) if "/" in path} == {"second"}
    assert sync(root, "--push", "--what", "runs").returncode == 0
    (root / LAST).unlink()
    (root / "runs/first/last.pt").unlink()
    assert sync(root, "--pull", *words, "second").returncode == 0
    assert (root / LAST).exists() and not (root / "runs/first/last.pt").exists()


@pytest.mark.parametrize(
    "words", [["--run", "../x"], ["--run", ""], ["--what", "shards", "--run", "second"]]
)
def test_a_run_that_cannot_be_is_refused(sync: Sync, root: Path, words: list[str]) -> None:
    done = sync(root, *words)
    assert done.returncode == 2
    assert "--run" in done.stderr
