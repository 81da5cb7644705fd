"""What a plan of splits says: which they are, and what they take of the disk: room, files, time."""

import os
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from imnetprep.catalog.datasets import Dataset, Layout, Root, Split
from imnetprep.fs import existing_folder, require_distinct, require_free, sync_file_system
from imnetprep.layouts.imagefolder import write_sample
from imnetprep.manifest import SplitRecord
from imnetprep.messages import ImnetprepError, Progress, count, format_bytes, format_duration

# Below it the work is over before a guess is worth its second.
_WORTH_MEASURING_BYTES = 8 << 30
_MEASURED_S = 1.0


@dataclass(frozen=True)
class Needs:
    """`size_bytes` in `files` files are to be written, for which the disk needs `disk_bytes`.

    Folders count as files where there may be many; what links to a file is none.
    """

    size_bytes: int = 0
    files: int = 0
    disk_bytes: int = 0

    def __add__(self, needs: "Needs") -> "Needs":
        return Needs(
            self.size_bytes + needs.size_bytes,
            self.files + needs.files,
            self.disk_bytes + needs.disk_bytes,
        )

    def require(self, folder: Path, *, purpose: str) -> None:
        """Raise ImnetprepError unless the disk of `folder` has room for the bytes and the files."""
        status = os.statvfs(existing_folder(folder))
        padding = self.files * status.f_frsize // 2 if self.disk_bytes else 0
        require_free(folder, self.disk_bytes + padding, purpose=purpose)
        if status.f_files > 0 and status.f_favail < self.files:
            raise ImnetprepError(
                f"{purpose} makes {count(self.files, 'file')}"
                f" and the disk of {folder} has room for {status.f_favail:,} more (inodes)",
                hint="name another disk by --root; df -i shows which has inodes free",
            )

    def tell_time(self, folder: Path, progress: Progress) -> None:
        """Say how long writing will take, from a second of it in `folder`."""
        if self.size_bytes < _WORTH_MEASURING_BYTES:
            return
        rate = _measured_bytes_per_s(folder / "measured", self.size_bytes // max(1, self.files))
        progress.note(
            f"{format_bytes(self.size_bytes)} in {count(self.files, 'file')} to write: about"
            f" {format_duration(self.size_bytes / rate)} at the {format_bytes(rate)}/s of this disk"
        )


class PlannedSplit(NamedTuple):
    """A split of the plan. `source` says in words what it is made of."""

    split: Split
    layout: Layout
    source: str
    is_done: bool


class SplitPlan(Protocol):
    """Splits to be made under `root`. Planning changes nothing on the disk."""

    @property
    def root(self) -> Root:
        """Where the splits will lie."""

    @property
    def needs(self) -> Needs:
        """The disk space and the files that the splits still take."""

    def described(self) -> Iterator[PlannedSplit]:
        """Every split of the plan, those that are done too."""

    def carry_out(self, progress: Progress) -> Iterator[SplitRecord]:
        """Make what is not done; yields every split of the plan once it lies under its name.

        Raises ImnetprepError where there is no room, and WrongBytes where the source is not what
        was promised.
        """


def _measured_bytes_per_s(folder: Path, file_bytes: int) -> float:
    body = os.urandom(file_bytes)
    folder.mkdir(parents=True, exist_ok=True)
    start_s, files = time.monotonic(), 0
    try:
        while time.monotonic() - start_s < _MEASURED_S:
            write_sample(str(folder), str(files), body)
            files += 1
        sync_file_system(folder)
        return files * file_bytes / (time.monotonic() - start_s)
    finally:
        shutil.rmtree(folder)


def require_distinct_names(root: Root, dataset: Dataset, splits: Iterable[Split]) -> None:
    """Raise ImnetprepError where the disk of `root` takes two classes or images for one."""
    if dataset.built_in:
        return
    require_distinct(
        root.path,
        (
            f"{split}/{synset.wnid}/{name}"
            for split in splits
            for synset in dataset.synsets
            for name in ("", *(dataset.names(split, synset.label) or ()))
        ),
    )
