"""A check: what proves both sides equal, or a finding for each file and what is wrong with it."""

import json
import subprocess
from pathlib import Path

import pytest

from imnetprep.archives.file import file_state
from imnetprep.catalog.datasets import Root
from imnetprep.sync.journal import open_sync_journal
from tests.conftest import TRAIN, VAL, Run, spoil
from tests.proxy import Proxy, Rule, operations
from tests.servers import BUCKET, S3Server, rclone_served
from tests.sync.conftest import BIG, Sync, make_big, put

LAST = "runs/first/last.pt"


def _findings(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """The kind of each finding, by path."""
    assert done.returncode in (0, 5), done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    found = {line["path"]: line["kind"] for line in told[:-1]}
    assert told[-1]["findings"] == len(told) - 1
    assert (done.returncode == 5) == bool(found)
    return found


def _rot(root: Path, name: str, at: int) -> None:
    """Change a byte as a disk does: nothing tells of it, so what was known of it still stands."""
    with open_sync_journal(Root(root), endpoint="") as journal:
        known = journal.of_file(name, file_state(root / name), "crc64nvme")
        assert known is not None
        spoil(root / name, at)
        journal.keep_file(name, file_state(root / name), known)


def test_equal_sides_have_no_findings(sync: Sync, proxy: Proxy, whole: Path) -> None:
    assert sync(whole, "--push").returncode == 0
    done = sync(whole, "--check")
    assert done.returncode == 0 and "0 findings" in done.stdout, done.stdout
    read = [each.key for each in operations(proxy.requests) if each.name == "GetObject"]
    assert all(key.endswith("manifest.db") for key in read)
    assert _findings(sync(whole, "--check", "--deep", "--json")) == {}
    assert sync(whole, "--deep").returncode == 2


def test_each_way_to_differ_is_a_finding_of_its_own(
    sync: Sync, s3: S3Server, prefix: str, whole: Path
) -> None:
    assert sync(whole, "--push").returncode == 0
    (whole / "archives/mine.tar").write_bytes(b"mine")
    put(s3, f"{prefix}/archives/theirs.tar", b"theirs")
    put(s3, f"{prefix}/{LAST}", b"shorter")
    body = (whole / f"archives/{VAL}").read_bytes()
    put(s3, f"{prefix}/archives/{VAL}", body[:-1] + b"\1", ChecksumAlgorithm="CRC64NVME")
    where = {"Bucket": BUCKET, "Key": f"{prefix}/archives/{TRAIN}"}
    upload = s3.client().create_multipart_upload(**where)["UploadId"]
    found = _findings(sync(whole, "--check", "--json"))
    s3.client().abort_multipart_upload(**where, UploadId=upload)
    assert found == {
        "archives/mine.tar": "only-here",
        "archives/theirs.tar": "only-there",
        LAST: "size",
        f"archives/{VAL}": "differs",
        f"archives/{TRAIN}": "unfinished",
    }


def test_a_byte_that_rotted_here_is_found_by_reading(sync: Sync, whole: Path) -> None:
    make_big(whole)
    assert sync(whole, "--push").returncode == 0
    _rot(whole, BIG, (20 << 20) + 7)
    assert _findings(sync(whole, "--check", "--json")) == {}
    done = sync(whole, "--check", "--deep")
    assert done.returncode == 5
    assert f"differs: {BIG}" in done.stdout
    assert "part 2 (bytes 16,777,216 to 33,554,432)" in done.stdout


def test_an_object_that_reads_otherwise_than_was_recorded_is_rotten(
    sync: Sync, proxy: Proxy, whole: Path
) -> None:
    """No server lets its bytes be changed under it; the proxy changes them on their way instead."""
    assert sync(whole, "--push", "--what", "runs").returncode == 0
    proxy.rules = [Rule("flip", match=LAST, offset=3)]
    found = _findings(sync(whole, "--check", "--deep", "--json", "--what", "runs"))
    assert found == {LAST: "rotten"}
    assert _findings(sync(whole, "--check", "--json", "--what", "runs")) == {}


def test_the_server_is_believed_before_the_receipt(
    sync: Sync, s3: S3Server, prefix: str, tmp_path: Path
) -> None:
    """Somebody wrote into the receipt that the object is what is here; it is not."""
    root = tmp_path / "root"
    (root / "archives").mkdir(parents=True)
    (root / "archives/a.tar").write_bytes(b"ours")
    assert sync(root, "--push").returncode == 0
    key, client = f"{prefix}/archives/a.tar", s3.client()
    put(s3, key, b"them", ChecksumAlgorithm="CRC64NVME")
    etag = client.head_object(Bucket=BUCKET, Key=key)["ETag"].strip('"')
    where = {"Bucket": BUCKET, "Key": f"{prefix}/receipt.json"}
    receipt = json.loads(client.get_object(**where)["Body"].read())
    receipt["objects"]["archives/a.tar"]["etag"] = etag
    put(s3, where["Key"], json.dumps(receipt).encode())
    for words in ([], ["--deep"]):
        assert _findings(sync(root, "--check", "--json", *words)) == {"archives/a.tar": "differs"}


def test_what_the_server_has_no_checksum_of_is_unproved_until_it_is_read(
    here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, served, words = tmp_path / "root", tmp_path / "served", ["--check", "--json"]
    served.mkdir()
    make_big(root)
    with rclone_served(served) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        client = server.client(request_checksum_calculation="when_required")
        client.upload_file(str(root / BIG), BUCKET, f"there/{BIG}")
        place = [f"s3://{BUCKET}/there", "--root", root]
        assert _findings(here("sync-s3", *place, *words, "--deep")) == {}
        spoil(served / "data" / BUCKET / "there" / BIG, 5)
        assert _findings(here("sync-s3", *place, *words)) == {BIG: "unproved"}
        assert _findings(here("sync-s3", *place, *words, "--deep")) == {BIG: "differs"}
        client.upload_file(str(root / BIG), BUCKET, f"other/{BIG}")
        theirs = served / "data" / BUCKET / "other" / BIG
        spoil(theirs, 5)
        for way in ("--push", "--pull"):
            done = here("sync-s3", f"s3://{BUCKET}/other", "--root", root, way)
            assert done.returncode == 1 and "keeps no checksum" in done.stderr
        assert theirs.read_bytes() != (root / BIG).read_bytes()


def test_a_manifest_that_does_not_list_what_is_there_is_a_finding(
    sync: Sync, s3: S3Server, prefix: str, whole: Path
) -> None:
    assert sync(whole, "--push", "--what", "shards,manifest").returncode == 0
    assert _findings(sync(whole, "--check", "--json", "--what", "shards,manifest")) == {}
    s3.client().delete_object(Bucket=BUCKET, Key=f"{prefix}/manifest.db")
    found = _findings(sync(whole, "--check", "--json", "--what", "shards,manifest"))
    assert found == {"manifest.db": "only-here"}
