"""A root's paths: where archives, splits, manifest, receipt, journals and runs lie under it."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self


class Layout(StrEnum):
    """How the samples of a split lie on the disk: a file each, or in shards.

    `parent` is the folder of its splits, as `Root` has it. `in_shards`: samples share files, and
    the manifest lists the place of each.
    """

    parent: str
    in_shards: bool

    IMAGEFOLDER = "imagefolder", "", False
    WEBDATASET = "webdataset", "shards", True

    def __new__(cls, name: str, parent: str = "", in_shards: bool = False) -> Self:
        """One line of the table above. (`Layout(name)` looks one up.)"""
        layout = str.__new__(cls, name)
        layout._value_, layout.parent, layout.in_shards = name, parent, in_shards
        return layout


@dataclass(frozen=True)
class Root:
    """The dataset on this machine: archives, the organized splits, their manifest, the runs."""

    path: Path

    @property
    def archives(self) -> Path:
        """The published files; an unfinished one is `*.part`, beside its state."""
        return self.path / "archives"

    @property
    def organizing(self) -> Path:
        """Unfinished splits, and `journal.db`. Local, never synced."""
        return self.path / ".organizing"

    @property
    def journal(self) -> Path:
        """What is done of the splits that grow."""
        return self.organizing / "journal.db"

    @property
    def manifest(self) -> Path:
        """The list of all samples (SQLite)."""
        return self.path / "manifest.db"

    @property
    def receipt(self) -> Path:
        """Which bytes, from where, proved how, by which version (JSON)."""
        return self.path / "receipt.json"

    def split(self, split: str, layout: Layout = Layout.IMAGEFOLDER) -> Path:
        """The folder of an organized split: of its class folders, or of its shards."""
        return self.path / layout.parent / split

    def run(self, name: str) -> Path:
        """The folder of one training."""
        return self.path / "runs" / name

    @property
    def runs(self) -> Path:
        """The folder of all trainings."""
        return self.path / "runs"
