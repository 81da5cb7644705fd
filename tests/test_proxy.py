"""Each fault of the proxy is really there, as boto3 sees it."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore import exceptions

from tests.proxy import Proxy, Rule, operations, proxied, read_log
from tests.servers import BUCKET, KEY, S3Server, rclone_served, s3_served

PART = 5 << 20
BODY = os.urandom(PART + 300_000)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_served(tmp_path_factory.mktemp("s3"), {"reader": ("Read", "List")}) as server:
        server.client().put_object(Bucket=BUCKET, Key="there", Body=BODY)
        yield server


@pytest.fixture
def proxy(server: S3Server) -> Iterator[Proxy]:
    with proxied(server.endpoint) as proxy:
        yield proxy


def once(server: S3Server, proxy: Proxy, key: str = KEY, **config: Any) -> Any:
    """A client that tries once and waits a second."""
    patience = {"retries": {"total_max_attempts": 1}, "read_timeout": 1, "connect_timeout": 2}
    return server.client(key, endpoint=proxy.endpoint, **(patience | config))


def fetched(client: Any, key: str = "there", **words: Any) -> bytes:
    body: bytes = client.get_object(Bucket=BUCKET, Key=key, **words)["Body"].read()
    return body


def send_in_parts(client: Any, key: str, **words: Any) -> None:
    about = {"Bucket": BUCKET, "Key": key}
    upload = client.create_multipart_upload(**about)["UploadId"]
    parts = []
    for number, body in enumerate([BODY[:PART], BODY[PART:]], 1):
        answer = client.upload_part(**about, UploadId=upload, PartNumber=number, Body=body, **words)
        parts.append({"PartNumber": number, "ETag": answer["ETag"]})
    client.list_parts(**about, UploadId=upload)
    client.list_multipart_uploads(Bucket=BUCKET, Prefix="in")
    client.complete_multipart_upload(**about, UploadId=upload, MultipartUpload={"Parts": parts})


def test_passes_on_what_comes_and_names_each_operation(server: S3Server, proxy: Proxy) -> None:
    client = once(server, proxy)
    send_in_parts(client, "in/parts é+%2F")
    client.put_object(Bucket=BUCKET, Key="whole", Body=BODY, IfNoneMatch="*")
    client.head_object(Bucket=BUCKET, Key="whole")
    client.list_objects_v2(Bucket=BUCKET)
    assert fetched(client, "in/parts é+%2F") == BODY
    assert fetched(client, Range=f"bytes=7-{PART}") == BODY[7 : PART + 1]
    client.delete_object(Bucket=BUCKET, Key="whole")  # 204, then the same connection again
    client.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "in/parts é+%2F"}]})
    names = [operation.name for operation in operations(proxy.requests)]
    assert names[:5] == ["CreateMultipartUpload", *["UploadPart"] * 2, "ListParts", names[4]]
    assert names[4:8] == [
        "ListMultipartUploads",
        "CompleteMultipartUpload",
        "PutObject",
        "HeadObject",
    ]
    assert names[8:] == ["ListObjectsV2", *["GetObject"] * 2, "DeleteObject", "DeleteObjects"]
    second = operations(proxy.requests)[2]
    assert (second.key, second.part_number) == ("in/parts é+%2F", 2) and second.upload_id
    assert [request.up_bytes for request in proxy.requests[1:3]] == [PART, 300_000]
    assert proxy.requests[10].down_bytes == PART - 6 and proxy.requests[10].status == 206


def test_passes_on_a_refusal_that_comes_before_the_body(server: S3Server, proxy: Proxy) -> None:
    reader = once(server, proxy, "reader")
    for _ in range(2):
        with pytest.raises(exceptions.ClientError, match="AccessDenied"):
            reader.put_object(Bucket=BUCKET, Key="mine", Body=BODY)
    assert fetched(reader) == BODY


def test_refuses_every_third_and_a_client_that_tries_again_gets_there(
    server: S3Server, proxy: Proxy
) -> None:
    proxy.rules = [Rule("refuse", every=3)]
    client = server.client(endpoint=proxy.endpoint, retries={"mode": "standard"})
    for _ in range(3):
        client.put_object(Bucket=BUCKET, Key="again", Body=BODY)
    assert [request.status for request in proxy.requests] == [200, 200, 503, 200]
    with pytest.raises(exceptions.ClientError, match="SlowDown"):
        [once(server, proxy).head_bucket(Bucket=BUCKET), fetched(once(server, proxy))]


@pytest.mark.parametrize(
    ("status", "code", "headers"),
    [
        (400, "ExpiredToken", {}),
        (301, "PermanentRedirect", {"x-amz-bucket-region": "eu-west-1"}),
        (403, "RequestTimeTooSkewed", {}),
        (403, "AccessDenied", {}),
        (507, "InsufficientStorage", {}),
    ],
)
def test_tells_an_error_as_aws_does(
    server: S3Server, proxy: Proxy, status: int, code: str, headers: dict[str, str]
) -> None:
    proxy.rules = [Rule("refuse", "^(Put|Get)Object ", status=status, code=code, headers=headers)]
    client = once(server, proxy)
    for ask in (fetched, lambda client: client.put_object(Bucket=BUCKET, Key="x", Body=BODY)):
        with pytest.raises(exceptions.ClientError) as caught:
            ask(client)
        assert caught.value.response["Error"]["Code"] == code
        assert headers.items() <= caught.value.response["ResponseMetadata"]["HTTPHeaders"].items()
    client.list_objects_v2(Bucket=BUCKET)


def test_stalls_resets_and_cuts(server: S3Server, proxy: Proxy) -> None:
    client = once(server, proxy)
    proxy.rules = [Rule("stall", lambda request: request.method == "GET", times=1)]
    with pytest.raises(exceptions.ReadTimeoutError):
        fetched(client)
    proxy.rules = [Rule("hang", times=1)]
    with pytest.raises(exceptions.ReadTimeoutError):
        fetched(client)
    proxy.rules = [Rule("reset", times=1)]
    with pytest.raises(exceptions.ConnectionClosedError):
        client.list_objects_v2(Bucket=BUCKET)
    proxy.rules = [Rule("truncate", times=1)]
    with pytest.raises(exceptions.ResponseStreamingError):
        fetched(client)
    assert proxy.requests[-1].down_bytes == len(BODY) // 2
    proxy.rules = [Rule("truncate", side="request", times=1)]
    with pytest.raises(exceptions.HTTPClientError):
        client.put_object(Bucket=BUCKET, Key="half", Body=BODY)
    with pytest.raises(exceptions.ClientError, match="404"):
        client.head_object(Bucket=BUCKET, Key="half")
    assert [request.faults for request in proxy.requests[:5]] == [
        ["stall"],
        ["hang"],
        ["reset"],
        ["truncate"],
        ["truncate"],
    ]


def test_loses_the_answer_of_what_was_done(server: S3Server, proxy: Proxy) -> None:
    proxy.rules = [Rule("lose", "^CompleteMultipartUpload ")]
    with pytest.raises(exceptions.ConnectionClosedError):
        send_in_parts(once(server, proxy), "lost")
    assert fetched(server.client(), "lost") == BODY


def test_is_slow(server: S3Server, proxy: Proxy) -> None:
    proxy.rules = [Rule("slow", bytes_per_s=10 * len(BODY), wait_s=0.1)]
    began = time.monotonic()
    assert fetched(once(server, proxy)) == BODY
    assert time.monotonic() - began >= 0.2


@pytest.mark.parametrize("offset", [0, PART - 1, PART, len(BODY) - 1])
def test_flips_a_bit_of_one_byte_of_the_object(server: S3Server, proxy: Proxy, offset: int) -> None:
    wrong = bytearray(BODY)
    wrong[offset] ^= 1
    unsigned = {"payload_signing_enabled": False}
    client = once(
        server,
        proxy,
        s3=unsigned,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    proxy.rules = [Rule("flip", "/there", offset=offset, times=1)]
    at = max(0, offset - 3)
    assert fetched(client, Range=f"bytes={at}-")[offset - at] == wrong[offset]
    assert fetched(client) == BODY
    proxy.rules = [Rule("flip", "/sent", side="request", offset=offset, part_bytes=PART)]
    send_in_parts(client, "sent")
    client.put_object(Bucket=BUCKET, Key="sent-whole", Body=BODY)
    proxy.rules = []
    assert fetched(client, "sent") == wrong == fetched(client, "sent-whole")


def test_dies(server: S3Server) -> None:
    with proxied(server.endpoint, Rule("die", after=2)) as proxy:
        client = once(server, proxy)
        assert fetched(client) == fetched(client)
        with pytest.raises(exceptions.ConnectionClosedError):
            fetched(client)
        with pytest.raises(exceptions.EndpointConnectionError):
            fetched(client)
    with proxied(server.endpoint, port=proxy.port):
        assert fetched(client) == BODY


def test_runs_as_a_process_with_a_log(server: S3Server, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "tests.proxy", "--upstream", server.endpoint]
    words += ["--port-file", str(tmp_path / "port"), "--log", str(tmp_path / "log")]
    rules = [{"do": "refuse", "match": "^GetObject", "times": 1}]
    with subprocess.Popen([*words, "--rules", json.dumps(rules)]) as process:
        while not (tmp_path / "port").exists():
            time.sleep(0.01)
        client = server.client(endpoint=f"http://127.0.0.1:{(tmp_path / 'port').read_text()}")
        assert fetched(client) == BODY
        while len(read_log(tmp_path / "log")) < 2:  # a line is written after its answer has arrived
            time.sleep(0.01)
        process.terminate()
    log = read_log(tmp_path / "log")
    assert [(request.status, request.faults) for request in log] == [(503, ["refuse"]), (200, [])]
    assert log[1].down_bytes == len(BODY) and log[1].operation.key == "there"


def test_passes_on_chunks_and_waits_with_a_body_until_it_is_wanted() -> None:
    chunks = b"5\r\nhello\r\n10;x=y\r\n" + b"\r\n\r\n" * 4 + b"\r\n0\r\nsum: 1\r\n\r\n"
    head = b"PUT /b/k HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
    expects = head + b"Expect: 100-continue\r\n\r\n"
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks
    go_on = b"HTTP/1.1 100 Continue\r\n\r\n"
    listener = socket.create_server(("127.0.0.1", 0))
    with (
        listener,
        proxied(f"http://127.0.0.1:{listener.getsockname()[1]}") as proxy,
        socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as client,
    ):
        for byte in expects:
            client.send(bytes([byte]))
        server, _ = listener.accept()
        server.settimeout(5)
        assert exactly(server, len(expects)) == expects
        server.sendall(go_on)
        assert exactly(client, len(go_on)) == go_on
        client.sendall(chunks + head + b"\r\n" + chunks)  # and the next request after it
        assert exactly(server, len(chunks)) == chunks
        server.sendall(answer[:70])
        server.sendall(answer[70:])
        assert exactly(client, len(answer)) == answer
        assert exactly(server, len(head + chunks) + 2) == head + b"\r\n" + chunks
        server.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        assert exactly(client, 27) == b"HTTP/1.1 204 No Content\r\n\r\n"
        server.close()
    assert [(request.up_bytes, request.down_bytes) for request in proxy.requests] == [
        (21, 21),
        (21, 0),
    ]


def exactly(sock: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count and (got := sock.recv(count - len(found))):
        found += got
    return found


@pytest.mark.network
def test_stands_before_rclone(tmp_path: Path) -> None:
    with rclone_served(tmp_path) as server, proxied(server.endpoint) as proxy:
        send_in_parts(once(server, proxy), "sent")
        assert fetched(once(server, proxy), "sent", Range="bytes=9-") == BODY[9:]
