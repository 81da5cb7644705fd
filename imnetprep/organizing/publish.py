"""A whole split gets its name, its receipt and its place in the manifest: one order for every verb.

A rerun makes up for a kill between any two steps: what the manifest does not list is not organized
yet, and the steps before are taken once more.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from imnetprep.catalog.datasets import Dataset, Layout, Root, Split
from imnetprep.columns import Columns
from imnetprep.fs import existing_folder, sync_folder
from imnetprep.manifest import SplitRecord, open_manifest, organized_splits
from imnetprep.messages import ImnetprepError, move_away, shell_command
from imnetprep.organizing.journal import Journal, Origin, Whole, journal_of
from imnetprep.proving.receipt import record_split

# The samples of a split, class by class; from the start at each call.
Listing = Callable[[], Iterator[tuple[int, Columns]]]
Key = tuple[Split, Layout]
_WAIT_S = 60  # for another writer of the manifest


def publish(
    root: Root,
    split: Split,
    layout: Layout,
    *,
    workspace: Path | None,
    listing: Listing | None,
    change: str | None,
    facts: Mapping[str, Any],
    replace: bool = False,
) -> None:
    """Name the whole, synced split in `workspace` (None: it has its name), record it, list it.

    `facts` go into the receipt; `change` is what was done to the images. Without a `listing` the
    split gets its name and its receipt, and no manifest lists it. What lies under the name or in
    the manifest gives way if `replace`; else raises ImnetprepError on a folder, and leaves what is
    listed as it is.
    """
    key, folder = (split, layout), root.split(split, layout)
    if workspace is not None:
        _rename(root, key, workspace, replace=replace)
    name = folder.relative_to(root.path).as_posix()
    if listing is None:
        record_split(root, name, **facts)
    elif replace or key not in organized_splits(root):
        record_split(root, name, **{**facts, **_counts(key, listing, change)})
        with open_manifest(root.manifest, write=True, wait_s=_WAIT_S) as manifest:
            is_listed = key in manifest.splits()
            manifest.add_columns(*key, listing(), change=change, replace=is_listed)


def _rename(root: Root, key: Key, workspace: Path, *, replace: bool) -> None:
    folder, old_folder = root.split(*key), workspace.with_name(f"{workspace.name}.replaced")
    if folder.exists() and not replace:
        raise in_the_way(folder, root)
    if root.manifest.exists():  # what it lists under this name is gone, or goes now
        with open_manifest(root.manifest, write=True, wait_s=_WAIT_S) as manifest:
            manifest.drop_split(*key)
    if folder.exists():
        shutil.rmtree(old_folder, ignore_errors=True)
        folder.rename(old_folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    workspace.rename(folder)
    sync_folder(folder.parent)
    sync_folder(root.path)
    shutil.rmtree(old_folder, ignore_errors=True)


def _counts(key: Key, listing: Listing, change: str | None) -> dict[str, Any]:
    """What the receipt says of the samples."""
    samples = size_bytes = 0
    for _, columns in listing():
        samples, size_bytes = samples + columns.samples, size_bytes + columns.size_bytes
    return {"layout": key[1], "samples": samples, "size_bytes": size_bytes, "change": change}


def publish_journalled(
    root: Root,
    journal: Journal,
    split: Split,
    *,
    whole: Whole,
    workspace: Path,
    change: str | None,
    facts: Mapping[str, Any],
    on_listed: Callable[[], None] = lambda: None,
) -> SplitRecord:
    """Publish the split that `journal` has as `whole`, and let the journal forget it.

    `on_listed` is called before the journal forgets: what the split was made of may go.
    """
    layout = journal.stage.layout
    publish(
        root,
        split,
        layout,
        workspace=workspace if whole.lies_in(workspace) else None,
        listing=lambda: journal.columns(split),
        change=change,
        facts=facts,
    )
    on_listed()
    journal.forget(split)
    return organized_splits(root)[split, layout]


def unpublished(
    journal: Journal, split: Split, dataset: Dataset, *folders: Path, origin: Origin | None = None
) -> Whole | None:
    """The split that is whole, lies in one of `folders` and lacks a step of `publish`, or None.

    With an `origin`, what was made of anything else is not that split.
    """
    if origin is not None and journal.origin(split) != origin:
        return None
    whole = journal.whole(split, dataset=dataset.fingerprint)
    return whole if whole and any(map(whole.lies_in, folders)) else None


def refuse_strangers(root: Root, dataset: Dataset, split: Split) -> bool:
    """Does only its manifest and receipt lack? Raises ImnetprepError on another folder there, and
    as `refuse_other_disk`.
    """
    folder = root.split(split)
    if not folder.exists():
        refuse_other_disk(folder, root)
        return False
    with journal_of(root) as journal:
        if unpublished(journal, split, dataset, folder):
            return True
    if any(folder.glob("*.tar")) and not any(path.is_dir() for path in folder.iterdir()):
        place = f"{folder}.old"
        next_step = shell_command("imnetprep", "organize", "--archives", place, "--split", split)
        raise ImnetprepError(
            f"{folder} holds class tars and no class folders",
            hint=f"{move_away(folder)}; then {next_step}",
        )
    command = shell_command("imnetprep", "adopt", root.path)
    adopt = f"or, if it is {dataset.name} already, {command}"
    raise in_the_way(folder, root, next_step=adopt)


def refuse_other_disk(folder: Path, root: Root) -> None:
    """Raise ImnetprepError where the split that is to get the name `folder` grows on another disk:
    no rename leads from one to the other.
    """
    parent = existing_folder(folder.parent)
    if parent.stat().st_dev != existing_folder(root.organizing).stat().st_dev:
        raise ImnetprepError(
            f"{parent} is on another disk than {root.organizing}, where {folder.name} is made",
            hint="remove the link between the disks; or name a place on the other one by --root",
        )


def in_the_way(
    folder: Path, root: Root, *, next_step: str = "then run the same command again"
) -> ImnetprepError:
    """The error for a folder where a split belongs, of which the manifest knows nothing."""
    return ImnetprepError(
        f"{folder} is there, and {root.manifest.name} knows nothing of it",
        hint=f"{move_away(folder)}; {next_step}",
    )
