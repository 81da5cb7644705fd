"""`imnetprep serve`: the endpoint answers as predict does, and refuses all that it should."""

import io
import json
import shutil
import signal
import socket
import struct
import subprocess
import zlib
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from imnetprep.catalog.datasets import Root
from imnetprep.images import decode_rgb
from imnetprep.networks.model import build_model
from imnetprep.pixels.transforms import ValTransform
from imnetprep.serving.refusals import Limits
from imnetprep.training.checkpoint import load_checkpoint, save_checkpoint
from imnetprep.training.runs import Run as TrainingRun
from tests.conftest import Run, command
from tests.training.served import Site, learn, serving


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Root:
    return learn(tmp_path_factory.mktemp("learned"))


@pytest.fixture(scope="module")
def best(learned: Root) -> Path:
    return TrainingRun(learned.run("r")).best


@pytest.fixture(scope="module")
def site(learned: Root, best: Path) -> Iterator[Site]:
    with serving(best, learned) as each:
        yield each


@pytest.fixture(scope="module")
def photo(learned: Root) -> bytes:
    """An image of class 1."""
    return min(learned.path.glob("val/n10000001/*")).read_bytes()


def _lying(body: bytes) -> bytes:
    """The image, with an EXIF that says to turn it."""
    image, file = Image.open(io.BytesIO(body)), io.BytesIO()
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(file, "JPEG", exif=exif, quality=95)
    return file.getvalue()


@pytest.mark.parametrize("applied", [False, True])
def test_an_answer_is_that_of_predict_with_what_the_network_saw(
    applied: bool, learned: Root, best: Path, photo: bytes, tmp_path: Path, here: Run
) -> None:
    checkpoint = load_checkpoint(best)
    preprocessing = replace(checkpoint.preprocessing, apply_orientation=applied)
    path = tmp_path / "c.pt"
    save_checkpoint(path, replace(checkpoint, preprocessing=preprocessing))
    bodies = {"a.jpg": photo, "b.jpg": _lying(photo)}
    with serving(path, learned) as site:
        replies = {name: site.ask("/predict", body) for name, body in bodies.items()}
    for name, body in bodies.items():
        (tmp_path / name).write_bytes(body)
        predicted = json.loads(here("predict", path, tmp_path / name, "--json").stdout)
        answer = replies[name].json
        assert [each["wnid"] for each in answer["best"]] == [
            each["wnid"] for each in predicted["best"]
        ]
        assert [each["probability"] for each in answer["best"]] == pytest.approx(
            [each["probability"] for each in predicted["best"]], rel=1e-4
        )
        plain = decode_rgb(body, apply_orientation=applied)
        assert tuple(answer["size_px"]) == plain.size
        assert answer["seconds"] > 0
        png = b64decode(answer["view"].removeprefix("data:image/png;base64,"))
        view = np.asarray(Image.open(io.BytesIO(png)))
        crop = ValTransform(preprocessing)(np.asarray(plain))
        assert np.array_equal(view, crop)


def _bomb(side_px: int) -> bytes:
    """A PNG of a few bytes whose header says that it is a large square."""
    header = struct.pack(">IIBBBBB", side_px, side_px, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 99)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        (b"no image", 400, "the file is text, not an image"),
        (b"", 400, "the file is empty"),
        (b"\xff\xd8\xff\xe0" + bytes(99), 400, "the file does not decode"),
        (_bomb(9_000), 413, "the image has 9000 × 9000 pixels: at most 64 million are taken"),
        (_bomb(60_000), 400, "the file has more than 716 million pixels"),
    ],
    ids=["text", "empty", "damaged", "large", "giant"],
)
def test_what_is_no_image_or_too_large_a_one_is_told(
    body: bytes, status: int, error: str, site: Site
) -> None:
    reply = site.ask("/predict", body)
    assert (reply.status, reply.headers["Content-Type"]) == (status, "application/json")
    assert error in reply.json["error"]
    assert reply.json["hint"]


