"""What is under a root: each thing by itself, so that a damaged one hides no other."""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from imnetprep.catalog.datasets import Dataset, Layout, Root, Split
from imnetprep.database import Busy
from imnetprep.fs import allocated_bytes, is_locked
from imnetprep.manifest import SplitRecord, open_manifest
from imnetprep.messages import ImnetprepError
from imnetprep.organizing.journal import UnfinishedSplit, read_unfinished
from imnetprep.proving.receipt import Proof, archive_proof, verifies
from imnetprep.remote_shards.cache_folder import PART, SHARD, files_of, is_read
from imnetprep.reports.log import epoch_lines, measures_of, tables
from imnetprep.sources.part_files import read_part_records
from imnetprep.transfers.journal import read_part_sizes
from imnetprep.transfers.range_download import name_of_part


class DatasetStatus(NamedTuple):
    """Which dataset the root is of, and which one that is part of."""

    name: str
    title: str
    part_of: str | None


class ArchiveStatus(NamedTuple):
    """An archive: `whole`, an unfinished `part`, `fetching` from a server, or `consumed` (its image
    data deleted).

    Of a whole one `proof` is how it was proved, and None where it never was or has changed since;
    of a part `proved_bytes` are on record, of `size_bytes` in all; of one that is fetching they are
    those that are written. `disk_bytes` is what it takes.
    """

    name: str
    state: str
    size_bytes: int
    disk_bytes: int
    proved_bytes: int | None
    proof: Proof | None
    at_work: bool


class SplitStatus(NamedTuple):
    """A split: `organized` in a layout, `unfinished` (into it, if not files), or `missing`.

    Also `leftover`, where what grew is of another dataset; `gone`, where the folder of an organized
    one is missing; `unlisted`, where the manifest knows nothing of a folder. `classes` are those
    that are done, of `all_classes`; None where its archive is flat. `change` is what was done to
    the images of an organized one, None: nothing.
    """

    split: str
    state: str
    layout: str | None
    classes: int | None
    all_classes: int
    samples: int
    all_samples: int
    size_bytes: int
    at_work: bool
    change: str | None = None


class VerifyStatus(NamedTuple):
    """The fullest verify of a split (`train`, `shards/train`) or an archive, by its name."""

    name: str
    checks: tuple[str, ...]
    findings: int
    recorded_at: str


class CacheStatus(NamedTuple):
    """The cache of shards of other places: how many lie there, and the bytes of all its files."""

    name: str
    shards: int
    size_bytes: int
    at_work: bool


class RunStatus(NamedTuple):
    """A training: epochs done, and the best score of any of them, in percent of its measure."""

    name: str
    epochs: int
    all_epochs: int | None
    best_percent: float | None
    measure: str | None
    at_work: bool


class Damage(NamedTuple):
    """A file that exists and cannot be read."""

    name: str
    problem: str


Status = (
    DatasetStatus | ArchiveStatus | SplitStatus | VerifyStatus | CacheStatus | RunStatus | Damage
)

# What reading a file that anything may have happened to can raise.
_UNREADABLE = (
    ImnetprepError,
    sqlite3.Error,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,  # Infinity is a number to json
    RecursionError,
)

_BUSY = "another process is writing it"


def statuses(root: Root) -> Iterator[Status]:
    """All there is under `root`, as it is now; changes nothing and waits for nobody.

    Raises ImnetprepError where there is no such folder.
    """
    if not root.path.is_dir():
        raise ImnetprepError(
            f"there is no folder {root.path}",
            hint="imnetprep download makes it; --root or IMNETPREP_ROOT names another",
        )
    dataset: Dataset | None = None
    records: dict[tuple[Split, Layout], SplitRecord] = {}
    if root.manifest.exists():
        try:
            with open_manifest(root.manifest, wait_s=0.2) as manifest:
                dataset, records = manifest.dataset(), manifest.splits()
            part_of = dataset.part_of.name if dataset.part_of else None
            yield DatasetStatus(dataset.name, dataset.title, part_of)
        except _UNREADABLE as error:
            yield _damage(root.manifest, error)
    for place, found in (
        (root.archives, _archives(root, dataset)),
        (root.organizing, _splits(root, dataset, records)),
        (root.receipt, _verifies(root)),
        (root.shard_cache, _cache(root)),
        (root.runs, _runs(root)),
    ):
        try:
            yield from found
        except _UNREADABLE as error:
            yield _damage(place, error)


def _archives(root: Root, dataset: Dataset | None) -> Iterator[Status]:
    if not root.archives.is_dir():
        return
    names = {archive.name for archive in dataset.archives} if dataset else set()
    records, sizes = read_part_records(root.archives), read_part_sizes(root.download_journal)
    at_work = is_locked(root.archives)
    for path in sorted(root.archives.iterdir()):
        try:
            part_name = name_of_part(path) if path.suffix == ".download" else None
            if (path.name.startswith(".") and part_name not in sizes) or not path.is_file():
                continue
            name, state, size_bytes = path.stem, path.suffix[1:], path.stat().st_size
            proof = proved_bytes = None
            if part_name is not None:
                name, state, proved_bytes = part_name, "fetching", sizes[part_name]
            elif state == "part":
                proved_bytes, size_bytes = records.get(name, (None, size_bytes))
            elif state != "consumed":
                if names and path.name not in names:
                    continue
                name, state, proof = path.name, "whole", _proof(root, path)
            disk_bytes = allocated_bytes(path)
            yield ArchiveStatus(name, state, size_bytes, disk_bytes, proved_bytes, proof, at_work)
        except FileNotFoundError:
            continue  # it has just got another name
        except _UNREADABLE as error:
            yield _damage(path, error)


