"""A pull: the same bytes, whole or absent, whatever the bucket holds; never outside of the root."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from imnetprep.catalog.datasets import Layout, Split, load_dataset
from imnetprep.manifest import dataset_for, open_manifest
from tests.conftest import TRAIN, VAL, Run, command, receipt_of, spoil, tree
from tests.proxy import Proxy, Rule, operations
from tests.servers import BUCKET, S3Server
from tests.sync.conftest import BIG, Sync, keys_there, make_big, make_run, names, put, sent_files
from tests.sync.listing_server import listing_served

INDEX, SHARD = "shards/train/index.json", "shards/train/train-000001.tar"


def _copy(s3: S3Server, prefix: str, to: str) -> None:
    for path in keys_there(s3, prefix):
        s3.client().copy_object(
            Bucket=BUCKET, Key=f"{to}/{path}", CopySource=f"{BUCKET}/{prefix}/{path}"
        )


def _remove(s3: S3Server, key: str) -> bytes:
    """What the object was."""
    body: bytes = s3.client().get_object(Bucket=BUCKET, Key=key)["Body"].read()
    s3.client().delete_object(Bucket=BUCKET, Key=key)
    return body


def test_another_root_becomes_the_same_and_verifies(
    sync: Sync, whole: Path, tmp_path: Path, run: Run
) -> None:
    make_big(whole)
    assert sync(whole, "--push").returncode == 0
    other = tmp_path / "other"
    done = sync(other, "--pull")
    assert done.returncode == 0, done.stderr
    assert sent_files(other) == sent_files(whole)
    left = [path.name for path in other.rglob(".*") if "fetching" in path.name]
    assert not left
    checked = run("verify", "--root", other, "--digests", "--json")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    with open_manifest(other / "manifest.db") as manifest:
        split = manifest.splits()[Split.TRAIN, Layout.WEBDATASET]
        images = {path.name: path.read_bytes() for path in (whole / "train").rglob("*.JPEG")}
        samples = list(manifest.in_shards(split))
    assert len(samples) == len(images) == 200
    for sample in samples:
        shard = (other / f"shards/train/train-{sample.shard:06}.tar").read_bytes()
        assert sample.offset_bytes is not None
        body = shard[sample.offset_bytes : sample.offset_bytes + sample.size_bytes]
        assert body == images[sample.name]
    status = run("status", "--root", other)
    assert status.returncode == 0 and "webdataset" in status.stdout, status.stdout
    told = [json.loads(line) for line in sync(other, "--json").stdout.splitlines()]
    assert {each.get("action") for each in told} == {"skip", None}


def test_a_pull_that_finds_all_there_lists_and_reads_nothing(
    sync: Sync, proxy: Proxy, whole: Path, tmp_path: Path
) -> None:
    assert sync(whole, "--push").returncode == 0
    other = tmp_path / "other"
    for _ in range(2):
        done = sync(other, "--pull")
        assert done.returncode == 0, done.stderr
    assert {*names(proxy)} <= {"ListObjectsV2", "ListMultipartUploads"}


def test_archives_are_proved_by_what_proves_them(
    sync: Sync, prefix: str, whole: Path, tmp_path: Path
) -> None:
    assert sync(whole, "--push").returncode == 0
    other = tmp_path / "other"
    assert sync(other, "--pull").returncode == 0
    proofs = {name: record["proof"] for name, record in receipt_of(other)["archives"].items()}  # type: ignore[index]
    ours = receipt_of(whole)["archives"][TRAIN]["proof"]  # type: ignore[index]
    assert proofs[TRAIN] == ours
    assert proofs[VAL]["kind"] == "crc64nvme"
    assert proofs[VAL]["of"] == f"s3://{BUCKET}/{prefix}/archives/{VAL}"
    splits = receipt_of(other)["splits"]
    assert splits["shards/train"]["samples"] == 200  # type: ignore[index]
    assert splits["shards/train"]["fetched_from"] == f"s3://{BUCKET}/{prefix}"  # type: ignore[index]
    assert "train" not in splits


def test_the_archives_there_are_organized_without_a_pull(
    sync: Sync, s3: S3Server, prefix: str, whole: Path, published: Path, tmp_path: Path, run: Run
) -> None:
    assert sync(whole, "--push", "--what", "archives").returncode == 0
    place = f"s3://{BUCKET}/{prefix}/archives"
    root = tmp_path / "other"
    words = ["--root", root, "--dataset", published, "--archives", place]
    done = run("organize", *words, env=os.environ | s3.environment)
    assert done.returncode == 0, done.stderr
    assert tree(root / "train") == tree(whole / "train")


def _killed(proxy: Proxy, root: Path, prefix: str, seen: Callable[[], None]) -> None:
    """A pull that stands still at its last shard, is looked at, and killed."""
    words = command("sync-s3", f"s3://{BUCKET}/{prefix}", "--root", root, "--pull", "--quiet")
    process = subprocess.Popen(words)
    while not any(request.faults for request in list(proxy.requests)):
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(0.3)
    seen()
    process.kill()
    process.wait()


def test_the_prefix_of_a_push_is_a_place_of_archives_that_says_of_what_they_are(
    sync: Sync, here: Run, prefix: str, archived: Path, published: Path, tmp_path: Path
) -> None:
    assert sync(archived, "--push").returncode == 0
    place, root, listed = f"s3://{BUCKET}/{prefix}", tmp_path / "new", tmp_path / "classes.txt"
    listed.write_text("n01491361\n")
    val = ["--split", "val"]
    done = here("organize", "--root", root, "--archives", place)
    assert done.returncode == 0, done.stderr
    fingerprint = load_dataset(str(published)).fingerprint
    assert dataset_for(root / "manifest.db", None).fingerprint == fingerprint
    lost = next((root / "val").glob("*/*"))
    body = lost.read_bytes()
    lost.unlink()
    spoil(archived / "archives" / TRAIN, 100_000)
    for words in (
        ["repair", "--root", root, "--from", place],
        ["repair-archives", "--root", archived, "--split", "train", "--from", place],
        ["organize", "--root", tmp_path / "a", "--archives", f"{place}/archives/", "--dry-run"],
        ["organize", "--root", tmp_path / "b", "--archives", f"{place}/archives/{VAL}", *val],
        ["organize", "--root", tmp_path / "c", "--archives", place, "--layout", "webdataset"],
        ["subset", listed, "--to", tmp_path / "d", "--archives", place],
    ):
        done = here(*words)
        assert done.returncode == 0, done.stderr
    assert lost.read_bytes() == body
    assert (tmp_path / "d" / "train" / "n01491361").is_dir()


def test_a_manifest_beside_the_archives_that_is_none_is_not_believed(
    sync: Sync, here: Run, s3: S3Server, prefix: str,
    archived: Path, published: Path, tmp_path: Path,
) -> None:  # fmt: skip
    assert sync(archived, "--push").returncode == 0
    put(s3, f"{prefix}/manifest.db", b"SQLite format 3\0" + bytes(5000))
    words = ["organize", "--root", tmp_path / "new", "--archives", f"s3://{BUCKET}/{prefix}"]
    done = here(*words)
    assert done.returncode == 4, done.stderr
    assert f"{prefix}/manifest.db cannot be used: it " in done.stderr
    assert "--dataset NAME|FILE.toml says what" in done.stderr
    assert here(*words, "--dataset", published, "--dry-run").returncode == 0


def test_half_a_split_never_stands_under_its_name(
    sync: Sync, proxy: Proxy, prefix: str, whole: Path, tmp_path: Path
) -> None:
    assert sync(whole, "--push").returncode == 0
    other = tmp_path / "other"

    def seen() -> None:
        assert not (other / "shards/train").exists()
        assert not (other / "manifest.db").exists()

    proxy.rules = [Rule("stall", match=f"GetObject .*{SHARD}")]
    _killed(proxy, other, prefix, seen)
    seen()
    proxy.rules = []
    done = sync(other, "--pull")
    assert done.returncode == 0, done.stderr
    assert sent_files(other) == sent_files(whole)


@pytest.mark.parametrize("missing", [INDEX, SHARD])
def test_a_split_that_was_not_sent_whole_is_refused_and_taken_up_when_it_is(
    sync: Sync, s3: S3Server, proxy: Proxy, prefix: str, whole: Path, tmp_path: Path, missing: str
) -> None:
    assert sync(whole, "--push").returncode == 0
    body = _remove(s3, f"{prefix}/{missing}")
    other = tmp_path / "other"
    done = sync(other, "--pull")
    assert done.returncode == 4, done.stdout + done.stderr
    assert f"s3://{BUCKET}/{prefix}" in done.stderr and "not sent whole" in done.stderr
    assert not (other / "shards/train").exists()
    put(s3, f"{prefix}/{missing}", body)
    done = sync(other, "--pull")
    assert done.returncode == 0, done.stderr
    fetched = [each.key for each in operations(proxy.requests) if each.name == "GetObject"]
    again = [key for key in fetched if key.endswith(".tar") and not key.endswith(missing)]
    assert not again
    assert sent_files(other) == sent_files(whole)


def test_a_run_that_is_newer_there_comes_and_one_that_is_newer_here_stays(
    sync: Sync, s3: S3Server, prefix: str, whole: Path, tmp_path: Path
) -> None:
    runs = (whole / "runs").rename(tmp_path / "elsewhere")  # the root may be read-only
    assert sync(whole, "--push", "--runs", runs).returncode == 0
    put(s3, f"{prefix}/runs/first/best.pt", b"a better one")
    (runs / "first/last.pt").write_bytes(b"a later one")
    done = sync(whole, "--pull", "--what", "runs", "--runs", runs)
    assert done.returncode == 0, done.stderr
    assert "newer in the bucket" in done.stdout and "newer here" in done.stdout
    assert (runs / "first/best.pt").read_bytes() == b"a better one"
    assert (runs / "first/last.pt").read_bytes() == b"a later one"
    done = sync(whole, "--pull", "--what", "runs", "--replace", "--runs", runs)
    assert done.returncode == 0, done.stderr
    assert (runs / "first/last.pt").read_bytes() != b"a later one"
    assert not (whole / "runs").exists()


def test_a_file_that_differs_is_kept_until_it_is_to_be_replaced(
    sync: Sync, s3: S3Server, prefix: str, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    (root / "archives").mkdir(parents=True)
    for name in ("a.tar", "b.tar"):
        (root / "archives" / name).write_bytes(b"ours")
    put(s3, f"{prefix}/archives/a.tar", b"them", ChecksumAlgorithm="CRC64NVME")
    put(s3, f"{prefix}/archives/b.tar", b"theirs", ChecksumAlgorithm="CRC64NVME")
    done = sync(root, "--pull")
    assert done.returncode == 1
    assert "archives/a.tar" in done.stderr and "archives/b.tar" in done.stderr
    assert {*tree(root / "archives").values()} >= {b"ours"}
    assert (root / "archives/b.tar").read_bytes() == b"ours"
    done = sync(root, "--pull", "--replace")
    assert done.returncode == 0, done.stderr
    assert (root / "archives/a.tar").read_bytes() == b"them"
    assert (root / "archives/b.tar").read_bytes() == b"theirs"


def test_delete_removes_here_what_is_not_there_once_it_is_said_twice(
    sync: Sync, s3: S3Server, prefix: str, whole: Path
) -> None:
    assert sync(whole, "--push").returncode == 0
    extra = make_run(whole, "second")
    (whole / "notes.txt").write_text("mine")
    (whole / "archives/mine.tar").write_bytes(b"mine")
    done = sync(whole, "--pull", "--delete", "--what", "runs")
    assert "delete" in done.stdout and "runs/second/last.pt" in done.stdout
    assert (extra / "last.pt").exists()
    done = sync(whole, "--pull", "--delete", "--yes", "--what", "runs")
    assert done.returncode == 0, done.stderr
    assert not (extra / "last.pt").exists()
    assert (whole / "notes.txt").exists() and (whole / "archives/mine.tar").exists()


HOSTILE = [
    "archives/../../x.tar",
    "archives/.lock",
    "archives/.hidden.tar",
    "archives/a\nb.tar",
    "archives/a\x1b[2Jb.tar",
    "archives/a\\..\\b.tar",
    "archives/sub/deep.tar",
    "archives/.",
    "archives/" + "n" * 300,
    "archives//x.tar",
    "shards/train/../../x.tar",
    "shards/elsewhere/x.tar",
    "runs/../x",
    "runs/r/../../../x",
    "../x",
    "/x",
]


def test_keys_that_name_no_file_are_left_alone(
    sync: Sync, proxy: Proxy, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SeaweedFS takes no such keys; so a server that lists them is one of a few lines."""
    outer = tmp_path / "outer"
    root = outer / "root"
    with listing_served(BUCKET, {f"{prefix}/{key}": b"evil" for key in HOSTILE}) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        for way in ("--pull", "--check", ""):
            done = sync(root, *way.split())
            assert done.returncode in (0, 1, 5), (way, done.stderr)
            assert "Traceback" not in done.stderr
            assert "\x1b" not in done.stdout + done.stderr
    assert not sent_files(root)
    assert {path.name for path in tmp_path.rglob("*")} <= {
        "outer", "root", ".sync.db", ".sync.lock", ".organizing", ".lock", "archives",
        ".receipt.lock", ".sync.db-wal", ".sync.db-shm",
    }  # fmt: skip


