"""`PREFIX/launches/RUN/` in the bucket: all that laptop and machines say to each other.

    launch.json       the orders, written once
    events/000001.json  what happened, an object each: two that write lose none
    lease             which machine may write the run, and until when
    log.txt           the log of the machine that holds the lease
    stop              a request to stop
    done              how it ended

No port of the machine is open, and nothing is kept on the laptop but the name.
"""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import botocore.exceptions as failures

from imnetprep.launching.orders import Orders
from imnetprep.messages import WrongBytes
from imnetprep.outside_text import quoted
from imnetprep.plain_values import plain_text, real_number, table, whole_number
from imnetprep.s3.address import S3Address
from imnetprep.s3.bucket import Bucket
from imnetprep.s3.failures import explained, has_met, status_of

LAUNCHES = "launches"


@dataclass(frozen=True)
class Event:
    """What happened to a launch: when (Unix time), on which machine, what, and its details."""

    number: int
    at: float
    instance: str
    kind: str
    details: Mapping[str, Any]


@dataclass(frozen=True)
class Lease:
    """Which machine may write the run, until when (Unix time); `etag`: of that object."""

    owner: str
    end: float
    etag: str


@dataclass(frozen=True)
class Ending:
    """How a launch ended: the exit code of its last command, why, and when (Unix time)."""

    code: int
    reason: str
    at: float


def read_object(bucket: Bucket, place: S3Address) -> tuple[bytes, Mapping[str, Any]] | None:
    """The bytes of an object, and what S3 says of it; None where there is none.

    Raises SourceFailed.
    """
    with explained(place):
        try:
            answer = bucket.call("get_object", Key=place.key)
            return answer["Body"].read(), answer
        except failures.ClientError as error:
            if status_of(error) == 404:
                return None
            raise


