"""A synthetic dataset packed as ImageNet is: its files, its definition, and tars of them."""

import hashlib
import itertools
import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from imnetprep.archives.tar import BLOCK_BYTES
from imnetprep.archives.tar_writing import ending, header, padding
from imnetprep.catalog.datasets import Split, Synset
from imnetprep.fs import written_whole

_MTIME_S = 1_339_632_000  # 14 June 2012


class Member(NamedTuple):
    """A file in a tar. `body` is asked for when its turn comes, and gives `size_bytes` bytes."""

    name: str
    size_bytes: int
    body: Callable[[], Iterable[bytes]]


class TarFile(NamedTuple):
    """A tar on the disk, with its size and MD5."""

    path: Path
    size_bytes: int
    md5: str


def write_tar(path: Path, members: Iterable[Member]) -> TarFile:
    """Write a tar of `members`, one at a time, and its digest on the way."""
    md5, size_bytes = hashlib.md5(), 0
    with written_whole(path) as file:
        for chunk in _tar_chunks(members):
            file.write(chunk)
            md5.update(chunk)
            size_bytes += len(chunk)
    return TarFile(path, size_bytes, md5.hexdigest())


def tar_as_member(name: str, members: Sequence[Member]) -> Member:
    """A tar of `members` as a file of another tar: a class inside the train archive."""
    end = sum(BLOCK_BYTES + _padded_bytes(each.size_bytes) for each in members)
    return Member(name, end + len(ending(end)), lambda: _tar_chunks(members))


def _tar_chunks(members: Iterable[Member]) -> Iterator[bytes]:
    end = 0
    for member in members:
        yield header(member.name, member.size_bytes, mtime_s=_MTIME_S)
        size_bytes = 0
        for chunk in member.body():
            yield chunk
            size_bytes += len(chunk)
        assert size_bytes == member.size_bytes, member.name
        yield padding(size_bytes)
        end += BLOCK_BYTES + _padded_bytes(size_bytes)
    yield ending(end)


def _padded_bytes(size_bytes: int) -> int:
    return size_bytes + len(padding(size_bytes))


ARCHIVE_NAMES = {Split.TRAIN: "ILSVRC2012_img_train.tar", Split.VAL: "ILSVRC2012_img_val.tar"}
_FILE_NAMES = {Split.TRAIN: "{wnid}_{number}.JPEG", Split.VAL: "ILSVRC2012_val_{number:08}.JPEG"}
_FORMS = {Split.TRAIN: "tar-of-tars", Split.VAL: "tar"}


@dataclass(frozen=True)
class DatasetPlan:
    """A dataset's classes and, for each split, the ascending numbers of each label's files."""

    name: str
    title: str
    synsets: tuple[Synset, ...]
    numbers: Mapping[Split, tuple[tuple[int, ...], ...]]

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
    numbers: dict[Split, tuple[tuple[int, ...], ...]] = {}
    if train_per_class:
        pool = range(20 * train_per_class)
        numbers[Split.TRAIN] = tuple(
            tuple(sorted(rng.sample(pool, train_per_class))) for _ in synsets
        )
    if val_per_class:
        labels = [label for label in range(len(synsets)) for _ in range(val_per_class)]
        rng.shuffle(labels)
        of_label: list[list[int]] = [[] for _ in synsets]
        for number, label in enumerate(labels, start=1):
            of_label[label].append(number)
        numbers[Split.VAL] = tuple(map(tuple, of_label))
    return DatasetPlan(name, title, tuple(synsets), numbers)


def write_definition(
    folder: Path,
    plan: DatasetPlan,
    archives: Mapping[Split, TarFile],
    *,
    odd_files: Mapping[str, Sequence[str]] | None = None,
) -> Path:
    """Write `<name>.toml` and the files it names; returns the path of the former.

    `odd_files` are those that are not what their name says, by what they are.
    """
    rows = [f"{synset.wnid}\t{synset.ilsvrc_id}\t{synset.words}" for synset in plan.synsets]
    _write_lines(folder / "synsets.tsv", ["wnid\tilsvrc_id\twords", *rows])
    lines = [f'name = "{plan.name}"', f'title = "{plan.title}"', 'synsets = "synsets.tsv"']
    for split, numbers in plan.numbers.items():
        names = f"{split}_names.txt"
        _write_lines(
            folder / names,
            (
                " ".join(map(str, [synset.wnid, *_differences(of_label)]))
                for synset, of_label in zip(plan.synsets, numbers, strict=True)
            ),
        )
        lines += ["", f"[{split}]", f'file_name = "{_FILE_NAMES[split]}"', f'names = "{names}"']
        lines += [f"samples = {sum(map(len, numbers))}"]
    for split, archive in archives.items():
        lines += ["", "[[archives]]", f'name = "{archive.path.name}"', f'split = "{split}"']
        lines += [f'form = "{_FORMS[split]}"', f"size_bytes = {archive.size_bytes}"]
        lines += [f'md5 = "{archive.md5}"']
    if odd_files:
        lines += ["", "[odd_files]"]
        lines += [f"{kind} = {json.dumps(names)}" for kind, names in odd_files.items()]
    definition = folder / f"{plan.name}.toml"
    _write_lines(definition, lines)
    return definition


def _differences(numbers: Iterable[int]) -> list[int]:
    """Each number as the difference to the one before it; the first to 0."""
    return [successor - number for number, successor in itertools.pairwise([0, *numbers])]


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with written_whole(path) as file:
        file.writelines(f"{line}\n".encode() for line in lines)
