"""A split that has grown whole gets its name, its place in the manifest and its receipt."""

from pathlib import Path
from typing import Any

from imnetprep.catalog.datasets import Dataset, Split
from imnetprep.errors import ImnetprepError
from imnetprep.fs import sync_folder
from imnetprep.manifest import open_manifest, organized_splits
from imnetprep.organizing.journal import Journal, Whole, open_journal
from imnetprep.proving.receipt import record_split
from imnetprep.roots import Layout, Root


def folder_splits(root: Root) -> frozenset[Split]:
    """The splits that are organized as class folders."""
    organized = organized_splits(root)
    return frozenset(split for split, layout in organized if layout is Layout.IMAGEFOLDER)


def standing(
    root: Root,
    journal: Journal,
    split: Split,
    dataset: Dataset,
    *,
    growing: Path | None = None,
) -> Whole | None:
    """The split that is whole and lacks its name, manifest or receipt; None where none is.

    It lies in `growing`, by default where class folders grow.
    """
    folders = (growing or root.organizing / split, root.split(split))
    whole = journal.whole(split, dataset=dataset.fingerprint)
    if whole and not any(map(whole.lies_in, folders)):
        journal.forget(split)  # somebody removed what had grown
        return None
    return whole


def refuse_strangers(root: Root, dataset: Dataset, split: Split) -> bool:
    """Does only its manifest and receipt lack? Raises ImnetprepError on another folder there."""
    folder, path = root.split(split), root.journal
    if not folder.exists():
        return False
    if path.exists():
        with open_journal(path) as journal:
            whole = journal.whole(split, dataset=dataset.fingerprint)
        if whole and whole.lies_in(folder):
            return True
    raise ImnetprepError(
        f"{folder} is there, and {root.manifest.name} knows nothing of it",
        hint=f"mv {folder} {folder}.old; or, if it is {dataset.name} already,"
        " imnetprep verify --adopt",
    )


def give_name(
    root: Root,
    journal: Journal,
    split: Split,
    whole: Whole,
    *,
    change: str | None = None,
    **facts: Any,
) -> None:
    """What a kill leaves undone of it is made up by the same call. `facts` are for the receipt.

    `change` is what was done to the images.

    The journal keeps the split until it is told to forget it.
    """
    growing, key = root.organizing / split, (split, Layout.IMAGEFOLDER)
    if whole.lies_in(growing):
        with open_manifest(root.manifest, write=True) as manifest:
            manifest.drop_split(*key)  # of a folder that is gone
        growing.rename(root.split(split))
        sync_folder(root.path)
    if key not in organized_splits(root):
        with open_manifest(root.manifest, write=True) as manifest:
            manifest.add_columns(*key, journal.columns(split), change=change)
    record = organized_splits(root)[key]
    record_split(
        root,
        split,
        **facts,
        proof=whole.proof,
        layout=record.layout,
        samples=record.samples,
        size_bytes=record.size_bytes,
        change=record.change,
    )