def _record(body: bytes, **told: object) -> dict[str, object]:
    from awscrt.checksums import crc64nvme

    right = {
        "etag": "",
        "size_bytes": len(body),
        "kind": "crc64nvme",
        "checksum": f"{crc64nvme(body):x}",
    }
    return right | told


@pytest.mark.parametrize(
    "receipt",
    [
        b"garbage",
        b"",
        b"[1]",
        b'{"objects": [1], "archives": 7}',
        b"[" * 100_000,
        b'{"objects": {"archives/a.tar": {"etag": 1, "size_bytes": -4, "kind": []}}}',
        b'{"splits": {"train": {"root": "/", "split": "x", "proof": {}}}, "archives": {"x": 1}}',
        json.dumps(
            {"objects": {"../../x": _record(b"x"), "archives/../y": _record(b"y")}}
        ).encode(),
        b'{"objects": {"archives/a.tar": {"etag": "e", "size_bytes": 1e400, "kind": "crc32"}}}',
        b'{"a": ' + b"9" * 5000 + b"}",
    ],
    ids=lambda value: value[:12].decode(),
)
def test_a_receipt_that_is_none_is_not_believed(
    sync: Sync, s3: S3Server, prefix: str, tmp_path: Path, receipt: bytes
) -> None:
    place = f"{prefix[:40]}-{abs(hash(receipt))}"
    put(s3, f"{place}/archives/a.tar", b"right", ChecksumAlgorithm="CRC64NVME")
    put(s3, f"{place}/receipt.json", receipt)
    root = tmp_path / "root"
    for way in ("--pull", "--push"):
        done = sync(root, way, place=place)
        assert done.returncode == 0, (way, done.stderr)
    assert (root / "archives/a.tar").read_bytes() == b"right"
    told = s3.client().get_object(Bucket=BUCKET, Key=f"{place}/receipt.json")["Body"].read()
    assert json.loads(told)["objects"]["archives/a.tar"]["size_bytes"] == 5


