"""Splits that a pull brings: shards wait out of sight, and get their folder when all are there."""

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from imnetprep.catalog.datasets import Layout, Root, Split
from imnetprep.fs import hard_link
from imnetprep.layouts.webdataset import INDEX, read_index
from imnetprep.messages import WrongBytes
from imnetprep.organizing.publish import refuse_other_disk
from imnetprep.s3.address import S3Address
from imnetprep.sync.keys import Content, content_of
from imnetprep.sync.plan import Action, Step, SyncPlan


class Splits:
    """The splits of one pull. Raises as `refuse_other_disk`."""

    def __init__(self, plan: SyncPlan, root: Root) -> None:
        self._plan, self._root = plan, root
        self._workspace = root.organizing / "sync"
        steps = plan.of(Action.FETCH, Action.COMPARE)
        self._folders = {_folder(step) for step in steps}
        self._replacements = {  # of which the root has other shards
            folder
            for step in steps
            if (folder := _folder(step)) and step.path in plan.survey.local and plan.replace
        }
        for folder in filter(None, self._folders):
            if self._grows(folder):
                refuse_other_disk(root.path / folder, root)

    def place(self, step: Step) -> Path:
        """Where a file is written: beside its name, or where its unfinished split is."""
        folder = _folder(step)
        if folder is None or not self._grows(folder):
            return self._root.path / step.path
        return self._workspace / step.path

    def _grows(self, folder: str) -> bool:
        """Is the split of this folder written out of sight: is it not here yet, or another one?"""
        return folder in self._replacements or not (self._root.path / folder).exists()

    def whole(self) -> Iterator[tuple[tuple[Split, Layout], Path]]:
        """The splits that have come whole by their index, each with the folder in which it grew.

        Raises WrongBytes for a split that has not.
        """
        address = self._plan.survey.address
        for split in Split:
            final = self._root.split(split, Layout.WEBDATASET)
            folder = str(final.relative_to(self._root.path))
            workspace = self._workspace / folder
            if folder not in self._folders or not workspace.is_dir():
                continue
            if final.exists():
                self._link_what_stays(folder)
            _check_shards(workspace, address)
            yield (split, Layout.WEBDATASET), workspace

    def clear(self) -> None:
        """Remove what is left of unfinished splits, unless another one is there."""
        for folder in self._workspace.glob("*/*.replaced"):
            shutil.rmtree(folder, ignore_errors=True)
        for folder in (self._workspace / Content.SHARDS, self._workspace):
            with suppress(OSError):
                folder.rmdir()

    def _link_what_stays(self, folder: str) -> None:
        """What is here already and in the bucket too is part of the unfinished split."""
        for path in self._plan.survey.remote:
            local, link = self._root.path / path, self._workspace / path
            if path.startswith(f"{folder}/") and local.exists():
                link.parent.mkdir(parents=True, exist_ok=True)
                if not link.exists():
                    hard_link(local, link)


def _folder(step: Step) -> str | None:
    """The folder of the split that a file is part of."""
    return step.path.rpartition("/")[0] if content_of(step.path) is Content.SHARDS else None


def _check_shards(folder: Path, address: S3Address) -> None:
    try:
        index = read_index(folder)
    except WrongBytes as error:
        lack = "an index of its shards that can be read"
        raise _not_whole(address, lack, f"shards/{folder.name}/{INDEX}") from error
    sizes = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
    gaps = [each.name for each in index.shards if sizes.get(each.name) != each.size_bytes]
    if gaps:
        raise _not_whole(address, f"{len(gaps):,} of {len(index.shards):,} shards", gaps[0])


def _not_whole(address: S3Address, lack: str, name: str) -> WrongBytes:
    return WrongBytes(
        f"{address} lacks {lack} ({name})",
        hint="it was not sent whole: imnetprep sync-s3 --push where it comes from",
    )
