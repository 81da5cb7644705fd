"""Part of a dataset as a root of its own: links or copies of a root, or straight from archives."""

import itertools
import sqlite3
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from imnetprep.catalog.datasets import DEFAULT, Dataset, Layout, Root, Split, load_dataset
from imnetprep.catalog.subsets import read_list, subset_of
from imnetprep.manifest import (
    Manifest,
    SampleRecord,
    SplitRecord,
    dataset_for,
    open_manifest,
    refuse_other_dataset,
    splits_in,
)
from imnetprep.messages import ImnetprepError, WrongBytes, count, shell_command
from imnetprep.organize import OrganizePlan, plan_organize
from imnetprep.organizing.journal import read_unfinished
from imnetprep.organizing.publish import refuse_strangers
from imnetprep.outside_text import public_address
from imnetprep.proving.archive_at import home_of
from imnetprep.proving.receipt import read_receipt
from imnetprep.sources.places import is_local
from imnetprep.split_from_folder import (
    FolderSource,
    FoldersPlan,
    MakeClass,
    file_kind,
    link_or_copy,
    refuse_links,
)
from imnetprep.synced_prefix import foreign_dataset


def plan_subset(
    list_name: str, source: Root, root: Root, *, copy: bool, jobs: int | None
) -> FoldersPlan:
    """Look at the list and at both roots, and change nothing.

    Raises ImnetprepError where `source` is not organized or lacks what the list names, and where
    `root` holds something else.
    """
    sizes: dict[Split, int] = {}
    with open_manifest(source.manifest) as manifest:
        subset_list = read_list(list_name)
        dataset = subset_of(manifest.dataset(), subset_list)
        splits = splits_in(source, Layout.IMAGEFOLDER)
        if not splits:
            raise ImnetprepError(
                f"{source.path} has no class folders to take from",
                hint=shell_command("imnetprep", "organize", "--root", source.path),
            )
        to_make = _splits_to_make(splits, dataset, root)
        if copy:
            refuse_links(root, splits.keys() - {*to_make})
        for split in to_make:
            samples = itertools.chain.from_iterable(_subset_samples(dataset, split, manifest))
            size_bytes = sum(sample.size_bytes for sample in samples)
            sizes[split] = size_bytes if copy else 0

    def source_of(split: Split) -> FolderSource:
        return _folder_source(dataset, source, split, list_name=subset_list.name, copy=copy)

    return FoldersPlan(
        root,
        dataset,
        folders={split: source.split(split) for split in splits},
        source_of=source_of,
        sizes=sizes,
        jobs=jobs,
    )


def _splits_to_make(splits: Mapping[Split, SplitRecord], dataset: Dataset, to: Root) -> list[Split]:
    """The splits that `to` lacks; ImnetprepError where something else is in the way."""
    _refuse_other_root(dataset, to)
    records = splits_in(to, Layout.IMAGEFOLDER)
    for split, source_record in splits.items():
        if split in records and records[split].change != source_record.change:
            raise ImnetprepError(
                f"{to.split(split)} holds other images: {records[split].change or 'as published'}",
                hint="take another --to",
            )
        if split not in records:
            refuse_strangers(to, dataset, split)
    return [split for split in splits if split not in records]


def _refuse_other_root(dataset: Dataset, to: Root) -> None:
    """Raise ImnetprepError where `to` holds a dataset other than `dataset`."""
    if not to.manifest.exists():
        return
    with open_manifest(to.manifest) as manifest:
        hint = "take another --to" if manifest.splits() else _begun_anew(to)
        refuse_other_dataset(manifest, dataset, hint=hint)


def _begun_anew(to: Root) -> str:
    """The hint where a command for another list was interrupted: how to give up what it made."""
    loss = "nothing is lost"
    with suppress(sqlite3.DatabaseError):  # what it has made cannot be counted
        if samples := sum(each.samples for each in read_unfinished(to.journal)):
            loss = f"that loses {count(samples, 'image')} of an unfinished split"
    remove = shell_command("rm", "-rf", to.organizing, to.manifest)
    return f"take another --to; or {remove}; then run the same command again ({loss})"


