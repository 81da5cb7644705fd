"""`meta.bin`: by it torchvision's ImageNet class opens a root without the devkit and scipy."""

import torch

from imnetprep.catalog.datasets import Dataset, Split
from imnetprep.fs import written_whole
from imnetprep.roots import Root


def write_meta_bin(root: Root, dataset: Dataset) -> None:
    """Leave what `torchvision.datasets.imagenet.load_meta_file` reads, and what it reads it for.

    Two things: the words of each wnid as a tuple, and the wnids of the validation images in the
    order of their file names (none where the dataset does not list these).
    """
    words = {synset.wnid: tuple(synset.words.split(", ")) for synset in dataset.synsets}
    wnid_of_name = {
        name: synset.wnid
        for synset in dataset.synsets
        if Split.VAL in dataset.splits
        for name in dataset.names(Split.VAL, synset.label) or ()
    }
    val_wnids = [wnid_of_name[name] for name in sorted(wnid_of_name)]
    with written_whole(root.path / "meta.bin") as file:
        torch.save((words, val_wnids), file)
