"""The shards of a split against its manifest: the index, every shard, and the members in it."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import BinaryIO, NamedTuple

from imnetprep.catalog.datasets import Layout, Root, Split, Synset
from imnetprep.checking.read_files import body_problems
from imnetprep.checking.recognise import Tree
from imnetprep.digests import running_xxh128
from imnetprep.jobs import FILES
from imnetprep.layouts.webdataset import INDEX, Index, Shard, frame, read_index, shard_name
from imnetprep.machine import is_of_file, named
from imnetprep.manifest import Manifest, SampleRecord, SplitRecord, open_manifest
from imnetprep.messages import Checks, Finding, Progress, Task, WrongBytes, count


def shard_findings(
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
        counts = manifest.counts(record)
        for synset, images in zip(tree.dataset.synsets, tree.dataset.counts(split), strict=True):
            if (samples := counts.get(synset.label, 0)) != images:
                message = f"the manifest lists {count(samples, 'image')}, not {images:,}"
                yield Finding("count", f"{split}/{synset.wnid}", message)
        home = str(folder.relative_to(root.path))
        try:
            index = read_index(folder)
        except WrongBytes as error:
            yield Finding("index", f"{home}/{INDEX}", str(error))
            return
        except OSError as error:
            if not is_of_file(error):
                raise
            yield Finding("index", f"{home}/{INDEX}", f"cannot be read: {error.strerror}")
            return
        with progress.task(f"verify {split}", total=record.samples, unit="images") as task:
            survey = _Survey(folder, home, index, tree.dataset.synsets, checks)
            results = survey.results(manifest, record, task)
            for found in FILES.in_threads(survey.judge, results, jobs=jobs):
                yield from found


class _Samples(NamedTuple):
    """The samples that a shard should have, in their order; the first has the key `first_key`."""

    shard: Shard
    first_key: int
    samples: Sequence[SampleRecord]


@dataclass(frozen=True)
class _Survey:
    """The survey of the shards in `folder`, which is `home` in its root."""

    folder: Path
    home: str
    index: Index
    synsets: Sequence[Synset]
    checks: Checks

    def results(
        self, manifest: Manifest, record: SplitRecord, task: Task
    ) -> Iterator[Finding | _Samples]:
        """All that is wrong with index and files, and the samples of each shard to read."""
        index = f"{self.home}/{INDEX}"
        shards = {shard.name: shard for shard in self.index.shards}
        if self.index.change != record.change:
            words = [each or "images as published" for each in (self.index.change, record.change)]
            yield Finding("index", index, f"says {words[0]}, and the manifest {words[1]}")
        sizes = {entry.name: entry.stat().st_size for entry in os.scandir(self.folder)}
        sizes.pop(INDEX)
        key = 0
        for number, group in groupby(manifest.in_shards(record), lambda sample: sample.shard):
            samples, name = list(group), shard_name(self.folder.name, number or 0)
            shard, path = shards.pop(name, None), f"{self.home}/{name}"
            if shard is None or shard.samples != len(samples):
                message = f"lists {shard.samples if shard else 0:,} samples of {path}"
                yield Finding("index", index, f"{message}, not {len(samples):,}")
            if (size_bytes := sizes.pop(name, None)) is None:
                yield Finding("missing", path, f"is not there, with its {len(samples):,} samples")
            elif shard:
                if size_bytes != shard.size_bytes:
                    message = f"has {size_bytes:,} bytes, not {shard.size_bytes:,}"
                    yield Finding("size", path, message)
                yield _Samples(shard, key, samples)
            key += len(samples)
            task.advance(len(samples))
        for name in sorted({*sizes, *shards}):
            yield Finding("extra", f"{self.home}/{name}", "holds no sample of the manifest")

    def judge(self, result: Finding | _Samples) -> list[Finding]:
        """A finding as it is; all that is wrong with samples, or with their shard as a whole."""
        if isinstance(result, Finding):
            return [result]
        path = f"{self.home}/{result.shard.name}"
        try:
            shard = self.folder / result.shard.name
            if shard.exists() and not shard.is_file():
                return [Finding("not-a-file", path, "is not a regular file")]
            with named(shard), shard.open("rb") as file:
                return list(self._wrong(file, path, result))
        except OSError as error:
            if not is_of_file(error):
                raise
            return [Finding("unreadable", path, f"cannot be read: {error.strerror}")]

    def _wrong(self, file: BinaryIO, path: str, result: _Samples) -> Iterator[Finding]:
        digest, shard = running_xxh128(), result.shard

        def read(length: int) -> bytes:
            body = file.read(length)
            digest.update(body)
            return body

        for key, sample in enumerate(result.samples, result.first_key):
            title = f"{path}: {sample.name}"
            has_wnid = 0 <= sample.label < len(self.synsets)
            wnid = self.synsets[sample.label].wnid if has_wnid else ""
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
            read(max(0, shard.size_bytes - file.tell()))
            if digest.hexdigest() != shard.xxh128:
                yield Finding("digest", path, f"its xxh128 is not {shard.xxh128}")
