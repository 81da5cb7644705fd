"""Tables of images and their classes as people write them: CSV, TSV, or JSON lines."""

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from imnetprep.messages import ImnetprepError, WrongUsage
from imnetprep.outside_files import read_text

# What tables call the two columns, in lower case and without _ and -.
_FILE_COLUMNS = (
    *("file", "filename", "filepath", "fname", "image", "imagename", "imageid", "imagepath", "img"),
    *("path", "name", "id"),
)
_LABEL_COLUMNS = (
    *("label", "labels", "class", "classname", "category", "target", "breed", "species", "wnid"),
    *("predictionstring", "y"),
)
_COLUMNS_HINT = "--columns FILE,LABEL names the two; --columns 1,2 counts them, without a header"


class Row(NamedTuple):
    """A line of a table. `surplus` cells of it, more than it has columns, are taken for parts of
    the file's name, which may have commas.
    """

    line: int
    file: str
    label: str
    surplus: int = 0


class ImageNames:
    """The images by what a table may call them; what several could mean is none of them.

    A path is below the folder, or below one that all `row_files` begin with; a name without a
    folder may be that of an image in any.
    """

    def __init__(self, files: Mapping[str, str], row_files: Iterable[str]) -> None:
        self._files = files
        self._names: dict[str, str | None] = {}
        for path in files:
            pure = PurePosixPath(path)
            for name in {pure.name, pure.stem, str(pure.with_suffix(""))} - {path}:
                self._names[name] = None if name in self._names else path
        parents = {str(PurePosixPath(_plain_path(file)).parent) for file in row_files}
        try:
            self._above = os.path.commonpath(parents)
        except ValueError:  # some from the root, or none at all
            self._above = ""

    def find(self, file: str) -> str | None:
        """The path of the image that a table calls `file`; None: of none, or of several."""
        plain = _plain_path(file)
        for name in (plain, os.path.relpath(plain, self._above) if self._above else plain):
            if name in self._files:
                return name
            if (path := self._names.get(name)) is not None:
                return path
        return None

    def reason(self, file: str) -> str:
        """Why `find` finds nothing."""
        return "which may be several" if _plain_path(file) in self._names else "which is not there"


def _plain_path(file: str) -> str:
    return str(PurePosixPath(file.replace("\\", "/")))


def read_table(table: Path, columns: str | None, files: Mapping[str, str]) -> list[Row]:
    """The rows of `table`, which names the images in `files`.

    `columns` is "FILE,LABEL", or "1,2" for a table without a header; None: columns of usual names,
    or two without a header, one of which names an image in the first line. Raises WrongUsage on
    columns that are not there, ImnetprepError on a table that cannot be read.
    """
    try:
        text = read_text(table)
    except UnicodeDecodeError as error:
        raise ImnetprepError(f"{table} is no text: {error}", hint="save it as UTF-8") from error
    is_json = table.suffix.lower() in (".jsonl", ".ndjson")
    try:
        if is_json:
            return list(_json_rows(table, text, columns))
        return list(_csv_rows(table, text, columns, files))
    except (csv.Error, ValueError, RecursionError) as error:
        raise ImnetprepError(
            f"{table} cannot be read: {error}",
            hint=f"a table is CSV or TSV, or one JSON object a line; {_COLUMNS_HINT}",
        ) from error


def label_columns(header: Sequence[str]) -> list[str]:
    """The columns that are called as those of classes are, the most usual first."""
    return _usual(header, _LABEL_COLUMNS)


def refuse_surplus(table: Path, row: Row) -> None:
    """Raise ImnetprepError where a line has more cells than the table has columns."""
    if row.surplus:
        raise ImnetprepError(
            f"{table}, line {row.line}: it has {row.surplus} more cells than the table has columns,"
            f" and no image is called {row.file!r}",
            hint=f'write "…" around a name with a comma; {_COLUMNS_HINT}',
        )


def _json_rows(table: Path, text: str, columns: str | None) -> Iterator[Row]:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f"line {number} is no object")
            rows.append((number, row))
    pair = _chosen_columns(table, list(rows[0][1]) if rows else [], columns)
    for number, row in rows:
        yield _row(table, number, pair, (_as_word(row.get(column)) for column in pair))


