"""An S3 server of a few lines that lists whatever keys it is told to: real ones refuse some."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tests.http_server import Answering, http_served

_ETAG = {"ETag": '"e"'}


@contextmanager
def listing_served(bucket: str, objects: Mapping[str, bytes]) -> Iterator[str]:
    """Its endpoint. It checks no signature and takes nothing."""

    class Handler(Answering):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            place = urlsplit(self.path)
            key, query = unquote(place.path).removeprefix(f"/{bucket}").lstrip("/"), place.query
            if key:
                self.answer(objects.get(key, b""), 200 if key in objects else 404, _ETAG)
            elif "uploads" in query:
                self.answer(b"<ListMultipartUploadsResult/>")
            else:
                self.answer(_listing(objects, parse_qs(query)).encode())

        def do_HEAD(self) -> None:
            self.answer(headers=_ETAG)

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.answer(headers=_ETAG)

    with http_served(Handler) as server:
        yield f"http://127.0.0.1:{server.server_port}"


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
