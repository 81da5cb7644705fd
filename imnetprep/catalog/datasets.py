"""A dataset, parsed from TOML and read lazily, and the root where it lies on this machine.

A dataset is a TOML file and the files it names beside it; `docs/catalog.md` has the form.
The built-in ones lie in this package; a manifest carries a copy of any other.
"""

import gzip
import hashlib
import io
import itertools
import lzma
import re
import tomllib
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from imnetprep.catalog.definition_text import DIGEST_DIGITS, key_problems, line_of
from imnetprep.catalog.file_names import FileNames, LabelledNames, is_class_name, patterns_of
from imnetprep.messages import ImnetprepError, WrongUsage
from imnetprep.outside_files import read_file

DEFAULT = "ilsvrc2012"
# Each with the folder of this package where its definition lies, as NAME.toml.
_FOLDERS = {
    "ilsvrc2012": "ilsvrc2012",
    "imagenette": "imagenette",
    "imagenette-320": "imagenette",
    "imagenette-160": "imagenette",
    "imagewoof": "imagewoof",
    "imagewoof-320": "imagewoof",
    "imagewoof-160": "imagewoof",
    "tiny-imagenet": "tiny-imagenet",
    "cifar10": "cifar10",
    "cifar10-jpeg": "cifar10",
    "mnist": "mnist",
}
BUILT_IN = tuple(_FOLDERS)
DEFINITION = "dataset.toml"
FORMS = ("tar", "tar-of-tars", "tar.gz", "tar.xz", "zip", "idx.gz")
CONTENTS = ("cifar-batches",)

# The train list of ILSVRC2012 has 5 MB; a small file can unpack to any size.
_LARGEST_FILE_BYTES = 256 << 20
_UNREADABLE = (
    *(ValueError, LookupError, TypeError, OverflowError),
    *(EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError),
)
# What a split's table names, beside the files of the definition.
_LISTS = ("names", "labels")
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class Split(StrEnum):
    """A part of a dataset. The test split has images and no labels."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


@dataclass(frozen=True)
class Synset:
    """A class: `label` is the 0-based rank of its wnid, `ilsvrc_id` the devkit's 1-based number."""

    label: int
    wnid: str
    ilsvrc_id: int | None
    words: str

    @property
    def name(self) -> str:
        """The first of the words, `tench`; a class of one's own is called as its folder is."""
        return self.wnid if self.words == self.wnid else self.words.split(",")[0]


@dataclass(frozen=True, eq=False)
class Archive:
    """One published file; an unknown is None or absent.

    `members` has the pattern of the members' paths for each split in it, where the archive is not
    just the samples of one; `other_members` are globs of what else lies among them. `content`: what
    its members hold that are no samples themselves. `packaging`: which way to pack the dataset it
    is part of, if not the published one. `labels`: the archive with the labels of what is in it;
    that is `labels_of` the same split.
    """

    name: str
    splits: tuple[Split, ...]
    form: str | None
    members: Mapping[Split, str]
    other_members: tuple[str, ...]
    content: str | None
    packaging: str | None
    size_bytes: int | None
    digests: Mapping[str, str]
    url: str | None
    torrent: str | None
    magnet: str | None
    labels: "Archive | None" = None
    labels_of: tuple[Split, ...] = ()

    @property
    def split(self) -> Split | None:
        """The split that it holds, or has the labels of, if it is one."""
        (split, *rest) = self.splits or self.labels_of or (None,)
        return None if rest else split


