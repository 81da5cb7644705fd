"""A file behind an origin that leads to signed addresses, which run out while it is read."""

import base64
import gzip
import hashlib
import itertools
import random
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from imnetprep.messages import ImnetprepError, SourceFailed, WrongBytes
from imnetprep.sources import web
from imnetprep.sources.origin import Explanation, Origin, Refusal, web_origin
from imnetprep.sources.web import WebFile
from tests.http_server import Answering, http_served

BODY = random.Random(5).randbytes(600_000)
SECRET = "hush-hush-4711"


class Service:
    """An API that leads to signed addresses of another host, each good for `uses` requests.

    When it is used up the other host says `status`. `requests` are those to the API, with their
    Authorization; `leaks` those that the other host was sent.
    """

    def __init__(self) -> None:
        self.body, self.status, self.uses = BODY, 403, 10**9
        self.requests: list[str] = []
        self.leaks: list[str] = []
        self.etags: Iterator[str] = itertools.repeat('"one"')
        self.digest, self.target, self.accepted = "", "", ""
        self.more: dict[str, str] = {}
        self.excess, self.is_down = 0, False
        self.pause: threading.Event | None = None  # before one failure
        self.proxied: list[str] = []  # Proxy-Authorization of requests for other hosts
        self.lock = threading.Lock()
        self._left: dict[str, int] = {}
        self.address = ""

    def begin(self, request: Answering) -> None:
        """Answer as the API."""
        pause, self.pause = self.pause, None
        if pause:
            pause.wait()
            self.requests.append("")
            request.answer(b"", 503)
            return
        with self.lock:
            self.requests.append(request.headers.get("Authorization", ""))
            if self.is_down or (self.accepted and self.accepted != self.requests[-1]):
                request.answer(b"", 503 if self.is_down else 401, self.more)
                return
            signature = f"{SECRET}-{len(self.requests)}"
            self._left[signature] = self.uses
        # Another name of the same machine is another host.
        port = self.address.rpartition(":")[2].partition("/")[0]
        target = self.target or f"http://localhost:{port}/cdn?Signature={signature}"
        headers = {"Location": target}
        if self.digest:
            headers["X-Linked-Etag"] = f'"{self.digest}"'
        request.answer(b"", 302, headers)

    def give(self, request: Answering) -> None:
        """Answer as the other host."""
        signature = request.path.partition("Signature=")[2]
        with self.lock:
            self.leaks += filter(None, [request.headers.get("Authorization", "")])
            self._left[signature] -= 1
            is_over, etag = self._left[signature] < 0, next(self.etags)
        if is_over:
            request.answer(b"<Code>ExpiredToken</Code>", self.status)
            return
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers["Range"])
        assert match
        start, end = int(match[1]), int(match[2]) + 1
        headers = {"Content-Range": f"bytes {start}-{end - 1}/{len(self.body)}", "ETag": etag}
        body = self.body[start:end] + bytes(self.excess)
        request.answer(body, 206, {**headers, **self.more})


@contextmanager
def served() -> Iterator[Service]:
    service = Service()

    class Handler(Answering):
        def do_GET(self) -> None:
            if self.path.startswith("http://nowhere.invalid/"):
                service.proxied.append(self.headers.get("Proxy-Authorization", ""))
                self.path = self.path.removeprefix("http://nowhere.invalid")
            if self.path.startswith("/cdn"):
                service.give(self)
            elif self.path.startswith("/file"):
                service.begin(self)
            else:
                self.answer(b'{"message": "rules"}', 403)

    with http_served(Handler) as server:
        service.address = f"http://127.0.0.1:{server.server_address[1]}/file"
        yield service


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setattr("imnetprep.retry._FIRST_WAIT_S", 0.001)
    with served() as service:
        yield service


