"""A push: keys mirror the root, clients of others read what we wrote, twice sends nothing."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import TRAIN, VAL, Run, command, receipt_of, spoil, tree
from tests.proxy import Proxy, Rule, operations, proxied
from tests.servers import BUCKET, KEY, SECRET, S3Server, rclone_served
from tests.sync.conftest import (
    BIG,
    Sync,
    copied,
    keys_there,
    make_big,
    make_run,
    names,
    opened_files,
    put,
    sent_files,
)

TRAIN_PATH, VAL_PATH = f"archives/{TRAIN}", f"archives/{VAL}"
LAST = "runs/first/last.pt"
LISTS = {"ListObjectsV2", "ListMultipartUploads"}


def _client(s3: S3Server, *words: object) -> bytes:
    """What a client that we did not write prints."""
    program = Path(sys.executable).parent / str(words[0])
    if not program.exists():
        pytest.skip(f"{words[0]} is not installed")
    environment = {
        **os.environ,
        **s3.environment,
        "RCLONE_CONFIG_S3_TYPE": "s3",
        "RCLONE_CONFIG_S3_PROVIDER": "Other",
        "RCLONE_CONFIG_S3_ENDPOINT": s3.endpoint,
        "RCLONE_CONFIG_S3_ACCESS_KEY_ID": KEY,
        "RCLONE_CONFIG_S3_SECRET_ACCESS_KEY": SECRET,
        "S3_ENDPOINT_URL": s3.endpoint,
    }
    done = subprocess.run([program, *map(str, words[1:])], capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def _sent(proxy: Proxy) -> list[str]:
    """The keys of what was sent, in the order in which it was."""
    return [
        operation.key
        for operation in operations(proxy.requests)
        if operation.name in ("PutObject", "UploadPart", "CompleteMultipartUpload")
    ]


def test_keys_mirror_the_root_and_what_lists_others_comes_behind_them(
    sync: Sync, s3: S3Server, proxy: Proxy, prefix: str, whole: Path
) -> None:
    done = sync(whole, "--push")
    assert done.returncode == 0, done.stderr
    files = {path: len(body) for path, body in sent_files(whole).items()}
    there = keys_there(s3, prefix)
    assert there.keys() == files.keys() | {"manifest.db", "receipt.json"}
    assert files.items() <= there.items()
    assert not any(path.startswith((".", "train/", "val/")) for path in there)
    order = [key.removeprefix(f"{prefix}/") for key in _sent(proxy)]
    assert order[-2:] == ["manifest.db", "receipt.json"]
    last = "index.json", "last.pt"
    first_of_them = min(at for at, key in enumerate(order) if key.endswith(last))
    assert all(key.endswith(last) for key in order[first_of_them:-2])
    assert Counter(order).most_common(1)[0][1] == 1
    assert {*re.findall(r"^sent (\S+):", done.stdout, re.M)} == {*order[:-1]}


def test_clients_of_others_read_the_same_bytes(
    sync: Sync, s3: S3Server, prefix: str, whole: Path
) -> None:
    make_big(whole)
    assert sync(whole, "--push").returncode == 0
    for path, words in {
        BIG: ["aws", "s3", "cp", "s3://{}", "-"],
        VAL_PATH: ["s5cmd", "cat", "s3://{}"],
        "shards/train/index.json": ["rclone", "--config", os.devnull, "cat", "S3:{}"],
    }.items():
        where = f"{BUCKET}/{prefix}/{path}"
        told = [word.replace("{}", where) for word in words]
        assert _client(s3, *told) == (whole / path).read_bytes()


@pytest.mark.parametrize("kind", ["CRC64NVME", "CRC32"])
def test_the_server_keeps_the_checksum_of_the_whole_file(
    sync: Sync, s3: S3Server, prefix: str, tmp_path: Path, kind: str
) -> None:
    from awscrt.checksums import crc32, crc64nvme

    root = tmp_path / "root"
    make_big(root)
    (root / "archives/small.tar").write_bytes(b"small" * 1000)
    done = sync(root, "--push", "--checksum-algorithm", kind)
    assert done.returncode == 0, done.stderr
    for path in (BIG, "archives/small.tar") if kind == "CRC64NVME" else (BIG,):
        body = (root / path).read_bytes()
        value = (
            crc64nvme(body).to_bytes(8, "big")
            if kind == "CRC64NVME"
            else crc32(body).to_bytes(4, "big")
        )
        words = ["aws", "s3api", "head-object", "--bucket", BUCKET, "--key", f"{prefix}/{path}"]
        head = json.loads(_client(s3, *words, "--checksum-mode", "ENABLED", "--output", "json"))
        assert head[f"Checksum{kind}"] == base64.b64encode(value).decode()
        assert head.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT"
        assert head["ContentLength"] == len(body)


def test_objects_carry_what_was_known_of_them_beforehand(
    sync: Sync, s3: S3Server, prefix: str, whole: Path
) -> None:
    assert sync(whole, "--push").returncode == 0
    told = {
        path: s3.client().head_object(Bucket=BUCKET, Key=f"{prefix}/{path}")["Metadata"]
        for path in (TRAIN_PATH, VAL_PATH, "shards/train/train-000000.tar")
    }
    proofs = receipt_of(whole)["archives"]
    assert told[TRAIN_PATH]["torrent"] == proofs[TRAIN]["proof"]["info_hash"]  # type: ignore[index]
    assert told[VAL_PATH]["md5"] == proofs[VAL]["proof"]["digest"]  # type: ignore[index]
    index = json.loads((whole / "shards/train/index.json").read_bytes())
    assert told["shards/train/train-000000.tar"]["xxh128"] == index["shards"][0]["xxh128"]
    assert told[TRAIN_PATH]["size"] == str((whole / TRAIN_PATH).stat().st_size)
    assert len({each["dataset"] for each in told.values()}) == 1


def test_the_receipt_there_says_what_this_read_learned(
    sync: Sync, s3: S3Server, prefix: str, whole: Path
) -> None:
    make_big(whole)
    assert sync(whole, "--push").returncode == 0
    body = s3.client().get_object(Bucket=BUCKET, Key=f"{prefix}/receipt.json")["Body"].read()
    receipt = json.loads(body)
    assert receipt["objects"].keys() == sent_files(whole).keys() | {"manifest.db"}
    big = receipt["objects"][BIG]
    assert (big["part_bytes"], len(big["parts"].split())) == (16 << 20, 3)
    assert receipt["archives"][TRAIN]["proof"]["kind"] == "torrent"
    assert not {"inode", "ctime_ns", "mtime_ns"} & receipt["archives"][TRAIN].keys()
    assert str(whole) not in body.decode()
    assert receipt["splits"].keys() == {"train", "val", "shards/train", "shards/val"}


def test_what_is_the_same_costs_listings_and_nothing_else(
    sync: Sync, proxy: Proxy, whole: Path
) -> None:
    for number in range(30):
        (whole / "runs/first" / f"{number}.png").write_bytes(b"%d" % number)
    assert sync(whole, "--push").returncode == 0
    done = sync(whole, "--push")
    assert done.returncode == 0, done.stderr
    assert {*names(proxy)} == LISTS
    assert len(names(proxy)) <= 6
    assert "push: 0 files" in done.stdout


def test_a_push_makes_the_next_plan_of_either_direction_empty(sync: Sync, whole: Path) -> None:
    assert sync(whole, "--push").returncode == 0
    told = [json.loads(line) for line in sync(whole, "--json").stdout.splitlines()]
    assert {each.get("action") for each in told} == {"skip", None}


def test_two_roots_with_the_same_do_not_write_the_receipt_in_turn(
    sync: Sync, proxy: Proxy, whole: Path, tmp_path: Path
) -> None:
    """One has made its splits at another time, one has them from the bucket."""
    other = copied(whole, tmp_path / "other")
    receipt = json.loads((other / "receipt.json").read_text())
    for record in receipt["splits"].values():
        record["recorded_at"] = "2026-01-01T00:00:00+00:00"
    (other / "receipt.json").write_text(json.dumps(receipt))
    third = tmp_path / "third"
    for root, way in ((whole, "--push"), (other, "--push"), (third, "--pull")):
        assert sync(root, way).returncode == 0
    for root in (third, whole, other):
        assert sync(root, "--push").returncode == 0
        assert "PutObject" not in names(proxy)


def test_every_connection_is_hung_up(sync: Sync, whole: Path, proxy: Proxy) -> None:
    assert sync(whole, "--push").returncode == 0
    while proxy.connections:  # the proxy hears of it a moment later
        time.sleep(0.01)


def test_archives_and_shards_known_by_their_digests_are_not_read(
    sync: Sync, proxy: Proxy, prefix: str, whole: Path, tmp_path: Path, run: Run
) -> None:
    """Another machine proved the same archives and made the same shards; it knows no checksum."""
    assert sync(whole, "--push").returncode == 0
    other = copied(whole, tmp_path / "other")
    (other / ".sync.db").unlink()
    shutil.rmtree(other / "shards")
    shards = ["--layout", "webdataset", "--shard-size", 60]
    assert run("organize", "--root", other, *shards).returncode == 0
    folders = ["--what", "archives,shards"]
    with opened_files() as opened:
        done = sync(other, "--push", "--json", *folders)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert not [path for path in opened if path.endswith(".tar")]
    actions = {each["file"]: each["action"] for each in told if "action" in each}
    assert {actions[path] for path in actions if path.endswith(".tar")} == {"skip"}
    asked = {each.key for each in operations(proxy.requests) if each.name == "HeadObject"}
    assert asked <= {f"{prefix}/receipt.json"}
    assert {*_sent(proxy)} <= {f"{prefix}/receipt.json"}


def test_what_is_newer_here_replaces_the_run_there(
    sync: Sync, s3: S3Server, prefix: str, whole: Path
) -> None:
    assert sync(whole, "--push").returncode == 0
    (whole / LAST).write_bytes(b"epoch 2")
    done = sync(whole, "--push")
    assert done.returncode == 0, done.stderr
    assert "newer here" in done.stdout
    assert keys_there(s3, prefix)[LAST] == len(b"epoch 2")


def test_what_is_newer_there_is_kept_by_a_push_and_fetched_by_a_pull(
    sync: Sync, s3: S3Server, prefix: str, whole: Path
) -> None:
    assert sync(whole, "--push").returncode == 0
    put(s3, f"{prefix}/{LAST}", b"epoch 9")
    done = sync(whole, "--push")
    assert done.returncode == 0 and "newer in the bucket" in done.stdout
    assert keys_there(s3, prefix)[LAST] == len(b"epoch 9")
    done = sync(whole, "--pull", "--what", "runs")
    assert done.returncode == 0, done.stderr
    assert (whole / LAST).read_bytes() == b"epoch 9"


def test_what_changed_on_both_sides_is_kept_until_it_is_to_be_replaced(
    sync: Sync, s3: S3Server, prefix: str, whole: Path
) -> None:
    assert sync(whole, "--push").returncode == 0
    put(s3, f"{prefix}/{LAST}", b"theirs")
    (whole / LAST).write_bytes(b"ours")
    for way in ("--push", "--pull"):
        done = sync(whole, way)
        assert done.returncode == 1
        assert LAST in done.stderr and "--replace" in done.stderr
    assert (whole / LAST).read_bytes() == b"ours"
    assert keys_there(s3, prefix)[LAST] == len(b"theirs")
    assert sync(whole, "--push", "--replace").returncode == 0
    assert keys_there(s3, prefix)[LAST] == len(b"ours")


def test_archives_that_differ_are_kept_and_named(
    sync: Sync, s3: S3Server, proxy: Proxy, prefix: str, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    (root / "archives").mkdir(parents=True)
    for name in ("a.tar", "b.tar", "c.tar"):
        (root / "archives" / name).write_bytes(name.encode() * 100)
    assert sync(root, "--push").returncode == 0
    put(s3, f"{prefix}/archives/a.tar", b"A" * 500)  # of the same size
    put(s3, f"{prefix}/archives/b.tar", b"B")
    done = sync(root, "--push")
    assert done.returncode == 1
    assert "archives/a.tar" in done.stderr and "archives/b.tar" in done.stderr
    assert _sent(proxy) == [f"{prefix}/receipt.json"]
    assert sync(root, "--push", "--replace").returncode == 0
    conditions = {
        operation.key.rpartition("/")[2]: request.headers.get("if-match")
        for request, operation in zip(proxy.requests, operations(proxy.requests), strict=True)
        if operation.name == "PutObject"
    }
    assert conditions["a.tar"] and conditions["b.tar"] and "c.tar" not in conditions
    assert sync(root, "--check").returncode == 0


def test_what_somebody_put_there_meanwhile_is_not_overwritten(
    sync: Sync, s3: S3Server, proxy: Proxy, prefix: str, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    (root / "archives").mkdir(parents=True)
    (root / "archives/a.tar").write_bytes(b"ours")

    def theirs_first(request: object) -> bool:
        if operations([request])[0].name == "PutObject" and not done_once:  # type: ignore[list-item]
            done_once.append(True)
            put(s3, f"{prefix}/archives/a.tar", b"theirs, sent meanwhile")
        return False

    done_once: list[bool] = []
    proxy.rules = [Rule("reset", match=theirs_first)]
    done = sync(root, "--push")
    assert done.returncode != 0 and "meanwhile" in done.stderr
    assert keys_there(s3, prefix)["archives/a.tar"] == len(b"theirs, sent meanwhile")


def test_delete_lists_and_yes_removes_and_only_within_what(
    sync: Sync, s3: S3Server, prefix: str, whole: Path
) -> None:
    assert sync(whole, "--push").returncode == 0
    (whole / VAL_PATH).unlink()
    (whole / LAST).unlink()
    put(s3, f"{prefix}/somebody/else", b"x")
    there = keys_there(s3, prefix)
    done = sync(whole, "--push", "--delete")
    assert done.returncode == 0, done.stderr
    assert "push: delete" in done.stdout and VAL_PATH in done.stdout and LAST in done.stdout
    assert "--yes" in done.stderr
    assert keys_there(s3, prefix).keys() == there.keys()
    done = sync(whole, "--push", "--delete", "--yes", "--what", "archives")
    assert f"removed {VAL_PATH}" in done.stdout
    assert there.keys() - keys_there(s3, prefix).keys() == {VAL_PATH}
    assert sync(whole, "--push", "--yes").returncode == 2


@pytest.mark.parametrize("what", [[], ["--what", "archives"]])
def test_an_empty_source_deletes_nothing(
    sync: Sync, s3: S3Server, prefix: str, whole: Path, tmp_path: Path, what: list[str]
) -> None:
    assert sync(whole, "--push").returncode == 0
    there, here = keys_there(s3, prefix), tree(whole / "archives")
    done = sync(tmp_path / "empty", "--push", "--delete", "--yes", *what)
    assert done.returncode == 1 and "empty is not there" in done.stderr
    assert keys_there(s3, prefix) == there
    done = sync(whole, "--pull", "--delete", "--yes", *what, place="nothing")
    assert done.returncode == 1 and "nothing at" in done.stderr
    assert tree(whole / "archives") == here


def test_what_limits_what_is_sent(sync: Sync, s3: S3Server, prefix: str, whole: Path) -> None:
    assert sync(whole, "--push", "--what", "runs").returncode == 0
    assert {path.partition("/")[0] for path in keys_there(s3, prefix)} == {"runs", "receipt.json"}
    assert sync(whole, "--push", "--what", "archives,shards").returncode == 0
    tops = {path.partition("/")[0] for path in keys_there(s3, prefix)}
    assert tops == {"runs", "archives", "shards", "receipt.json"}
    for what in ("everything", "images"):
        assert sync(whole, "--push", "--what", what).returncode == 2


def test_a_push_without_shards_leaves_the_splits_that_the_bucket_lists(
    sync: Sync, s3: S3Server, prefix: str, whole: Path, tmp_path: Path
) -> None:
    assert sync(whole, "--push").returncode == 0
    (whole / "archives/more.tar").write_bytes(b"more")
    where = {"Bucket": BUCKET, "Key": f"{prefix}/manifest.db"}
    body = s3.client().get_object(**where)["Body"].read()
    for what in ("archives,manifest", "manifest"):
        assert sync(whole, "--push", "--what", what).returncode == 0
        assert s3.client().get_object(**where)["Body"].read() == body


def test_a_damaged_manifest_in_the_bucket_is_replaced_by_the_command_of_its_hint(
    sync: Sync, s3: S3Server, prefix: str, whole: Path
) -> None:
    assert sync(whole, "--push").returncode == 0
    where = {"Bucket": BUCKET, "Key": f"{prefix}/manifest.db"}
    body = s3.client().get_object(**where)["Body"].read()
    s3.client().put_object(**where, Body=b"<html>")
    done = sync(whole, "--push")
    assert done.returncode == 4
    assert "--push --replace, from a root that is right" in done.stderr
    assert sync(whole, "--push", "--replace").returncode == 0
    assert s3.client().get_object(**where)["Body"].read() == body


def _stop_after_parts(proxy: Proxy, root: Path, place: str, sent: int) -> None:
    """A push of one job that is killed while it sends the part after so many."""
    proxy.rules = [Rule("stall", match=f"UploadPart .*partNumber={sent + 1}&")]
    words = command("sync-s3", place, "--root", root, "--push", "--jobs", 1, "--quiet")
    process = subprocess.Popen(words)
    while not any(request.faults for request in list(proxy.requests)):
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    proxy.rules = []


def test_another_machine_goes_on_with_an_upload_from_the_parts_the_server_has(
    sync: Sync, s3: S3Server, proxy: Proxy, prefix: str, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    make_big(root)
    _stop_after_parts(proxy, root, f"s3://{BUCKET}/{prefix}", 2)
    other = Path(shutil.copytree(root / "archives", tmp_path / "other/archives")).parent
    done = sync(other, "--push")
    assert done.returncode == 0, done.stderr
    parts = [each.part_number for each in operations(proxy.requests) if each.name == "UploadPart"]
    assert parts == [3]
    assert "CreateMultipartUpload" not in names(proxy)
    body = s3.client().get_object(Bucket=BUCKET, Key=f"{prefix}/{BIG}")["Body"].read()
    assert body == (root / BIG).read_bytes()
    assert sync(other, "--check").returncode == 0
    assert "Uploads" not in s3.client().list_multipart_uploads(Bucket=BUCKET, Prefix=prefix)


@pytest.mark.parametrize("remembers", [True, False])
def test_parts_of_another_file_are_not_taken_for_its_own(
    sync: Sync, proxy: Proxy, prefix: str, tmp_path: Path, remembers: bool
) -> None:
    root = tmp_path / "root"
    make_big(root)
    _stop_after_parts(proxy, root, f"s3://{BUCKET}/{prefix}", 2)
    spoil(root / BIG, 5)
    if not remembers:
        for path in root.glob(".sync.db*"):
            path.unlink()
    done = sync(root, "--push")
    assert done.returncode == 0, done.stderr
    parts = [each.part_number for each in operations(proxy.requests) if each.name == "UploadPart"]
    assert sorted(parts) == [1, 3]  # type: ignore[type-var]
    assert sync(root, "--check", "--deep").returncode == 0


def test_stale_uploads_are_shown_with_size_and_age_and_only_those_asked_for_go(
    sync: Sync, s3: S3Server, prefix: str, tmp_path: Path
) -> None:
    root, client = tmp_path / "root", s3.client()
    (root / "archives").mkdir(parents=True)
    (root / "archives/a.tar").write_bytes(b"a")

    def begin(key: str) -> str:
        where = {"Bucket": BUCKET, "Key": key}
        upload: str = client.create_multipart_upload(**where)["UploadId"]
        client.upload_part(**where, UploadId=upload, PartNumber=1, Body=b"x" * (5 << 20))
        return upload

    def left() -> set[str]:
        found = client.list_multipart_uploads(Bucket=BUCKET, Prefix=prefix).get("Uploads", ())
        return {each["UploadId"] for each in found}

    ours, theirs = begin(f"{prefix}/archives/a.tar"), begin(f"{prefix}/somebody/else.bin")
    done = sync(root, "--push", "--dry-run", "--abort-stale", "1h")
    assert left() == {ours, theirs}
    done = sync(root, "--dry-run", "--push")
    line = next(line for line in done.stderr.splitlines() if "archives/a.tar" in line)
    assert "5.24 MB" in line and re.search(r"0:\d\d old", line)
    assert "; a push resumes it" in line
    assert "somebody" not in done.stderr
    put(s3, f"{prefix}/archives/a.tar", b"b")
    both = sync(root).stderr
    assert both.count("unfinished upload") == 1 and "; no push resumes it" in both
    s3.client().delete_object(Bucket=BUCKET, Key=f"{prefix}/archives/a.tar")
    assert sync(root, "--push", "--what", "runs", "--abort-stale", "0s").returncode == 0
    assert left() == {ours, theirs}
    assert sync(root, "--push", "--abort-stale", "1h").returncode == 0
    assert left() == {ours, theirs}
    assert sync(root, "--push", "--abort-stale", "0s").returncode == 0
    assert left() == {theirs}


def test_a_server_without_checksums_is_told_once_and_guarded_by_md5(
    here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, other, served = tmp_path / "root", tmp_path / "other", tmp_path / "served"
    served.mkdir()
    make_big(root)
    make_run(root, "first")
    place = f"s3://{BUCKET}/there"
    with rclone_served(served) as server, proxied(server.endpoint) as proxy:
        for name, value in server.environment_of(endpoint=proxy.endpoint).items():
            monkeypatch.setenv(name, value)
        done = here("sync-s3", place, "--root", root, "--push")
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("compares the MD5") == 1
        bodies = [
            request
            for request in proxy.requests
            if request.operation.name in ("PutObject", "UploadPart") and request.status == 200
        ]
        unguarded = [each for each in bodies if "content-md5" not in each.headers]
        assert len(unguarded) <= 1  # the one by whose answer it shows, sent again
        assert here("sync-s3", place, "--root", root, "--check").returncode == 0
        proxy.requests.clear()
        assert here("sync-s3", place, "--root", root, "--push").returncode == 0
        assert {*names(proxy)} == LISTS
        done = here("sync-s3", place, "--root", other, "--pull")
        assert done.returncode == 0, done.stderr
        assert sent_files(other) == sent_files(root)
        assert "nothing verifies" not in done.stderr
        assert here("sync-s3", place, "--root", other, "--check", "--deep").returncode == 0
        theirs = server.client()
        theirs.upload_file(str(root / LAST), BUCKET, "there/runs/theirs/last.pt")
        make_run(root, "theirs")
        shutil.copy(root / LAST, root / "runs/theirs/last.pt")
        done = here("sync-s3", place, "--root", root, "--check", "--what", "runs", "--json")
        found = {
            (line["kind"], line["path"])
            for line in map(json.loads, done.stdout.splitlines())
            if "kind" in line
        }
        assert ("only-here", "runs/theirs/best.pt") in found
