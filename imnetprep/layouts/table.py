"""What a layout can do, and the module that does it: one line for each."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from imnetprep.catalog.datasets import Layout
from imnetprep.layouts import imagefolder, webdataset
from imnetprep.manifest import SampleRecord


class LayoutModule(Protocol):
    """How samples are found in the folder of a split. `wnid` is the class of the sample."""

    def sample_path(self, folder: Path, sample: SampleRecord, wnid: str) -> Path:
        """The file that the sample is, or lies in."""

    def read_sample(self, folder: Path, sample: SampleRecord, wnid: str) -> bytes:
        """The encoded image. Raises OSError."""

    def describe_sample(self, folder: Path, sample: SampleRecord, wnid: str) -> str:
        """The sample as a message names it: its file, and its name where that is not the file's."""


LAYOUTS: Mapping[Layout, LayoutModule] = {
    Layout.IMAGEFOLDER: imagefolder,
    Layout.WEBDATASET: webdataset,
}