def read_by_eight(file: WebFile) -> bytes:
    """The whole, by 64 ranges of which eight are on their way at a time."""
    step = -(-len(BODY) // 64)
    starts = range(0, len(BODY), step)

    def part(start: int) -> bytes:
        end = min(start + step, len(BODY))
        return b"".join(map(bytes, file.chunks(start, end, 1 << 20)))

    with ThreadPoolExecutor(8) as pool:
        return b"".join(pool.map(part, starts))


@pytest.mark.parametrize("status", [400, 403])
def test_a_signature_that_runs_out_is_asked_for_once_for_all_readers(
    service: Service, status: int
) -> None:
    """Google's storage says 400, others 403: one reader asks, and the seven others find it."""
    service.status, service.uses = status, 20
    with closing(WebFile(web_origin(service.address))) as file:
        assert read_by_eight(file) == BODY
    # Of 65 requests, and up to eight of each signature that came when it was used up.
    assert 4 <= len(service.requests) <= 1 + 65 / (20 - 8)


def test_eight_readers_share_one_request_for_a_signature(service: Service) -> None:
    with closing(WebFile(web_origin(service.address))) as file:
        for _ in range(5):
            asked = len(service.requests)
            service.uses = 8
            file._place = web._Place(service.address, file._place.times + 1)
            barrier = threading.Barrier(8)

            def read(at: int, barrier: threading.Barrier = barrier) -> bytes:
                barrier.wait()
                return file.read_at(at, 1)

            with ThreadPoolExecutor(8) as pool:
                assert b"".join(pool.map(read, range(8))) == BODY[:8]
            assert len(service.requests) == asked + 1


def test_a_signature_that_never_works_is_an_error(service: Service) -> None:
    service.uses = 0
    with pytest.raises(SourceFailed, match="the server says 403"):
        WebFile(web_origin(service.address))
    assert len(service.requests) == 3


def test_user_and_password_go_to_their_host_alone_and_are_never_shown(service: Service) -> None:
    address = service.address.replace("://", f"://me:{SECRET}%40x@")
    with closing(WebFile(web_origin(address))) as file:
        assert file.read_at(7, 9) == BODY[7:16]
        assert SECRET not in file.identity
    token = base64.b64encode(f"me:{SECRET}@x".encode()).decode()
    assert service.requests == [f"Basic {token}"]
    assert service.leaks == []
    with pytest.raises(SourceFailed) as failed:
        WebFile(web_origin(address.replace("/file", "/nothing")))
    assert SECRET not in f"{failed.value} {failed.value.hint} {web_origin(address)}"


def test_netrc_has_the_user_of_a_host(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "netrc"
    monkeypatch.setenv("NETRC", str(path))
    path.write_text(f"machine 127.0.0.1 login me password {SECRET}\ndefault login you password x\n")
    path.chmod(0o600)
    WebFile(web_origin(service.address)).close()
    assert service.requests == ["Basic " + base64.b64encode(f"me:{SECRET}".encode()).decode()]
    assert web_origin("https://elsewhere.example/a").headers == {}
    path.write_text(f"machine 127.0.0.1 login me passwort {SECRET}\n")
    with pytest.raises(ImnetprepError, match=r"netrc, line \d+, cannot be read") as failed:
        web_origin(service.address)
    assert SECRET not in f"{failed.value} {failed.value.hint}"


def test_a_cookie_goes_to_its_host_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cookies.txt"
    monkeypatch.setenv("IMNETPREP_COOKIES", str(path))
    lines = ["# Netscape HTTP Cookie File", f"a.org\tFALSE\t/\tTRUE\t0\tsession\t{SECRET}",
             f"b.org\tFALSE\t/\tFALSE\t1\told\t{SECRET}"]  # fmt: skip
    path.write_text("\n".join(lines) + "\n")
    origin = web_origin("https://a.org/set.tar")
    assert origin.headers == {"Cookie": f"session={SECRET}"}
    assert SECRET not in repr(origin)
    for address in ("http://a.org/set.tar", "https://a.org.evil.org/", "https://b.org/set.tar"):
        assert web_origin(address).headers == {}, "not secure, another host, or too old"
    path.write_text(f"session={SECRET}\n")
    with pytest.raises(ImnetprepError, match="cannot be read as cookies") as failed:
        web_origin("https://a.org/set.tar")
    assert SECRET not in f"{failed.value} {failed.value.hint}"


def test_a_server_that_says_what_is_wrong_is_explained(service: Service) -> None:
    def explain(refusal: Refusal) -> Explanation | None:
        return Explanation(f"{refusal.status} {refusal.body.decode()}", "accept them")

    with pytest.raises(SourceFailed, match=r"a set: 403 .*rules") as failed:
        WebFile(Origin(service.address.replace("/file", "/no"), "a set", explain=explain))
    assert failed.value.hint == "accept them"


def test_another_etag_of_the_same_bytes_is_no_change_where_a_digest_says_so(
    service: Service,
) -> None:
    """As two hosts of the hub's network have it."""
    service.digest, service.etags = hashlib.sha256(BODY).hexdigest(), map(repr, itertools.count())
    with closing(WebFile(web_origin(service.address))) as file:
        assert read_by_eight(file) == BODY
        assert file.digests == {"sha256": service.digest}


def test_a_file_that_changes_is_told(service: Service) -> None:
    service.etags = itertools.chain(['"one"', '"one"'], itertools.repeat('"two"'))
    with closing(WebFile(web_origin(service.address))) as file:
        assert file.read_at(0, 5) == BODY[:5]
        with pytest.raises(WrongBytes, match="has changed while it was read"):
            file.read_at(5, 5)


@pytest.mark.parametrize(
    "said", ["md5=", "md5", "crc32c=", "crc32c=AAAA", "crc32c=" + "A" * 8000, "md5=!", "sha1=AAAA"]
)
def test_a_digest_that_is_none_is_not_believed(service: Service, said: str) -> None:
    service.more = {"x-goog-hash": said}
    service.etags = itertools.chain(['"one"'] * 2, itertools.repeat('"two"'))
    with closing(WebFile(web_origin(service.address))) as file:
        assert file.digests == {} and file.checksum is None
        assert file.read_at(0, 5) == BODY[:5]
        with pytest.raises(WrongBytes, match="has changed while it was read"):
            file.read_at(5, 5)


def test_an_answer_without_the_digest_of_the_first_is_known_by_its_etag(service: Service) -> None:
    service.more = {"x-goog-hash": f"md5={base64.b64encode(bytes(16)).decode()}"}
    service.etags = itertools.chain(['"one"'] * 2, itertools.repeat('"two"'))
    with closing(WebFile(web_origin(service.address))) as file:
        service.more = {}
        assert file.read_at(0, 5) == BODY[:5]
        with pytest.raises(WrongBytes, match="has changed while it was read"):
            file.read_at(5, 5)


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "deflate", "br"])
def test_bytes_are_those_that_the_server_has(service: Service, coding: str) -> None:
    """A server may call a .tar.gz a coding; and a bomb stays as small as it came."""
    service.more, service.body = {"Content-Encoding": coding}, gzip.compress(BODY)
    with closing(WebFile(web_origin(service.address))) as file:
        assert file.read_at(0, len(service.body)) == service.body
        service.excess = 1 << 24
        with pytest.raises(SourceFailed, match="other than 5 bytes"):
            file.read_at(0, 5)


