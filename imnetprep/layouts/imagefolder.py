"""The layout of torchvision's ImageFolder: `SPLIT/<wnid>/<name>`, one file a sample."""

import os
from pathlib import Path

NAME = "imagefolder"


def make_class_folder(folder: Path, wnid: str) -> Path:
    """The folder of a class in the split at `folder`, made where it is missing."""
    class_folder = folder / wnid
    class_folder.mkdir(parents=True, exist_ok=True)
    return class_folder


def write_sample(class_folder: Path, name: str, body: bytes) -> None:
    """Write one sample; what a killed run left under its name is overwritten."""
    handle = os.open(class_folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        if os.write(handle, body) != len(body):
            raise OSError(f"{class_folder / name}: short write")
    finally:
        os.close(handle)