def test_a_receipt_of_100_mb_is_not_fetched(
    sync: Sync, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, there = tmp_path / "root", {"archives/a.tar": b"right", "receipt.json": bytes(100 << 20)}
    objects = {f"{prefix}/{path}": body for path, body in there.items()}
    with listing_served(BUCKET, objects) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        done = sync(root, "--pull")
    assert done.returncode == 0, done.stderr
    assert "receipt.json is no receipt and is not believed: has 104,857,600 bytes" in done.stderr
    assert "nothing verifies its bytes" in done.stderr
    assert (root / "archives/a.tar").read_bytes() == b"right"


def test_a_receipt_that_lies_of_an_object_gets_nothing_under_its_name(
    sync: Sync, s3: S3Server, prefix: str, tmp_path: Path
) -> None:
    client, root = s3.client(), tmp_path / "root"
    put(s3, f"{prefix}/archives/a.tar", b"right", ChecksumAlgorithm="CRC64NVME")
    etag = client.head_object(Bucket=BUCKET, Key=f"{prefix}/archives/a.tar")["ETag"].strip('"')
    lie = {"objects": {"archives/a.tar": _record(b"wrong", etag=etag)}}
    put(s3, f"{prefix}/receipt.json", json.dumps(lie).encode())
    done = sync(root, "--pull")
    assert done.returncode == 4
    assert "archives/a.tar" in done.stderr and "wrong bytes" in done.stderr
    assert not (root / "archives/a.tar").exists()


@pytest.mark.parametrize("body", [b"no database", b"SQLite format 3\0" + b"\1" * 4080, b""])
def test_a_manifest_that_is_none_is_one_error(
    sync: Sync, s3: S3Server, prefix: str, tmp_path: Path, body: bytes
) -> None:
    place, root = f"{prefix[:30]}-{len(body)}", tmp_path / "root"
    put(s3, f"{place}/manifest.db", body, ChecksumAlgorithm="CRC64NVME")
    put(s3, f"{place}/runs/r/last.pt", b"x", ChecksumAlgorithm="CRC64NVME")
    done = sync(root, "--pull", place=place)
    assert done.returncode == 4, done.stderr
    assert "the manifest in the bucket cannot be used" in done.stderr
    assert done.stderr.count("Error:") == 1
    assert not (root / "manifest.db").exists()


def test_a_file_in_the_way_of_a_folder_is_one_error(
    sync: Sync, s3: S3Server, prefix: str, tmp_path: Path
) -> None:
    put(s3, f"{prefix}/runs/r/a", b"x", ChecksumAlgorithm="CRC64NVME")
    put(s3, f"{prefix}/runs/r/b/c", b"x", ChecksumAlgorithm="CRC64NVME")
    root = tmp_path / "root"
    (root / "runs/r").mkdir(parents=True)
    (root / "runs/r/b").write_bytes(b"a file")
    done = sync(root, "--pull")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr and "runs/r/b" in done.stderr
    assert (root / "runs/r/b").read_bytes() == b"a file"


def test_a_link_in_the_root_is_not_written_through(
    sync: Sync, s3: S3Server, prefix: str, tmp_path: Path
) -> None:
    put(s3, f"{prefix}/runs/r/last.pt", b"x", ChecksumAlgorithm="CRC64NVME")
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "runs/r").mkdir(parents=True)
    outside.write_bytes(b"mine")
    (root / "runs/r/.last.pt.fetching").symlink_to(outside)
    done = sync(root, "--pull")
    assert outside.read_bytes() == b"mine"
    assert done.returncode == 1 and "a link stands where a file of ours is wanted" in done.stderr


