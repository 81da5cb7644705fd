"""Stores that take less than AWS does, or let in whoever pays, are filled and read."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import TRAIN, VAL, Run, spoil, tree
from tests.proxy import Proxy, Request, Rule
from tests.servers import BUCKET, S3Server
from tests.sync.conftest import Sync, make_big, make_run, names, put, sent_files


def _has_checksum(request: Request) -> bool:
    """Has it any of the headers that came to S3 in 2022?"""
    return any(each.startswith(("x-amz-checksum", "x-amz-sdk-ch")) for each in request.headers)


def _refused(match: str | Callable[[Request], bool], status: int, code: str, message: str) -> Rule:
    return Rule("refuse", match, status=status, code=code, message=message)


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (400, "InvalidArgument", "Unsupported header 'x-amz-checksum' received for this API call."),
        (501, "NotImplemented", "A header you provided implies functionality that is not here."),
    ],
    ids=["named", "of some header"],
)
def test_a_store_that_refuses_checksums_is_filled_compared_and_fetched_from(
    status: int, code: str, message: str,
    sync: Sync, proxy: Proxy, s3: S3Server, prefix: str, tmp_path: Path,
) -> None:  # fmt: skip
    root, other = tmp_path / "root", tmp_path / "other"
    make_run(root, "first")
    if status == 400:  # an upload in parts has other requests, and once is enough
        make_big(root)
    proxy.rules = [_refused(_has_checksum, status, code, message)]
    done = sync(root, "--push")
    assert done.returncode == 0, done.stderr
    assert "compares the MD5 of each part" in done.stderr
    assert sync(root, "--push").returncode == 0
    assert {*names(proxy)} == {"ListObjectsV2", "ListMultipartUploads"}
    assert sync(root, "--check").stdout.startswith("0 findings")
    (root / ".sync.db").unlink()  # what another machine knows
    assert sync(root, "--check").stdout.startswith("0 findings")
    done = sync(other, "--pull")
    assert done.returncode == 0, done.stderr
    assert "nothing verifies" not in done.stderr
    assert sent_files(other) == sent_files(root)
    log = make_run(root, "second") / "log.jsonl"
    put(s3, f"{prefix}/runs/second/log.jsonl", log.read_bytes())  # by another program
    assert sync(root, "--check", "--what", "runs").stdout.count("runs/second/log.jsonl") == 0
    assert sync(root, "--push").returncode == 0
    put(s3, f"{prefix}/runs/second/log.jsonl", log.read_bytes()[::-1])
    error, hint = sync(root, "--push").stderr.splitlines()[-2:]
    assert "nothing proves them equal: the server keeps no checksum" in error
    assert "sync-s3" in hint and "--check --deep" in hint
    assert "differs: runs/second/log.jsonl" in sync(root, "--check", "--deep").stdout
    assert sync(root, "--push", "--replace").returncode == 0
    shutil.rmtree(root / "runs" / "second")
    done = sync(root, "--push", "--delete", "--yes")
    assert done.returncode == 0, done.stderr
    assert sync(root, "--check").returncode == 0


@pytest.mark.parametrize(
    "rule",
    [
        _refused("^HeadObject", 405, "MethodNotAllowed", "-"),
        _refused("^HeadObject", 501, "NotImplemented", "-"),
        _refused("^HeadObject", 403, "AccessDenied", "-"),
        Rule("drop", "^HeadObject", message="Content-Length"),
        Rule("drop", "^HeadObject", message="ETag"),
    ],
    ids=["not allowed", "not implemented", "forbidden", "without a size", "without an ETag"],
)
def test_a_store_that_answers_head_oddly_is_asked_by_get(
    rule: Rule, here: Run, sync: Sync, proxy: Proxy, s3: S3Server, prefix: str,
    tmp_path: Path, packed: Path, organized_once: Path,
) -> None:  # fmt: skip
    for name in (TRAIN, VAL):
        put(s3, f"{prefix}/archives/{name}", (packed.parent / name).read_bytes())
    put(s3, f"{prefix}/archives/empty", b"")
    proxy.rules = [rule]
    place = ["--dataset", packed, "--archives", f"s3://{BUCKET}/{prefix}/archives"]
    done = here("organize", "--root", tmp_path / "root", *place)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "root" / "train") == tree(organized_once / "train")
    done = sync(tmp_path / "other", "--pull")
    assert done.returncode == 0, done.stderr
    assert len(tree(tmp_path / "other" / "archives")) == 4


def test_a_store_that_lists_no_uploads_is_pushed_to(
    sync: Sync, proxy: Proxy, tmp_path: Path
) -> None:
    make_run(tmp_path, "first")
    proxy.rules = [_refused("^ListMultipartUploads", 501, "NotImplemented", "-")]
    assert sync(tmp_path, "--push").returncode == 0


@pytest.mark.parametrize("gap", ["Size", "ETag"])
def test_a_list_that_lacks_what_follows_is_none_of_s3(
    gap: str, sync: Sync, proxy: Proxy, tmp_path: Path, prefix: str
) -> None:
    fields = {"Key": f"{prefix}/runs/a/b", "Size": 1, "ETag": "x", "LastModified": "2026-01-01"}
    item = "".join(f"<{name}>{value}</{name}>" for name, value in fields.items() if name != gap)
    body = f"<ListBucketResult><Contents>{item}</Contents></ListBucketResult>"
    proxy.rules = [Rule("refuse", "^ListObjectsV2", status=200, body=body)]
    done = sync(tmp_path, "--pull")
    assert done.returncode == 3, done.stderr
    assert f"the server lists {prefix}/runs/a/b without {gap}" in done.stderr


@pytest.fixture
def place(proxy: Proxy, s3: S3Server, prefix: str, published: Path) -> Iterator[str]:
    """Where the archives of `published` lie."""
    for name in (TRAIN, VAL):
        put(s3, f"{prefix}/archives/{name}", (published.parent / name).read_bytes())
    yield f"s3://{BUCKET}/{prefix}"


_PAYS = _refused(
    lambda request: request.headers.get("x-amz-request-payer") != "requester",
    403, "AccessDenied", "Access Denied",
)  # fmt: skip
_OPEN = _refused(
    lambda request: "authorization" in request.headers,
    403, "InvalidAccessKeyId", "The access key is not in our records.",
)  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "option"),
    [(_PAYS, "--request-payer"), (_OPEN, "--no-sign-request")],
    ids=["paid for by the reader", "public"],
)
def test_every_verb_that_reads_a_bucket_can_say_how(
    rule: Rule, option: str, place: str, here: Run, proxy: Proxy,
    archived: Path, published: Path, tmp_path: Path,
) -> None:  # fmt: skip
    root, subset, listed = tmp_path / "new", tmp_path / "subset", tmp_path / "classes.txt"
    listed.write_text("n01491361\n")
    read = ["--archives", place, "--dataset", published]
    assert here("organize", "--root", root, *read).returncode == 0
    lost = next((root / "val").glob("*/*"))
    lost.unlink()
    spoil(archived / "archives" / TRAIN, 100_000)
    proxy.rules = [rule]
    for words in (
        ["organize", "--root", tmp_path / "other", *read, "--split", "val"],
        ["subset", listed, "--to", subset, *read, "--split", "val"],
        ["repair", "--root", root, "--from", place],
        ["repair-archives", "--root", archived, "--split", "train", "--from", place],
        ["sync-s3", place, "--root", tmp_path / "pulled", "--pull"],
    ):
        done = here(*words)
        assert done.returncode == 3, done.stderr
        assert option in done.stderr.splitlines()[-1]
        done = here(*words, option)
        assert done.returncode == 0, done.stderr
    assert lost.exists()


def test_how_a_bucket_was_read_is_in_the_command_of_a_hint(
    here: Run, proxy: Proxy, s3: S3Server, prefix: str, tmp_path: Path
) -> None:
    put(s3, f"{prefix}/imagenet/runs/a/b", b"x")
    words = [f"s3://{BUCKET}/{prefix}/imagnet", "--root", tmp_path, "--pull"]
    done = here("sync-s3", *words, "--no-sign-request")
    command = f"imnetprep sync-s3 --root {tmp_path} --no-sign-request s3://{BUCKET}/{prefix}"
    assert f"Hint: {command}/imagenet --pull" in done.stderr
    words = [f"s3://{BUCKET}/{prefix}", "--root", tmp_path / "a", "--push", "--no-sign-request"]
    make_run(tmp_path / "b", "first")
    hint = here("sync-s3", *words).stderr.splitlines()[-1]
    assert hint.endswith(f"{prefix} --root {tmp_path}/b --push") and "--no-sign-request" in hint


def test_how_a_bucket_is_read_is_said_of_buckets_only(here: Run, packed: Path) -> None:
    words = ["--dataset", packed, "--archives", packed.parent, "--request-payer"]
    done = here("organize", *words, "--no-sign-request")
    assert done.returncode == 2
    assert "--request-payer and --no-sign-request cannot be used: only a bucket" in done.stderr
