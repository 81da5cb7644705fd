"""What a server refuses is told in two lines: what happened, and what to type."""

import os
import re
import sqlite3
import ssl
import subprocess
import time
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run
from tests.http_server import Answering, http_served
from tests.proxy import Proxy, Request, Rule
from tests.servers import BUCKET, SECRET, S3Server, free_port
from tests.sync.conftest import BIG, Sync, keys_there, names, put

SMALL = "archives/small.tar"
TOKEN = "the-token-of-a-session"
ARN = "arn:aws:iam::123456789012:user/me"
DONE = subprocess.CompletedProcess[str]


@pytest.fixture(autouse=True)
def session(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The user has no files of AWS."""
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


def make_big(root: Path) -> Path:
    """An archive of two parts."""
    path = root / BIG
    path.write_bytes(os.urandom((16 << 20) + 4321))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with one small archive."""
    path = tmp_path / "root" / SMALL
    path.parent.mkdir(parents=True)
    path.write_bytes(os.urandom(5000))
    return tmp_path / "root"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk that has room for the big archive and little more."""
    place = tmp_path / "disk"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(place)]
    if subprocess.run(words, capture_output=True, check=False).returncode != 0:
        pytest.skip("no small disk can be mounted here (that takes root)")
    yield place
    subprocess.run(["umount", place], check=True)


def told(done: DONE, *, code: int = 3) -> tuple[str, str]:
    """What the two lines say; they are the last ones, and no secret is in any."""
    assert done.returncode == code, done.stderr
    keeps_secrets(done.stdout + done.stderr)
    error, hint = done.stderr.splitlines()[-2:]
    assert error.startswith("Error: ") and hint.startswith("Hint: "), done.stderr
    assert len(re.findall("^Error: ", done.stderr, re.MULTILINE)) == 1
    return error.removeprefix("Error: "), hint.removeprefix("Hint: ")


def keeps_secrets(text: str) -> None:
    assert not re.search(f"{SECRET}|{TOKEN}|Signature=|Security-Token", text), text


def denied(match: str, action: str | None = None, message: str = "Access Denied") -> Rule:
    if action is not None:
        message = (
            f"User: {ARN} is not authorized to perform: {action} on resource: x because no"
            f" identity-based policy allows the {action} action"
        )
    return Rule("refuse", f"^{match}", status=403, code="AccessDenied", message=message)


def expired(match: str = "", **how: Any) -> Rule:
    said = "The provided token has expired."
    return Rule("refuse", f"^{match}", status=400, code="ExpiredToken", message=said, **how)


def test_without_credentials(
    sync: Sync, root: Path, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    error, hint = told(sync(root, "--push"), code=1)
    assert error.startswith(f"no AWS credentials for s3://{BUCKET}")
    assert hint.startswith("aws configure, or aws sso login; or set AWS_PROFILE, or AWS_ACCESS_KEY")
    assert not proxy.requests
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "half")
    assert "missing: AWS_SECRET_ACCESS_KEY" in told(sync(root, "--push"), code=1)[0]


def test_of_a_profile_that_is_not_there(
    sync: Sync, root: Path, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    error, hint = told(sync(root, "--push", "--profile", "nobody"), code=1)
    assert "profile (nobody) could not be found" in error
    assert hint.startswith("aws configure list-profiles")
    monkeypatch.setenv("AWS_PROFILE", "nowhere")
    assert "profile (nowhere)" in told(sync(root, "--pull"), code=1)[0]
    assert not proxy.requests


def test_of_another_servers_key_and_of_a_wrong_secret(
    sync: Sync, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    error, hint = told(sync(root, "--push"))
    assert "access key ID you provided does not exist" in error
    assert "AWS_ACCESS_KEY_ID or the profile" in hint
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "reader")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-" + SECRET)
    assert told(sync(root, "--push"))[1].startswith("the secret key is not that of the access key")


def test_of_a_session_that_has_expired(
    sync: Sync, root: Path, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    proxy.rules = [expired()]
    error, hint = told(sync(root, "--push"))
    assert "your session has expired (400)" in error
    assert hint == "log in again (aws sso login), then run the same command; it resumes"
    assert len(proxy.requests) == 1  # it does not pass by waiting


def test_a_session_that_expires_in_the_middle_goes_on_after_the_next_login(
    sync: Sync, root: Path, proxy: Proxy, s3: S3Server, prefix: str
) -> None:
    make_big(root)
    proxy.rules = [expired("UploadPart", after=1)]
    error, hint = told(sync(root, "--push", "--jobs", 1))
    assert f"{BIG}: your session has expired" in error
    assert "aws sso login" in hint
    assert BIG not in keys_there(s3, prefix)
    proxy.rules = []
    assert sync(root, "--push").returncode == 0
    assert names(proxy).count("UploadPart") == 1
    assert names(proxy).count("CreateMultipartUpload") == 0


def test_an_expired_session_that_is_told_to_head_without_words(
    sync: Sync, root: Path, proxy: Proxy, s3: S3Server, prefix: str
) -> None:
    put(s3, f"{prefix}/{SMALL}", os.urandom(5000))
    proxy.rules = [expired("(HeadObject|GetObject)")]
    assert "your session has expired" in told(sync(root, "--push"))[0]


IN_IRELAND = "set AWS_DEFAULT_REGION=eu-west-1"
MALFORMED = "The authorization header is malformed; the region 'us-east-1' is wrong; expecting"


@pytest.mark.parametrize(
    "rule",
    [
        Rule("refuse", "", status=301, code="PermanentRedirect", message="Use the other endpoint.",
             headers={"x-amz-bucket-region": "eu-west-1"}),
        Rule("refuse", "", status=400, code="AuthorizationHeaderMalformed",
             message=f"{MALFORMED} 'eu-west-1'", details={"Region": "eu-west-1"}),
        Rule("refuse", "", status=400, code="AuthorizationHeaderMalformed",
             message=f"{MALFORMED} 'eu-west-1'"),
        Rule("refuse", "", status=301, code="PermanentRedirect", message="Use the other endpoint.",
             details={"Endpoint": "imagenet.s3.eu-west-1.amazonaws.com"}),
        Rule("refuse", "", status=307, code="TemporaryRedirect", message="Use the other endpoint.",
             headers={"Location": "https://imagenet.s3-eu-west-1.amazonaws.com/"}),
    ],
    ids=["redirected", "malformed", "malformed, in words only", "to an endpoint", "for a time"],
)  # fmt: skip
def test_of_the_wrong_region_the_right_one_is_named(
    rule: Rule, sync: Sync, root: Path, proxy: Proxy
) -> None:
    proxy.rules = [rule]
    error, hint = told(sync(root, "--push"))
    assert "eu-west-1" in error and hint == IN_IRELAND


def test_a_redirect_without_a_region_is_told_with_what_finds_it(
    sync: Sync, root: Path, proxy: Proxy
) -> None:
    """botocore's client asks in a circle there, until Python has had enough."""
    proxy.rules = [Rule("refuse", "", status=301, code="PermanentRedirect", message="Not here.")]
    error, hint = told(sync(root, "--push"))
    assert error.endswith(": Not here. (301)") and len(proxy.requests) == 1
    assert hint.startswith(f"aws s3api get-bucket-location --bucket {BUCKET} names its region")
    proxy.rules[0].details = {"Endpoint": "store.example.org"}
    assert told(sync(root, "--pull"))[0].endswith(": Not here.: store.example.org (301)")


@pytest.mark.parametrize(
    ("key", "way", "operation", "action"),
    [
        ("writer", "--push", "ListObjectsV2", "s3:ListBucket"),
        ("lister", "--push", "ListMultipartUploads", "s3:ListBucketMultipartUploads"),
        ("reader", "--push", "PutObject", "s3:PutObject"),
        ("lister", "--pull", "GetObject", "s3:GetObject"),
    ],
)
def test_the_action_that_is_missing_is_named(
    key: str, way: str, operation: str, action: str,
    sync: Sync, root: Path, s3: S3Server, prefix: str, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    put(s3, f"{prefix}/archives/there.tar", b"there")
    put(s3, f"{prefix}/receipt.json", b"{}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    error, hint = told(sync(root, way))
    assert error.endswith(f": access denied to {operation} (403)")
    assert re.match(rf"your credentials need {action}[ ;]", hint)
    assert hint.endswith("aws sts get-caller-identity shows who you are")


@pytest.mark.parametrize(
    ("operation", "action", "words"),
    [
        ("CreateMultipartUpload", "s3:PutObject", ["--push"]),
        ("UploadPart", "s3:PutObject", ["--push"]),
        ("CompleteMultipartUpload", "s3:PutObject", ["--push"]),
        ("ListParts", "s3:ListMultipartUploadParts", ["--push"]),
        ("AbortMultipartUpload", "s3:AbortMultipartUpload", ["--push", "--abort-stale", "0s"]),
        ("DeleteObjects", "s3:DeleteObject", ["--push", "--delete", "--yes"]),
        ("(HeadObject|GetObject)", "s3:GetObject", ["--pull"]),
    ],
)
def test_the_action_that_is_missing_on_the_way_is_named(
    operation: str, action: str, words: list[str],
    sync: Sync, root: Path, proxy: Proxy, s3: S3Server, prefix: str,
) -> None:  # fmt: skip
    if operation in {"ListParts", "AbortMultipartUpload"}:
        s3.client().create_multipart_upload(Bucket=BUCKET, Key=f"{prefix}/{BIG}")
    if operation != "DeleteObjects" and "--pull" not in words:
        make_big(root)
    put(s3, f"{prefix}/archives/other.tar", b"other")
    proxy.rules = [denied(operation)]
    error, hint = told(sync(root, *words))
    assert re.search(rf"access denied to {operation} \(403\)", error)
    assert re.match(rf"your credentials need {action}[ ;]", hint)


def test_the_action_is_the_one_that_the_server_names(sync: Sync, root: Path, proxy: Proxy) -> None:
    proxy.rules = [denied("PutObject", "s3:PutObjectTagging")]
    error, hint = told(sync(root, "--push", "--tagging", "of=mine"))
    assert ARN in error  # who was refused, and by which policy
    assert hint.startswith("your credentials need s3:PutObjectTagging;")
    proxy.rules = [denied("PutObject", "kms:GenerateDataKey")]
    hint = told(sync(root, "--push", "--sse", "aws:kms"))[1]
    assert hint.startswith("your credentials need kms:GenerateDataKey and kms:Decrypt")


def test_who_may_only_read_can_pull(
    sync: Sync, root: Path, tmp_path: Path, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sync(root, "--push").returncode == 0
    proxy.rules = [denied("ListMultipartUploads"), denied("PutObject")]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "reader")
    assert sync(tmp_path / "other", "--pull").returncode == 0
    assert (tmp_path / "other" / SMALL).read_bytes() == (root / SMALL).read_bytes()


def test_of_a_bucket_that_is_not_there_or_cannot_be(here: Run, root: Path, proxy: Proxy) -> None:
    words = ["--root", root, "--push"]
    error, hint = told(here("sync-s3", "s3://nothere/x", *words))
    assert error == "s3://nothere/x/: there is no such bucket (404)"
    assert hint == "aws s3 mb s3://nothere makes it, aws s3 ls shows those there are"
    asked = len(proxy.requests)
    assert 'Invalid bucket name "no!"' in told(here("sync-s3", "s3://no!/x", *words), code=2)[0]
    assert len(proxy.requests) == asked


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        (["--endpoint-url", "127.0.0.1:9"], "Invalid endpoint: 127.0.0.1:9", "like https://HOST"),
        (["--region", "a b"], "region_name 'a b'", "--region, or AWS_DEFAULT_REGION"),
        (["--accelerate"], "custom endpoint cannot be combined with S3 Accelerate", "the options"),
    ],
)
def test_of_options_that_cannot_be(
    words: list[str], error: str, hint: str, sync: Sync, root: Path
) -> None:
    lines = told(sync(root, "--push", *words), code=2)
    assert error in lines[0] and hint in lines[1]


@pytest.mark.parametrize(
    ("rule", "error", "hint"),
    [
        (Rule("refuse", "", status=403, code="RequestTimeTooSkewed", message="Too large.",
              details={"ServerTime": "2026-01-01T00:00:00Z"}),
         "the clock of this machine is not that of the server (403)", "timedatectl set-ntp true"),
        (Rule("refuse", "PutObject", status=507, code="XMinioStorageFull", message="Full."),
         f"{SMALL}: Full. (507)", "the server has no room left: free some there"),
        (Rule("refuse", "PutObject", status=507, code="InsufficientStorage", message="Full."),
         f"{SMALL}: Full. (507)", "the server has no room left: free some there"),
        (Rule("refuse", "PutObject", status=400, code="InvalidStorageClass", message="Not valid"),
         f"{SMALL}: Not valid (400)", "--storage-class"),
        (Rule("refuse", "PutObject", status=403, code="Odd", message="\x1b[2J two\nlines " * 99),
         f"{SMALL}: access denied to PutObject (403)", "s3:PutObject"),
        (Rule("refuse", "PutObject", status=418, code="Odd", message="{key} [2J two\nlines " * 99),
         f"{SMALL}: {{key}} [2J two lines", "run the same command again"),
    ],
    ids=["clock", "full MinIO", "full", "an option", "odd 403", "odd"],
)  # fmt: skip
def test_what_else_is_refused(
    rule: Rule, error: str, hint: str, sync: Sync, root: Path, proxy: Proxy
) -> None:
    proxy.rules = [rule]
    lines = told(sync(root, "--push"))
    assert error in lines[0] and hint in lines[1]
    assert lines[0].isprintable() and len(lines[0]) < 500
    assert sum(request.status == rule.status for request in proxy.requests) == 1


def test_a_server_that_fills_up_keeps_the_parts_and_goes_on(
    sync: Sync, root: Path, proxy: Proxy
) -> None:
    make_big(root)
    proxy.rules = [
        Rule("refuse", "UploadPart", after=1, status=507, code="InsufficientStorage", message="-")
    ]
    assert "no room left" in told(sync(root, "--push", "--jobs", 1))[1]
    proxy.rules = []
    assert sync(root, "--push").returncode == 0
    assert names(proxy).count("UploadPart") == 1


@pytest.mark.parametrize(
    ("of", "lacks"),
    [("PutObject", "ETag"), ("UploadPart", "ETag"), ("CreateMultipartUpload", "UploadId")],
)
def test_an_answer_that_lacks_what_follows_is_none_of_s3(
    of: str, lacks: str, sync: Sync, root: Path, proxy: Proxy
) -> None:
    make_big(root)
    proxy.rules = [Rule("refuse", f"^{of} ", status=200)]
    error, hint = told(sync(root, "--push"))
    assert error.endswith(f"the answer is not one of S3: it has no {lacks}")
    assert hint.startswith("check --endpoint-url")


def test_an_upload_that_met_another_one_is_dropped_and_begun_anew(
    sync: Sync, root: Path, proxy: Proxy, s3: S3Server, prefix: str
) -> None:
    """AWS completes no upload during which somebody else has written the object."""
    body = make_big(root).read_bytes()
    said = "The conditional request cannot succeed due to a conflicting operation."
    proxy.rules = [
        Rule("refuse", "CompleteM", status=409, code="ConditionalRequestConflict", message=said)
    ]
    error, hint = told(sync(root, "--push"), code=4)
    assert error == f"s3://{BUCKET}/{prefix}/{BIG}: another program has written it meanwhile"
    assert hint.startswith("run the same command again") and BIG not in keys_there(s3, prefix)
    assert "Uploads" not in s3.client().list_multipart_uploads(Bucket=BUCKET, Prefix=prefix)
    proxy.rules = []
    assert sync(root, "--push").returncode == 0
    sent = s3.client().get_object(Bucket=BUCKET, Key=f"{prefix}/{BIG}")["Body"].read()
    assert sent == body


def test_an_object_that_is_archived_is_named_with_what_brings_it_back(
    sync: Sync, root: Path, tmp_path: Path, proxy: Proxy, prefix: str
) -> None:
    assert sync(root, "--push").returncode == 0
    said = "The operation is not valid for the object's storage class"
    proxy.rules = [
        Rule("refuse", "GetObject.*small", status=403, code="InvalidObjectState", message=said)
    ]
    error, hint = told(sync(tmp_path / "other", "--pull"))
    assert said in error
    wanted = f"aws s3api restore-object --bucket {BUCKET} --key {prefix}/{SMALL} --restore-request"
    assert wanted in hint


def test_an_object_that_changes_during_the_download_is_not_mixed_with_the_old_one(
    sync: Sync, root: Path, tmp_path: Path, proxy: Proxy, s3: S3Server, prefix: str
) -> None:
    body = make_big(root).read_bytes()
    assert sync(root, "--push", "--what", "archives").returncode == 0
    asked = 0

    def replace(request: Request) -> bool:
        nonlocal asked
        asked += request.operation.key.endswith("big.tar") and request.method == "GET"
        if asked == 2:
            put(s3, f"{prefix}/{BIG}", body[::-1])
            asked += 1
        return False

    proxy.rules = [Rule("reset", replace)]
    other = tmp_path / "other"
    error, hint = told(sync(other, "--pull", "--jobs", 1), code=4)
    assert error == f"s3://{BUCKET}/{prefix}/{BIG} has changed meanwhile"
    assert hint.startswith("run the same command again")
    assert not (other / BIG).exists()
    proxy.rules = []
    assert sync(other, "--pull").returncode == 0
    assert (other / BIG).read_bytes() == body[::-1]


@pytest.mark.parametrize("what", ["the same size", "shorter"])
def test_a_file_that_changes_while_it_is_sent_makes_no_object(
    what: str, sync: Sync, root: Path, proxy: Proxy, s3: S3Server, prefix: str
) -> None:
    path = make_big(root)
    asked = 0

    def write(request: Request) -> bool:
        nonlocal asked
        asked += request.operation.name == "UploadPart"
        if asked == 2:
            asked += 1
            path.write_bytes(path.read_bytes()[::-1][what == "shorter" :])
        return False

    proxy.rules = [Rule("reset", write)]
    error, hint = told(sync(root, "--push", "--jobs", 1), code=1)
    assert error == f"{path} changed while it was read"
    assert hint.startswith("run the same command once nothing writes to it")
    assert BIG not in keys_there(s3, prefix)
    assert sync(root, "--push").returncode == 0
    client = s3.client()
    sent = client.get_object(Bucket=BUCKET, Key=f"{prefix}/{BIG}")["Body"].read()
    assert sent == path.read_bytes()


def test_a_disk_without_room_is_told_before_anything_is_fetched(
    sync: Sync, root: Path, small_disk: Path, proxy: Proxy
) -> None:
    make_big(root)
    assert sync(root, "--push", "--what", "archives").returncode == 0
    (small_disk / "ballast").write_bytes(bytes(10 << 20))
    error, hint = told(sync(small_disk / "root", "--pull"), code=1)
    assert re.search(r"what is to be fetched needs 16\.\d MB and the disk of .* has 1\d", error)
    assert re.match(r"free [\d.]+ MB, or name another disk by --root", hint)
    fetched = [r.path for r in proxy.requests if r.operation.name == "GetObject"]
    assert all(path.endswith("receipt.json") for path in fetched)


def test_a_disk_that_fills_up_during_a_pull_goes_on_with_room(
    sync: Sync, root: Path, small_disk: Path, proxy: Proxy
) -> None:
    body, ballast = make_big(root).read_bytes(), small_disk / "ballast"
    assert sync(root, "--push", "--what", "archives").returncode == 0

    def fill(request: Request) -> bool:  # somebody else's
        if request.path.endswith("big.tar") and request.method == "GET" and not ballast.exists():
            ballast.write_bytes(bytes(12 << 20))
        return False

    proxy.rules = [Rule("reset", fill)]
    error, hint = told(sync(small_disk / "root", "--pull"), code=1)
    assert re.search("big.tar: No space left on device$|disk is full$", error)
    assert hint.startswith("free some space and run the same command again")
    assert not (small_disk / "root" / BIG).exists()
    ballast.unlink()
    proxy.rules = []
    assert sync(small_disk / "root", "--pull").returncode == 0
    assert (small_disk / "root" / BIG).read_bytes() == body


def test_a_server_that_is_not_there_is_told_in_seconds(
    sync: Sync, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", nowhere)
    begun = time.monotonic()
    error, hint = told(sync(root, "--push"))
    assert error.endswith(f": no connection to {nowhere}")
    assert "--endpoint-url or AWS_ENDPOINT_URL" in hint
    assert time.monotonic() - begun < 5


class _Elsewhere(Answering):
    """A server whose bucket is in Ireland."""

    def do_GET(self) -> None:
        self.answer(status=301, headers={"x-amz-bucket-region": "eu-west-1"})


@pytest.fixture
def elsewhere() -> Iterator[ThreadingHTTPServer]:
    """A server that sends its clients elsewhere."""
    with http_served(_Elsewhere) as server:
        yield server


def test_a_certificate_of_nobody_we_know_is_refused_at_once_and_taken_when_it_is_named(
    sync: Sync, root: Path, tmp_path: Path,
    elsewhere: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    pem = tmp_path / "own.pem"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    words += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    words += ["-keyout", str(tmp_path / "key.pem"), "-out", str(pem)]
    try:
        subprocess.run(words, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no openssl to make a certificate")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, tmp_path / "key.pem")
    elsewhere.socket = context.wrap_socket(elsewhere.socket, server_side=True)
    endpoint = f"https://127.0.0.1:{elsewhere.server_port}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    begun = time.monotonic()
    error, hint = told(sync(root, "--push"))
    assert error.startswith(f"{endpoint} is not trusted: ")
    assert "self-signed certificate" in error or "self signed certificate" in error
    assert hint.startswith("AWS_CA_BUNDLE=FILE")
    assert time.monotonic() - begun < 5
    monkeypatch.setenv("AWS_CA_BUNDLE", str(pem))
    assert "is in eu-west-1" in told(sync(root, "--push"))[0]


def test_a_value_that_no_journal_has_is_damage(sync: Sync, root: Path, proxy: Proxy) -> None:
    assert sync(root, "--push").returncode == 0
    with sqlite3.connect(root / ".sync.db") as database:
        database.execute("UPDATE file SET value = 'no number'")
    assert "was damaged and is removed" in told(sync(root, "--push"), code=1)[0]
    assert sync(root, "--push").returncode == 0
