"""What a root lists: its classes, and the samples of its splits.

A root is listed by its manifest; a plain tree of images, which never became one, by its folders.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from imnetprep.catalog.datasets import Dataset, Layout, Root, Split
from imnetprep.catalog.listing import listed_dataset
from imnetprep.manifest import NoSplit, open_manifest
from imnetprep.messages import ImnetprepError, adopt_by_links, count, shell_command
from imnetprep.own_images.content import ImageFolder
from imnetprep.own_images.folder import read_split_folders
from imnetprep.samples.held_out import held_out
from imnetprep.samples.sample_list import SampleList, read_samples


@dataclass(frozen=True)
class Listing:
    """The dataset of a root, and what reads the samples of a split, as `read_samples` does."""

    dataset: Dataset
    samples: Callable[[Split], SampleList]

    def validation(self, fraction: float, *, train_samples: int) -> SampleList:
        """The val split; where there is none, the `fraction` held out of `train_samples` of train.

        Raises ImnetprepError where there is neither.
        """
        try:
            return self.samples(Split.VAL)
        except NoSplit:
            if not fraction:
                raise
        train = self.samples(Split.TRAIN)
        if len(train) != train_samples:
            raise ImnetprepError(
                f"there is no val split, and of {count(train_samples, 'train image')} that a part"
                f" was held out of there are {len(train):,}",
                hint="take the images that the network was trained on, by --root or --shards",
            )
        return train.chosen(held_out(train, fraction))


@contextmanager
def open_listing(root: Root, *, layout: Layout | None) -> Iterator[Listing]:
    """What `root` lists; a plain tree is scanned, and nothing is written into it.

    Raises ImnetprepError where there is neither a manifest nor class folders, or a file in them is
    no image.
    """
    if root.is_tree:
        yield _scanned(root.path)
        return
    with open_manifest(root.manifest) as manifest:
        yield Listing(
            manifest.dataset(), lambda split: read_samples(manifest, split, root, layout=layout)
        )


def _scanned(folder: Path) -> Listing:
    content = read_split_folders(folder)
    if content.problems or content.flat_splits:
        path, reason = next(
            iter(content.problems.items()), (str(folder), "has images in no class folder")
        )
        raise ImnetprepError(
            f"{path} {reason}",
            hint=f"{adopt_by_links(folder)} makes a root of it, with --skip-bad without such files",
        )
    classes = {
        split: {wnid: [min(files)] for wnid, files in by_class.items()}
        for split, by_class in content.splits.items()
    }
    dataset = listed_dataset(content.name, content.name, classes)
    return Listing(dataset, lambda split: _scanned_samples(content, split, dataset))


def _scanned_samples(content: ImageFolder, split: Split, dataset: Dataset) -> SampleList:
    by_class: Mapping[str, Mapping[str, str]] = content.splits.get(split, {})
    if not by_class:
        folder = content.folder / next(iter(content.places.values()), "")
        divide = shell_command("imnetprep", "divide", folder, "--root", f"{content.name}-root")
        raise NoSplit(
            f"{content.folder} has no {split} split of class folders",
            hint=f"{divide} makes train and val",
        )
    wnids = tuple(synset.wnid for synset in dataset.synsets)
    counts = [len(by_class.get(wnid, ())) for wnid in wnids]
    names = "".join(f"{name}\0" for wnid in wnids for name in sorted(by_class.get(wnid, ())))
    body = bytearray(names.encode())
    return SampleList(
        split,
        Layout.IMAGEFOLDER,
        content.folder / content.places[split],
        wnids,
        body,
        np.flatnonzero(np.frombuffer(body, np.uint8) == 0).astype(np.uint32),
        np.repeat(np.arange(len(wnids), dtype=np.int32), counts),
        apply_orientation=dataset.orientation_applied,
    )
