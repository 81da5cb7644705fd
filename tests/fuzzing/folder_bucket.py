"""A folder of this machine as a bucket: whoever writes its files has changed the objects.

A real server keeps objects in a form of its own, and a fuzz changes them thousands of times.
"""

import base64
import hashlib
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tests.servers import BUCKET


@contextmanager
def folder_served(folder: Path) -> Iterator[str]:
    """The endpoint of a server whose bucket holds the files below `folder`. It checks no signature,
    takes objects in one part, and keeps the CRC32 of each.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            if self._path() != folder:
                self._answer_object()
            elif "uploads" in query or "uploads" in self.path:
                self._answer(b"<ListMultipartUploadsResult/>")
            else:
                self._answer(_listing(folder, query.get("prefix", [""])[0], "delimiter" in query))

        do_HEAD = do_GET  # noqa: N815

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self._path().parent.mkdir(parents=True, exist_ok=True)
            self._path().write_bytes(body)
            self._answer(b"", headers=_facts(body))

        def _path(self) -> Path:
            return folder / unquote(urlsplit(self.path).path).removeprefix(f"/{BUCKET}").lstrip("/")

        def _answer_object(self) -> None:
            try:
                body = self._path().read_bytes()
            except OSError:
                self._answer(b"<Error><Code>NoSuchKey</Code></Error>", 404)
                return
            headers, span = _facts(body), self.headers["Range"]
            if match := re.fullmatch(r"bytes=(\d+)-(\d+)", span or ""):
                start, end = int(match[1]), min(int(match[2]) + 1, len(body))
                headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(body)}"
                self._answer(body[start:end], 206, headers)
            else:
                self._answer(body, 200, headers)

        def _answer(
            self, body: bytes, status: int = 200, headers: dict[str, str] | None = None
        ) -> None:
            self.send_response(status)
            for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _etag(body: bytes) -> str:
    return f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'


def _facts(body: bytes) -> dict[str, str]:
    checksum = base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()
    crc32 = {"x-amz-checksum-crc32": checksum, "x-amz-checksum-type": "FULL_OBJECT"}
    return {"ETag": _etag(body), "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT", **crc32}


def _listing(folder: Path, prefix: str, has_delimiter: bool) -> bytes:
    contents, folders = "", set()
    top = folder / prefix.rpartition("/")[0]
    for path in sorted(each for each in top.rglob("*") if each.is_file()):
        key = path.relative_to(folder).as_posix()
        first, slash, _ = key.removeprefix(prefix).partition("/")
        if not key.startswith(prefix):
            continue
        if has_delimiter and slash:
            folders.add(f"{prefix}{first}/")
            continue
        body = path.read_bytes()
        contents += f"<Contents><Key>{quote(key)}</Key><Size>{len(body)}</Size>"
        contents += f"<ETag>{_etag(body)}</ETag>"
        contents += "<LastModified>2026-01-01T00:00:00Z</LastModified></Contents>"
    for name in sorted(folders):
        contents += f"<CommonPrefixes><Prefix>{quote(name)}</Prefix></CommonPrefixes>"
    form = "<EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>"
    return f"<ListBucketResult>{form}{contents}</ListBucketResult>".encode()
