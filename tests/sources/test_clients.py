"""The services' own programs and `download` fetch the same bytes from the same stand-ins."""

import hashlib
import json
import os
import random
import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from imnetprep.sources import drive, kaggle
from tests.http_server import Answering, http_served
from tests.sources.downloads import fetched

BODY = random.Random(11).randbytes(3_000_000)
SHA256 = hashlib.sha256(BODY).hexdigest()
TOKEN = "a-token-of-somebody"
FILE_ID = "1AbCdEfGhIjKlMnOpQrStUvWxYz0123456"
# Addresses that are in a client's code are made those of the stand-in before it begins.
_KAGGLE = """
import sys
from kagglesdk import kaggle_env
kaggle_env._env_to_endpoint[kaggle_env.KaggleEnv.LOCAL] = sys.argv.pop(1)
from kaggle.cli import main
main()
"""
_GDOWN = """
import socket, sys
port, real = int(sys.argv.pop(1)), socket.getaddrinfo
def here(host, *rest, **more):
    is_google = "google.com" in str(host)
    return real("127.0.0.1", port, *rest[1:], **more) if is_google else real(host, *rest, **more)
socket.getaddrinfo = here
from gdown.__main__ import main
sys.exit(main())
"""


class StandIn(Answering):
    """Kaggle by its RPC and by REST, the hub, and Drive; their files lie at another host's name."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(size)
        name = self.path.rpartition("/")[2]
        if name == "DownloadDataFiles":
            self._lead_on("imagenet.zip")
        elif name == "IntrospectToken":
            self._say({"active": True, "username": "somebody"})
        else:
            self.answer(b"{}", 404)

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path.startswith("/bytes/"):
            assert "Authorization" not in self.headers, "it is of another host"
            self._give()
        elif url.path == "/competitions/data/download-all/imagenet":
            assert self.headers["Authorization"] == f"Bearer {TOKEN}"
            self._lead_on("imagenet.zip")
        elif url.path.startswith("/api/datasets/me/pets"):
            files = [{"rfilename": "x.tar"}]
            self._say({"id": "me/pets", "sha": "a" * 40, "siblings": files, "tags": []})
        elif re.fullmatch(r"/datasets/me/pets/resolve/\w+/x\.tar", url.path):
            assert self.headers["Authorization"] == f"Bearer {TOKEN}"
            more = {"X-Repo-Commit": "a" * 40, "X-Linked-Etag": f'"{SHA256}"',
                    "X-Linked-Size": str(len(BODY))}  # fmt: skip
            self._lead_on("x.tar", more)
        elif url.path in ("/uc", "/download"):
            self._drive(parse_qs(url.query))
        else:
            self.answer(b"{}", 404)

    def _drive(self, query: dict[str, list[str]]) -> None:
        if "confirm" in query:
            self._give({"Content-Disposition": 'attachment; filename="x.tar"'})
            return
        action = "https://drive.usercontent.google.com/download"
        fields = {"id": FILE_ID, "export": "download", "confirm": "t"}
        inputs = "".join(
            f'<input type="hidden" name="{name}" value="{value}">' for name, value in fields.items()
        )
        page = f'<form id="download-form" action="{action}" method="get">{inputs}</form>'
        self.answer(f"<html>{page}</html>".encode(), headers={"Content-Type": "text/html"})

    def _lead_on(self, name: str, more: dict[str, str] | None = None) -> None:
        port = self.headers["Host"].rpartition(":")[2]
        place = f"http://localhost:{port}/bytes/{name}?Expires=99999999999&Signature=5igned"
        self.answer(b"", 302, {"Location": place, **(more or {})})

    def _say(self, value: object) -> None:
        self.answer(json.dumps(value).encode(), headers={"Content-Type": "application/json"})

    def _give(self, more: dict[str, str] | None = None) -> None:
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start, end = (int(found[1]), int(found[2] or len(BODY)) + 1) if found else (0, len(BODY))
        body = BODY[start:end]
        headers = {"ETag": '"one"', "Content-Type": "application/octet-stream", **(more or {})}
        if found:
            headers["Content-Range"] = f"bytes {start}-{start + len(body) - 1}/{len(BODY)}"
        self.answer(body, 206 if found else 200, headers)


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of all services, and a home without any credentials but TOKEN."""
    with http_served(StandIn) as server:
        address = f"http://127.0.0.1:{server.server_port}"
        for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_CONFIG_DIR", "HF_HOME", "NETRC"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setattr(kaggle, "_API", address)
        monkeypatch.setattr(drive, "_SITE", address)
        yield address


def by_client(package: str, code: str, *words: object, **environment: str) -> None:
    """Run a client that is a Python package, as its command would."""
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    full = [sys.executable, "-c", code, *map(str, words)]
    done = subprocess.run(
        full, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stdout + done.stderr


def by_us(root: Path, address: str) -> bytes:
    (result,) = fetched(root, address)
    return (root / "archives" / result.name).read_bytes()


def test_kaggle(stand_in: str, tmp_path: Path) -> None:
    words = ["competitions", "download", "imagenet", "-p", tmp_path, "--quiet"]
    by_client("kaggle", _KAGGLE, stand_in, *words, KAGGLE_API_ENVIRONMENT="LOCALHOST")
    assert (tmp_path / "imagenet.zip").read_bytes() == BODY
    assert by_us(tmp_path / "root", "kaggle:competitions/imagenet") == BODY


def test_the_hub(stand_in: str, tmp_path: Path) -> None:
    code = "from huggingface_hub.cli.hf import main; main()"
    words = ["download", "me/pets", "x.tar", "--repo-type", "dataset", "--local-dir", tmp_path]
    by_client("huggingface_hub", code, *words, HF_HUB_DISABLE_XET="1", HF_HUB_OFFLINE="0")
    assert (tmp_path / "x.tar").read_bytes() == BODY
    assert by_us(tmp_path / "root", "hf:datasets/me/pets/x.tar") == BODY


def test_drive(stand_in: str, tmp_path: Path) -> None:
    if not shutil.which("openssl"):
        pytest.skip("openssl, which makes the certificate, is not installed")
    names = "DNS:drive.google.com,DNS:drive.usercontent.google.com"
    pair = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *pair]
    words += ["-subj", "/CN=drive.google.com", "-addext", f"subjectAltName={names}"]
    subprocess.run(words, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with http_served(StandIn) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        path, certificate = tmp_path / "x.tar", str(tmp_path / "cert.pem")
        words = [str(server.server_port), FILE_ID, "-O", str(path), "--quiet"]
        by_client("gdown", _GDOWN, *words, REQUESTS_CA_BUNDLE=certificate)
    assert path.read_bytes() == BODY
    assert by_us(tmp_path / "root", f"gdrive:{FILE_ID}") == BODY
