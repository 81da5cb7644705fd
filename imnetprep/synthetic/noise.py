"""The noise dataset: images in name only, for where pixels do not matter."""

import random
from pathlib import Path

from imnetprep.catalog.datasets import Split, load_dataset
from imnetprep.synthetic.archives import plan_dataset, write_dataset

_POOL_BYTES = 4 * 2**20
_LEAST_BODY_BYTES = 64


def pack_dataset(
    folder: Path,
    *,
    classes: int = 10,
    train_per_class: int = 20,
    val_per_class: int = 5,
    image_bytes: int = 2_000,
    seed: int = 0,
) -> Path:
    """Pack both archives with noise for images, and write `packed.toml`; returns its path.

    For tests and benchmarks where pixels do not matter: no body decodes, no two are the same, and
    their sizes are around `image_bytes`. The first `classes` (≤ 1000) of ILSVRC2012's wnids. A
    split of 0 per class is left out.
    """
    rng = random.Random(seed)  # noqa: S311 - a seed for the same bytes again, not a secret
    plan = plan_dataset(
        load_dataset("ilsvrc2012").synsets[:classes],
        name="packed",
        title="Noise, packed as ImageNet is",
        train_per_class=train_per_class,
        val_per_class=val_per_class,
        rng=rng,
    )
    pool = rng.randbytes(_POOL_BYTES + 2 * image_bytes)

    def make_noise(split: Split, label: int, number: int) -> bytes:
        """A JPEG's first and last marker, its name in a comment between them, and noise."""
        name = plan.file_name(split, label, number).encode()
        size_bytes = max(_LEAST_BODY_BYTES, rng.randint(image_bytes // 2, image_bytes * 3 // 2))
        start = rng.randrange(_POOL_BYTES)
        head = b"\xff\xd8\xff\xfe" + (len(name) + 2).to_bytes(2, "big") + name
        return b"".join([head, pool[start : start + size_bytes - len(head) - 2], b"\xff\xd9"])

    return write_dataset(folder, plan, make_noise, rng=rng)
