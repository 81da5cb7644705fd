"""The layout of torchvision's ImageFolder: `SPLIT/<wnid>/<name>`, one file a sample."""

import os
from pathlib import Path

from imnetprep.manifest import SampleRecord
from imnetprep.outside_files import read_file


def make_class_folder(folder: Path, wnid: str) -> Path:
    """The folder of a class in the split at `folder`, made where it is missing."""
    class_folder = folder / wnid
    class_folder.mkdir(parents=True, exist_ok=True)
    return class_folder


def sample_path(folder: Path, sample: SampleRecord, wnid: str) -> Path:
    """As `LayoutModule.sample_path`."""
    return folder / wnid / sample.name


def read_sample(folder: Path, sample: SampleRecord, wnid: str) -> bytes:
    """As `LayoutModule.read_sample`."""
    return read_file(f"{folder}/{wnid}/{sample.name}")  # a Path takes as long as a small read


def describe_sample(folder: Path, sample: SampleRecord, wnid: str) -> str:
    """As `LayoutModule.describe_sample`."""
    return str(sample_path(folder, sample, wnid))


def write_sample(class_folder: str, name: str, body: bytes | memoryview) -> None:
    """Write one sample; what a killed run left under its name is overwritten."""
    path = f"{class_folder}/{name}"  # a Path costs as much as the system calls
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            offset = os.write(handle, body)
            while offset < len(body):
                offset += os.write(handle, memoryview(body)[offset:])
        finally:
            os.close(handle)  # where NFS tells of a full disk
    except OSError as error:
        error.filename = path
        raise
