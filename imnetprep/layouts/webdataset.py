"""The layout of the webdataset library: tars of samples, the same bytes for the same samples.

A sample is three members of one key, its place in the split: `.jpg`, the image, whatever it is;
`.cls`, its label; `.json`, its file name, its wnid and what was done to it. `index.json` beside
the shards says what they are; it is written last.
"""

import json
import os
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from imnetprep.archives.tar_writing import ending, header, padding
from imnetprep.digests import running_xxh128
from imnetprep.fs import read_range, written_whole
from imnetprep.manifest import SampleRecord
from imnetprep.messages import WrongBytes, move_away
from imnetprep.outside_files import open_handle, read_file
from imnetprep.plain_values import plain_text, whole_number

INDEX = "index.json"
_FORM = 1
_DAMAGE = (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError)
_NO_FILE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class Shard(NamedTuple):
    """A shard as the index has it. `xxh128` is the digest of the whole file, as hex."""

    name: str
    samples: int
    size_bytes: int
    xxh128: str


@dataclass(frozen=True)
class Index:
    """The shards of a split, and what they are a function of beside its images."""

    dataset: str
    split: str
    seed: int
    shard_size: int
    change: str | None
    shards: tuple[Shard, ...]


def shard_name(split: str, number: int) -> str:
    """`train-000000.tar`."""
    return f"{split}-{number:06}.tar"


def sample_path(folder: Path, sample: SampleRecord, _wnid: str) -> Path:
    """As `LayoutModule.sample_path`; the folder has the name of its split."""
    return folder / shard_name(folder.name, sample.shard or 0)


def read_sample(folder: Path, sample: SampleRecord, wnid: str) -> bytes:
    """As `LayoutModule.read_sample`."""
    handle = open_handle(sample_path(folder, sample, wnid))
    try:
        return read_range(handle, sample.size_bytes, sample.offset_bytes or 0)
    finally:
        os.close(handle)


def describe_sample(folder: Path, sample: SampleRecord, wnid: str) -> str:
    """As `LayoutModule.describe_sample`."""
    return f"{sample_path(folder, sample, wnid)}: {sample.name}"


def write_shard(
    path: Path,
    samples: Iterable[tuple[SampleRecord, bytes]],
    *,
    number: int,
    first_key: int,
    wnids: Sequence[str],
) -> tuple[Shard, list[SampleRecord]]:
    """Write a shard of these samples with their bodies; a record says where each came to lie."""
    digest, size_bytes, records = running_xxh128(), 0, []
    with written_whole(path) as file:

        def write(chunk: bytes) -> None:
            file.write(chunk)
            digest.update(chunk)

        for key, (sample, body) in enumerate(samples, first_key):
            head, tail = frame(sample, key=key, wnid=wnids[sample.label])
            records.append(sample._replace(shard=number, offset_bytes=size_bytes + len(head)))
            for chunk in (head, body, tail):
                write(chunk)
            size_bytes += len(head) + len(body) + len(tail)
        end = ending(size_bytes)
        write(end)
    shard = Shard(path.name, len(records), size_bytes + len(end), digest.hexdigest())
    return shard, records


def frame(sample: SampleRecord, *, key: int, wnid: str) -> tuple[bytes, bytes]:
    """What stands in a shard before and after the body of `sample`: all of it but the image."""
    facts = {"name": sample.name, "wnid": wnid}
    if sample.change is not None:
        facts["change"] = sample.change
    tail = padding(sample.size_bytes)
    for kind, body in (("cls", str(sample.label)), ("json", json.dumps(facts))):
        tail += header(f"{key:08}.{kind}", len(body)) + body.encode() + padding(len(body))
    return header(f"{key:08}.jpg", sample.size_bytes), tail


def framed_bytes(samples: int, size_bytes: int) -> int:
    """About what so many samples of so many bytes in all take in shards."""
    # Three headers, the label, a .json that is seldom longer than a block, what fills the last.
    return size_bytes + samples * 6 * tarfile.BLOCKSIZE


def write_index(folder: Path, index: Index) -> None:
    """Say what the shards in `folder` are."""
    shards = [shard._asdict() for shard in index.shards]
    with written_whole(folder / INDEX) as file:
        facts = {"form": _FORM, **asdict(index), "shards": shards}
        file.write(json.dumps(facts, indent=1).encode() + b"\n")


def read_index(folder: Path) -> Index:
    """What the shards in `folder` are. Raises WrongBytes where the index does not say, and OSError
    where it is there and cannot be read.
    """
    try:
        facts = json.loads(read_file(folder / INDEX))
        if facts.pop("form") != _FORM:
            raise ValueError("of another form")
        change = facts.pop("change")
        index = Index(
            plain_text(facts.pop("dataset")),
            plain_text(facts.pop("split")),
            whole_number(facts.pop("seed")),
            whole_number(facts.pop("shard_size"), least=1),
            None if change is None else plain_text(change),
            tuple(map(parse_shard, facts.pop("shards"))),
        )
        if facts:
            raise ValueError("it says more")
        return index
    except _DAMAGE as error:
        if isinstance(error, OSError) and not isinstance(error, _NO_FILE):
            raise
        raise WrongBytes(
            f"{folder / INDEX} is not the index of these shards: {error}",
            hint=f"{move_away(folder)}; then imnetprep organize --layout webdataset makes it",
        ) from error


def parse_shard(facts: Mapping[str, Any]) -> Shard:
    """The shard as `write_index` has it; raises one of _DAMAGE."""
    name, digest = plain_text(facts["name"]), plain_text(facts["xxh128"])
    if "/" in name:
        raise ValueError(f"{name!r:.40} is no file name")
    return Shard(name, whole_number(facts["samples"]), whole_number(facts["size_bytes"]), digest)
