"""The ReaL labels of ilsvrc2012: all that people see in each validation image.

Beyer et al. 2020, "Are we done with ImageNet?"; google-research/reassessed-imagenet, `real.json`
(Apache License 2.0). `real_labels.txt.xz` has it in fewer bytes: line k is of the image with the
number k in its name, and `=` is that image's own label.
"""

import lzma
from collections.abc import Mapping
from pathlib import Path

from imnetprep.catalog.datasets import Dataset, Split

_FILE = Path(__file__).parent / "ilsvrc2012" / "real_labels.txt.xz"


def real_labels(dataset: Dataset) -> Mapping[int, tuple[int, ...]]:
    """The labels of each validation image by the number in its name; 3,163 have none: ().

    `dataset` is ilsvrc2012.
    """
    numbers = dataset.numbers(Split.VAL) or ()
    own_label = {number: label for label, of_label in enumerate(numbers) for number in of_label}
    lines = lzma.decompress(_FILE.read_bytes()).decode().splitlines()
    return {
        number: tuple(own_label[number] if word == "=" else int(word) for word in line.split())
        for number, line in enumerate(lines, 1)
    }