@pytest.mark.parametrize(
    ("method", "headers", "status", "error"),
    [
        ("POST", {"content_length": "50000001"}, 413, "at most 50 MB"),
        ("POST", {"content_length": "-1"}, 400, "no number of bytes"),
        ("POST", {"content_length": "5|6"}, 400, "no number of bytes"),
        ("POST", {"content_length": "9" * 30}, 400, "no number of bytes"),
        ("POST", {"transfer_encoding": "chunked"}, 411, "length"),
        ("POST", {"host": "rebound.example"}, 403, "not called that"),
        ("POST", {"host": "127.0.0.1|rebound.example"}, 403, "not called that"),
        ("GET", {"host": "rebound.example:80"}, 403, "not called that"),
        ("GET", {"host": "localhost.rebound.example"}, 403, "not called that"),
        ("GET", {"host": "192.0.2.1"}, 403, "not called that"),
        ("POST", {"origin": "http://elsewhere.example"}, 403, "another site"),
        ("POST", {"origin": "null"}, 403, "another site"),
        ("POST", {"origin": "http://127.0.0.1:1"}, 403, "another site"),
        ("POST", {"sec_fetch_site": "cross-site"}, 403, "another site"),
        ("POST", {"sec_fetch_site": "same-site"}, 403, "another site"),
        ("GET", {}, 405, "sent by POST"),
        ("PUT", {}, 405, "Method Not Allowed"),
        ("OPTIONS", {}, 405, "Method Not Allowed"),
    ],
)
def test_a_request_that_may_not_be_is_refused_before_its_body_is_read(
    method: str, headers: dict[str, str], status: int, error: str, site: Site
) -> None:
    reply = site.ask("/predict", b"" if method == "POST" else None, method=method, **headers)
    assert (reply.status, error in reply.json["error"]) == (status, True), reply
    assert "Access-Control-Allow-Origin" not in reply.headers


def test_a_client_that_has_sent_too_much_still_reads_why(learned: Root, best: Path) -> None:
    with serving(best, learned, limits=Limits(body_bytes=20_000_000)) as site:
        reply = site.ask("/predict", bytes(30_000_000))
    assert (reply.status, "at most 20 MB" in reply.json["error"]) == (413, True)


def test_a_body_without_a_length_is_refused(site: Site) -> None:
    assert site.ask("/predict", method="POST").status == 411


def test_the_servers_own_page_may_ask_by_each_name_of_this_machine(
    site: Site, photo: bytes
) -> None:
    port = site.place[1]
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", "LOCALHOST:9", "[::1]", "127.0.0.2:9"):
        origin = {"origin": f"http://{host}", "sec_fetch_site": "same-origin"}
        assert site.ask("/predict", photo, host=host, **origin).status == 200


def test_no_file_of_the_machine_can_be_asked_for(site: Site, learned: Root, best: Path) -> None:
    (learned.path / "secret").write_text("secret")
    targets = [
        str(best), f"/{best}", f"file://{best}", "/page.html", "/../page.html", "/./",
        "/../../../../../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd",
        "/..%2fsecret", "/secret", "/%00", "/examples/", "/examples/../secret",
        "/examples/%2e%2e/secret", "/examples/0/../../secret", "/examples/-1", "/examples/3",
        "/examples/0%00", "/examples/1e0", "/examples/9999999", "/examples/n10000000",
        "/examples/0.JPEG", "\\secret", "secret",
    ]  # fmt: skip
    for target in targets:
        reply = site.ask(target)
        assert (reply.status, reply.headers["Content-Type"]) == (404, "application/json"), target
        assert reply.json.keys() == {"error", "hint"}
        assert str(learned.path) not in reply.body.decode()
        assert site.ask(target, b"x").status == 404, target


def test_the_page_loads_nothing_from_elsewhere_and_nobody_frames_it(site: Site) -> None:
    page, head = site.ask("/"), site.ask("/", method="HEAD")
    assert (page.status, head.status, head.body) == (200, 200, b"")
    assert head.headers["Content-Length"] == str(len(page.body))
    policy = page.headers["Content-Security-Policy"]
    for source in ("default-src", "frame-ancestors", "base-uri", "form-action"):
        assert f"{source} 'none'" in policy
    assert "unsafe" not in policy
    assert b"http://" not in page.body and b"https://" not in page.body
    assert page.headers["X-Content-Type-Options"] == "nosniff"


def test_bytes_that_are_no_http_are_refused_without_a_page(site: Site) -> None:
    for line in (b"GET /\0 x HTTP/1.1\r\n\r\n", b"\x16\x03\x01\n\n", b"GET / HTTP/9\r\n\r\n"):
        with socket.create_connection(site.place) as connection:
            connection.sendall(line)
            reply = b"".join(iter(lambda: connection.recv(9999), b""))
        assert b"<html" not in reply and b'"error"' in reply


