"""The class of each image of a flat folder: by its file name, or by a table of both."""

import csv
import io
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from imnetprep.catalog.datasets import Split
from imnetprep.catalog.file_names import is_class_name, is_plain
from imnetprep.messages import ImnetprepError, WrongUsage
from imnetprep.own_images.folder import ImageFolder, as_text, read_class_folders, read_flat_folder

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
    content.splits[Split.TRAIN] = _by_class(content, files, labels)
    return content


def _compiled(rule: str) -> re.Pattern[str]:
    if rule == "name":
        return re.compile(r"^([^._\s-]+)[._\s-]")
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


def _labels_of_table(
    content: ImageFolder, files: Mapping[str, str], table: Path, columns: str | None
) -> dict[str, str]:
    names, labels = _Names(files), dict[str, str]()
    for line, (file, label) in _rows(table, columns):
        path = names.find(file)
        if path is None:
            content.problems[f"{table}, line {line},"] = f"names {file}, which is not there"
        elif labels.setdefault(path, label) != label:
            reason = f"is {label} in line {line} of {table.name}, and {labels[path]} before"
            content.problems[files[path]] = reason
    content.problems |= {
        files[path]: f"is not in {table.name}" for path in files if path not in labels
    }
    return labels


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


def _by_class(
    content: ImageFolder, files: Mapping[str, str], labels: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    """The files by class and by a name of their own in it: their folders in front, where two have
    one name.
    """
    classes: dict[str, dict[str, str]] = defaultdict(dict)
    for path, wnid in labels.items():
        name = as_text(PurePosixPath(path).name)
        if name in classes[wnid]:
            name = as_text(path.replace("/", "_"))
        if not is_class_name(wnid):
            content.problems[files[path]] = f"is of {wnid!r}, which is no name of a class"
        elif not is_plain(name) or name in classes[wnid]:
            content.problems[files[path]] = "has a name that cannot be kept"
        else:
            classes[wnid][name] = files[path]
    return {wnid: of_class for wnid, of_class in sorted(classes.items()) if of_class}
