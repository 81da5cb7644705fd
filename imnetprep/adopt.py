"""A tree that somebody else made becomes an organized root: it gets a manifest and a receipt."""

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from imnetprep.catalog.datasets import Dataset, Layout, Root, Split
from imnetprep.checking.recognise import Sizes, Tree
from imnetprep.extracting.sink import RangeRecord
from imnetprep.fs import locked
from imnetprep.jobs import FILES
from imnetprep.manifest import SampleRecord, SplitRecord, create_manifest, organized_splits, packed
from imnetprep.messages import ImnetprepError, Progress, WrongBytes
from imnetprep.organizing.journal import Journal, Origin, open_journal
from imnetprep.organizing.publish import publish
from imnetprep.outside_files import read_file
from imnetprep.proving.receipt import NoProof, record_verify

# What a tree without a manifest is looked at for, before it is adopted.
_CHECKS = ("counts", "names", "end markers")
_CHANGED_SAMPLE = b"changed by others\0"


def adopt(
    root: Root, tree: Tree, *, splits: Sequence[Split], jobs: int | None, progress: Progress
) -> Iterator[SplitRecord]:
    """Write the manifest of those of `splits` that have none; yields every one of them.

    For trees without findings: which names there are is not judged here again. Images that others
    changed are listed as such. Every file is read once. The manifest lists a whole split or nothing
    of it; what a killed run has read of whole classes is not read again.
    """
    dataset = tree.dataset
    with locked(root.organizing), open_journal(root.journal) as journal:
        for split in tree.selected(root, splits):
            folder = root.split(split)
            origin = Origin(dataset.fingerprint, f"adopted {folder.stat().st_ino}", {})
            has_begun = journal.origin(split) == origin
            key = split, Layout.IMAGEFOLDER
            if key not in organized_splits(root):
                if not has_begun:
                    journal.forget(split)
                    journal.begin(split, origin)
                _read(dataset, split, folder, journal, jobs=jobs, progress=progress)
                create_manifest(root.manifest, dataset)
                _publish(root, dataset, split, journal)
                has_begun = True
            if has_begun:
                if not record_verify(root, {split: 0}, checks=_CHECKS):
                    raise ImnetprepError(
                        f"{root.receipt} is not to be written to, and does not keep the result",
                        hint="let this user write there, then run the same command again",
                    )
                journal.forget(split)
            yield organized_splits(root)[key]


def _publish(root: Root, dataset: Dataset, split: Split, journal: Journal) -> None:
    """The receipt says that nobody proved these bytes, and what was looked at."""
    sizes = Sizes(dataset, split)
    for sample in journal.samples(split):
        sizes.add(sample.label, sample.size_bytes)
    change = sizes.change  # by others
    mark = _CHANGED_SAMPLE if change else b""
    basis = "names" if dataset.numbers(split) is not None else "counts"
    if change is None and sizes.known:
        basis += " and sizes"
    publish(
        root,
        split,
        Layout.IMAGEFOLDER,
        workspace=None,
        # Where others changed a split, any of its images may be one that they did.
        listing=lambda: (
            (label, columns._replace(changes=mark * columns.samples))
            for label, columns in journal.columns(split)
        ),
        change=change,
        facts={
            "archive": None,
            "proof": NoProof(f"adopted: a tree whose {basis} fit {dataset.name}").as_json(),
        },
    )


def _read(
    dataset: Dataset,
    split: Split,
    folder: Path,
    journal: Journal,
    *,
    jobs: int | None,
    progress: Progress,
) -> None:
    """Size and digest of every file, class by class, into the journal."""
    labels = journal.done(split)
    counts = dataset.counts(split)
    initial = sum(counts[label] for label in labels)
    with progress.task(f"adopt {split}", total=sum(counts), unit="images", initial=initial) as task:
        for synset in dataset.synsets:
            if synset.label in labels:
                continue
            class_folder, records = folder / synset.wnid, []
            read = partial(_record, class_folder, synset.label)
            names = os.listdir(class_folder)  # noqa: PTH208 - names, not paths
            for record in FILES.in_threads(read, names, jobs=jobs):
                records.append(record)
                task.advance(1)
            if len(records) != counts[synset.label]:
                raise WrongBytes(
                    f"{class_folder} has {len(records):,} files now, not {counts[synset.label]:,}",
                    hint="something changes it meanwhile; stop that and run the same command again",
                )
            journal.add([RangeRecord(synset.label, {split: packed(records)}, None)])


def _record(class_folder: Path, label: int, name: str) -> SampleRecord:
    return SampleRecord.of_body(label, name, read_file(class_folder / name))
