"""A small set that any network learns: drawings of a few things, in a plain tree of folders."""

from pathlib import Path

import numpy as np

from imnetprep.messages import Progress
from imnetprep.synthetic.drawing import draw_photograph

# Goldfish, analog clock, envelope, hammer and traffic light: unlike each other even at 32 px.
_WNIDS = ("n01443537", "n02708093", "n03291819", "n03481172", "n06874185")
_IMAGES = {"train": 96, "val": 40}  # of a class
_SIDE_PX = 64


def draw_small_set(folder: Path, progress: Progress) -> None:
    """Draw the set into `folder`, always the same."""
    total = len(_WNIDS) * sum(_IMAGES.values())
    with progress.task("draw a small set", total=total, unit="images") as task:
        for is_val, (split, images) in enumerate(_IMAGES.items()):
            for label, wnid in enumerate(_WNIDS):
                place = folder / split / wnid
                place.mkdir(parents=True)
                for number in range(images):
                    chance = np.random.default_rng([is_val, label, number])
                    image = draw_photograph(wnid, chance, side_px=_SIDE_PX)
                    image.save(place / f"{number}.jpg", quality=90)
                    task.advance(1)
