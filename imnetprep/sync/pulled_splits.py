"""Splits that a pull brings: shards grow out of sight, and get their folder when all are there."""

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from imnetprep.catalog.datasets import Split
from imnetprep.fs import hard_link
from imnetprep.layouts.webdataset import INDEX, read_index
from imnetprep.messages import WrongBytes
from imnetprep.roots import Layout, Root
from imnetprep.s3.address import S3Address
from imnetprep.sync.keys import What, what_of
from imnetprep.sync.plan import Action, Step, SyncPlan


class Splits:
    """Those of one pull."""

    def __init__(self, plan: SyncPlan, root: Root) -> None:
        self._plan, self._root = plan, root
        self._grown = root.organizing / "sync"
        steps = plan.of(Action.FETCH, Action.COMPARE)
        self._folders = {_folder(step) for step in steps}
        self._others = {  # here are other ones of that name
            folder
            for step in steps
            if (folder := _folder(step)) and step.path in plan.survey.here and plan.replace
        }

    def place(self, step: Step) -> Path:
        """Where a file grows: beside its name, or where its split does."""
        folder = _folder(step)
        if folder is None or not self._grows(folder):
            return self._root.path / step.path
        return self._grown / step.path

    def _grows(self, folder: str) -> bool:
        """Does the split of this folder grow out of sight: is it not here yet, or another one?"""
        return folder in self._others or not (self._root.path / folder).exists()

    def whole(self) -> Iterator[tuple[tuple[Split, Layout], Path]]:
        """The splits that have come whole by their index, each with the folder in which it grew.

        Raises WrongBytes for a split that has not.
        """
        address = self._plan.survey.address
        for split in Split:
            final = self._root.split(split, Layout.WEBDATASET)
            folder = str(final.relative_to(self._root.path))
            grown = self._grown / folder
            if folder not in self._folders or not grown.is_dir():
                continue
            if final.exists():
                self._link_what_stays(folder)
            _check_shards(grown, address)
            yield (split, Layout.WEBDATASET), grown

    def clear(self) -> None:
        """Remove what is left where splits grew, unless another split grows there."""
        for replaced in self._grown.glob("*/*.replaced"):
            shutil.rmtree(replaced, ignore_errors=True)
        for emptied in (self._grown / What.SHARDS, self._grown):
            with suppress(OSError):
                emptied.rmdir()

    def _link_what_stays(self, folder: str) -> None:
        """What is here already and in the bucket too is part of the split that grows."""
        for path in self._plan.survey.there:
            here, grown = self._root.path / path, self._grown / path
            if path.startswith(f"{folder}/") and here.exists():
                grown.parent.mkdir(parents=True, exist_ok=True)
                if not grown.exists():
                    hard_link(here, grown)


def _folder(step: Step) -> str | None:
    """The folder of the split that a file is part of."""
    return step.path.rpartition("/")[0] if what_of(step.path) is What.SHARDS else None


def _check_shards(folder: Path, address: S3Address) -> None:
    try:
        index = read_index(folder)
    except WrongBytes as error:
        what = "an index of its shards that can be read"
        raise _not_whole(address, what, f"shards/{folder.name}/{INDEX}") from error
    there = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
    missing = [each.name for each in index.shards if there.get(each.name) != each.size_bytes]
    if missing:
        raise _not_whole(address, f"{len(missing):,} of {len(index.shards):,} shards", missing[0])


def _not_whole(address: S3Address, what: str, name: str) -> WrongBytes:
    return WrongBytes(
        f"{address} lacks {what} ({name})",
        hint="it was not sent whole: imnetprep sync-s3 --push where it comes from",
    )
