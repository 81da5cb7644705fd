"""A folder of this machine as a bucket: whoever writes its files has changed the objects.

A real server keeps objects in a form of its own, and a fuzz changes them thousands of times.
"""

import base64
import hashlib
import os
import re
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tests.http_server import Answering, http_served
from tests.servers import BUCKET

_PARTS = ".upload"  # what the name of the folder of an upload's parts ends in
_UPLOAD = "1"


@contextmanager
def folder_served(folder: Path) -> Iterator[str]:
    """The endpoint of a server whose bucket holds the files below `folder`. It checks no signature,
    and keeps the CRC32 of each object, and of no part: those of an upload lie in KEY.upload/.
    """

    class Handler(Answering):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            query = self._query()
            if "uploadId" in query:
                self.answer(_listed_parts(self._parts()))
            elif self._path() != folder:
                self._answer_object()
            elif "uploads" in query:
                self.answer(_listed_uploads(folder, query.get("prefix", [""])[0]))
            else:
                self.answer(_listing(folder, query.get("prefix", [""])[0], "delimiter" in query))

        do_HEAD = do_GET

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            number = self._query().get("partNumber")
            path = self._parts() / number[0] if number else self._path()
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body)
            self.answer(b"", headers=_facts(body))

        def do_POST(self) -> None:
            """Begin or complete an upload, of whatever parts are here."""
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if "uploads" in self._query():
                self._parts().mkdir(parents=True, exist_ok=True)
                result = f"<UploadId>{_UPLOAD}</UploadId>"
                headers = {"x-amz-checksum-algorithm": "CRC32"}
                self.answer(_named("InitiateMultipartUploadResult", result), headers=headers)
                return
            numbers = sorted(map(int, os.listdir(self._parts())))  # noqa: PTH208
            body = b"".join((self._parts() / str(number)).read_bytes() for number in numbers)
            self._path().write_bytes(body)
            shutil.rmtree(self._parts())
            self.answer(_named("CompleteMultipartUploadResult", f"<ETag>{_etag(body)}</ETag>"))

        def do_DELETE(self) -> None:
            shutil.rmtree(self._parts(), ignore_errors=True)
            self.answer(b"", 204)

        def _query(self) -> dict[str, list[str]]:
            return parse_qs(urlsplit(self.path).query, keep_blank_values=True)

        def _path(self) -> Path:
            return folder / unquote(urlsplit(self.path).path).removeprefix(f"/{BUCKET}").lstrip("/")

        def _parts(self) -> Path:
            return self._path().with_name(f"{self._path().name}{_PARTS}")

        def _answer_object(self) -> None:
            try:
                body = self._path().read_bytes()
            except OSError:
                self.answer(b"<Error><Code>NoSuchKey</Code></Error>", 404)
                return
            headers, span = _facts(body), self.headers["Range"]
            if match := re.fullmatch(r"bytes=(\d+)-(\d+)", span or ""):
                start, end = int(match[1]), min(int(match[2]) + 1, len(body))
                headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(body)}"
                self.answer(body[start:end], 206, headers)
            else:
                self.answer(body, 200, headers)

    with http_served(Handler) as server:
        yield f"http://127.0.0.1:{server.server_port}"


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
        if path.parent.name.endswith(_PARTS):
            continue
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


def _listed_uploads(folder: Path, prefix: str) -> bytes:
    uploads = ""
    for path in sorted(folder.rglob(f"*{_PARTS}")):
        key = path.relative_to(folder).as_posix().removesuffix(_PARTS)
        if key.startswith(prefix):
            uploads += f"<Upload><Key>{quote(key)}</Key><UploadId>{_UPLOAD}</UploadId>"
            uploads += "<Initiated>2026-01-01T00:00:00Z</Initiated></Upload>"
    return _named("ListMultipartUploadsResult", f"<EncodingType>url</EncodingType>{uploads}")


def _listed_parts(folder: Path) -> bytes:
    parts = ""
    for path in sorted(folder.iterdir()):
        body = path.read_bytes()
        parts += f"<Part><PartNumber>{path.name}</PartNumber><ETag>{_etag(body)}</ETag>"
        parts += f"<Size>{len(body)}</Size></Part>"
    return _named("ListPartsResult", parts)


def _named(name: str, content: str) -> bytes:
    return f"<{name}>{content}</{name}>".encode()
