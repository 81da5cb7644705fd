"""Fields of what a bucket has of a root, and of what a root keeps of its syncs.

The bucket is a folder, of which a case changes a file.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from imnetprep.digests import Checksum
from imnetprep.sync.remote_receipt import ObjectRecord, format_receipt, parse_receipt
from imnetprep.sync.survey import part_bytes_of
from imnetprep.transfers.checksums import Checksums
from imnetprep.transfers.range_download import pull_part_path
from tests.fuzzing.cases import Case, json_cases, run_command, sql_cases
from tests.servers import BUCKET, S3Server
from tests.stopped import run_stopped

_PLACE = f"s3://{BUCKET}/PREFIX/remote"
_BIG, _PART_BYTES = "archives/big.tar", 1 << 20
_KIND = ("--checksum-algorithm", "CRC32")  # which the server keeps


def bucket_cases(folder: Path, root: Path, endpoint: str) -> dict[str, Iterator[Case]]:
    """Of a bucket its manifest, receipt and an index of shards; of a root its journal of syncs.

    `endpoint`: of a server whose bucket is `folder`. `root` is organized, and stays as it is.
    """
    environment = S3Server(0).environment_of(endpoint=endpoint)
    both = folder / "both"

    def cases(kind: str) -> Iterator[Case]:
        if not both.exists():
            shutil.copytree(root, both / "root")
            with patch.dict(os.environ, environment):
                _push_and_pull_half(both)
                _push_half(folder / "sending")
        for case in _CASES[kind](both):
            yield case._replace(environment=environment)

    return {kind: cases(kind) for kind in _CASES}


def _sync(to: str, *words: str) -> list[str]:
    return ["sync-s3", _PLACE, "--root", f"ROOT/{to}", "--jobs", "1", "--quiet", *words]


_READING = (
    _sync("root", "--check"),
    _sync("root", "--push"),
    _sync("new", "--pull"),
    ["organize", "--root", "ROOT/other", "--archives", _PLACE, "--dry-run", "--quiet"],
)


def _push_and_pull_half(both: Path) -> None:
    """Fill the bucket from the root, and begin a pull of an archive in parts."""
    big = both / "root" / _BIG
    big.parent.mkdir(exist_ok=True)
    big.write_bytes(bytes(5 * _PART_BYTES // 2))
    place = _PLACE.replace("PREFIX", both.name)
    run_command("sync-s3", place, "--root", both / "root", "--push")
    path = both / "remote" / "receipt.json"
    receipt = parse_receipt(path.read_bytes())
    kind, body = receipt.objects[_BIG].checksums.whole.kind, memoryview(big.read_bytes())
    parts = [
        Checksum.empty(kind).over(body[at : at + _PART_BYTES])
        for at in range(0, len(body), _PART_BYTES)
    ]
    checksums = Checksums.of_parts(parts, kind, _PART_BYTES)
    record = ObjectRecord(receipt.objects[_BIG].etag, checksums)
    path.write_bytes(format_receipt(replace(receipt, objects={**receipt.objects, _BIG: record})))
    at = "imnetprep.transfers.journal:PartJournal.keep_fetched:3"
    run_stopped(both / "half", at, "sync-s3", place, "--pull", "--what", "archives", "--jobs", "1")


def _push_half(sending: Path) -> None:
    """Begin a push of an archive in two parts, and stop before the server makes one of them."""
    big = sending / "root" / _BIG
    big.parent.mkdir(parents=True)
    big.write_bytes(bytes(part_bytes_of(0) + 1))
    at, place = "imnetprep.s3.upload:Sender.complete:1", _PLACE.replace("PREFIX", sending.name)
    run_stopped(sending / "root", at, "sync-s3", place, "--push", *_KIND)


def _manifest(both: Path) -> Iterator[Case]:
    yield from sql_cases(both, "remote/manifest.db", _READING, is_copied=True)


def _receipt(both: Path) -> Iterator[Case]:
    yield from json_cases(both, "remote/receipt.json", _READING, is_copied=True)


def _index(both: Path) -> Iterator[Case]:
    file = "remote/shards/val/index.json"
    yield from json_cases(both, file, _READING, is_copied=True)


def _journal(both: Path) -> Iterator[Case]:
    """What it says holds of the files as they lie, and not of copies."""
    whole = [_sync("root", "--check"), _sync("root", "--pull"), _sync("root", "--push")]
    yield from sql_cases(both, "root/.sync.db", [*whole, _sync("root", "--check", "--deep")])
    for case in sql_cases(both, "half/.sync.db", [_sync("half", "--pull", "--what", "archives")]):

        def write(path: Path, case: Case = case) -> None:
            big = both / "half" / _BIG
            if big.exists():  # the case before has come to its end
                big.rename(pull_part_path(big))
            case.write(path)

        yield case._replace(write=write)
    sending = both.with_name("sending")
    push = _sync("root", "--push", *_KIND)
    yield from sql_cases(sending, "root/.sync.db", [push], is_copied=True, tables=["sent"])


_CASES = {
    "manifest in a bucket": _manifest,
    "receipt in a bucket": _receipt,
    "index in a bucket": _index,
    "journal of syncs": _journal,
}
