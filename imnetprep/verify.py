"""A root against its manifest: what is missing, extra, misplaced, of the wrong size, or damaged."""

import os
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from imnetprep.catalog.datasets import Dataset, Split
from imnetprep.digests import xxh128
from imnetprep.errors import ImnetprepError
from imnetprep.images import decoding_problem
from imnetprep.manifest import Manifest, SampleRecord, open_manifest
from imnetprep.processes import usable_cores
from imnetprep.progress import Progress, Task
from imnetprep.roots import Root
from imnetprep.units import count

# Read but not yet judged, at most, so that memory does not grow with the dataset.
_READS_UNDER_WAY = 64


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


def findings(
    root: Root, *, splits: Sequence[Split], checks: Checks, jobs: int | None, progress: Progress
) -> Iterator[Finding]:
    """All that is wrong with `splits` (all of the dataset, where none is named).

    Raises ImnetprepError where a named split, or any split, is not organized at all.
    """
    with open_manifest(root.manifest) as manifest:
        dataset, organized = manifest.dataset(), manifest.splits()
        for split in splits if organized else dataset.splits:
            if split not in organized:
                raise ImnetprepError(
                    f"{split} of {dataset.name} is not organized in {root.path}",
                    hint="imnetprep organize",
                )
        for split in splits or dataset.splits:
            if split not in organized:
                yield Finding("missing-split", split, "is not organized")
                continue
            total = organized[split].samples
            with (
                progress.task(f"verify {split}", total=total, unit="images") as task,
                ThreadPoolExecutor(jobs or usable_cores()) as workers,
            ):
                check = _SplitCheck(root, split, manifest, dataset, checks, workers, task)
                yield from check.findings()


class _SplitCheck:
    """The check of one split: its folders first, then class by class."""

    def __init__(
        self,
        root: Root,
        split: Split,
        manifest: Manifest,
        dataset: Dataset,
        checks: Checks,
        workers: ThreadPoolExecutor,
        task: Task,
    ) -> None:
        self._root, self._split, self._manifest, self._dataset = root, split, manifest, dataset
        self._checks, self._workers, self._task = checks, workers, task
        self._missing: dict[str, str] = {}  # name -> the class folder it belongs in
        self._extra: list[tuple[str, str]] = []  # class folder, name
        self._reads: deque[Future[list[Finding]]] = deque()

    def findings(self) -> Iterator[Finding]:
        folder = self._root.split(self._split)
        if not folder.is_dir():
            yield Finding("missing-split", self._split, "the folder is gone")
            return
        folders = yield from self._top_level(folder)
        for synset in self._dataset.synsets:
            samples = list(self._manifest.samples(self._split, synset.label))
            wanted = self._dataset.counts(self._split)[synset.label]
            if len(samples) != wanted:
                what = f"the manifest lists {count(len(samples), 'image')}, not {wanted:,}"
                yield Finding("count", f"{self._split}/{synset.wnid}", what)
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
            read = self._workers.submit(_file_findings, path, shown, sample, self._checks)
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


def _file_findings(path: Path, shown: str, sample: SampleRecord, checks: Checks) -> list[Finding]:
    try:
        body = path.read_bytes()
    except OSError as error:
        return [Finding("unreadable", shown, f"cannot be read: {error.strerror}")]
    found = []
    if checks.digests and xxh128(body) != sample.xxh128:
        found.append(Finding("digest", shown, f"its xxh128 is not {sample.xxh128.hex()}"))
    if checks.decode and (problem := decoding_problem(body)) is not None:
        found.append(Finding("decode", shown, problem))
    return found
