"""A root against its manifest: what is missing, extra, misplaced, of the wrong size, or damaged."""

import os
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

from imnetprep.catalog.datasets import Dataset, Split
from imnetprep.errors import ImnetprepError, WrongBytes
from imnetprep.findings import Checks, Finding, ShardCheck, file_findings
from imnetprep.layouts.webdataset import INDEX, read_index, shard_name
from imnetprep.manifest import Manifest, SampleRecord, SplitRecord, open_manifest, pick_split
from imnetprep.processes import usable_cores
from imnetprep.progress import Progress, Task
from imnetprep.roots import Layout, Root
from imnetprep.units import count

# Read but not yet judged, at most, so that memory does not grow with the dataset.
_READS_UNDER_WAY = 64
_SHARDS_UNDER_WAY = 16


def findings(
    root: Root,
    *,
    splits: Sequence[Split],
    layout: Layout | None = None,
    checks: Checks,
    jobs: int | None,
    progress: Progress,
) -> Iterator[Finding]:
    """All that is wrong with `splits` (all of the dataset, where none is named).

    Raises ImnetprepError where a named split, or any split, is not organized at all, WrongUsage
    where one is there in two layouts and none is named.
    """
    with open_manifest(root.manifest) as manifest:
        dataset = manifest.dataset()
        picked = {
            split: pick_split(manifest, root, split, layout=layout)
            for split in splits or dataset.splits
        }
        for split in splits if any(picked.values()) else dataset.splits:
            if picked.get(split) is None:
                raise ImnetprepError(
                    f"{split} of {dataset.name} is not organized in {root.path}",
                    hint="imnetprep organize",
                )
        for split, held in picked.items():
            if held is None:
                yield Finding("missing-split", split, "is not organized")
                continue
            if held.change:
                progress.note(f"the {split} images are not as published: {held.change}")
            with (
                progress.task(f"verify {split}", total=held.samples, unit="images") as task,
                ThreadPoolExecutor(jobs or usable_cores()) as workers,
            ):
                check = _SplitCheck(root, held, manifest, dataset, checks, workers, task)
                yield from check.findings()


