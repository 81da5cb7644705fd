"""Secrets where users have them, servers that repeat them, and what looks for them afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import quote

PASSWORD, SIGNATURE, TOKEN, KEY, PASSKEY = (
    "pl4nted-passw0rd", "5ignature0f1etters", "T0ken+0f/a=session", "SecretKey/0f+AWS",
    "0123456789abcdefpasskey",
)  # fmt: skip
SECRETS = PASSWORD, SIGNATURE, TOKEN, KEY, PASSKEY
QUERY = f"X-Amz-Signature={SIGNATURE}&X-Amz-Security-Token={TOKEN}"


@contextmanager
def repeating_served(files: dict[str, bytes], status: int = 403) -> Iterator[str]:
    """A web server of `files` by ranges, which signs by redirects; all else it answers with an
    error that repeats the request.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, _query = self.path.partition("?")
            body = files.get(path.rpartition("/")[2])
            if body is not None and path.startswith("/redirect"):
                self.send_response(302)
                self.send_header("Location", f"/files/{path.rpartition('/')[2]}?{QUERY}")
                self.end_headers()
            elif body is not None and path.startswith("/files"):
                first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
                part = body[first : last + 1]
                self.send_response(206)
                end = f"{first}-{first + len(part) - 1}/{len(body)}"
                self.send_header("Content-Range", f"bytes {end}")
                self.send_header("Content-Length", str(len(part)))
                self.send_header("ETag", '"same"')
                self.end_headers()
                self.wfile.write(part)
            else:
                said = f"{self.path} {self.headers} {QUERY} {KEY}".replace("\n", " ")
                error = f"<Error><Code>AccessDenied</Code><Message>{said}\x1b[2J</Message></Error>"
                answer = error.replace("&", "&amp;").replace("\x1b", "").encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

        do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def environment_of(folder: Path) -> dict[str, str]:
    """Secrets of the environment, and places below `folder` for files of the user and of nobody."""
    for name in ("tmp", "home"):
        (folder / name).mkdir(exist_ok=True)
    return {
        "TMPDIR": str(folder / "tmp"),
        "HOME": str(folder / "home"),
        "AWS_ACCESS_KEY_ID": "AKIAOFNOBODY",
        "AWS_SECRET_ACCESS_KEY": KEY,
        "AWS_SESSION_TOKEN": TOKEN,
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_CONFIG_FILE": str(folder / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "none"),
    }


def require_no_secret(folder: Path, *texts: str) -> None:
    """No secret is in the texts, nor in any file below `folder`, as it is or quoted in a URL."""
    bodies = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    bodies |= {Path(f"text {at}"): text.encode() for at, text in enumerate(texts)}
    for secret in {*SECRETS, *(quote(each, safe="") for each in SECRETS)}:
        for path, body in bodies.items():
            assert secret.encode() not in body, (secret, path, body[:2000])
