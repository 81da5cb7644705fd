"""The layout of torchvision's ImageFolder: `SPLIT/<wnid>/<name>`, one file a sample."""

import os
from pathlib import Path


def make_class_folder(folder: Path, wnid: str) -> Path:
    """The folder of a class in the split at `folder`, made where it is missing."""
    class_folder = folder / wnid
    class_folder.mkdir(parents=True, exist_ok=True)
    return class_folder


def write_sample(class_folder: str, name: str, body: bytes | memoryview) -> None:
    """Write one sample; what a killed run left under its name is overwritten."""
    path = f"{class_folder}/{name}"  # a Path costs as much as the system calls
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        offset = os.write(handle, body)
        while offset < len(body):
            offset += os.write(handle, memoryview(body)[offset:])
    except OSError as error:
        error.filename = path  # a full disk is told by name
        raise
    finally:
        os.close(handle)
