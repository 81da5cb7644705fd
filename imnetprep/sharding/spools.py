"""Samples of an archive that is read once, put by shard: a spool for each, ordered later.

A spool has the bodies of one shard's samples end to end, in the order in which they came. The
journal says which lie where; what it does not list was left by a kill, and is written over.
"""

import os
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from imnetprep.catalog.datasets import Split
from imnetprep.extracting.sink import Batch, Sink, published_records
from imnetprep.fs import read_range
from imnetprep.layouts.webdataset import shard_name
from imnetprep.machine import named
from imnetprep.manifest import SampleRecord
from imnetprep.messages import WrongBytes, removal
from imnetprep.organizing.journal import Journal
from imnetprep.sharding.make import ShardSource
from imnetprep.sharding.order import Placement


def spool_paths(folder: Path, placement: Placement) -> dict[str, Path]:
    """The spool of each shard by the shard's name."""
    split, shards = placement.split, -(-len(placement) // placement.shard_size)
    return {shard_name(split, each): _spool_path(folder, split, each) for each in range(shards)}


def source_in_spools(
    folder: Path, placement: Placement, journal: Journal, *, archives: str
) -> ShardSource:
    """The samples in the whole spools of a split, each spool put in order; a used one goes."""
    paths, split = spool_paths(folder, placement), placement.split
    whole = journal.whole(split, dataset=placement.dataset.fingerprint)
    origin = journal.origin(split)
    assert origin is not None and whole is not None
    return ShardSource(
        samples=len(placement),
        made_of=origin.made_of,
        records=lambda: journal.ranked(split, placement.rank),
        body_of=partial(_spooled_body, folder, split),
        facts={"archive": archives},
        proof=whole.proof,
        on_shard=lambda shard: paths[shard.name].unlink(missing_ok=True),
    )


def _spool_path(folder: Path, split: Split, number: int) -> Path:
    return folder / split / f"{number:06}.spool"


class Spool(Sink):
    """A sink that puts each sample behind the others of its shard, under `folder` and the split."""

    is_forkable, threads_per_job = False, 1

    def __init__(
        self, folder: Path, placements: Mapping[Split, Placement], *, options: Mapping[str, Any]
    ) -> None:
        self.options = options
        self._folder, self._placements = folder, placements
        self._ends: defaultdict[tuple[Split, int], int] = defaultdict(int)
        self._lock = threading.Lock()

    def begin(self, split: Split, records: Iterable[SampleRecord]) -> None:
        for record in records:
            assert record.shard is not None and record.offset_bytes is not None
            end = record.offset_bytes + record.size_bytes
            place = split, record.shard
            self._ends[place] = max(self._ends[place], end)

    def write(self, batch: Batch) -> list[SampleRecord]:
        split, placement = batch.split, self._placements[batch.split]
        return [
            record._replace(shard=shard, offset_bytes=self._append(split, shard, body))
            for record, (label, name, body) in zip(self.records(batch), batch.samples, strict=True)
            for shard in [placement.shard(label, name)]
        ]

    def records(self, batch: Batch) -> list[SampleRecord]:
        return published_records(batch)

    def _append(self, split: Split, shard: int, body: bytes | memoryview) -> int:
        """Where it lies. Opened anew each time: there may be more spools than open files."""
        with self._lock:
            start = self._ends[split, shard]
            self._ends[split, shard] = start + len(body)
        path, position = _spool_path(self._folder, split, shard), 0
        with named(path):
            handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
            try:
                while position < len(body):
                    position += os.pwrite(handle, body[position:], start + position)
            finally:
                os.close(handle)
        return start


def _spooled_body(folder: Path, split: Split, sample: SampleRecord) -> bytes:
    """The body of `sample` in a spool of `split`, compared with its digest."""
    assert sample.shard is not None and sample.offset_bytes is not None
    path = _spool_path(folder, split, sample.shard)
    with path.open("rb", buffering=0) as file:
        body = read_range(file.fileno(), sample.size_bytes, sample.offset_bytes)
    if not sample.is_right(body):
        raise WrongBytes(
            f"{path}: {sample.name} is not what was written there",
            hint=f"the disk may be failing; {removal(folder)} to start over",
        )
    return body
