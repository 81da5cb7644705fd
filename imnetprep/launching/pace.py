"""How far a run in a bucket is, and what an epoch of it takes: by the log that machines push."""

from contextlib import suppress
from dataclasses import dataclass

from imnetprep.launching.folder import read_object
from imnetprep.plain_values import real_number, table, whole_number
from imnetprep.reports.log import Line, epoch_lines, tables
from imnetprep.s3.address import S3Address
from imnetprep.s3.bucket import Bucket

_LATEST = 3  # epochs: earlier ones may be of another type of machine


@dataclass(frozen=True)
class Pace:
    """`epoch` of `epochs` were over `at` (Unix time), and one takes `epoch_s` seconds."""

    epoch: int
    epochs: int
    epoch_s: float
    at: float


def count_epochs(bucket: Bucket, address: S3Address, run: str) -> int:
    """How many epochs the log of a run has. Raises SourceFailed."""
    answer = read_object(bucket, _log(address, run))
    lines = [] if answer is None else answer[0].splitlines()
    return sum(b'"step"' not in line for line in lines)


def read_pace(bucket: Bucket, address: S3Address, run: str) -> Pace | None:
    """The pace of a run; None where its log has no epoch yet. Raises SourceFailed.

    A validation image counts as one of training, whose seconds alone the log has.
    """
    answer = read_object(bucket, _log(address, run))
    if answer is None:
        return None
    body, facts = answer
    with suppress(ValueError, KeyError, RecursionError):  # a log that is damaged tells nothing
        lines = epoch_lines(tables(body))[-_LATEST:]
        seconds = [
            real_number(line["seconds"]) * (1 + _val_images(line) / _images(line["train"]))
            for line in lines
            if _images(line["train"])
        ]
        if seconds:
            return Pace(
                whole_number(lines[-1]["epoch"]),
                whole_number(lines[-1]["epochs"]),
                sum(seconds) / len(seconds),
                facts["LastModified"].timestamp(),
            )
    return None


def _val_images(line: Line) -> int:
    return _images(line["val"]) if "val" in line else 0  # --no-val


def _images(score: object) -> int:
    return whole_number(table(score)["images"])


def _log(address: S3Address, run: str) -> S3Address:
    return address / f"runs/{run}/log.jsonl"