@dataclass(frozen=True)
class Dataset:
    """A dataset; `read` gives the bytes of its definition and of the files that names.

    `part_of`: the one whose archives hold it, where it is a subset of one.
    """

    name: str
    title: str
    terms: str | None
    archives: tuple[Archive, ...]
    table: Mapping[str, Any]
    read: Callable[[str], bytes]
    built_in: bool
    part_of: "Dataset | None" = None

    @property
    def published(self) -> "Dataset":
        """The dataset whose archives hold it: the one that it is part of, or it itself."""
        return self.part_of or self

    @property
    def is_own(self) -> bool:
        """Was it made of a folder of one's own, so that no archives have its images?"""
        return not self.built_in and self.part_of is None and not self.archives

    @property
    def orientation_applied(self) -> bool:
        """Are images turned as their EXIF says? Published accuracies were reached without."""
        return bool(self.published.table.get("orientation") == "applied")

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits that can be organized: those with labels."""
        return tuple(split for split in (Split.TRAIN, Split.VAL) if split in self.table)

    def archive(self, split: Split) -> Archive:
        """The first archive of `split`, as published. Raises ImnetprepError where there is none."""
        return self.archives_of(split)[0]

    def archives_of(self, split: Split, packaging: str | None = None) -> tuple[Archive, ...]:
        """The archives that hold `split` in one packaging. Raises as `archive`."""
        self.require_archives()
        archives = self.packed(packaging)
        if found := tuple(archive for archive in archives if split in archive.splits):
            return found
        splits = ", ".join(dict.fromkeys(split for archive in archives for split in archive.splits))
        raise ImnetprepError(f"{self.name} has no {split} split", hint=f"--split one of: {splits}")

    def has_archive(self, split: Split) -> bool:
        """Is `split` packed in an archive? Images of one's own are not."""
        return any(split in archive.splits for archive in self.archives)

    def require_archives(self) -> None:
        """Raise ImnetprepError where the dataset was made of a folder, and of no archives."""
        if not self.archives:
            raise ImnetprepError(
                f"{self.name} was made of a folder of images, and has no archives",
                hint="imnetprep adopt FOLDER makes a root of its class folders",
            )

    def archives_for(self, splits: Sequence[Split]) -> list[Archive]:
        """The published archives of `splits`, each once, and those of their labels.

        Raises as `archive`.
        """
        archives = [each for split in splits for each in self.archives_of(split)]
        return list(dict.fromkeys(own for each in archives for own in with_labels(each)))

    def packed(self, packaging: str | None) -> tuple[Archive, ...]:
        """The archives with splits that make up one packaging."""
        return tuple(each for each in self.archives if each.splits and each.packaging == packaging)

    @property
    def packagings(self) -> tuple[str | None, ...]:
        """The ways in which its splits are packed, the published one (None) first."""
        packagings = dict.fromkeys(each.packaging for each in self.archives if each.splits)
        return tuple(packagings) or (None,)

    @cached_property
    def synsets(self) -> tuple[Synset, ...]:
        """All classes in the order of their labels."""
        with _reading(self.table.get("synsets", DEFINITION)):
            return tuple(
                Synset(
                    label=label,
                    wnid=row["wnid"],
                    ilsvrc_id=int(row["ilsvrc_id"]) if row.get("ilsvrc_id") else None,
                    words=row.get("words") or row["wnid"],
                )
                for label, row in enumerate(self._synset_rows)
            )

    @cached_property
    def label_of_wnid(self) -> Mapping[str, int]:
        """The label of each wnid."""
        return {row["wnid"]: label for label, row in enumerate(self._synset_rows)}

    @cached_property
    def _synset_rows(self) -> list[dict[str, str]]:
        if (file := self.table.get("synsets")) is None:
            lists = self._file_names.values()
            classes = {
                wnid for each in lists if isinstance(each, LabelledNames) for wnid in each.ranges
            }
            return [{"wnid": wnid} for wnid in sorted(classes)]
        with _reading(file):
            lines = self._text(file).replace("\r\n", "\n").removesuffix("\n").split("\n")
            header = lines[0].split("\t")
            rows = [dict(zip(header, line.split("\t"), strict=True)) for line in lines[1:]]
            wnids = [row["wnid"] for row in rows]
        for line, (predecessor, wnid) in enumerate(itertools.pairwise(["", *wnids]), start=2):
            if wnid <= predecessor or not is_class_name(wnid):
                problem = "is there twice" if wnid == predecessor else "is not in order"
                if not is_class_name(wnid):
                    problem = "is no name of a class"
                raise ImnetprepError(
                    f"{file}, line {line}: {wnid!r} {problem}",
                    hint="sort the file by its column wnid: a label is the rank of its class",
                )
        return rows

    def numbers(self, split: Split) -> "tuple[array[int], ...] | None":
        """The numbers in the file names of `split`, ascending, an array a label; or None."""
        if split not in self._numbers:
            names = self._file_names[split]
            if isinstance(names, LabelledNames):
                self._numbers[split] = self._labelled_numbers(split, names)
            elif "names" in self.table[split]:
                self._numbers[split] = self._read_numbers(self.table[split]["names"])
        return self._numbers.get(split)

    @cached_property
    def _numbers(self) -> "dict[Split, tuple[array[int], ...]]":
        return {}

    def _read_numbers(self, file: str) -> "tuple[array[int], ...]":
        """A line a class: its wnid, then the difference of each number to the one before it."""
        with _reading(file):
            lines = [line.split() or [""] for line in self._text(file).splitlines()]
        if [words[0] for words in lines] != [row["wnid"] for row in self._synset_rows]:
            raise ImnetprepError(
                f"{file}: its lines are not the {len(self._synset_rows)} classes in order",
                hint="one line a class, in the order of the synsets (docs/catalog.md)",
            )
        with _reading(file):
            return tuple(array("I", itertools.accumulate(map(int, words[1:]))) for words in lines)

    def _labelled_numbers(self, split: Split, names: LabelledNames) -> "tuple[array[int], ...]":
        if strangers := sorted(names.ranges.keys() - self.label_of_wnid.keys()):
            raise ImnetprepError(
                f"{self.table[split]['labels']}: the classes {', '.join(strangers)} are not in"
                f" {self.table['synsets']}",
                hint="a line there for each class, sorted by wnid (docs/catalog.md)",
            )
        return tuple(array("I", names.ranges.get(wnid, ())) for wnid in self.label_of_wnid)

    @cached_property
    def _labels_of_numbers(self) -> "dict[Split, Mapping[int, int]]":
        return {}

    def _label_of_number(self, split: Split) -> Mapping[int, int]:
        if split not in self._labels_of_numbers:
            numbers = self.numbers(split) or ()
            self._labels_of_numbers[split] = {
                number: label for label, of_label in enumerate(numbers) for number in of_label
            }
        return self._labels_of_numbers[split]

    def samples(self, split: Split) -> int:
        """How many samples `split` has."""
        samples = self.table[split].get("samples")
        return sum(self.counts(split)) if samples is None else int(samples)

    def counts(self, split: Split) -> tuple[int, ...]:
        """How many samples of `split` each label has."""
        if split not in self._counts:
            if (numbers := self.numbers(split)) is not None:
                self._counts[split] = tuple(map(len, numbers))
            else:
                per_class = self.table[split]["samples_per_class"]
                classes = len(self._synset_rows)
                is_one = isinstance(per_class, int)
                self._counts[split] = (per_class,) * classes if is_one else tuple(per_class)
                if len(self._counts[split]) != classes:
                    raise ImnetprepError(
                        f"{split}: samples_per_class has {len(per_class)} numbers, and there are"
                        f" {classes:,} classes",
                        hint="one number for all classes, or one for each (docs/catalog.md)",
                    )
        return self._counts[split]

    @cached_property
    def _counts(self) -> dict[Split, tuple[int, ...]]:
        return {}

    def label_of(self, split: Split, name: str, wnid: str | None = None) -> int | None:
        """The label of the sample called `name`; None if the dataset has no such sample.

        `wnid` is the class that it was found in, which counts where several classes have the name.
        """
        parts = self._file_names[split].parse(name, wnid)
        if parts is None:
            return None
        own_wnid, number = parts
        if own_wnid is None:
            return self._label_of_number(split).get(number)
        label = self.label_of_wnid.get(own_wnid)
        if label is None or (numbers := self.numbers(split)) is None:
            return label
        at = bisect_left(numbers[label], number)
        return label if at < len(numbers[label]) and numbers[label][at] == number else None

    def number_of(self, split: Split, wnid: str, name: str) -> int:
        """The number of the name of a sample of that class."""
        parts = self._file_names[split].parse(name, wnid)
        assert parts is not None, name
        return parts[1]

    def name_of(self, split: Split, wnid: str, number: int) -> str:
        """The name with that number, whether the dataset has such a sample or not."""
        return self._file_names[split].format(wnid, number)

    def names(self, split: Split, label: int) -> Iterator[str] | None:
        """The file names of `split` with `label`, or None where only their count is known."""
        if (numbers := self.numbers(split)) is None:
            return None
        file_names, wnid = self._file_names[split], self.synsets[label].wnid
        return (file_names.format(wnid, number) for number in numbers[label])

    def definition(self) -> dict[str, bytes]:
        """The files that make this dataset, by name: what a manifest keeps of one not built in."""
        tables = [self.table[split] for split in self.splits]
        files = [self.table["synsets"]] if "synsets" in self.table else []
        files += [table[key] for table in tables for key in _LISTS if key in table]
        if self.part_of is None:
            files += [archive.torrent for archive in self.archives if archive.torrent]
        elif not self.part_of.built_in:
            files += [f"{self.table['part_of']}/{name}" for name in self.part_of.definition()]
        return {name: self.read(name) for name in [DEFINITION, *files]}

    @cached_property
    def fingerprint(self) -> str:
        """A text that two datasets share only if their definitions are equal to the byte."""
        if self.built_in:
            return self.name
        digest = hashlib.sha256(repr(sorted(self.definition().items())).encode())
        return f"{self.name} {digest.hexdigest()}"

    def preload(self, split: Split) -> None:
        """Read now all that `label_of` needs of `split`, before threads ask for it at once."""
        _ = self.counts(split), self.label_of_wnid, self.synsets
        if not self._file_names[split].says_wnid:
            _ = self._label_of_number(split)
        if self.part_of is not None:
            self.part_of.preload(split)

    @cached_property
    def _file_names(self) -> Mapping[Split, FileNames]:
        return {split: self._names_of(self.table[split]) for split in self.splits}

    def _names_of(self, table: Mapping[str, Any]) -> FileNames:
        if (file := table.get("labels")) is None:
            return patterns_of(table)
        with _reading(file):
            lines = self._text(file).removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
            return LabelledNames(lines[:-1] if not lines[-1] else lines)

    def _text(self, name: str) -> str:
        body = self.read(name)
        if name.endswith((".gz", ".xz")):
            open_file = gzip.open if name.endswith(".gz") else lzma.open
            with open_file(io.BytesIO(body)) as file:
                body = file.read(_LARGEST_FILE_BYTES + 1)
        if len(body) > _LARGEST_FILE_BYTES:
            raise ValueError(f"it has more than {_LARGEST_FILE_BYTES:,} bytes")
        return body.decode()