def _proof(root: Root, path: Path) -> Proof | None:
    with suppress(*_UNREADABLE):  # _verifies tells what is wrong with the receipt
        return archive_proof(root, path)
    return None


def _splits(
    root: Root, dataset: Dataset | None, records: Mapping[tuple[Split, Layout], SplitRecord]
) -> Iterator[Status]:
    journal, at_work = root.journal, is_locked(root.organizing)
    growths: dict[tuple[str, Layout], UnfinishedSplit] = {}
    try:
        # Backwards, so that shards come after the spools that they are made of.
        for each in sorted(read_unfinished(journal), key=lambda each: each.stage, reverse=True):
            growths[each.split, each.stage.layout] = each
    except _UNREADABLE as error:
        yield Damage(journal.name, _BUSY) if at_work else _damage(journal, error)
    for split in dataset.splits if dataset else ():
        assert dataset
        is_begun = False
        for record in records.values():
            if record.split is split:
                is_begun = True
                state = "organized" if root.split(split, record.layout).is_dir() else "gone"
                yield _split(dataset, split, state, record)
        for layout in (Layout.WEBDATASET, Layout.IMAGEFOLDER):
            if growth := growths.get((split, layout)):
                is_begun = True
                yield _unfinished(dataset, split, growth, at_work)
        if not is_begun:
            yield _split(dataset, split, "unlisted" if root.split(split).exists() else "missing")


def _split(
    dataset: Dataset, split: Split, state: str, record: SplitRecord | None = None
) -> SplitStatus:
    return SplitStatus(
        split,
        state,
        layout=record.layout if record else None,
        classes=None,
        all_classes=len(dataset.synsets),
        samples=record.samples if record else 0,
        all_samples=dataset.samples(split),
        size_bytes=record.size_bytes if record else 0,
        at_work=False,
        change=record.change if record else None,
    )


def _unfinished(
    dataset: Dataset, split: Split, growth: UnfinishedSplit, at_work: bool
) -> SplitStatus:
    layout = growth.stage.layout if growth.stage.layout is Layout.WEBDATASET else None
    is_of_classes = layout is None and dataset.archive(split).form == "tar-of-tars"
    is_ours = growth.dataset == dataset.fingerprint
    return _split(dataset, split, "unfinished" if is_ours else "leftover")._replace(
        layout=layout,
        classes=growth.ranges if is_of_classes else None,
        samples=growth.samples,
        size_bytes=growth.size_bytes,
        at_work=at_work and is_ours,
    )


def _verifies(root: Root) -> Iterator[Status]:
    for name, record in sorted(verifies(root).items()):
        checks = tuple(record["checks"])
        yield VerifyStatus(name, checks, record["findings"], record["recorded_at"])


def _cache(root: Root) -> Iterator[Status]:
    folder = root.shard_cache
    files = [files_of(folder, pattern) for pattern in (SHARD, PART)]
    if size_bytes := sum(status.st_size for each in files for _, status in each):
        yield CacheStatus(folder.name, len(files[0]), size_bytes, is_read(folder))


def _runs(root: Root) -> Iterator[Status]:
    """From their logs and recipes: the checkpoints want torch to be read."""
    for folder in sorted(root.runs.iterdir()) if root.runs.is_dir() else ():
        if not folder.is_dir():
            continue
        path = folder / "log.jsonl"
        try:
            lines = epoch_lines(tables(path.read_text()) if path.exists() else ())
            epochs = max((int(line["epoch"]) for line in lines), default=0)
            scores = [line["val"] for line in lines if "val" in line]  # none with --no-val
            keys = [measures_of(score)[0] for score in scores]
            best = max((float(score[key.key]) for score, key in zip(scores, keys, strict=True)),
                       default=None)  # fmt: skip
            measure = keys[0].title if keys else None
            all_epochs = None
            path = folder / "recipe.json"
            if path.exists():
                all_epochs = int(json.loads(path.read_text())["recipe"]["epochs"])
            yield RunStatus(folder.name, epochs, all_epochs, best, measure, is_locked(folder))
        except _UNREADABLE as error:
            yield _damage(path, error, name=f"{folder.name}/{path.name}")


def _damage(path: Path, error: Exception, *, name: str | None = None) -> Damage:
    """`name`: how the file is called where its own name says too little."""
    if isinstance(error, Busy):
        return Damage(name or path.name, _BUSY)
    problem = f"lacks {error}" if isinstance(error, KeyError) else str(error)
    return Damage(name or path.name, problem.removeprefix(f"{path} is damaged: "))
