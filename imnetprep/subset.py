"""Part of an organized root as a root of its own: hard links or copies, whole or absent."""

import itertools
import os
import stat
from collections import deque
from collections.abc import Iterator, Mapping, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from imnetprep.catalog.datasets import Dataset, Split
from imnetprep.catalog.subsets import read_list, subset_of
from imnetprep.digests import xxh128
from imnetprep.errors import ImnetprepError, WrongBytes
from imnetprep.fs import hard_link, locked, require_free, sync_file_system, sync_folder
from imnetprep.layouts import imagefolder
from imnetprep.manifest import (
    Manifest,
    SampleRecord,
    SplitRecord,
    create_manifest,
    open_manifest,
    organized_splits,
    refuse_other_dataset,
)
from imnetprep.organizing.disk_needs import Needs
from imnetprep.organizing.journal import open_journal
from imnetprep.processes import usable_cores
from imnetprep.progress import Progress
from imnetprep.proving.receipt import read_receipt, record_split
from imnetprep.roots import Layout, Root
from imnetprep.split_plan import PlannedSplit
from imnetprep.units import count


@dataclass(frozen=True)
class SubsetPlan:
    """Splits of the root `source` to become the dataset `chosen` of another: a SplitPlan.

    `needed_bytes`: what the splits hold that `root` does not have yet.
    """

    root: Root
    list_name: str
    source: Root
    chosen: Dataset
    splits: tuple[Split, ...]
    needed_bytes: Mapping[Split, int]
    copy: bool
    jobs: int | None

    @property
    def needs(self) -> Needs:
        """As `SplitPlan.needs`."""
        size_bytes = sum(self.needed_bytes.values()) if self.copy else 0
        files = sum(map(self.chosen.samples, self.needed_bytes))
        return Needs(size_bytes, files, size_bytes)

    def described(self) -> Iterator[PlannedSplit]:
        """As `SplitPlan.described`."""
        for split in self.splits:
            folder = self.source.split(split)
            source = f"{count(self.chosen.samples(split), 'image')} of {folder}"
            yield PlannedSplit(split, Layout.IMAGEFOLDER, source, split not in self.needed_bytes)

    def carry_out(self, progress: Progress) -> Iterator[SplitRecord]:
        """As `SplitPlan.carry_out`."""
        with locked(self.root.organizing), open_manifest(self.source.manifest) as manifest:
            create_manifest(self.root.manifest, self.chosen)
            for split in self.splits:
                key = split, Layout.IMAGEFOLDER
                if key not in organized_splits(self.root):
                    _make_split(self, split, manifest, progress)
                yield organized_splits(self.root)[key]


def plan_subset(
    list_name: str, source: Root, root: Root, *, copy: bool, jobs: int | None
) -> SubsetPlan:
    """Look at the list and at both roots, and change nothing.

    Raises ImnetprepError where `source` is not organized or lacks what the list names, and where
    `root` holds something else.
    """
    with open_manifest(source.manifest) as manifest:
        chosen_list = read_list(list_name)
        chosen = subset_of(manifest.dataset(), chosen_list)
        splits = {
            split: record
            for (split, layout), record in organized_splits(source).items()
            if layout is Layout.IMAGEFOLDER
        }
        if not splits:
            raise ImnetprepError(
                f"{source.path} has no class folders to take from",
                hint=f"imnetprep organize --root {source.path}",
            )
        needed_bytes = {}
        for split in _splits_to_make(splits, chosen, root):
            samples = itertools.chain.from_iterable(_chosen_samples(chosen, split, manifest))
            needed_bytes[split] = sum(sample.size_bytes for sample in samples)
    return SubsetPlan(
        root, chosen_list.name, source, chosen, tuple(splits), needed_bytes, copy, jobs
    )


def _splits_to_make(splits: Mapping[Split, SplitRecord], chosen: Dataset, to: Root) -> list[Split]:
    """Those that `to` does not have yet; ImnetprepError where something else is in the way."""
    refuse_other_root(chosen, to)
    there = {
        split: record
        for (split, layout), record in organized_splits(to).items()
        if layout is Layout.IMAGEFOLDER
    }
    for split, offered in splits.items():
        if split in there and there[split].change != offered.change:
            raise ImnetprepError(
                f"{to.split(split)} holds other images: {there[split].change or 'as published'}",
                hint="take another --to",
            )
        if split not in there and to.split(split).exists():
            raise ImnetprepError(
                f"{to.split(split)} is there, and {to.manifest.name} knows nothing of it",
                hint="take another --to, or move it away",
            )
    return [split for split in splits if split not in there]


def refuse_other_root(chosen: Dataset, to: Root) -> None:
    """Raise ImnetprepError where `to` holds another dataset than `chosen`."""
    if not to.manifest.exists():
        return
    with open_manifest(to.manifest) as manifest:
        refuse_other_dataset(manifest, chosen, hint="take another --to")