class LaunchFolder:
    """The objects of one launch. Its methods raise SourceFailed."""

    def __init__(self, bucket: Bucket, address: S3Address, run: str) -> None:
        self.bucket, self.address, self.run = bucket, address, run
        self.place = address / LAUNCHES / run

    def close(self) -> None:
        """Hang up."""
        self.bucket.close()

    def read(self, name: str) -> tuple[bytes, str] | None:
        """The bytes and the ETag of an object; None where there is none."""
        answer = read_object(self.bucket, self.place / name)
        return answer and (answer[0], answer[1]["ETag"])

    def log(self, start: int) -> bytes:
        """The log from byte `start` on, or its last so many where that is negative."""
        place = self.place / "log.txt"
        span = f"bytes={start}" if start < 0 else f"bytes={start}-"
        with explained(place):
            try:
                return bytes(
                    self.bucket.call("get_object", Key=place.key, Range=span)["Body"].read()
                )
            except failures.ClientError as error:
                if status_of(error) in (404, 416):
                    return b""
                raise

    def last_line(self) -> str | None:
        """The last line of the log; None where there is none."""
        lines = self.log(-4096).decode(errors="replace").splitlines()
        return next((each.strip() for each in reversed(lines) if each.strip()), None)

    def write(self, name: str, body: bytes, **conditions: str) -> str | None:
        """Write an object; its ETag, or None where IfMatch or IfNoneMatch did not hold."""
        place = self.place / name
        with explained(place):
            try:
                return str(
                    self.bucket.call("put_object", Key=place.key, Body=body, **conditions)["ETag"]
                )
            except failures.ClientError as error:
                if has_met(error) or (conditions and status_of(error) == 404):
                    return None
                raise

    def remove(self, name: str) -> None:
        """Remove an object; it may be absent."""
        place = self.place / name
        with explained(place):
            self.bucket.call("delete_object", Key=place.key)

    def orders(self) -> Orders | None:
        """What was launched under this name; None where nothing was."""
        answer = self.read("launch.json")
        return answer and Orders.parse(answer[0], self.place / "launch.json")

    def write_orders(self, orders: Orders) -> bool:
        """Write the orders unless there are some; were there none?"""
        return self.write("launch.json", orders.as_json().encode(), IfNoneMatch="*") is not None

    def events(self, *, latest: int | None = None) -> Iterator[Event]:
        """What happened, in order; with `latest` only so many, those at the end."""
        prefix = (self.place / "events").key + "/"
        for each in sorted(each.key for each in self.bucket.objects(prefix))[-(latest or 0) :]:
            event = self._event(each.removeprefix(prefix))
            if event is not None:
                yield event

    def first_event(self) -> Event | None:
        """What the laptop wrote as it launched; None where nothing happened yet."""
        return self._event(f"{1:06}.json")

    def _event(self, name: str) -> Event | None:
        answer, number = self.read(f"events/{name}"), name.removesuffix(".json")
        if answer is None or not number.isdecimal():
            return None
        with _told_as_wrong(self.place / "events" / name):
            return _parse_event(int(number), answer[0])

    def add_event(self, instance: str, kind: str, **details: Any) -> Event:
        """Write what happened under the next number that nobody else takes."""
        number = 1 + sum(1 for _ in self.bucket.objects((self.place / "events").key + "/"))
        at = time.time()
        event = {"at": at, "instance": instance, "kind": kind, "details": details}
        body = json.dumps(event).encode()
        while self.write(f"events/{number:06}.json", body, IfNoneMatch="*") is None:
            number += 1
        return Event(number, at, instance, kind, details)

    def lease(self) -> Lease | None:
        """Who holds the run; None where nobody ever did."""
        answer = self.read("lease")
        if answer is None:
            return None
        body, etag = answer
        with _told_as_wrong(self.place / "lease"):
            values = table(json.loads(body))
            return Lease(plain_text(values["owner"]), real_number(values["end"]), etag)

    def take_lease(self, owner: str, *, lease_s: float, moment: float) -> Lease | None:
        """The lease, if nobody holds it or it ran out; else None."""
        earlier = self.lease()
        if earlier is not None and earlier.end > moment and earlier.owner != owner:
            return None
        conditions = {"IfNoneMatch": "*"} if earlier is None else {"IfMatch": earlier.etag}
        return self._write_lease(owner, moment + lease_s, conditions)

    def renew_lease(self, lease: Lease, *, lease_s: float, moment: float) -> Lease | None:
        """The lease for `lease_s` more; None: another machine has taken it."""
        return self._write_lease(lease.owner, moment + lease_s, {"IfMatch": lease.etag})

    def give_up_lease(self, lease: Lease) -> None:
        """Let the next machine take the run at once."""
        self._write_lease(lease.owner, 0.0, {"IfMatch": lease.etag})

    def _write_lease(self, owner: str, end: float, conditions: Mapping[str, str]) -> Lease | None:
        body = json.dumps({"owner": owner, "end": end}).encode()
        etag = self.write("lease", body, **conditions)
        return Lease(owner, end, etag) if etag is not None else None

    def request_stop(self) -> None:
        """Ask the machine to save, push and end."""
        self.write("stop", b"")

    def is_stop_requested(self) -> bool:
        """Has somebody asked the machine to end?"""
        return self.read("stop") is not None

    def done(self) -> Ending | None:
        """How the launch ended; None while it goes on."""
        answer = self.read("done")
        if answer is None:
            return None
        with _told_as_wrong(self.place / "done"):
            values = table(json.loads(answer[0]))
            return Ending(
                whole_number(values["code"], limit=255),
                plain_text(values["reason"]),
                real_number(values["at"]),
            )

    def write_done(self, ending: Ending) -> None:
        """Write how it ended."""
        self.write("done", json.dumps(asdict(ending)).encode())


def _parse_event(number: int, body: bytes) -> Event:
    values = table(json.loads(body))
    return Event(
        number,
        real_number(values["at"]),
        plain_text(values["instance"]),
        plain_text(values["kind"]),
        table(values["details"]),
    )


@contextmanager
def _told_as_wrong(place: object) -> Iterator[None]:
    """What somebody else wrote at `place`, told as WrongBytes where it cannot be read."""
    try:
        yield
    except (ValueError, KeyError, RecursionError) as error:
        raise WrongBytes(
            f"{place} cannot be used: {quoted(str(error))}", hint=f"aws s3 rm {place}"
        ) from error
