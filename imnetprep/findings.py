"""What there is to say of one file under a root: a sample, or a shard of samples."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from imnetprep.digests import running_xxh128, xxh128
from imnetprep.images import decoding_problem
from imnetprep.layouts.webdataset import Shard, frame
from imnetprep.manifest import SampleRecord


class Finding(NamedTuple):
    """One thing that is not as it should be. `path` is relative to the root."""

    kind: str
    path: str
    what: str


@dataclass(frozen=True)
class Checks:
    """What to look at beyond counts, names and sizes: every byte, and every image decoded."""

    digests: bool = False
    decode: bool = False


def file_findings(path: Path, shown: str, sample: SampleRecord, checks: Checks) -> list[Finding]:
    """What is wrong with the bytes of a sample that is a file."""
    try:
        body = path.read_bytes()
    except OSError as error:
        return [Finding("unreadable", shown, f"cannot be read: {error.strerror}")]
    return list(_body_findings(body, shown, sample, checks))


def _body_findings(
    body: bytes, shown: str, sample: SampleRecord, checks: Checks
) -> Iterator[Finding]:
    if checks.digests and xxh128(body) != sample.xxh128:
        yield Finding("digest", shown, f"its xxh128 is not {sample.xxh128.hex()}")
    if checks.decode and (problem := decoding_problem(body)) is not None:
        yield Finding("decode", shown, problem)


class ShardCheck(NamedTuple):
    """The check of one shard, whose first sample has the key `first_key`."""

    path: Path
    shown: str
    shard: Shard
    first_key: int
    wnids: Sequence[str]
    checks: Checks

    def findings(self, samples: Sequence[SampleRecord]) -> list[Finding]:
        """All that is wrong with `samples`, which are those of this shard in their order."""
        try:
            with self.path.open("rb") as file:
                return list(self._wrong(file, samples))
        except OSError as error:
            return [Finding("unreadable", self.shown, f"cannot be read: {error.strerror}")]

    def _wrong(self, file: BinaryIO, samples: Sequence[SampleRecord]) -> Iterator[Finding]:
        digest = running_xxh128()

        def read(length: int) -> bytes:
            body = file.read(length)
            digest.update(body)
            return body

        for key, sample in enumerate(samples, self.first_key):
            shown = f"{self.shown}: {sample.name}"
            known = 0 <= sample.label < len(self.wnids)
            head, tail = frame(sample, key=key, wnid=self.wnids[sample.label] if known else "")
            file.seek(max(0, (sample.offset_bytes or 0) - len(head)))
            framed = read(len(head)) == head
            if self.checks.digests or self.checks.decode:
                yield from _body_findings(read(sample.size_bytes), shown, sample, self.checks)
            else:
                file.seek(sample.size_bytes, os.SEEK_CUR)
            if not framed or read(len(tail)) != tail:
                what = f"is not there under key {key:08} with label {sample.label}"
                yield Finding("misplaced", shown, what)
        if self.checks.digests:
            read(self.shard.size_bytes - file.tell())
            if digest.hexdigest() != self.shard.xxh128:
                yield Finding("digest", self.shown, f"its xxh128 is not {self.shard.xxh128}")