class Turn:
    """A lock that lets `on_eighth` be set once the eighth thread wants it."""

    def __init__(self, on_eighth: threading.Event) -> None:
        self._lock, self._on_eighth = threading.Lock(), on_eighth
        self._threads, self._count = 0, threading.Lock()

    def __enter__(self) -> None:
        with self._count:
            self._threads += 1
            if self._threads == 8:
                self._on_eighth.set()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_an_origin_that_fails_fails_all_who_wait_for_it(service: Service) -> None:
    """Not one after the other: each may have to wait for a silent server."""
    with closing(WebFile(web_origin(service.address))) as file:
        asked = len(service.requests)
        service.pause = threading.Event()
        file._turn = Turn(service.pause)  # type: ignore[assignment]
        file._ask_anew(file._place)
        with ThreadPoolExecutor(8) as pool:
            assert b"".join(pool.map(file.read_at, range(8), [1] * 8)) == BODY[:8]
    assert len(service.requests) == asked + 2, "one that failed, and one for all"


def test_who_is_refused_later_signs_in_anew(service: Service) -> None:
    """A token of Google lives an hour."""
    tokens = iter(["first", "second"])
    origin = Origin(service.address, "a set", sign_in=lambda: {"Authorization": next(tokens)})
    service.accepted = "first"
    with closing(WebFile(origin)) as file:
        assert file.read_at(0, 5) == BODY[:5]
        service.accepted = "second"
        file._ask_anew(file._place)
        assert read_by_eight(file) == BODY
    assert service.requests[0] == "" and {*service.requests[1:]} == {"first", "second"}