def test_shards_that_no_rename_could_name_are_not_fetched(
    sync: Sync, whole: Path, tmp_path: Path, other_disk: Path
) -> None:
    assert sync(whole, "--push").returncode == 0
    other = tmp_path / "other"
    other.mkdir()
    (other / "shards").symlink_to(other_disk)
    done = sync(other, "--pull")
    assert done.returncode == 1 and "is on another disk than" in done.stderr, done.stderr
    assert not (other / ".organizing/sync").exists() and not list(other_disk.iterdir())


def _without_awscrt(s3: S3Server, *words: object) -> subprocess.CompletedProcess[str]:
    """The command on a machine that has no awscrt."""
    code = (
        "import sys, importlib.util as u\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name.startswith('awscrt') else find(name, *a)\n"
        "sys.modules['awscrt'] = None\n"
        "from imnetprep.cli import run\n"
        "sys.exit(run(sys.argv[1:]))\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        capture_output=True, text=True, env=os.environ | s3.environment,
    )  # fmt: skip


def test_a_machine_without_crc64nvme_pulls_what_was_pushed_with_it(
    sync: Sync, s3: S3Server, prefix: str, whole: Path, tmp_path: Path
) -> None:
    make_big(whole)
    assert sync(whole, "--push").returncode == 0
    other, place = tmp_path / "other", f"s3://{BUCKET}/{prefix}"
    words = ["sync-s3", place, "--root", other]
    done = _without_awscrt(s3, *words, "--pull")
    assert done.returncode == 0, done.stderr
    assert sent_files(other) == sent_files(whole)
    assert f"{place}/{BIG}: the server keeps no checksum" in done.stderr
    checked = _without_awscrt(s3, *words, "--check")
    assert checked.returncode in (0, 5), checked.stderr
    assert "differs" not in checked.stdout
    pushed = _without_awscrt(s3, *words, "--push", "--what", "runs")
    assert pushed.returncode in (0, 1), pushed.stderr
    assert sync(whole, "--check").returncode == 0
