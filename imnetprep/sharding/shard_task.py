"""One shard as a task for any process: its samples, and where their bodies come from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from imnetprep.digests import xxh128
from imnetprep.images import Resize, resized_jpeg
from imnetprep.layouts.webdataset import Shard, write_shard
from imnetprep.manifest import SampleRecord
from imnetprep.messages import WrongBytes

# The published bytes of a sample, or WrongBytes; a value that another process can be given. A
# sample whose digest is empty gets that of its body.
BodyOf = Callable[[SampleRecord], bytes]


@dataclass(frozen=True)
class FilesOf:
    """The bodies of a split in class folders, each compared with its digest."""

    folder: Path
    wnids: Sequence[str]

    def __call__(self, sample: SampleRecord) -> bytes:
        path = self.folder / self.wnids[sample.label] / sample.name
        try:
            body = path.read_bytes()
        except FileNotFoundError:
            raise _not_as_listed(path, "is not there") from None
        if xxh128(body) != sample.xxh128:
            raise _not_as_listed(path, f"its xxh128 is not {sample.xxh128.hex()}")
        return body


class ShardTask(NamedTuple):
    """Shard `number`, to be written to `path`, whose first sample has the key `first_key`."""

    path: Path
    number: int
    first_key: int
    samples: Sequence[SampleRecord]
    wnids: Sequence[str]
    body_of: BodyOf
    resize: Resize | None


def make_shard(task: ShardTask) -> tuple[Shard, list[SampleRecord]]:
    """Write it, whole or not at all; a record for each sample says what came to lie where.

    Raises WrongBytes where an image is not as listed, or not one that can be made smaller.
    """
    return write_shard(
        task.path,
        (_prepared(sample, task.body_of(sample), task.resize) for sample in task.samples),
        number=task.number,
        first_key=task.first_key,
        wnids=task.wnids,
    )


def _prepared(
    sample: SampleRecord, body: bytes, resize: Resize | None
) -> tuple[SampleRecord, bytes]:
    if not sample.xxh128:
        sample = sample._replace(xxh128=xxh128(body))
    if resize is None:
        return sample, body
    try:
        made, change = resized_jpeg(body, resize)
    except ValueError as error:
        raise _not_as_listed(sample.name, str(error)) from error
    if change is None:
        return sample, body
    return SampleRecord(sample.label, sample.name, len(made), xxh128(made), change), made


def _not_as_listed(image: Path | str, why: str) -> WrongBytes:
    return WrongBytes(
        f"{image}: {why}",
        hint="imnetprep verify --layout imagefolder --digests --decode names every such image",
    )
