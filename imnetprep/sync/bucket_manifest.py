"""What manifests list, from a root to a bucket and back: whole splits, never half of one.

The one in the bucket lists the splits whose data is in the bucket, the local one those of the
root. What comes from a bucket may lie: nothing of it is used before `read_remote_manifest`.
"""

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from heapq import merge
from operator import itemgetter
from pathlib import Path
from typing import Any

from imnetprep.catalog.datasets import Dataset, Layout, Root, Split
from imnetprep.manifest import (
    Manifest,
    OtherForm,
    SplitRecord,
    create_manifest,
    manifest_written,
    open_foreign_manifest,
    open_manifest,
    refuse_other_dataset,
)
from imnetprep.messages import ImnetprepError, WrongBytes
from imnetprep.organizing.publish import publish

Key = tuple[Split, Layout]
_OTHER_DATASET = "name another address, or another --root"
_WAIT_S = 60  # a million samples take a slow disk some seconds


@dataclass(frozen=True)
class RemoteManifest:
    """A manifest from a bucket, read and found to be one. `fingerprints`: of its splits."""

    path: Path
    dataset: Dataset
    fingerprints: Mapping[Key, str]


def split_fingerprints(path: Path) -> dict[Key, str]:
    """The splits that the manifest at `path` lists, if there is one, each with its fingerprint.

    Two share it only if the samples are the same and lie at the same places in their shards.
    """
    if not path.exists():
        return {}
    with open_manifest(path) as manifest:
        return _fingerprints(manifest)


def _fingerprints(manifest: Manifest) -> dict[Key, str]:
    splits = manifest.splits()
    return {key: manifest.fingerprint(record, with_places=True) for key, record in splits.items()}


def read_remote_manifest(path: Path) -> RemoteManifest:
    """Look through the manifest that was fetched to `path`, in a folder that only we write.

    Raises WrongBytes where it is none, or does not hold together, and OtherForm.
    """
    try:
        with open_foreign_manifest(path) as manifest:
            dataset = manifest.dataset()
            for record in manifest.splits().values():
                _check_split(manifest, record, classes=len(dataset.synsets))
            return RemoteManifest(path, dataset, _fingerprints(manifest))
    except OtherForm:
        raise
    except ImnetprepError as error:
        raise WrongBytes(
            f"the manifest in the bucket cannot be used: {error}",
            hint="imnetprep sync-s3 --push --replace, from a root that is right",
        ) from error


def _check_split(manifest: Manifest, record: SplitRecord, *, classes: int) -> None:
    """Raise WrongBytes unless what it says of the split is so, and all is of some class."""
    labels, samples, size_bytes = list[int](), 0, 0
    for label, columns in manifest.columns(record):
        labels.append(label)
        samples, size_bytes = samples + columns.samples, size_bytes + columns.size_bytes
    if labels != sorted({*labels} & {*range(classes)}):
        raise _wrong(record, f"its labels are not some of {classes}, each once")
    if (samples, size_bytes) != (record.samples, record.size_bytes):
        raise _wrong(record, f"it has {samples} samples of {size_bytes} bytes and says otherwise")
    if not isinstance(record.change, str | None) or not (record.change or "").isprintable():
        raise _wrong(record, f"what was done to it is {record.change!r}")


def _wrong(record: SplitRecord, problem: str) -> ImnetprepError:
    return WrongBytes(f"{record.split} as {record.layout}: {problem}", hint="")


