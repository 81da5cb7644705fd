"""A subset: the classes or train files of a dataset that a list names, as a dataset of its own.

The built-in lists are of ilsvrc2012; `docs/subsets.md` says what each is, `docs/catalog.md` from
where. A user's list is a text file: wnids, or names of train files, one a line.
"""

import itertools
import lzma
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from imnetprep.catalog.datasets import DEFINITION, Dataset, Split, parse_dataset
from imnetprep.catalog.definition_text import format_numbers, format_rows, format_toml
from imnetprep.messages import ImnetprepError, WrongUsage
from imnetprep.outside_files import read_text

BUILT_IN_LISTS = (
    "simclr-1pct",
    "simclr-10pct",
    "imagenet100",
    "mini-imagenet",
    "imagenette",
    "imagewoof",
)
_FOLDER = Path(__file__).parent / "subset_lists"
_SYNSETS = "synsets.tsv"
# Where a part keeps the definition of a whole that is not built in.
_WHOLE = "whole"
_OF_SPLIT = ("file_name", "samples_per_class")


@dataclass(frozen=True)
class SubsetList:
    """What is chosen: wnids, or names of train files, each with the place in the list it is at."""

    name: str
    entries: Sequence[tuple[str, str]]


def read_list(name: str) -> SubsetList:
    """The built-in list of that name, or the user's own from a text file."""
    if name in BUILT_IN_LISTS:
        return SubsetList(name, [(name, word) for word in _built_in(name)])
    path = Path(name)
    try:
        text = read_text(path)
    except FileNotFoundError as error:
        raise WrongUsage(
            f"no list is called {name!r}, and there is no such file",
            hint=f"one of {', '.join(BUILT_IN_LISTS)}, or a text file of classes or train files",
        ) from error
    except UnicodeDecodeError as error:
        raise WrongUsage(f"{path} is not a text file: {error}", hint="one name a line") from error
    words = [line.partition("#")[0].strip() for line in text.split("\n")]
    entries = [(f"{path}, line {at}", word) for at, word in enumerate(words, start=1) if word]
    if not entries:
        raise WrongUsage(f"{path} names nothing", hint="one class or train file name a line")
    return SubsetList(re.sub(r"[^A-Za-z0-9_.-]+", "-", path.stem), entries)


def _built_in(name: str) -> Iterator[str]:
    """Wnids; or files as the catalog has names: a line a class, its wnid and then differences."""
    if (wnids := _FOLDER / f"{name}.txt").exists():
        yield from wnids.read_text().split()
        return
    for line in lzma.decompress((_FOLDER / f"{name}.txt.xz").read_bytes()).decode().splitlines():
        wnid, *differences = line.split()
        for number in itertools.accumulate(map(int, differences)):
            yield f"{wnid}_{number}.JPEG"


def subset_of(source: Dataset, subset: SubsetList) -> Dataset:
    """What `subset` chooses of `source`, as a dataset: its `label_of` is None for all the rest.

    A list of classes restricts every split. A list of files restricts train; of validation it
    leaves the listed files' classes whole. Labels are ranks among the chosen wnids. Where the
    source counts its files and does not list them, a file that it lacks is not noticed here.

    Raises ImnetprepError on an entry that `source` does not have, with the entry's place.
    """
    if subset.entries[0][1] in source.label_of_wnid:
        labels = [_label_of_wnid(source, *entry) for entry in subset.entries]
        return _derived(source, subset.name, sorted(set(labels)), files=None)
    files: dict[int, set[int]] = {}
    for place, path in subset.entries:
        label, name = _labelled_file(source, place, path)
        number = source.number_of(Split.TRAIN, source.synsets[label].wnid, name)
        files.setdefault(label, set()).add(number)
    return _derived(source, subset.name, sorted(files), files=files)


def _label_of_wnid(source: Dataset, place: str, wnid: str) -> int:
    if (label := source.label_of_wnid.get(wnid)) is None:
        raise _unknown(f"{place}: {source.name} has no class {wnid!r}")
    return label


def _labelled_file(source: Dataset, place: str, path: str) -> tuple[int, str]:
    """The label and the name of a train file: `CLASS/NAME`, or a name that no two classes have."""
    wnid, slash, name = path.rpartition("/")
    label = None
    if Split.TRAIN in source.splits:
        label = source.label_of(Split.TRAIN, name, wnid or None)
    if label is None or (slash and source.synsets[label].wnid != wnid):
        raise _unknown(f"{place}: {path!r} is neither a class nor a train file of {source.name}")
    return label, name


def _unknown(problem: str) -> ImnetprepError:
    return ImnetprepError(
        problem,
        hint="a list holds classes, or names of train files, and not both; # starts a comment",
    )


def _derived(
    source: Dataset, name: str, labels: Sequence[int], *, files: Mapping[int, set[int]] | None
) -> Dataset:
    """A definition cut down to `labels`, and to the numbers of `files` in train."""
    synsets = [source.synsets[label] for label in labels]
    rows = ((each.wnid, each.ilsvrc_id, each.words) for each in synsets)
    bodies = {_SYNSETS: format_rows([("wnid", "ilsvrc_id", "words"), *rows])}
    splits: dict[str, dict[str, Any]] = {}
    for split in source.splits:
        numbers: Sequence[Sequence[int]] | None = None
        if files is not None and split is Split.TRAIN:
            numbers = [sorted(files[label]) for label in labels]
        elif (all_numbers := source.numbers(split)) is not None:
            numbers = [all_numbers[label] for label in labels]
        counts = [source.counts(split)[label] for label in labels]
        kept_table = {key: value for key, value in source.table[split].items() if key in _OF_SPLIT}
        splits[split] = {**kept_table, "samples": sum(counts)}
        if isinstance(kept_table.get("samples_per_class"), list):
            splits[split]["samples_per_class"] = counts
        if numbers is not None:
            splits[split]["samples"] = sum(map(len, numbers))
            splits[split].pop("samples_per_class", None)
            key = "labels" if "labels" in source.table[split] else "names"
            splits[split][key] = f"{split}_{key}.txt"
            wnids = [synset.wnid for synset in synsets]
            if key == "names":
                body = format_numbers(wnids, numbers)
            else:
                body = format_rows(
                    (source.name_of(split, wnid, number), wnid)
                    for wnid, of_label in zip(wnids, numbers, strict=True)
                    for number in of_label
                )
            bodies[f"{split}_{key}.txt"] = body
    whole = source.published
    table = {
        "name": f"{source.name}-{name}",
        "title": f"{source.title}, subset {name}",
        "synsets": _SYNSETS,
        "part_of": whole.name if whole.built_in else _WHOLE,
        **splits,
    }
    bodies[DEFINITION] = format_toml(table)
    files_of = {file: body.encode() for file, body in bodies.items()}
    if not whole.built_in:
        files_of |= {f"{_WHOLE}/{file}": body for file, body in whole.definition().items()}
    return replace(parse_dataset(files_of.__getitem__), part_of=whole)