def _csv_rows(
    table: Path, text: str, columns: str | None, files: Mapping[str, str]
) -> Iterator[Row]:
    first = text.partition("\n")[0]
    separator = max("\t;,", key=first.count)
    lines = list(_csv_lines(text, separator))
    header = [name.strip() for name in lines[0].cells] if lines else []
    places = _counted(columns, header) or (
        columns is None and _of_first_line(lines, separator, files)
    )
    if places:
        pair = f"column {places[0] + 1}", f"column {places[1] + 1}"
        width = max(max(places) + 1, min(len(line.cells) for line in lines))
        width = width if columns else len(places)
    else:
        if len(set(header)) != len(header):
            raise ValueError("two of its columns have one name")
        pair = _chosen_columns(table, header, columns)
        places, width, lines = (
            (header.index(pair[0]), header.index(pair[1])),
            len(header),
            lines[1:],
        )
    for line in lines:
        cells, surplus = line.cells, len(line.cells) - width
        if surplus > 0:
            cells = _joined(line, separator, at=places[0], surplus=surplus)
        words = (cells[place].strip() if place < len(cells) else "" for place in places)
        row = _row(table, line.number, pair, words)
        yield row._replace(surplus=max(0, surplus))


class _Line(NamedTuple):
    """The cells of a line, without empty ones at its end; its `text` if it is one line."""

    number: int
    cells: list[str]
    text: str


def _csv_lines(text: str, separator: str) -> Iterator[_Line]:
    texts, last_number = text.split("\n"), 0
    reader = csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True)
    for cells in reader:
        number = reader.line_num
        if cells:
            while len(cells) > 1 and not cells[-1].strip():
                cells.pop()
            yield _Line(number, cells, texts[number - 1] if number == last_number + 1 else "")
        last_number = number


def _joined(line: _Line, separator: str, *, at: int, surplus: int) -> list[str]:
    """The cells of a line with `surplus` of them made part of the one before, the cell `at`."""
    parts = line.cells if '"' in line.text or not line.text else line.text.split(separator)
    return [*parts[:at], separator.join(parts[at : at + surplus + 1]), *parts[at + surplus + 1 :]]


def _counted(columns: str | None, header: Sequence[str]) -> tuple[int, int] | None:
    """The two columns, from 0, where the user counts them and does not name them."""
    match = re.fullmatch(r"\s*([1-9][0-9]{0,3})\s*,\s*([1-9][0-9]{0,3})\s*", columns or "")
    if match is None or {match[1], match[2]} <= {*header}:
        return None
    return int(match[1]) - 1, int(match[2]) - 1


def _of_first_line(
    lines: Sequence[_Line], separator: str, files: Mapping[str, str]
) -> tuple[int, int] | None:
    """The columns of file and class of two, if the first line is no header but names an image."""
    if not lines or len(header := lines[0].cells) < 2:
        return None
    if all(_usual(header, names) for names in (_FILE_COLUMNS, _LABEL_COLUMNS)):
        return None
    hits = []
    for at in (0, 1):
        names = [
            _joined(line, separator, at=at, surplus=len(line.cells) - 2)[at].strip()
            for line in lines
            if len(line.cells) > 1
        ]
        if ImageNames(files, names).find(names[0]):
            hits.append((at, 1 - at))
    return hits[0] if len(hits) == 1 else None


def _row(table: Path, line: int, pair: tuple[str, str], words: Iterable[str]) -> Row:
    file, label = words
    if pair[1].lower() == "predictionstring":  # Kaggle's: boxes come after the class
        label = label.partition(" ")[0]
    if not file or not label:
        raise ImnetprepError(
            f"{table}, line {line}: no {pair[0]} or no {pair[1]}",
            hint="a file and a class in every line",
        )
    return Row(line, file, label)


def _as_word(value: object) -> str:
    """A cell without spaces around it; "" for what is neither text nor a whole number."""
    is_word = isinstance(value, str | int) and not isinstance(value, bool)
    return str(value).strip() if is_word else ""


def _chosen_columns(table: Path, header: Sequence[str], columns: str | None) -> tuple[str, str]:
    if columns is not None:
        file, comma, label = (each.strip() for each in columns.partition(","))
        if not comma or file not in header or label not in header:
            raise WrongUsage(
                f"{table} has no columns {columns!r}; it has {', '.join(header)}",
                hint=_COLUMNS_HINT,
            )
        return file, label
    pairs = [_usual(header, names) for names in (_FILE_COLUMNS, _LABEL_COLUMNS)]
    if not all(pairs):
        raise WrongUsage(
            f"{table} has no columns known for files and classes; it has {', '.join(header)}",
            hint=_COLUMNS_HINT,
        )
    return pairs[0][0], pairs[1][0]


def _usual(header: Sequence[str], names: Sequence[str]) -> list[str]:
    """The columns that are called by one of `names`, the most usual first."""
    plain = {each: re.sub(r"[\s_-]", "", each.lower()) for each in header}
    fits = sorted((names.index(plain[each]), each) for each in header if plain[each] in names)
    return [each for _, each in fits]
