"""Secrets where users have them, servers that repeat them, and what looks for them afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from tests.http_server import Answering, http_served

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

    class Handler(Answering):
        def do_GET(self) -> None:
            path, _, _query = self.path.partition("?")
            body = files.get(path.rpartition("/")[2])
            if body is not None and path.startswith("/redirect"):
                place = f"/files/{path.rpartition('/')[2]}?{QUERY}"
                self.answer(status=302, headers={"Location": place})
            elif body is not None and path.startswith("/files"):
                first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
                part = body[first : last + 1]
                span = f"bytes {first}-{first + len(part) - 1}/{len(body)}"
                self.answer(part, 206, {"Content-Range": span, "ETag": '"same"'})
            else:
                said = f"{self.path} {self.headers} {QUERY} {KEY}".replace("\n", " ")
                error = f"<Error><Code>AccessDenied</Code><Message>{said}\x1b[2J</Message></Error>"
                self.answer(error.replace("&", "&amp;").replace("\x1b", "").encode(), status)

        do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    with http_served(Handler) as server:
        yield f"127.0.0.1:{server.server_port}"


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