@contextmanager
def _reading(file: str) -> Iterator[None]:
    """Report what goes wrong in the block as the fault of `file`, which the definition names."""
    try:
        yield
    except _UNREADABLE as error:
        problem = f"{type(error).__name__}: {error}"
        raise ImnetprepError(
            f"{file} cannot be read ({problem})", hint="docs/catalog.md has the form of it"
        ) from error


def load_dataset(name: str) -> Dataset:
    """The built-in dataset of that name, or the user's own from a `.toml` file."""
    if name in BUILT_IN:
        folder = Path(__file__).parent / _FOLDERS[name]
        definition = folder / f"{name}.toml"
        return parse_dataset(
            lambda file: (definition if file == DEFINITION else folder / file).read_bytes(),
            built_in=True,
        )
    path = Path(name)
    if path.suffix != ".toml":
        raise WrongUsage(
            f"no dataset is called {name!r}",
            hint=f"--dataset {'|'.join(BUILT_IN)}, or the path of a .toml file (docs/catalog.md)",
        )

    def read(file: str) -> bytes:
        return read_file(path if file == DEFINITION else path.parent / file)

    try:
        text = read_file(path).decode(errors="replace")
        _refuse(path, list(key_problems(text, list(Split))))
        dataset = parse_dataset(read, place=str(path))
        dataset.definition()  # every file that it names is there
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise ImnetprepError(
            f"{error.filename}: {error.strerror}",
            hint="a dataset is a .toml file and the files it names beside it (docs/catalog.md)",
        ) from error
    sums = {split: sum(dataset.counts(split)) for split in dataset.splits}
    _refuse(
        path,
        [
            f"{line_of(text, (split, 'samples'))}{split} has samples = {dataset.samples(split)},"
            f" and its classes have {images}"
            for split, images in sums.items()
            if dataset.samples(split) != images
        ],
    )
    _refuse(path, list(_strange_classes(dataset)))
    return dataset