def test_a_signature_of_the_same_host_runs_out_too(service: Service) -> None:
    host = service.address.removesuffix("/file")
    service.target = f"{host}/cdn?Signature={SECRET}-1"
    with closing(WebFile(web_origin(service.address))) as file:
        service.target, service._left[f"{SECRET}-1"] = f"{host}/cdn?Signature={SECRET}-2", 0
        assert file.read_at(0, 5) == BODY[:5]
    service.target = f"{host}/no"  # where a repository has moved to, which is not for all
    explain = lambda refusal: Explanation("it is gated", "ask")  # noqa: E731
    with pytest.raises(SourceFailed, match="it is gated"):
        WebFile(Origin(service.address, "a set", explain=explain))


def test_a_proxy_of_the_environment_is_used(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stand-in is its own proxy, asked for whole addresses of a host that is not there."""
    port = service.address.rpartition(":")[2].partition("/")[0]
    monkeypatch.setenv("http_proxy", f"http://me:{SECRET}@127.0.0.1:{port}")
    monkeypatch.setenv("no_proxy", "localhost,127.0.0.1")
    with closing(WebFile(web_origin("http://nowhere.invalid/file"))) as file:
        assert file.read_at(0, 5) == BODY[:5]
    assert service.proxied == ["Basic " + base64.b64encode(f"me:{SECRET}".encode()).decode()]
    with closing(WebFile(web_origin(service.address))) as file:
        assert file.read_at(0, 5) == BODY[:5]
    assert len(service.proxied) == 1
    for proxy in (f"socks9://me:{SECRET}@host", f"http://me:{SECRET}@[::1"):
        monkeypatch.setenv("http_proxy", proxy)
        with pytest.raises(ImnetprepError, match="a proxy that the environment names") as failed:
            WebFile(web_origin("http://nowhere.invalid/file"))
        assert SECRET not in f"{failed.value} {failed.value.hint}"


def test_a_server_says_when_to_come_again(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = list[float]()
    monkeypatch.setattr("imnetprep.retry.time", SimpleNamespace(sleep=waits.append))
    with closing(WebFile(web_origin(service.address))) as file:
        file._ask_anew(file._place)
        service.is_down, service.more = True, {"Retry-After": "30"}
        with pytest.raises(SourceFailed, match="the server says 503"):
            file.read_at(0, 1)
        service.more = {"Retry-After": "9999"}
        with pytest.raises(SourceFailed, match="the server says 503"):
            file.read_at(0, 1)
    assert waits == [30.0] * 6 + [60.0] * 6


def test_a_redirect_out_of_the_web_is_refused(service: Service) -> None:
    for target in ("file:///etc/passwd", "ftp://host/x", "javascript:1", "http://[::1"):
        service.target = target
        with pytest.raises(SourceFailed, match="redirects to no address of the web"):
            WebFile(web_origin(service.address))


def test_a_digest_that_changes_is_told(service: Service) -> None:
    service.digest, service.uses = "a" * 64, 2
    with closing(WebFile(web_origin(service.address))) as file:
        assert file.read_at(0, 5) == BODY[:5]
        service.digest = "b" * 64
        with pytest.raises(WrongBytes, match="has changed while it was read"):
            file.read_at(5, 5)
