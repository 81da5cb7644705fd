"""A real S3 server, a proxy before it that counts, and roots that are worth sending."""

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from imnetprep.catalog.datasets import Root
from imnetprep.proving.receipt import parse_proof, read_receipt, record_archive
from tests.conftest import TRAIN, VAL, Run
from tests.proxy import Proxy, operations, proxied
from tests.servers import BUCKET, S3Server, s3_served

Sync = Callable[..., subprocess.CompletedProcess[str]]
BIG = "archives/big.tar"
BIG_BYTES = (32 << 20) + 4321  # three parts


@pytest.fixture(scope="package")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """SeaweedFS for all tests of a sync; each has a prefix of its own."""
    others = {"reader": ("Read", "List"), "writer": ("Write",), "lister": ("List",)}
    others["anonymous"] = ("Read", "List")  # whoever signs nothing
    with s3_served(tmp_path_factory.mktemp("weed"), others) as server:
        yield server


@pytest.fixture
def proxy(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """What commands take for the server; it knows their requests."""
    with proxied(s3.endpoint) as standing:
        for name, value in s3.environment_of(endpoint=standing.endpoint).items():
            monkeypatch.setenv(name, value)
        yield standing


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """Where this test's objects lie."""
    name: str = request.node.name
    return f"t/{request.node.path.stem}-{''.join(c if c.isalnum() else '-' for c in name)}"


@pytest.fixture
def sync(here: Run, proxy: Proxy, prefix: str) -> Sync:
    """`imnetprep sync-s3` of a root and this test's place in the bucket."""

    def carry_out(
        root: Path, *words: object, place: str = prefix
    ) -> subprocess.CompletedProcess[str]:
        proxy.requests.clear()
        return here("sync-s3", f"s3://{BUCKET}/{place}", "--root", root, *words)

    return carry_out


@pytest.fixture(scope="session")
def whole_once(tmp_path_factory: pytest.TempPathFactory, published: Path, run: Run) -> Path:
    """A root with archives, images, shards, a manifest and a run; not to be changed."""
    root = tmp_path_factory.mktemp("whole") / "root"
    (root / "archives").mkdir(parents=True)
    for name in (TRAIN, VAL):
        shutil.copy(published.parent / name, root / "archives")
    shards = ["--layout", "webdataset", "--shard-size", 60]
    for words in (["--dataset", published], shards):
        done = run("organize", "--root", root, *words)
        assert done.returncode == 0, done.stderr
    make_run(root, "first")
    return root


@pytest.fixture
def whole(whole_once: Path, tmp_path: Path) -> Path:
    """The same to do anything to, with all that is known of its files still known."""
    # A copy has other inodes, so what the receipt proves is moved over to them.
    return copied(whole_once, tmp_path / "root")


def copied(root: Path, to: Path) -> Path:
    """A copy of a root on which the proofs of its receipt hold."""
    shutil.copytree(root, to)
    for name, record in read_receipt(Root(to))["archives"].items():
        record_archive(Root(to), to / "archives" / name, parse_proof(record["proof"]))
    return to


def make_run(root: Path, name: str) -> Path:
    """Something like a training."""
    folder = root / "runs" / name
    (folder / "plots").mkdir(parents=True)
    for file in ("log.jsonl", "last.pt", "best.pt", "plots/loss.png"):
        (folder / file).write_bytes(f"{name} {file}".encode() * 50)
    return folder


def make_big(root: Path, seed: int = 0) -> Path:
    """An archive of no dataset, in three parts."""
    path = root / BIG
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(random.Random(seed).randbytes(BIG_BYTES))
    return path


def names(proxy: Proxy) -> list[str]:
    """The operations asked of the server since the last sync began."""
    return [operation.name for operation in operations(proxy.requests)]


def keys_there(s3: S3Server, prefix: str) -> dict[str, int]:
    """The objects under a prefix, by relative key, with their sizes."""
    pages = s3.client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    return {
        each["Key"].removeprefix(f"{prefix}/"): each["Size"]
        for page in pages
        for each in page.get("Contents", ())
    }


def put(s3: S3Server, key: str, body: bytes, **words: Any) -> None:
    """Put an object there behind everybody's back."""
    s3.client().put_object(Bucket=BUCKET, Key=key, Body=body, **words)


def sent_files(root: Path) -> dict[str, bytes]:
    """What of a root has its like in a bucket, but for the manifest and the receipt."""
    found = {}
    for top in ("archives", "shards", "runs"):
        for place, _, files in os.walk(root / top):
            for name in files:
                if not name.startswith("."):
                    path = Path(place, name)
                    found[str(path.relative_to(root))] = path.read_bytes()
    return found


_opened: list[str] | None = None


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _opened is not None:
        _opened.append(str(arguments[0]))


sys.addaudithook(_hear)  # it cannot be taken away again


@contextmanager
def opened_files() -> Iterator[list[str]]:
    """The paths that this process opens meanwhile."""
    global _opened
    found: list[str] = []
    _opened = found
    try:
        yield found
    finally:
        _opened = None


@contextmanager
def locked_elsewhere(folder: Path) -> Iterator[None]:
    """Another process is at work in `folder`."""
    code = "import sys; from pathlib import Path; from imnetprep.fs import locked\n"
    code += "with locked(Path(sys.argv[1])): print(flush=True); sys.stdin.read()"
    words = [sys.executable, "-c", code, str(folder)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield
        process.communicate()