def _strange_classes(dataset: Dataset) -> Iterator[str]:
    """Classes that only val has, as one that is misspelt has them."""
    if all("labels" in dataset.table.get(split, {}) for split in (Split.TRAIN, Split.VAL)):
        train, val = dataset.counts(Split.TRAIN), dataset.counts(Split.VAL)
        for synset in dataset.synsets:
            if val[synset.label] and not train[synset.label]:
                yield f"{synset.wnid} is a class of val that train has not"


def _refuse(path: Path, problems: list[str]) -> None:
    if problems:
        raise ImnetprepError(
            f"{path}: {'; '.join(problems)}", hint="docs/catalog.md has the form of a definition"
        )


def parse_dataset(
    read: Callable[[str], bytes],
    *,
    built_in: bool = False,
    whole: bool = False,
    place: str = "the dataset's definition",
) -> Dataset:
    """The dataset that the bytes behind `read` define. Raises ImnetprepError if they do not.

    `whole`: refuse one that is part of another. `place` is what an error calls the definition.
    """
    try:
        table = tomllib.loads(read(DEFINITION).decode())
        for key in ("name", "title", "terms", "synsets", "part_of"):
            _typed(table, key, str)
        if whole and "part_of" in table:
            raise ValueError(f"{table['name']} is part of another dataset itself")
        part_of = _whole_of(table["part_of"], read) if "part_of" in table else None
        archives = part_of.archives if part_of else _parse_archives(table)
        names = [table["name"], *(archive.name for archive in archives)]
        names += [table["synsets"]] if "synsets" in table else []
        for split in (Split.TRAIN, Split.VAL):
            if split in table:
                _check_split(split, table[split])
                names += [table[split][key] for key in _LISTS if key in table[split]]
                if "synsets" not in table and "labels" not in table[split]:
                    raise KeyError("synsets")
                if part_of and split not in part_of.splits:
                    raise ValueError(f"{part_of.name}, of which it is part, has no {split} split")
        for name in names:
            if not SAFE_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is not a plain file name")
        return Dataset(
            name=table["name"],
            title=table.get("title", table["name"]),
            terms=part_of.terms if part_of else table.get("terms"),
            archives=archives,
            table=table,
            read=read,
            built_in=built_in,
            part_of=part_of,
        )
    except KeyError as error:
        raise _bad_definition(place, f"{error.args[0]!r} is missing") from error
    except (ValueError, TypeError, AttributeError, RecursionError, re.error) as error:
        raise _bad_definition(place, str(error)) from error


