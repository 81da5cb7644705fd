"""A synthetic dataset packed as ImageNet is: class tars in a tar; a flat tar, shuffled."""

import hashlib
import random
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imnetprep.archives.tar_writing import ending, header, padding
from imnetprep.catalog.datasets import Split, Synset
from imnetprep.catalog.definition_text import format_numbers, format_rows, format_toml
from imnetprep.fs import written_whole

_MTIME_S = 1_339_632_000  # 14 June 2012
_ARCHIVES = {
    Split.TRAIN: {"name": "ILSVRC2012_img_train.tar", "split": "train", "form": "tar-of-tars"},
    Split.VAL: {"name": "ILSVRC2012_img_val.tar", "split": "val", "form": "tar"},
}
_FILE_NAMES = {Split.TRAIN: "{wnid}_{number}.JPEG", Split.VAL: "ILSVRC2012_val_{number:08}.JPEG"}

# Makes the encoded image of a split, a label and a number.
MakeBody = Callable[[Split, int, int], bytes]
# A name, and a body in chunks.
TarMember = tuple[str, Sequence[bytes]]


@dataclass(frozen=True)
class DatasetPlan:
    """A dataset's classes and, for each split, the ascending numbers of each label's files."""

    name: str
    title: str
    synsets: tuple[Synset, ...]
    numbers: Mapping[Split, Sequence[Sequence[int]]]

    def file_name(self, split: Split, label: int, number: int) -> str:
        """The name of one sample: its label shows in a train name and not in a validation name."""
        return _FILE_NAMES[split].format(wnid=self.synsets[label].wnid, number=number)


def plan_dataset(
    synsets: Sequence[Synset],
    *,
    name: str,
    title: str,
    train_per_class: int,
    val_per_class: int,
    rng: random.Random,
) -> DatasetPlan:
    """Sparse train numbers and shuffled validation labels, as in ILSVRC2012.

    A split of which there are 0 per class is left out.
    """
    numbers: dict[Split, list[list[int]]] = {}
    if train_per_class:
        pool = range(20 * train_per_class)
        numbers[Split.TRAIN] = [sorted(rng.sample(pool, train_per_class)) for _ in synsets]
    if val_per_class:
        labels = [label for label in range(len(synsets)) for _ in range(val_per_class)]
        rng.shuffle(labels)
        numbers[Split.VAL] = [[] for _ in synsets]
        for number, label in enumerate(labels, start=1):
            numbers[Split.VAL][label].append(number)
    return DatasetPlan(name, title, tuple(synsets), numbers)


def write_dataset(
    folder: Path,
    plan: DatasetPlan,
    make_body: MakeBody,
    *,
    rng: random.Random,
    odd_files: Mapping[str, Sequence[str]] | None = None,
) -> Path:
    """Write the archives, then their definition; returns the path of `<name>.toml`.

    `odd_files` are those that are not what their name says, by what they are. In memory are the
    images of one class at a time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    splits: dict[str, Any] = {}
    wnids = [synset.wnid for synset in plan.synsets]
    rows = ((synset.wnid, synset.ilsvrc_id, synset.words) for synset in plan.synsets)
    files = {"synsets.tsv": format_rows([("wnid", "ilsvrc_id", "words"), *rows])}
    archives = []
    for split, numbers in plan.numbers.items():
        archives.append(_write_archive(folder, split, plan, make_body, rng))
        names, samples = f"{split}_names.txt", sum(map(len, numbers))
        splits[split] = {"file_name": _FILE_NAMES[split], "names": names, "samples": samples}
        files[names] = format_numbers(wnids, numbers)
    table = {"name": plan.name, "title": plan.title, "synsets": "synsets.tsv", **splits}
    table |= {"archives": archives} | ({"odd_files": odd_files} if odd_files else {})
    definition = f"{plan.name}.toml"
    files[definition] = format_toml(table)
    for name, text in files.items():
        with written_whole(folder / name) as file:
            file.write(text.encode())
    return folder / definition


def _write_archive(
    folder: Path, split: Split, plan: DatasetPlan, make_body: MakeBody, rng: random.Random
) -> dict[str, Any]:
    """Write the archive of `split`; returns what the definition says of it."""
    archive, md5 = _ARCHIVES[split], hashlib.md5()
    is_train = split is Split.TRAIN
    files = _class_tars(plan, make_body) if is_train else _shuffled(plan, make_body, rng)
    with written_whole(folder / archive["name"]) as file:
        for chunk in _tar_chunks(files):
            file.write(chunk)
            md5.update(chunk)
        return {**archive, "size_bytes": file.tell(), "md5": md5.hexdigest()}


def _class_tars(plan: DatasetPlan, make_body: MakeBody) -> Iterator[TarMember]:
    for label, numbers in enumerate(plan.numbers[Split.TRAIN]):
        bodies = {
            plan.file_name(Split.TRAIN, label, number): make_body(Split.TRAIN, label, number)
            for number in numbers
        }
        files = ((name, [bodies[name]]) for name in sorted(bodies))  # _10026 before _9981
        yield f"{plan.synsets[label].wnid}.tar", list(_tar_chunks(files))


def _shuffled(plan: DatasetPlan, make_body: MakeBody, rng: random.Random) -> Iterator[TarMember]:
    samples = [
        (label, number)
        for label, numbers in enumerate(plan.numbers[Split.VAL])
        for number in numbers
    ]
    rng.shuffle(samples)
    for label, number in samples:
        yield plan.file_name(Split.VAL, label, number), [make_body(Split.VAL, label, number)]


def _tar_chunks(files: Iterable[TarMember]) -> Iterator[bytes]:
    end = 0
    for name, chunks in files:
        size_bytes = sum(map(len, chunks))
        yield header(name, size_bytes, mtime_s=_MTIME_S)
        yield from chunks
        yield padding(size_bytes)
        end += tarfile.BLOCKSIZE + size_bytes + len(padding(size_bytes))
    yield ending(end)