def _subset_samples(
    dataset: Dataset, split: Split, manifest: Manifest
) -> Iterator[list[SampleRecord]]:
    """The samples of `manifest` that `dataset` has, a list a class, with its labels.

    Raises WrongBytes where the manifest lists fewer of a class than `dataset` has.
    """
    source_labels = manifest.dataset().label_of_wnid
    record = manifest.splits()[split, Layout.IMAGEFOLDER]
    for synset in dataset.synsets:
        samples = [
            sample._replace(label=synset.label)
            for sample in manifest.samples(record, source_labels[synset.wnid])
            if dataset.label_of(split, sample.name, synset.wnid) == synset.label
        ]
        if len(samples) != (promise := dataset.counts(split)[synset.label]):
            listed_names = {sample.name for sample in samples}
            names = dataset.names(split, synset.label) or ()
            examples = ", ".join([name for name in names if name not in listed_names][:3])
            raise WrongBytes(
                f"{manifest.path} lists {count(len(samples), f'{split} image')} of {synset.wnid},"
                f" not {promise:,}{examples and f'; missing: {examples}'}",
                hint="the list is of another dataset, or that root is not whole: "
                + shell_command("imnetprep", "verify", "--root", manifest.path.parent),
            )
        yield samples


def _folder_source(
    dataset: Dataset, source: Root, split: Split, *, list_name: str, copy: bool
) -> FolderSource:
    """The chosen samples, read from the manifest class by class, so that few are in memory.

    With `copy` they are copied; else they become links.
    """
    root = str(source.path.absolute())
    with open_manifest(source.manifest) as manifest:
        record = manifest.splits()[split, Layout.IMAGEFOLDER]
        fingerprint = manifest.fingerprint(record)

    def classes() -> Iterator[tuple[int, MakeClass]]:
        with open_manifest(source.manifest) as manifest:
            for samples in _subset_samples(dataset, split, manifest):
                if samples:
                    label = samples[0].label
                    home = source.split(split) / dataset.synsets[label].wnid
                    yield label, partial(_make_class, samples, home, copy=copy)

    return FolderSource(
        split=split,
        made_of=f"{'copies' if copy else 'links'} of {root!a} {fingerprint}",
        classes=classes,
        facts={
            "subset": list_name,
            "source": {"root": root, **read_receipt(source)["splits"].get(split, {})},
            "files": file_kind(copy=copy),
        },
        proof=None,
        change=record.change,
    )


def _make_class(
    samples: Sequence[SampleRecord], home: Path, folder: Path, *, copy: bool
) -> Sequence[SampleRecord]:
    """Make the samples of one class in `folder` of those in `home`."""
    for sample in samples:
        path = home / sample.name
        _check_source(path, sample)
        link_or_copy(path, folder / sample.name, _proved_body(path, sample) if copy else None)
    return samples


def _check_source(path: Path, sample: SampleRecord) -> None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        raise _wrong_source(path, "is not there") from None
    if not stat.S_ISREG(status.st_mode):
        raise _wrong_source(path, "is not a regular file")
    if status.st_size != sample.size_bytes:
        raise _wrong_source(path, f"has {status.st_size:,} bytes, not {sample.size_bytes:,}")


def _wrong_source(path: Path, problem: str) -> WrongBytes:
    hint = shell_command("imnetprep", "verify", "--root", path.parents[2])
    return WrongBytes(f"{path} {problem}", hint=hint)


def _proved_body(path: Path, sample: SampleRecord) -> bytes:
    body = path.read_bytes()
    if not sample.is_right(body):
        raise _wrong_source(path, f"has another xxh128 than {sample.xxh128.hex()}")
    return body


def plan_subset_of_archives(
    list_name: str,
    archives: str,
    to: Root,
    *,
    dataset: str | None,
    splits: Sequence[Split],
    jobs: int | None,
) -> OrganizePlan:
    """Look at the list, the archives and the root `to`, and change nothing.

    The part is organized as any dataset is, from the archives of the whole: samples that the list
    leaves out are passed over, and class tars without any of its images are not read.

    Raises as `plan_organize`, and ImnetprepError on what the list names and that dataset lacks.
    """
    source, subset_list = _dataset_at(archives, dataset, to), read_list(list_name)
    part = subset_of(source, subset_list)
    _refuse_other_root(part, to)
    plan = plan_organize(to, dataset=part, splits=splits, archives=archives, jobs=jobs)
    place = _public_place(plan.groups[0].archives[0].place)
    facts: dict[str, Any] = {"dataset": source.name, "place": place}
    return replace(plan, facts={"subset": subset_list.name, "source": facts})


def _dataset_at(archives: str, name: str | None, to: Root) -> Dataset:
    """The dataset called `name`; None: what the root holds whose archives these are, or ours."""
    if name is not None:
        return load_dataset(name)
    place = Path(archives)
    home = home_of(place.parent if is_local(archives) and place.is_file() else archives, to)
    if home is None or home is to:
        return foreign_dataset(archives) or load_dataset(DEFAULT)
    return dataset_for(home.manifest, None)


def _public_place(place: str | Path) -> str:
    """`place` for the receipt."""
    return str(Path(place).absolute()) if is_local(place) else public_address(str(place))
