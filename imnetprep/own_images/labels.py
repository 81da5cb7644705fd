"""The class of each image of a flat folder: by its file name, or by a table of both."""

import csv
import io
import json
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from imnetprep.catalog.datasets import Split
from imnetprep.catalog.file_names import is_class_name
from imnetprep.messages import ImnetprepError, WrongUsage
from imnetprep.own_images.content import ImageFolder
from imnetprep.own_images.folder import as_text, is_file_name, read_class_folders, read_flat_folder

# What tables call the two columns, in lower case and without _ and -.
_FILE_COLUMNS = (
    *("file", "filename", "filepath", "fname", "image", "imagename", "imageid", "imagepath", "img"),
    *("path", "name", "id"),
)
_LABEL_COLUMNS = (
    *("label", "labels", "class", "classname", "category", "target", "breed", "species", "wnid"),
    *("predictionstring", "y"),
)


def read_labelled(
    folder: Path, *, rule: str | None, table: Path | None, columns: str | None
) -> ImageFolder:
    """The images of `folder` by class, all of them as train: of class folders, or flat with `rule`
    or `table`.

    `rule`: "name", the class is the word of the file name before its first separator; else a
    regular expression whose first group is the class. `table`: CSV, TSV or JSON lines that name a
    file by its path below the folder, its name, or its name without an ending, in one of two
    `columns` ("FILE,LABEL"; None: those of usual names).

    Raises WrongUsage on a rule or columns that cannot be, ImnetprepError on a table that cannot be
    read and as `read_class_folders`; images without a class are problems of the folder.
    """
    if rule is None and table is None:
        return read_class_folders(folder)
    content = read_flat_folder(folder, deep=table is not None)
    files = content.splits[Split.TRAIN][""]
    if table is not None:
        labels = _labels_of_table(content, files, table, columns)
    else:
        pattern = _compiled(rule or "")
        matches = {path: pattern.search(Path(path).name) for path in files}
        labels = {path: match[1] for path, match in matches.items() if match and match[1]}
        says = {files[path]: "says no class in its name" for path in files if path not in labels}
        content.problems |= says
        if len(labels) > 2 and len(set(labels.values())) == len(labels):
            raise ImnetprepError(
                f"every image of {folder} has a class of its own by --label-from {rule}",
                hint=r"--label-from takes a regular expression, such as '(.+)_\d+', or name",
            )
    content.splits[Split.TRAIN] = _by_class(content, files, labels)
    return content


def _compiled(rule: str) -> re.Pattern[str]:
    if rule == "name":
        return re.compile(r"^([^._\s-]+)[._\s-]")
    try:
        pattern = re.compile(rule)
    except (re.error, OverflowError, RecursionError) as error:
        raise WrongUsage(
            f"--label-from {rule!r} is no regular expression: {error}", hint="--label-from name"
        ) from error
    if not pattern.groups:
        raise WrongUsage(
            f"--label-from {rule!r} has no group for the class",
            hint=r"--label-from '(.+)_\d+', or --label-from name",
        )
    return pattern


def _labels_of_table(
    content: ImageFolder, files: Mapping[str, str], table: Path, columns: str | None
) -> dict[str, str]:
    rows = list(_rows(table, columns))
    names, labels = _Names(files, [file for _, file, _ in rows]), dict[str, str]()
    for line, file, label in rows:
        path = names.find(file)
        if path is None:
            content.problems[f"{table}, line {line},"] = f"names {file}, {names.reason(file)}"
        elif labels.setdefault(path, label) != label:
            reason = f"is {label} in line {line} of {table.name}, and {labels[path]} before"
            content.problems[files[path]] = reason
    if not labels:
        raise ImnetprepError(
            f"none of the {len(rows):,} lines of {table} names an image of {content.folder}",
            hint="--columns FILE,LABEL names the two columns",
        )
    rest = (files[path] for path in files if path not in labels)
    content.problems |= dict.fromkeys(rest, f"is not in {table.name}")
    return labels