def _whole_of(name: str, read: Callable[[str], bytes]) -> Dataset:
    """The built-in dataset of that name, or the one whose files lie in the folder of that name."""
    if name in BUILT_IN:
        return load_dataset(name)
    if not SAFE_NAME.fullmatch(name):
        raise ValueError(f"part_of {name!r} is neither built in nor a plain folder name")
    return parse_dataset(lambda file: read(f"{name}/{file}"), whole=True)


def _bad_definition(place: str, problem: str) -> ImnetprepError:
    return ImnetprepError(f"{place} does not hold: {problem}", hint="docs/catalog.md has the form")


def _check_split(split: Split, table: Mapping[str, Any]) -> None:
    for key, kind in (("samples", int), ("names", str), ("labels", str)):
        _typed(table, key, kind)
    per_class = table.get("samples_per_class", 0)
    for number in per_class if isinstance(per_class, list) else [per_class]:
        _typed({"samples_per_class": number}, "samples_per_class", int)
    if "labels" in table:
        return
    if "samples" not in table:
        raise KeyError("samples")
    says_wnid = patterns_of(table).says_wnid
    if "names" not in table and not ("samples_per_class" in table and says_wnid):
        raise ValueError(f"{split} needs names, or samples_per_class and {{wnid}} in its file_name")


