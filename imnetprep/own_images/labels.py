"""The class of each image of a flat folder: by its file name, or by a table of both."""

import csv
import io
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from imnetprep.catalog.file_names import is_class_name, is_plain
from imnetprep.messages import ImnetprepError, WrongUsage, count
from imnetprep.own_images.folder import raise_problems

# What tables call the two columns, in lower case and without _ and -.
_FILE_COLUMNS = (
    *("file", "filename", "filepath", "fname", "image", "imagename", "imageid", "imagepath", "img"),
    *("path", "name", "id"),
)
_LABEL_COLUMNS = (
    *("label", "labels", "class", "classname", "category", "target", "breed", "species", "wnid"),
    *("predictionstring", "y"),
)


def label_by_name(files: Mapping[str, str], rule: str) -> dict[str, dict[str, str]]:
    """The files of each class, where a name says it: "name", the word before the first separator;
    else a regular expression, whose first group is the class.

    Raises WrongUsage on an expression that is none, ImnetprepError with all names without a class.
    """
    pattern = re.compile(r"([^._\s-]+)[._\s-]") if rule == "name" else _compiled(rule)
    labels = {path: match[1] for path in files if (match := pattern.match(Path(path).name))}
    if rest := sorted(path for path in files if not labels.get(path)):
        raise ImnetprepError(
            f"{count(len(rest), 'file name')} of {len(files):,} say no class by"
            f" --label-from {rule}: {rest[0]}",
            hint="--label-from takes a regular expression with the class as its group:"
            r" --label-from '(.+)_\d+'",
        )
    return _by_class(files, labels)


def _compiled(rule: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(rule)
    except re.error as error:
        raise WrongUsage(
            f"--label-from {rule!r} is no regular expression: {error}", hint="--label-from name"
        ) from error
    if not pattern.groups:
        raise WrongUsage(
            f"--label-from {rule!r} has no group for the class",
            hint=r"--label-from '(.+)_\d+', or --label-from name",
        )
    return pattern


def label_by_table(
    files: Mapping[str, str], table: Path, columns: str | None
) -> dict[str, dict[str, str]]:
    """The files of each class as `table` says it: CSV, TSV, or JSON lines.

    A file is named by its path below the folder, its name, or its name without an ending.
    Raises ImnetprepError on a table that cannot be read, WrongUsage on columns that it lacks.
    """
    names = _Names(files)
    labels: dict[str, str] = {}
    problems: dict[str, str] = {}
    for line, (file, label) in _rows(table, columns):
        path = names.find(file)
        if path is None:
            problems[f"line {line}"] = f"names {file}, which is not there"
        elif labels.setdefault(path, label) != label:
            problems[f"line {line}"] = f"says {label} of {file}, and a line before {labels[path]}"
    problems |= {files[path]: "is in no line" for path in files if path not in labels}
    if problems:
        raise_problems(table, problems)
    return _by_class(files, labels)


class _Names:
    """The images by what a table may call them; what several could mean is none of them."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self._paths: dict[str, str | None] = {}
        for path in files:
            pure = PurePosixPath(path)
            for name in {path, pure.name, pure.stem, str(pure.with_suffix(""))}:
                self._paths[name] = path if name not in self._paths or name == path else None

    def find(self, file: str) -> str | None:
        parts = PurePosixPath(file.replace("\\", "/")).parts
        for at in range(len(parts)):  # a table may know more folders than lie here
            if (path := self._paths.get("/".join(parts[at:]))) is not None:
                return path
        return None


def _rows(table: Path, columns: str | None) -> Iterator[tuple[int, tuple[str, str]]]:
    """The line, the file and the class of each row."""
    try:
        text = table.read_text("utf-8-sig")
    except OSError as error:
        raise ImnetprepError(f"{table}: {error.strerror}", hint="--labels FILE.csv") from error
    except UnicodeDecodeError as error:
        raise ImnetprepError(f"{table} is no text: {error}", hint="save it as UTF-8") from error
    if table.suffix.lower() in (".jsonl", ".ndjson"):
        rows = list(_json_rows(table, text))
        header = list(rows[0]) if rows else []
    else:
        first = text.partition("\n")[0]
        reader = csv.DictReader(io.StringIO(text), delimiter="\t" if "\t" in first else ",")
        header, rows = list(reader.fieldnames or ()), list(reader)
    file_column, label_column = _chosen_columns(table, header, columns)
    for line, row in enumerate(rows, start=2 if table.suffix.lower() == ".csv" else 1):
        file, label = row.get(file_column), row.get(label_column)
        if file in (None, "") or label in (None, ""):
            raise ImnetprepError(
                f"{table}, line {line}: no {file_column} or no {label_column}",
                hint="a file and a class in every line",
            )
        if label_column.lower() == "predictionstring":  # Kaggle's: boxes come after the class
            label = str(label).split()[0]
        yield line, (str(file), str(label))


def _json_rows(table: Path, text: str) -> Iterator[dict[str, object]]:
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ImnetprepError(
                f"{table}, line {number}: {error}", hint="one JSON object a line"
            ) from error
        if not isinstance(row, dict):
            raise ImnetprepError(
                f"{table}, line {number} is no object", hint="one JSON object a line"
            )
        yield row


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


def _by_class(files: Mapping[str, str], labels: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The files by class and by a name of their own in it: the path's folders in front, where
    two have one name.
    """
    classes: dict[str, dict[str, str]] = defaultdict(dict)
    problems: dict[str, str] = {}
    for path in sorted(files):
        wnid, name = labels[path], PurePosixPath(path).name
        if name in classes[wnid]:
            name = path.replace("/", "_")
        if not is_class_name(wnid):
            problems[path] = f"is of {wnid!r}, which is no name of a class"
        elif not is_plain(name) or name in classes[wnid]:
            problems[path] = f"has a name that cannot be kept in {wnid}"
        classes[wnid][name] = files[path]
    if problems:
        raise_problems(Path(), problems)
    return dict(classes)
