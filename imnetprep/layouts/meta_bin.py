"""`meta.bin`: by it torchvision's ImageNet class opens a root without the devkit and scipy."""

import pickle
import zipfile

from imnetprep.catalog.datasets import Dataset, Root, Split
from imnetprep.fs import written_whole


def write_meta_bin(root: Root, dataset: Dataset) -> None:
    """Leave what `torchvision.datasets.imagenet.load_meta_file` reads, and what it reads it for.

    Two things: the words of each wnid as a tuple, and the wnids of the validation images in the
    order of their file names (none where the dataset does not list these).

    A file of `torch.save` is a zip of a pickle and, here absent, tensors; so none of torch is
    needed to write one. `torch.load(..., weights_only=True)` reads it in any release since 1.6.
    """
    words = {synset.wnid: tuple(synset.words.split(", ")) for synset in dataset.synsets}
    wnid_of_name = {
        name: synset.wnid
        for synset in dataset.synsets
        if Split.VAL in dataset.splits
        for name in dataset.names(Split.VAL, synset.label) or ()
    }
    val_wnids = [wnid_of_name[name] for name in sorted(wnid_of_name)]
    with (
        written_whole(root.path / "meta.bin") as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as parts,
    ):
        for name, body in (
            ("meta/data.pkl", pickle.dumps((words, val_wnids), protocol=2)),
            ("meta/byteorder", b"little"),
            ("meta/version", b"3\n"),
        ):
            parts.writestr(zipfile.ZipInfo(name), body)  # dated 1980: the same bytes each time
