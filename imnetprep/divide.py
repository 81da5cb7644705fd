"""Images of one's own by class, without splits, to a root with train and val.

They are links or copies of files, or files made of a table of pixels.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from imnetprep.archives.file import file_state
from imnetprep.catalog.datasets import Layout, Root, Split
from imnetprep.catalog.divisions import Division, divided
from imnetprep.layouts.imagefolder import write_sample
from imnetprep.manifest import (
    SampleRecord,
    is_vacant,
    open_manifest,
    refuse_other_dataset,
    splits_in,
)
from imnetprep.messages import move_away
from imnetprep.organizing.publish import refuse_strangers
from imnetprep.outside_files import read_file
from imnetprep.own_images.content import ImageFolder
from imnetprep.own_images.pixel_table import PixelTable
from imnetprep.proving.receipt import NoProof
from imnetprep.split_from_folder import (
    PIXELS,
    FolderSource,
    FoldersPlan,
    MakeClass,
    file_kind,
    link_or_copy,
    refuse_links,
)

_PNG_BYTES = 100  # beside its pixels, which noise does not make smaller


def plan_divide(
    root: Root,
    content: ImageFolder,
    *,
    val_fraction: float,
    seed: int,
    copy: bool,
    jobs: int | None,
) -> FoldersPlan:
    """Look at the root, and change nothing. The images of `content` are those of its train.

    Raises ImnetprepError where a class cannot be in both splits, and where the root holds
    something else.
    """
    classes = content.splits[Split.TRAIN]
    division = divided(content.name, classes, val_fraction=val_fraction, seed=seed)
    to_do = _splits_to_make(root, division)
    if copy:
        refuse_links(root, splits_in(root, Layout.IMAGEFOLDER))
    sizes = dict.fromkeys(to_do, 0)
    for split in to_do if copy else ():
        for wnid, names in division.names[split].items():
            sizes[split] += sum(os.stat(classes[wnid][name]).st_size for name in names)  # noqa: PTH116
    return FoldersPlan(
        root,
        division.dataset,
        folders=dict.fromkeys(division.names, content.folder),
        source_of=partial(_folder_source, content, division, copy),
        sizes=sizes,
        jobs=jobs,
    )


def plan_divide_pixels(
    root: Root, table: PixelTable, *, val_fraction: float, seed: int, jobs: int | None
) -> FoldersPlan:
    """Look at the root, as `plan_divide` does, for the images in a table; each becomes a PNG."""
    division = divided(table.path.stem, table.images, val_fraction=val_fraction, seed=seed)
    image_bytes = _PNG_BYTES + table.side_px**2
    return FoldersPlan(
        root,
        division.dataset,
        folders=dict.fromkeys(division.names, table.path),
        source_of=partial(_pixel_source, table, division),
        sizes={
            split: image_bytes * division.dataset.samples(split)
            for split in _splits_to_make(root, division)
        },
        jobs=jobs,
    )


def _splits_to_make(root: Root, division: Division) -> list[Split]:
    """The splits that `root` has not. Raises ImnetprepError where it holds something else."""
    if root.manifest.exists():
        with open_manifest(root.manifest) as manifest:
            if not is_vacant(manifest):
                move = f"{move_away(root.path)}; then run the same command again"
                refuse_other_dataset(
                    manifest, division.dataset, hint=f"name another --root; or {move}"
                )
    folders = splits_in(root, Layout.IMAGEFOLDER)
    to_do = [split for split in division.names if split not in folders]
    for split in to_do:
        refuse_strangers(root, division.dataset, split)
    return to_do


def _pixel_source(table: PixelTable, division: Division, split: Split) -> FolderSource:
    place = table.path.absolute()

    def makers() -> Iterator[tuple[int, MakeClass]]:
        for label, synset in enumerate(division.dataset.synsets):
            names = division.names[split][synset.wnid]
            yield label, partial(_draw_class, table, label, synset.wnid, names)

    return FolderSource(
        split=split,
        made_of=f"pixels of {str(place)!a} {file_state(place)}",
        classes=makers,
        facts={"archive": None, "source": str(place), "files": PIXELS},
        proof=NoProof(f"the pixels in {place}, as they were"),
        change=None,
    )


def _draw_class(
    table: PixelTable, label: int, wnid: str, names: Sequence[str], folder: Path
) -> list[SampleRecord]:
    """Make the samples of a class in `folder` of their pixels."""
    records = []
    for name in names:
        body = table.encode(wnid, name)
        write_sample(str(folder), name, body)
        records.append(SampleRecord.of_body(label, name, body))
    return records


def _folder_source(
    content: ImageFolder, division: Division, copy: bool, split: Split
) -> FolderSource:
    place, classes = content.folder.absolute(), content.splits[Split.TRAIN]

    def makers() -> Iterator[tuple[int, MakeClass]]:
        for label, synset in enumerate(division.dataset.synsets):
            files = {
                name: classes[synset.wnid][name] for name in division.names[split][synset.wnid]
            }
            yield label, partial(_make_class, label, files, copy)

    return FolderSource(
        split=split,
        made_of=f"{'copies' if copy else 'links'} of {str(place)!a} {content.state(Split.TRAIN)}",
        classes=makers,
        facts={
            "archive": None,
            "source": str(place),
            "files": file_kind(copy=copy),
            "skipped": content.problems_below(place),
        },
        proof=NoProof(f"the images in {place}, as they were"),
        change=None,
    )


def _make_class(
    label: int, files: Mapping[str, str], copy: bool, folder: Path
) -> list[SampleRecord]:
    """Make the samples of a class in `folder` of these files, links to which lead to the images."""
    records = []
    for name, path in files.items():
        source = Path(path).resolve()
        body = read_file(source)
        link_or_copy(source, folder / name, body if copy else None)
        records.append(SampleRecord.of_body(label, name, body))
    return records