def _chosen_samples(
    chosen: Dataset, split: Split, manifest: Manifest
) -> Iterator[list[SampleRecord]]:
    """The samples of `manifest` that `chosen` has, a list a class, with the labels of `chosen`.

    Raises WrongBytes where the manifest lists fewer of a class than `chosen` has.
    """
    label_there = manifest.dataset().label_of_wnid
    held = manifest.splits()[split, Layout.IMAGEFOLDER]
    for synset in chosen.synsets:
        samples = [
            sample._replace(label=synset.label)
            for sample in manifest.samples(held, label_there[synset.wnid])
            if chosen.label_of(split, sample.name) == synset.label
        ]
        if len(samples) != (wanted := chosen.counts(split)[synset.label]):
            there = {sample.name for sample in samples}
            names = chosen.names(split, synset.label) or ()
            lost = ", ".join(itertools.islice((name for name in names if name not in there), 3))
            raise WrongBytes(
                f"{manifest.path} lists {count(len(samples), f'{split} image')} of {synset.wnid},"
                f" not {wanted:,}{lost and f'; missing: {lost}'}",
                hint="the list is of another dataset, or that root is not whole:"
                f" imnetprep verify --root {manifest.path.parent}",
            )
        yield samples


def _make_split(plan: SubsetPlan, split: Split, manifest: Manifest, progress: Progress) -> None:
    """Grow it in `.organizing`, list it, and give it its name last: only then is it there.

    The samples are read from `manifest` once for each step: a million of them are not held.
    """
    growing = plan.root.organizing / split
    if (grown := plan.root.journal).exists():
        with open_journal(grown) as journal:
            journal.forget(split)  # what links replace is not to be written to from archives
    growing.mkdir(exist_ok=True)
    if plan.copy:
        grown_bytes = sum(path.stat().st_size for path in growing.glob("*/*"))
        needed_bytes = max(0, plan.needed_bytes.get(split, 0) - grown_bytes)
        require_free(plan.root.path, needed_bytes, purpose=f"to copy {split} of {plan.chosen.name}")
    _grow(plan, split, manifest, progress)
    sync_file_system(growing)
    with open_manifest(plan.root.manifest, write=True) as made:
        key = split, Layout.IMAGEFOLDER
        made.drop_split(*key)  # of a run that was killed from here on
        listed = itertools.chain.from_iterable(_chosen_samples(plan.chosen, split, manifest))
        made.add_split(*key, listed, change=manifest.splits()[key].change)
        record = made.splits()[key]
    record_split(
        plan.root,
        split,
        subset=plan.list_name,
        source={
            "root": str(plan.source.path.absolute()),
            **read_receipt(plan.source)["splits"].get(split, {}),
        },
        files="copies" if plan.copy else "hard links",
        layout=record.layout,
        samples=record.samples,
        size_bytes=record.size_bytes,
        change=record.change,
    )
    growing.rename(plan.root.split(split))
    sync_folder(plan.root.path)


def _grow(plan: SubsetPlan, split: Split, manifest: Manifest, progress: Progress) -> None:
    jobs = plan.jobs or usable_cores()
    growing, wnids = plan.root.organizing / split, set[str]()
    under_way: deque[Future[int]] = deque()
    with (
        progress.task(f"subset {split}", total=plan.chosen.samples(split), unit="images") as task,
        ThreadPoolExecutor(jobs) as workers,
    ):
        for samples in _chosen_samples(plan.chosen, split, manifest):
            if not samples:
                continue
            wnid = plan.chosen.synsets[samples[0].label].wnid
            wnids.add(wnid)
            home = plan.source.split(split) / wnid
            under_way.append(workers.submit(_grow_class, samples, home, growing, copy=plan.copy))
            while len(under_way) > jobs:
                task.advance(under_way.popleft().result())
        while under_way:
            task.advance(under_way.popleft().result())
    _refuse_others(growing, wnids)


def _grow_class(samples: Sequence[SampleRecord], home: Path, growing: Path, *, copy: bool) -> int:
    """The samples of one class from `home` into its folder below `growing`; how many."""
    folder = imagefolder.make_class_folder(growing, home.name)
    for sample in samples:
        _check_source(home / sample.name, sample)
        if copy:
            _copy(home / sample.name, folder / sample.name, sample)
        else:
            hard_link(home / sample.name, folder / sample.name)
    _refuse_others(folder, {sample.name for sample in samples})
    return len(samples)


def _check_source(path: Path, sample: SampleRecord) -> None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        raise _wrong_source(path, "is not there") from None
    if not stat.S_ISREG(status.st_mode):
        raise _wrong_source(path, "is not a regular file")
    if status.st_size != sample.size_bytes:
        raise _wrong_source(path, f"has {status.st_size:,} bytes, not {sample.size_bytes:,}")


def _wrong_source(path: Path, what: str) -> WrongBytes:
    return WrongBytes(f"{path} {what}", hint=f"imnetprep verify --root {path.parents[2]}")


def _copy(path: Path, place: Path, sample: SampleRecord) -> None:
    body = path.read_bytes()
    if xxh128(body) != sample.xxh128:
        raise _wrong_source(path, f"has another xxh128 than {sample.xxh128.hex()}")
    if os.path.lexists(place):
        if not place.samefile(path) and place.read_bytes() == body:
            return  # of a run that was killed
        place.unlink()
    imagefolder.write_sample(str(place.parent), place.name, body)


def _refuse_others(folder: Path, wanted: Set[str]) -> None:
    if others := set(os.listdir(folder)) - wanted:  # noqa: PTH208 names, not paths
        raise ImnetprepError(
            f"{folder} holds what is not of this subset: {min(others)}",
            hint=f"rm -r {folder}; then run the same command again",
        )