def test_each_class_of_the_root_has_its_first_training_image(site: Site, learned: Root) -> None:
    about = site.ask("/about").json
    assert [each["wnid"] for each in about["classes"]] == ["n10000000", "n10000001", "n10000002"]
    assert (about["network"], about["image_size_px"]) == ("cnn-small", 32)
    for label, each in enumerate(about["classes"]):
        assert each["has_example"]
        reply = site.ask(f"/examples/{label}")
        first = min((learned.path / "train" / each["wnid"]).iterdir())
        assert reply.headers["Content-Type"] == "image/jpeg"
        assert np.array_equal(
            np.asarray(Image.open(io.BytesIO(reply.body))), np.asarray(Image.open(first))
        )


def test_examples_are_small_and_one_that_is_damaged_is_told(
    learned: Root, best: Path, tmp_path: Path
) -> None:
    root = Root(shutil.copytree(learned.path, tmp_path / "root"))
    large, damaged = (min(root.path.glob(f"train/n1000000{label}/*")) for label in (0, 1))
    Image.new("RGB", (1000, 800), "red").save(large)
    damaged.write_bytes(b"nothing")
    with serving(best, root) as site:
        image = Image.open(io.BytesIO(site.ask("/examples/0").body))
        assert image.size == (240, 192)
        reply = site.ask("/examples/1")
        assert (reply.status, reply.json["error"]) == (
            404, "the example of class 1 cannot be read",
        )  # fmt: skip


def test_weights_of_another_program_are_served_without_a_root(tmp_path: Path, photo: bytes) -> None:
    weights = build_model("squeezenet1_1", classes=1000, image_size=224, seed=0).state_dict()
    torch.save(weights, tmp_path / "w.pth")
    with serving(tmp_path / "w.pth", Root(tmp_path / "no"), arch="squeezenet1_1") as site:
        classes = site.ask("/about").json["classes"]
        assert (len(classes), any(each["has_example"] for each in classes)) == (1000, False)
        answer = site.ask("/predict", photo).json
        assert len(answer["best"]) == 5
        assert site.ask("/examples/0").status == 404


@contextmanager
def _half_sent(site: Site, photo: bytes) -> Iterator[socket.socket]:
    """A request whose body the server waits for: it said so."""
    with socket.create_connection(site.place) as connection:
        head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(photo)}\r\n"
        connection.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
        assert connection.recv(9999).startswith(b"HTTP/1.1 100 ")
        yield connection


def _rest(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(9999), b""))


def test_images_beyond_those_that_may_wait_are_refused_until_there_is_room(
    learned: Root, best: Path, photo: bytes
) -> None:
    with serving(best, learned, limits=Limits(images=1)) as site:
        with _half_sent(site, photo) as connection:
            refused = site.ask("/predict", photo)
            assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
            connection.sendall(photo)
            assert _rest(connection).startswith(b"HTTP/1.1 200 ")
        assert site.ask("/predict", photo).status == 200


def test_a_client_that_sends_slowly_or_nothing_is_dropped(
    learned: Root, best: Path, photo: bytes
) -> None:
    with serving(best, learned, limits=Limits(seconds=0.3, connections=1)) as site:
        with _half_sent(site, photo) as connection:
            connection.sendall(photo[:9])
            assert _rest(connection).startswith(b"HTTP/1.1 408 ")
        with socket.create_connection(site.place) as connection:
            connection.sendall(b"GET / HT")
            assert _rest(connection) == b""
        with _half_sent(site, photo) as connection:  # the one slot is there again
            connection.sendall(photo[:9])
            connection.shutdown(socket.SHUT_WR)
            assert b"the image ended after 9 of" in _rest(connection)


def test_the_command_prints_where_it_listens_and_ends_when_it_is_told(
    learned: Root, best: Path, photo: bytes, here: Run
) -> None:
    words = command("serve", "--root", learned.path, "--port", 0, "--device", "cpu", "--json")
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        record = json.loads(process.stdout.readline())
        assert record["checkpoint"] == str(best)
        site = Site(record["address"])
        assert site.ask("/predict", photo).status == 200
        taken = here("serve", best, "--root", learned.path, "--port", site.place[1])
        assert (taken.returncode, "nothing can listen at 127.0.0.1" in taken.stderr) == (1, True)
        assert "Hint: --host 127.0.0.1 --port 0" in taken.stderr
    finally:
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (143, "")
    assert err.splitlines() == [
        f"the checkpoint is {best}", "Stopped: run the same command to resume",
    ]  # fmt: skip