class _Names:
    """The images by what a table may call them; what several could mean is none of them.

    A path is below the folder, or below one that all paths of the table begin with; a name without
    a folder may be that of an image in any.
    """

    def __init__(self, files: Mapping[str, str], rows: Sequence[str]) -> None:
        self._files = files
        self._names: dict[str, str | None] = {}
        for path in files:
            pure = PurePosixPath(path)
            for name in {pure.name, pure.stem, str(pure.with_suffix(""))} - {path}:
                self._names[name] = None if name in self._names else path
        parents = {str(PurePosixPath(_plain_path(file)).parent) for file in rows}
        try:
            self._above = os.path.commonpath(parents)
        except ValueError:  # some from the root, or none at all
            self._above = ""

    def find(self, file: str) -> str | None:
        plain = _plain_path(file)
        for name in (plain, os.path.relpath(plain, self._above) if self._above else plain):
            if name in self._files:
                return name
            if (path := self._names.get(name)) is not None:
                return path
        return None

    def reason(self, file: str) -> str:
        return "which may be several" if _plain_path(file) in self._names else "which is not there"


def _plain_path(file: str) -> str:
    return str(PurePosixPath(file.replace("\\", "/")))


def _rows(table: Path, columns: str | None) -> Iterator[tuple[int, str, str]]:
    """The line, the file and the class of each row."""
    try:
        text = table.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ImnetprepError(f"{table} is no text: {error}", hint="save it as UTF-8") from error
    is_json = table.suffix.lower() in (".jsonl", ".ndjson")
    try:
        rows = list(_json_rows(text) if is_json else _csv_rows(text))
    except (csv.Error, ValueError, RecursionError) as error:
        raise ImnetprepError(
            f"{table} cannot be read: {error}",
            hint="a table is CSV or TSV with a first line of names, or one JSON object a line",
        ) from error
    header = list(rows[0][1]) if rows else []
    file_column, label_column = _chosen_columns(table, header, columns)
    for line, row in rows:
        file, label = (_as_word(row.get(column)) for column in (file_column, label_column))
        if label_column.lower() == "predictionstring":  # Kaggle's: boxes come after the class
            label = label.partition(" ")[0]
        if not file or not label:
            raise ImnetprepError(
                f"{table}, line {line}: no {file_column} or no {label_column}",
                hint="a file and a class in every line",
            )
        yield line, file, label


def _as_word(value: object) -> str:
    """A cell without spaces around it; "" for what is neither text nor a whole number."""
    is_word = isinstance(value, str | int) and not isinstance(value, bool)
    return str(value).strip() if is_word else ""


def _csv_rows(text: str) -> Iterator[tuple[int, dict[str, object]]]:
    first = text.partition("\n")[0]
    separator = max("\t;,", key=first.count)
    reader = csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True)
    header = [name.strip() for name in next(reader, [])]
    if len(set(header)) != len(header):
        raise ValueError("two of its columns have one name")
    for row in reader:
        if row:
            yield reader.line_num, dict(zip(header, row, strict=False))


def _json_rows(text: str) -> Iterator[tuple[int, dict[str, object]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f"line {number} is no object")
            yield number, row


def _chosen_columns(table: Path, header: Sequence[str], columns: str | None) -> tuple[str, str]:
    if columns is not None:
        file, comma, label = (each.strip() for each in columns.partition(","))
        if not comma or file not in header or label not in header:
            raise WrongUsage(
                f"{table} has no columns {columns!r}; it has {', '.join(header)}",
                hint="--columns FILE,LABEL",
            )
        return file, label
    plain = {each: re.sub(r"[\s_-]", "", each.lower()) for each in header}
    pairs = []
    for names in (_FILE_COLUMNS, _LABEL_COLUMNS):
        fits = sorted((names.index(plain[each]), each) for each in header if plain[each] in names)
        pairs.append([each for _, each in fits])
    if not all(pairs):
        raise WrongUsage(
            f"{table} has no columns known for files and classes; it has {', '.join(header)}",
            hint="--columns FILE,LABEL names them",
        )
    return pairs[0][0], pairs[1][0]


def _by_class(
    content: ImageFolder, files: Mapping[str, str], labels: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    """The files by class and by a name of their own in it, with their folders in front: what is
    added later changes no name.
    """
    classes: dict[str, dict[str, str]] = defaultdict(dict)
    for path, wnid in labels.items():
        name = as_text(path.replace("/", "_"))
        if not is_class_name(wnid):
            content.problems[files[path]] = f"is of {wnid!r}, which is no name of a class"
        elif not is_file_name(name) or name in classes[wnid]:
            content.problems[files[path]] = "has a name that cannot be kept"
        else:
            classes[wnid][name] = files[path]
    return {wnid: of_class for wnid, of_class in sorted(classes.items()) if of_class}