def write_bucket_manifest(
    manifest: Path,
    to: Path,
    *,
    splits: Collection[Key],
    remote: RemoteManifest | None = None,
    conflicts: Collection[Key] = (),
) -> list[SplitRecord]:
    """Write to `to`, whole or not at all, a manifest of those `splits` that one of two lists.

    The local `manifest` says what they are, and `remote` does of what that does not list and of
    `conflicts`. The same splits make the same bytes, in whatever order they were organized. Another
    process may write `manifest` meanwhile. Raises ImnetprepError where the datasets differ.
    """
    with ExitStack() as stack:
        local = stack.enter_context(_snapshot(manifest, target=to))
        sources = {key: (local, record) for key, record in local.splits().items()}
        if remote is not None:
            refuse_other_dataset(local, remote.dataset, hint=_OTHER_DATASET)
            listing = stack.enter_context(open_manifest(remote.path))
            for key, record in listing.splits().items():
                if key in conflicts or key not in sources:
                    sources[key] = listing, record
        copy = stack.enter_context(manifest_written(to, local.dataset()))
        for key in sorted(sources.keys() & {*splits}):
            source, record = sources[key]
            copy.add_columns(*key, source.columns(record), change=record.change)
        return list(copy.splits().values())


@contextmanager
def _snapshot(path: Path, *, target: Path) -> Iterator[Manifest]:
    """One moment of the manifest at `path`. Its writers wait for one copy, not for all we do."""
    copy = target.with_name(f".{target.name}.now.{os.getpid()}.tmp")
    target.parent.mkdir(parents=True, exist_ok=True)
    copy.unlink(missing_ok=True)
    try:
        with open_manifest(path, wait_s=_WAIT_S) as manifest:
            manifest.copy_to(copy)
        with open_manifest(copy) as manifest:
            manifest.path = path  # errors name the one that is damaged
            yield manifest
    finally:
        copy.unlink(missing_ok=True)


def publish_pulled(
    root: Root,
    remote: RemoteManifest | None,
    splits: Iterable[tuple[Key, Path]] = (),
    *,
    facts: Callable[[str], Mapping[str, Any]] = lambda _: {},
    replace: bool,
) -> list[SplitRecord]:
    """Publish the pulled `splits`, which are sorted, each from the folder where it grew.

    Also lists what `remote` lists and `root` has the folder of: a kill may have come between. The
    manifest has the splits in the same order as without that kill.
    A root without a manifest gets one, of the same dataset. `facts` of a split's folder go into the
    receipt. Returns what was listed.

    Raises ImnetprepError where the datasets differ; and when all else is listed, of splits that
    `root` lists with other samples or other places in shards, unless `replace`. Nobody else may be
    organizing meanwhile: the caller has the lock.
    """
    if remote is not None and not root.manifest.exists():
        create_manifest(root.manifest, remote.dataset)
    if remote is not None:
        with open_manifest(root.manifest) as local:
            refuse_other_dataset(local, remote.dataset, hint=_OTHER_DATASET)
    new_records, conflicts = list[SplitRecord](), list[str]()
    with open_manifest(remote.path) if remote else nullcontext() as manifest:
        records = manifest.splits() if manifest else {}
        folders: Iterable[tuple[Key, Path | None]] = ((key, None) for key in sorted(records))
        for key, workspace in merge(splits, folders, key=itemgetter(0)):
            record, folder = records.get(key), root.split(*key)
            if workspace is None:
                fingerprint = _fingerprint(root, key)
                if not folder.is_dir() or (remote and fingerprint == remote.fingerprints[key]):
                    continue
                if fingerprint is not None and not replace:
                    conflicts.append(f"{key[0]} as {key[1]}")
                    continue
            publish(
                root,
                *key,
                workspace=workspace,
                listing=partial(manifest.columns, record) if manifest and record else None,
                change=record.change if record else None,
                facts=facts(folder.relative_to(root.path).as_posix()),
                replace=replace,
            )
            if record:
                new_records.append(record)
    if conflicts:
        raise ImnetprepError(
            f"{root.manifest} and the manifest in the bucket differ: {', '.join(conflicts)}",
            hint=f"imnetprep verify --root {root.path} says whether ours is right;"
            " --replace takes the bucket's",
        )
    return new_records


def _fingerprint(root: Root, key: Key) -> str | None:
    """The fingerprint of a split in the manifest of `root`; None: it is not listed."""
    with open_manifest(root.manifest, wait_s=_WAIT_S) as manifest:
        record = manifest.splits().get(key)
        return None if record is None else manifest.fingerprint(record, with_places=True)