def _parse_archives(table: Mapping[str, Any]) -> tuple[Archive, ...]:
    tables = table.get("archives", ())
    archives = {each["name"]: _parse_archive(each) for each in tables}
    if len(archives) != len(tables):
        raise ValueError("two of its archives have one name")
    for each in tables:
        _typed(each, "labels", str)
        if ("labels" in each) != (each.get("form") == "idx.gz"):
            raise ValueError(f"{each['name']}: idx.gz has labels, and nothing else has")
    for each in tables:
        if "labels" in each:
            images = archives[each["name"]]
            labels = _labels_of(images, archives.get(each["labels"]))
            archives |= {labels.name: labels, images.name: replace(images, labels=labels)}
    return tuple(archives.values())


def _labels_of(images: Archive, labels: Archive | None) -> Archive:
    """The archive with the labels of `images`. Raises ValueError where `labels` cannot be that."""
    if labels is None:
        raise ValueError(f"the labels of {images.name} are in no archive that is listed")
    if len(images.splits) != 1 or images.content is not None:
        raise ValueError(f"{images.name} has more than the images of one split")
    if labels.splits or labels.labels_of or labels.torrent or labels.magnet:
        raise ValueError(f"{labels.name} has more than the labels of {images.name}, or a torrent")
    if not labels.digests:
        raise ValueError(f"{labels.name} has no digest, so nothing would prove the labels")
    return replace(labels, labels_of=images.splits)


def with_labels(archive: Archive) -> tuple[Archive, ...]:
    """The archive, and the one that has the labels of what is in it, if there is one."""
    return (archive, archive.labels) if archive.labels else (archive,)


def _parse_archive(table: Mapping[str, Any]) -> Archive:
    form, members = table.get("form"), table.get("members", {})
    splits = tuple(map(Split, members)) or ((Split(table["split"]),) if "split" in table else ())
    if splits and form not in FORMS:
        raise ValueError(f"the form of {table['name']} is {form!r}, not one of {', '.join(FORMS)}")
    if splits and not members and form not in ("tar", "tar-of-tars"):
        raise ValueError(f"{table['name']} needs members: where in it the samples are")
    if table.get("content") not in (None, *CONTENTS):
        raise ValueError(f"the content of {table['name']} is not {' or '.join(CONTENTS)}")
    _typed(table, "size_bytes", int)
    for key in ("url", "magnet", "packaging", *DIGEST_DIGITS):
        _typed(table, key, str)
    if not SAFE_NAME.fullmatch(table.get("torrent", "none")):
        raise ValueError(f"{table['torrent']!r} is not a plain file name")
    return Archive(
        name=table["name"],
        splits=splits,
        form=form,
        members={Split(split): str(pattern) for split, pattern in members.items()},
        other_members=tuple(table.get("beside", ())),
        content=table.get("content"),
        packaging=table.get("packaging"),
        size_bytes=table.get("size_bytes"),
        digests={kind: table[kind] for kind in DIGEST_DIGITS if kind in table},
        url=table.get("url"),
        torrent=table.get("torrent"),
        magnet=table.get("magnet"),
    )