class _SplitCheck:
    """The check of one split: its folders first, then class by class, or shard by shard."""

    def __init__(
        self,
        root: Root,
        held: SplitRecord,
        manifest: Manifest,
        dataset: Dataset,
        checks: Checks,
        workers: ThreadPoolExecutor,
        task: Task,
    ) -> None:
        self._root, self._held, self._manifest, self._dataset = root, held, manifest, dataset
        self._split, self._folder = held.split, root.split(held.split, held.layout)
        self._checks, self._workers, self._task = checks, workers, task
        self._missing: dict[str, str] = {}  # name -> the class folder it belongs in
        self._extra: list[tuple[str, str]] = []  # class folder, name
        self._reads: deque[Future[list[Finding]]] = deque()

    def findings(self) -> Iterator[Finding]:
        if not self._folder.is_dir():
            yield Finding("missing-split", self._split, "the folder is gone")
            return
        yield from self._miscounted()
        if self._held.layout is Layout.WEBDATASET:
            yield from self._shard_findings()
        else:
            yield from self._folder_findings(self._folder)

    def _miscounted(self) -> Iterator[Finding]:
        listed, wanted = self._manifest.counts(self._held), self._dataset.counts(self._split)
        for synset in self._dataset.synsets:
            samples = listed.get(synset.label, 0)
            if samples != wanted[synset.label]:
                what = f"the manifest lists {count(samples, 'image')}, not {wanted[synset.label]:,}"
                yield Finding("count", f"{self._split}/{synset.wnid}", what)

    def _shard_findings(self) -> Iterator[Finding]:
        shown = self._folder.relative_to(self._root.path)
        try:
            index = read_index(self._folder)
        except WrongBytes as error:
            yield Finding("index", f"{shown}/{INDEX}", str(error))
            return
        sizes = {entry.name: entry.stat().st_size for entry in os.scandir(self._folder)}
        sizes.pop(INDEX)
        listed = {shard.name: shard for shard in index.shards}
        wnids, key = [synset.wnid for synset in self._dataset.synsets], 0
        for number, group in groupby(self._manifest.in_shards(self._held), lambda one: one.shard):
            samples, name = list(group), shard_name(self._split, number or 0)
            shard, path = listed.pop(name, None), f"{shown}/{name}"
            if shard is None or shard.samples != len(samples):
                what = f"lists {shard.samples if shard else 0:,} samples of {path}"
                yield Finding("index", f"{shown}/{INDEX}", f"{what}, not {len(samples):,}")
            if (size_bytes := sizes.pop(name, None)) is None:
                yield Finding("missing", path, f"is not there, with its {len(samples):,} samples")
            elif shard:
                if size_bytes != shard.size_bytes:
                    what = f"has {size_bytes:,} bytes, not {shard.size_bytes:,}"
                    yield Finding("size", path, what)
                check = ShardCheck(self._root.path / path, path, shard, key, wnids, self._checks)
                self._reads.append(self._workers.submit(check.findings, samples))
            key += len(samples)
            yield from self._judged(until=_SHARDS_UNDER_WAY)
            self._task.advance(len(samples))
        yield from self._judged(until=0)
        for name in sorted({*sizes, *listed}):
            yield Finding("extra", f"{shown}/{name}", "holds no sample of the manifest")

    def _folder_findings(self, folder: Path) -> Iterator[Finding]:
        folders = yield from self._top_level(folder)
        for synset in self._dataset.synsets:
            samples = list(self._manifest.samples(self._held, synset.label))
            if synset.wnid in folders:
                yield from self._class_findings(folder / synset.wnid, samples)
            elif samples:
                what = f"the class folder is missing, with its {count(len(samples), 'image')}"
                yield Finding("missing-class", f"{self._split}/{synset.wnid}", what)
            self._task.advance(len(samples))
        yield from self._judged(until=0)
        yield from self._misplaced()

    def _top_level(self, folder: Path) -> Generator[Finding, None, set[str]]:
        """Yields what is wrong at the top and returns the class folders' names."""
        folders, files = set(), []
        with os.scandir(folder) as entries:
            for entry in entries:
                is_class = entry.name in self._dataset.label_of_wnid
                if is_class and entry.is_dir(follow_symlinks=False):
                    folders.add(entry.name)
                elif entry.is_file(follow_symlinks=False):
                    files.append(entry.name)
                else:
                    what = "is not a class of the dataset"
                    yield Finding("extra-folder", f"{self._split}/{entry.name}", what)
        flat = [name for name in files if self._dataset.label_of(self._split, name) is not None]
        if flat:
            what = f"{count(len(flat), 'image')} flat in {self._split}/, outside any class folder"
            yield Finding("flat", f"{self._split}/{min(flat)}", what)
        for name in sorted(set(files) - set(flat)):
            yield Finding("extra", f"{self._split}/{name}", "is not of the dataset")
        return folders

    def _class_findings(self, folder: Path, samples: Sequence[SampleRecord]) -> Iterator[Finding]:
        sizes: dict[str, int | None] = {}  # None: not a regular file
        with os.scandir(folder) as entries:
            for entry in entries:
                regular = entry.is_file(follow_symlinks=False)
                sizes[entry.name] = entry.stat().st_size if regular else None
        for sample in samples:
            path = f"{self._split}/{folder.name}/{sample.name}"
            size_bytes = sizes.pop(sample.name, -1)
            if size_bytes == -1:
                self._missing[sample.name] = folder.name
            elif size_bytes is None:
                yield Finding("not-a-file", path, "is not a regular file")
            else:
                if size_bytes != sample.size_bytes:
                    what = f"has {size_bytes:,} bytes, not {sample.size_bytes:,}"
                    yield Finding("size", path, what)
                yield from self._read(folder / sample.name, sample)
        self._extra += ((folder.name, name) for name in sizes)

    def _read(self, path: Path, sample: SampleRecord) -> Iterator[Finding]:
        if self._checks.digests or self._checks.decode:
            shown = str(path.relative_to(self._root.path))
            read = self._workers.submit(file_findings, path, shown, sample, self._checks)
            self._reads.append(read)
        yield from self._judged(until=_READS_UNDER_WAY)

    def _judged(self, *, until: int) -> Iterator[Finding]:
        while len(self._reads) > until:
            yield from self._reads.popleft().result()

    def _misplaced(self) -> Iterator[Finding]:
        """Names that are missing in one class and extra in another were moved."""
        for wnid, name in sorted(self._extra):
            path = f"{self._split}/{wnid}/{name}"
            if name in self._missing:
                home = self._missing.pop(name)
                yield Finding("misplaced", path, f"belongs in {self._split}/{home}/")
            else:
                yield Finding("extra", path, "is not of the dataset")
        for name, wnid in sorted(self._missing.items()):
            yield Finding("missing", f"{self._split}/{wnid}/{name}", "is not there")
