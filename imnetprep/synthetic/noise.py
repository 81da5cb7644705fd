"""The noise dataset, packed as the real archives: class tars in a tar; a flat tar, shuffled."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

from imnetprep.catalog.datasets import Split, load_dataset
from imnetprep.synthetic.archives import (
    ARCHIVE_NAMES,
    DatasetPlan,
    Member,
    TarFile,
    plan_dataset,
    tar_as_member,
    write_definition,
    write_tar,
)

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
    split of 0 per class is left out. Memory stays flat, whatever the size.
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

    def member(split: Split, label: int, number: int) -> Member:
        name = plan.file_name(split, label, number)
        size_bytes = max(_LEAST_BODY_BYTES, rng.randint(image_bytes // 2, image_bytes * 3 // 2))
        start = rng.randrange(_POOL_BYTES)
        return Member(name, size_bytes, lambda: [_noise(name, pool, start, size_bytes)])

    folder.mkdir(parents=True, exist_ok=True)
    return write_definition(folder, plan, write_archives(folder, plan, member, rng=rng))


def write_archives(
    folder: Path,
    plan: DatasetPlan,
    member: Callable[[Split, int, int], Member],
    *,
    rng: random.Random,
) -> dict[Split, TarFile]:
    """Write the archive of each split; `member` makes the file of a (split, label, number)."""
    contents = {Split.TRAIN: _class_tars(plan, member), Split.VAL: _flat(plan, member, rng)}
    return {
        split: write_tar(folder / ARCHIVE_NAMES[split], contents[split]) for split in plan.numbers
    }


def _class_tars(plan: DatasetPlan, member: Callable[[Split, int, int], Member]) -> Iterator[Member]:
    for label, numbers in enumerate(plan.numbers[Split.TRAIN]):
        members = [member(Split.TRAIN, label, number) for number in numbers]
        members.sort(key=lambda file: file.name)  # as `ls` does: _10026 before _9981
        yield tar_as_member(f"{plan.synsets[label].wnid}.tar", members)


def _flat(
    plan: DatasetPlan, member: Callable[[Split, int, int], Member], rng: random.Random
) -> Iterator[Member]:
    files = [
        (label, number)
        for label, numbers in enumerate(plan.numbers[Split.VAL])
        for number in numbers
    ]
    rng.shuffle(files)
    for label, number in files:
        yield member(Split.VAL, label, number)


def _noise(name: str, pool: bytes, start: int, size_bytes: int) -> bytes:
    """A JPEG's first and last marker, its name in a comment between them, and noise."""
    comment = b"\xff\xfe" + (len(name) + 2).to_bytes(2, "big") + name.encode()
    head, tail = b"\xff\xd8" + comment, b"\xff\xd9"
    return head + pool[start : start + size_bytes - len(head) - len(tail)] + tail