def _typed(table: Mapping[str, Any], key: str, kind: type) -> None:
    """Raise ValueError where the value of `key` is not of that kind, or is below zero."""
    value = table.get(key)
    below_zero = isinstance(value, int) and value < 0
    if value is not None and (type(value) is not kind or below_zero):
        raise ValueError(f"{key} = {value!r}")


class Layout(StrEnum):
    """How the samples of a split lie on the disk: a file each, or in shards.

    `parent` is the folder of its splits, as `Root` has it. `in_shards`: samples share files, and
    the manifest lists the place of each.
    """

    parent: str
    in_shards: bool

    IMAGEFOLDER = "imagefolder", "", False
    WEBDATASET = "webdataset", "shards", True

    def __new__(cls, name: str, parent: str = "", in_shards: bool = False) -> Self:
        """One line of the table above. (`Layout(name)` looks one up.)"""
        layout = str.__new__(cls, name)
        layout._value_, layout.parent, layout.in_shards = name, parent, in_shards
        return layout


# How people call the folder that is trained on.
TRAIN_FOLDERS = ("train", "training")


@dataclass(frozen=True)
class Root:
    """The dataset on this machine: archives, the organized splits, their manifest, the runs.

    `runs_folder` is where trainings lie whose dataset is not to be written to.
    """

    path: Path
    runs_folder: Path | None = None

    @property
    def is_tree(self) -> bool:
        """Does a plain tree of images lie here, which was neither organized nor adopted?"""
        if self.manifest.exists() or not self.path.is_dir():
            return False
        return any(each.name.lower() in TRAIN_FOLDERS for each in self.path.iterdir())

    @property
    def archives(self) -> Path:
        """The published files; an unfinished one is `*.part`, beside its state."""
        return self.path / "archives"

    @property
    def download_journal(self) -> Path:
        """How far the parts of archives from servers are written (SQLite). Local, never synced."""
        return self.archives / ".download.db"

    @property
    def organizing(self) -> Path:
        """Unfinished splits, and `journal.db`. Local, never synced."""
        return self.path / ".organizing"

    @property
    def journal(self) -> Path:
        """What is done of unfinished splits."""
        return self.organizing / "journal.db"

    @property
    def has_journal(self) -> bool:
        """Is there a journal to read? Opening an empty file would write its tables."""
        return self.journal.exists() and self.journal.stat().st_size > 0

    @property
    def manifest(self) -> Path:
        """The list of all samples (SQLite)."""
        return self.path / "manifest.db"

    @property
    def receipt(self) -> Path:
        """Which bytes, from where, proved how, by which version (JSON)."""
        return self.path / "receipt.json"

    @property
    def shard_cache(self) -> Path:
        """Shards that `--shards` fetched from another place. Local, never synced."""
        return self.path / ".shards"

    def split(self, split: str, layout: Layout = Layout.IMAGEFOLDER) -> Path:
        """The folder of an organized split: of its class folders, or of its shards."""
        return self.path / layout.parent / split

    def run(self, name: str) -> Path:
        """The folder of one training."""
        return self.runs / name

    @property
    def runs(self) -> Path:
        """The folder of all trainings; nothing is written into a plain tree."""
        own = self.path / "runs"
        return self.runs_folder or (Path("runs") if self.is_tree and not own.exists() else own)

    def place(self, name: str) -> Path:
        """The file or folder of this relative path, as a bucket has it: `runs/a/best.pt`."""
        top, _, rest = name.partition("/")
        return self.runs / rest if top == "runs" else self.path / name
