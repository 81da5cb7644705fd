"""An S3 server of a few lines that lists whatever keys it is told to: real ones refuse some."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, quote, unquote, urlsplit


@contextmanager
def listing_served(bucket: str, objects: Mapping[str, bytes]) -> Iterator[str]:
    """Its endpoint. It checks no signature and takes nothing."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            place = urlsplit(self.path)
            key, query = unquote(place.path).removeprefix(f"/{bucket}").lstrip("/"), place.query
            if key:
                self._answer(objects.get(key, b""), 200 if key in objects else 404)
            elif "uploads" in query:
                self._answer(b"<ListMultipartUploadsResult/>")
            else:
                self._answer(_listing(objects, parse_qs(query)).encode())

        def do_HEAD(self) -> None:
            self._answer(b"")

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(b"")

        def _answer(self, body: bytes, status: int = 200) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", '"e"')
            self.end_headers()
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


def _listing(objects: Mapping[str, bytes], query: Mapping[str, list[str]]) -> str:
    prefix, delimiter = query.get("prefix", [""])[0], query.get("delimiter", [""])[0]
    contents, folders = "", set()
    for key, body in sorted(objects.items()):
        if not key.startswith(prefix):
            continue
        rest = key.removeprefix(prefix)
        if delimiter and delimiter in rest:
            folders.add(prefix + rest.partition(delimiter)[0] + delimiter)
            continue
        contents += f"<Contents><Key>{quote(key)}</Key><Size>{len(body)}</Size>"
        contents += "<ETag>e</ETag><LastModified>2026-01-01T00:00:00Z</LastModified></Contents>"
    for folder in sorted(folders):
        contents += f"<CommonPrefixes><Prefix>{quote(folder)}</Prefix></CommonPrefixes>"
    told = "<EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>"
    return f"<ListBucketResult>{told}{contents}</ListBucketResult>"
