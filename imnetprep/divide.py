"""A folder of images by class, without splits, to a root with train and val: links or copies."""

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from imnetprep.catalog.datasets import Layout, Root, Split
from imnetprep.catalog.divisions import Division, divided
from imnetprep.catalog.file_names import is_class_name, is_plain
from imnetprep.manifest import SampleRecord, open_manifest, refuse_other_dataset, splits_in
from imnetprep.messages import ImnetprepError
from imnetprep.organizing.publish import refuse_strangers
from imnetprep.proving.receipt import NoProof
from imnetprep.split_from_folder import FolderSource, FoldersPlan, MakeClass, link_or_copy
from imnetprep.split_plan import Needs

# What Pillow and torchvision open, by its name.
_IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def plan_divide(
    root: Root, folder: Path, *, val_fraction: float, seed: int, copy: bool, jobs: int | None
) -> FoldersPlan:
    """Look at the folder and the root, and change nothing.

    Raises ImnetprepError where the folder holds what is no image of a class, and where the root
    holds something else.
    """
    sizes = _images(folder)
    division = divided(folder.absolute().name, sizes, val_fraction=val_fraction, seed=seed)
    if root.manifest.exists():
        with open_manifest(root.manifest) as manifest:
            refuse_other_dataset(manifest, division.dataset)
    folders = splits_in(root, Layout.IMAGEFOLDER)
    to_do = [split for split in division.names if split not in folders]
    for split in to_do:
        refuse_strangers(root, division.dataset, split)
    to_make = [
        sizes[wnid][file]
        for split in to_do
        for wnid, of_class in division.names[split].items()
        for file in of_class
    ]
    size_bytes = sum(to_make) if copy else 0
    return FoldersPlan(
        root,
        division.dataset,
        folders=dict.fromkeys(division.names, folder),
        source_of=partial(_folder_source, folder, division, copy),
        needs=Needs(size_bytes, len(to_make), size_bytes),
        checks_room=True,
        jobs=jobs,
    )


def _folder_source(folder: Path, division: Division, copy: bool, split: Split) -> FolderSource:
    place = folder.absolute()

    def classes() -> Iterator[tuple[int, MakeClass]]:
        for synset in division.dataset.synsets:
            names = division.names[split][synset.wnid]
            yield (
                synset.label,
                partial(_make_class, folder / synset.wnid, synset.label, names, copy),
            )

    return FolderSource(
        split=split,
        made_of=f"{'copies' if copy else 'links'} of {str(place)!a}",
        classes=classes,
        copied_bytes=0,  # the needs of the plan are for all splits
        facts={"archive": None, "source": str(place), "files": "copies" if copy else "hard links"},
        proof=NoProof(f"the images in {place}, as they were"),
        change=None,
    )


def _make_class(
    home: Path, label: int, names: Sequence[str], copy: bool, folder: Path
) -> list[SampleRecord]:
    """Make the samples of a class in `folder` of images in `home`."""
    records = []
    for file in names:
        body = (home / file).read_bytes()
        link_or_copy(home / file, folder / file, body if copy else None)
        records.append(SampleRecord.of_body(label, file, body))
    return records


def _images(folder: Path) -> dict[str, dict[str, int]]:
    """The size of each image by its class and name. Hidden files are passed over."""
    if not folder.is_dir():
        raise ImnetprepError(
            f"{folder} is no folder",
            hint="imnetprep divide FOLDER, with a folder of images for each class in it",
        )
    classes: dict[str, dict[str, int]] = {}
    for class_folder in _entries(folder):
        if not class_folder.is_dir(follow_symlinks=False):
            raise _stray(class_folder.path, "is no folder of a class")
        if not is_class_name(class_folder.name):
            raise _stray(class_folder.path, "has a control character or a backslash in its name")
        sizes = classes[class_folder.name] = {}
        for file in _entries(Path(class_folder.path)):
            if not file.is_file(follow_symlinks=False):
                raise _stray(file.path, "is no regular file")
            if not file.name.lower().endswith(_IMAGES) or not is_plain(file.name):
                raise _stray(file.path, "is no image by its name")
            sizes[file.name] = file.stat().st_size
    if not classes:
        raise ImnetprepError(f"{folder} is empty", hint="a folder of images for each class in it")
    return classes


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        visible = [entry for entry in entries if not entry.name.startswith(".")]
    return sorted(visible, key=lambda entry: entry.name)


def _stray(path: str, problem: str) -> ImnetprepError:
    return ImnetprepError(f"{path} {problem}", hint="move it away, and run the same command again")
