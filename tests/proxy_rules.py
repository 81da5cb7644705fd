"""What passes through the proxy, told as S3 operations, and what is to go wrong with it."""

import dataclasses
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, unquote


class Operation(NamedTuple):
    """One request in S3's words; the bucket is the first word of its path."""

    name: str
    key: str
    part_number: int | None
    upload_id: str | None


@dataclass
class Request:
    """One request as it came, and what became of it: a line of the log."""

    method: str
    path: str
    query: str
    headers: dict[str, str] = field(default_factory=dict, repr=False)  # names in lower case
    began_s: float = 0.0
    took_s: float = 0.0
    up_bytes: int = 0  # of its body, that were passed on
    down_bytes: int = 0
    status: int | None = None  # None: no answer was given
    faults: list[str] = field(default_factory=list)

    @property
    def operation(self) -> Operation:
        query = parse_qs(self.query, keep_blank_values=True)
        key = unquote(self.path.lstrip("/").partition("/")[2])
        number, upload = query.get("partNumber", [""])[0], query.get("uploadId", [None])[0]
        name = _name(self, set(query), key)
        return Operation(name, key, int(number) if number.isdigit() else None, upload)

    def line(self) -> str:
        """What a rule's pattern is looked for in: `UploadPart PUT /bucket/key?partNumber=1&…`."""
        return f"{self.operation.name} {self.method} {unquote(self.path)}?{self.query}"

    def told(self) -> str:
        """Its line in the log, without the headers: some are secrets."""
        words = {key: value for key, value in vars(self).items() if key != "headers"}
        return json.dumps(words) + "\n"


def _name(request: Request, query: set[str], key: str) -> str:
    copied = "x-amz-copy-source" in request.headers
    within = {
        ("GET", "uploadId"): "ListParts",
        ("GET", "tagging"): "GetObjectTagging",
        ("GET", "attributes"): "GetObjectAttributes",
        ("PUT", "partNumber"): "UploadPartCopy" if copied else "UploadPart",
        ("PUT", "tagging"): "PutObjectTagging",
        ("POST", "uploads"): "CreateMultipartUpload",
        ("POST", "uploadId"): "CompleteMultipartUpload",
        ("DELETE", "uploadId"): "AbortMultipartUpload",
    }
    about = {
        ("GET", "list-type"): "ListObjectsV2",
        ("GET", "uploads"): "ListMultipartUploads",
        ("GET", "location"): "GetBucketLocation",
        ("POST", "delete"): "DeleteObjects",
    }
    for (method, word), name in (within if key else about).items():
        if request.method == method and word in query:
            return name
    plain = {"GET": "Get", "HEAD": "Head", "DELETE": "Delete", "PUT": "Put" if key else "Create"}
    if not key and request.method == "GET":
        return "ListObjects" if request.path.strip("/") else "ListBuckets"
    if key and copied and request.method == "PUT":
        return "CopyObject"
    return plain.get(request.method, request.method) + ("Object" if key else "Bucket")


def operations(requests: Iterable[Request]) -> list[Operation]:
    """Each request by its S3 name, in the order in which they came."""
    return [request.operation for request in requests]


def read_log(path: Path) -> list[Request]:
    """The requests of a proxy that ran as a process of its own, in the order they ended."""
    return [Request(**json.loads(line)) for line in path.read_text().splitlines()]


@dataclass
class Rule:
    """What goes wrong with requests that `match`: each `every`th `after` so many, so many `times`.

    `do` is one of
    - refuse: S3's error `status` `code` `message`, `details` being more of its XML elements; or
      `body` in its place
    - stall: nothing more is read or answered until the client hangs up
    - reset: the connection is reset; the server never hears of the request
    - lose: the server does it, and the connection is reset in place of its answer
    - truncate: the connection ends after half of the body (of `side`)
    - hang: it stays, and is silent after half of the body (of `side`)
    - slow: `wait_s` before it is passed on, `bytes_per_s` for each connection (0: no limit)
    - flip: one bit of the byte at `offset` of the object, in the body of `side` that carries it;
      counted where that byte passes; uploads are in parts of `part_bytes`; not for aws-chunked
    - drop: the header `message` is left out of the answer
    - die: the proxy is gone, with all its connections
    """

    do: str
    match: str | Callable[[Request], bool] = ""  # a pattern is looked for in Request.line()
    every: int = 1
    after: int = 0
    times: int | None = None
    side: str = "response"
    status: int = 503
    code: str = "SlowDown"
    message: str = "Please reduce your request rate."
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    details: dict[str, str] = field(default_factory=dict)
    wait_s: float = 0.0
    bytes_per_s: int = 0
    offset: int = 0
    part_bytes: int = 0
    seen: int = field(default=0, init=False)
    fired: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        kinds = {
            "refuse",
            "stall",
            "reset",
            "lose",
            "truncate",
            "hang",
            "slow",
            "flip",
            "drop",
            "die",
        }
        if self.do not in kinds or self.side not in {"request", "response"}:
            raise ValueError(f"no such fault: {dataclasses.asdict(self)}")

    def is_due(self, request: Request) -> bool:
        """Whether it goes wrong now; counts, so it is asked once for each request (or byte)."""
        matches = self.match(request) if callable(self.match) else self._found(request)
        self.seen += matches
        nth = self.seen - self.after
        due = matches and nth > 0 and nth % self.every == 0
        if due and (self.times is None or self.fired < self.times):
            self.fired += 1
            request.faults.append(self.do)
            return True
        return False

    def _found(self, request: Request) -> bool:
        return re.search(str(self.match), request.line()) is not None

    def answer(self, request: Request) -> bytes:
        """The whole answer of a refused request; it ends the connection."""
        words = {"Code": self.code, "Message": self.message, **self.details, "RequestId": "0"}
        told = "".join(f"<{name}>{value}</{name}>" for name, value in words.items())
        root = self.body or f"<Error>{told}</Error>"
        xml = f'<?xml version="1.0" encoding="UTF-8"?>\n{root}'.encode()
        lines = [f"HTTP/1.1 {self.status} Told", "Content-Type: application/xml"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        lines += ["x-amz-request-id: 0", f"Content-Length: {len(xml)}", "Connection: close"]
        head = "\r\n".join([*lines, "", ""]).encode()
        return head if request.method == "HEAD" else head + xml
