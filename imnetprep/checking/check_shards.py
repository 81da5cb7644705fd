"""The shards of a split against its manifest: the index, every shard, and the members in it."""

import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import BinaryIO, NamedTuple

from imnetprep.catalog.datasets import Dataset, Layout, Root, Split
from imnetprep.checking.read_files import body_problems
from imnetprep.checking.recognise import Tree
from imnetprep.digests import running_xxh128
from imnetprep.jobs import FILES
from imnetprep.layouts.webdataset import INDEX, Shard, frame, read_index, shard_name
from imnetprep.manifest import SampleRecord, open_manifest
from imnetprep.messages import Checks, Finding, Progress, Task, WrongBytes, count

_SHARDS_UNDER_WAY = 16


def surveyed_shards(
    root: Root, tree: Tree, split: Split, *, checks: Checks, jobs: int | None, progress: Progress
) -> Iterator[Finding]:
    """All that is wrong with the shards of `split`."""
    folder = root.split(split, Layout.WEBDATASET)
    with open_manifest(root.manifest) as manifest:
        record = manifest.splits().get((split, Layout.WEBDATASET))
        if record is None or not folder.is_dir():
            message = "the folder is gone" if record else "is not organized"
            yield Finding("missing-split", split, message)
            return
        yield from _count_findings(manifest.counts(record), tree.dataset, split)
        with (
            progress.task(f"verify {split}", total=record.samples, unit="images") as task,
            ThreadPoolExecutor(FILES.count(jobs)) as workers,
        ):
            survey = _Survey(root, folder, tree.dataset, checks, workers, task)
            yield from survey.findings(manifest.in_shards(record), change=record.change)


def _count_findings(counts: Mapping[int, int], dataset: Dataset, split: Split) -> Iterator[Finding]:
    for synset, images in zip(dataset.synsets, dataset.counts(split), strict=True):
        if (samples := counts.get(synset.label, 0)) != images:
            message = f"the manifest lists {count(samples, 'image')}, not {images:,}"
            yield Finding("count", f"{split}/{synset.wnid}", message)


class _Survey(NamedTuple):
    """The survey of the shards in `folder`: the index first, then shard by shard."""

    root: Root
    folder: Path
    dataset: Dataset
    checks: Checks
    workers: ThreadPoolExecutor
    task: Task

    def findings(self, samples: Iterator[SampleRecord], *, change: str | None) -> Iterator[Finding]:
        """All that is wrong with the shards, which should have `samples` in this order.

        `change` is what the manifest says was done to the images.
        """
        home = str(self.folder.relative_to(self.root.path))
        try:
            index = read_index(self.folder)
        except WrongBytes as error:
            yield Finding("index", f"{home}/{INDEX}", str(error))
            return
        shards = {shard.name: shard for shard in index.shards}
        if index.change != change:
            words = [each or "images as published" for each in (index.change, change)]
            message = f"says {words[0]}, and the manifest {words[1]}"
            yield Finding("index", f"{home}/{INDEX}", message)
        sizes = {entry.name: entry.stat().st_size for entry in os.scandir(self.folder)}
        sizes.pop(INDEX)
        wnids, key = [synset.wnid for synset in self.dataset.synsets], 0
        checks: deque[Future[list[Finding]]] = deque()
        for number, group in groupby(samples, lambda sample: sample.shard):
            records, name = list(group), shard_name(self.folder.name, number or 0)
            shard, path = shards.pop(name, None), f"{home}/{name}"
            if shard is None or shard.samples != len(records):
                message = f"lists {shard.samples if shard else 0:,} samples of {path}"
                yield Finding("index", f"{home}/{INDEX}", f"{message}, not {len(records):,}")
            if (size_bytes := sizes.pop(name, None)) is None:
                yield Finding("missing", path, f"is not there, with its {len(records):,} samples")
            elif shard:
                if size_bytes != shard.size_bytes:
                    message = f"has {size_bytes:,} bytes, not {shard.size_bytes:,}"
                    yield Finding("size", path, message)
                check = _ShardCheck(self.root.path / path, path, shard, key, wnids, self.checks)
                checks.append(self.workers.submit(check.findings, records))
            key += len(records)
            while len(checks) > _SHARDS_UNDER_WAY:
                yield from checks.popleft().result()
            self.task.advance(len(records))
        for future in checks:
            yield from future.result()
        for name in sorted({*sizes, *shards}):
            yield Finding("extra", f"{home}/{name}", "holds no sample of the manifest")


class _ShardCheck(NamedTuple):
    """The check of one shard, whose first sample has the key `first_key`."""

    path: Path
    path_in_root: str
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
            return [Finding("unreadable", self.path_in_root, f"cannot be read: {error.strerror}")]

    def _wrong(self, file: BinaryIO, samples: Sequence[SampleRecord]) -> Iterator[Finding]:
        digest = running_xxh128()

        def read(length: int) -> bytes:
            body = file.read(length)
            digest.update(body)
            return body

        for key, sample in enumerate(samples, self.first_key):
            title = f"{self.path_in_root}: {sample.name}"
            has_wnid = 0 <= sample.label < len(self.wnids)
            wnid = self.wnids[sample.label] if has_wnid else ""
            head, tail = frame(sample, key=key, wnid=wnid)
            file.seek(max(0, (sample.offset_bytes or 0) - len(head)))
            is_framed = read(len(head)) == head
            if self.checks.read_every_file:
                problems = body_problems(read(sample.size_bytes), sample, self.checks)
                yield from (Finding(kind, title, message) for kind, message in problems)
            else:
                file.seek(sample.size_bytes, os.SEEK_CUR)
            if not is_framed or read(len(tail)) != tail:
                message = f"is not there under key {key:08} with label {sample.label}"
                yield Finding("misplaced", title, message)
        if self.checks.digests:
            read(self.shard.size_bytes - file.tell())
            if digest.hexdigest() != self.shard.xxh128:
                yield Finding("digest", self.path_in_root, f"its xxh128 is not {self.shard.xxh128}")
