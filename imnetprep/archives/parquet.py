"""Rows of parquet files as the Hugging Face hub has them: an `image` of bytes and path, a `label`.

The home of pyarrow, which reads a few rows at a time, whatever the size of their row group.
"""

import json
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow
from pyarrow import parquet

from imnetprep.archives.ranges import RUN_BYTES, Range, Section
from imnetprep.archives.series import FileSeries
from imnetprep.archives.tar import Member, Stream, refused
from imnetprep.catalog.datasets import Dataset, Split
from imnetprep.messages import WrongBytes
from imnetprep.outside_files import refuse_special

_COLUMNS = ["image.bytes", "image.path", "label"]
_ROWS_AT_ONCE = 8
_BUFFER_BYTES = 1 << 20
_TEXT = (pyarrow.types.is_string, pyarrow.types.is_large_string)
_BINARY = (pyarrow.types.is_binary, pyarrow.types.is_large_binary)
_REASONS = (pyarrow.ArrowException, ValueError, OverflowError)


class ParquetFiles(FileSeries):
    """Parquet files end to end. pyarrow opens them by their paths; so the chunks are blank, and
    only say how far it is.
    """

    def __init__(self, name: str, paths: Sequence[Path]) -> None:
        super().__init__(name, paths)
        self.paths = paths

    def chunks(self, start: int, end: int, length: int) -> Iterator[memoryview]:
        blank = memoryview(bytes(min(length, end - start)))
        return (blank[: end - at] for at in range(start, end, length))


class Rows:
    """The rows of `files`, which hold `split` of `dataset`: what an archive contains, by ranges.

    A member is called CLASS/NAME, of the label and the image.path of its row.
    """

    def __init__(self, files: ParquetFiles, dataset: Dataset, split: Split) -> None:
        self._files, self._dataset, self._split = files, dataset, split
        self._wnids = [synset.wnid for synset in dataset.synsets]
        # Of each row group: where it starts, if a file's rows share its bytes evenly; which it is.
        self._starts, self._groups = array("Q"), list[tuple[int, int]]()
        for number, path in enumerate(files.paths):
            with self._opened(path) as file:
                first, size_bytes = files.starts[number], path.stat().st_size
                rows = 0
                for group in range(file.metadata.num_row_groups):
                    if group_rows := file.metadata.row_group(group).num_rows:
                        start = first + size_bytes * rows // max(1, file.metadata.num_rows)
                        self._starts.append(start)
                        self._groups.append((number, group))
                    rows += group_rows

    @property
    def ranges(self) -> list[Range]:
        """Row groups of one file together, end to end."""
        starts: list[int] = []
        number = -1
        for start, (file, _) in zip(self._starts, self._groups, strict=True):
            if file != number or start - starts[-1] >= RUN_BYTES:
                starts.append(start)
                number = file
        ends = [*starts[1:], self._files.size_bytes or 0] if starts else []
        return [Range(*span, None) for span in zip(starts, ends, strict=True)]

    def holds_samples(self, span: Range) -> bool:
        """Does a row lie in that range?"""
        return bool(self._groups_of(span))

    def section(self, span: Range, stream: Stream) -> Section:
        """The section of one range; `stream` is passed over as its rows are read."""
        body = [memoryview(b"")]
        return Section(span.start, None, self._members(span, stream, body), lambda _: body[0])

    def sections(self, stream: Stream) -> Iterator[Section]:
        """All of them in order."""
        for each in self.ranges:
            yield self.section(each, stream)
            stream.skip(each.end - stream.position)

    def _groups_of(self, span: Range) -> list[tuple[int, int]]:
        first, last = (bisect_left(self._starts, at) for at in (span.start, span.end))
        return self._groups[first:last]

    def _members(self, span: Range, stream: Stream, body: list[memoryview]) -> Iterator[Member]:
        """The rows of a range; `body` holds the bytes of the last."""
        groups = self._groups_of(span)
        path = self._files.paths[groups[0][0]]
        with self._opened(path) as file:
            names = _class_names(file.schema_arrow)
            numbers = [group for _, group in groups]
            rows = sum(file.metadata.row_group(each).num_rows for each in numbers)
            in_order = enumerate(self._read(file, numbers, path), start=1)
            for number, (image_bytes, image_path, label) in in_order:
                row = f"row {number:,} of row group {numbers[0]:,} of {path.name}"
                if not image_path:
                    problem = f"{row} has no image.path, so nobody can say which image it is"
                    raise refused(self._files.name, problem)
                if image_bytes is None:
                    raise refused(self._files.name, f"{row} has no image.bytes")
                wnid = self._wnid(label, names, row)
                body[0] = memoryview(image_bytes)
                yield Member(f"{wnid}/{self._name(image_path, wnid)}", span.start, len(body[0]))
                if number % _ROWS_AT_ONCE == 0:
                    stop = span.start + (span.end - span.start) * number // max(1, rows)
                    stream.skip(max(0, stop - stream.position))

    def _read(
        self, file: Any, groups: Sequence[int], path: Path
    ) -> Iterator[tuple[Any, str | None, Any]]:
        """The bytes, path and label of each row."""
        batches = file.iter_batches(_ROWS_AT_ONCE, groups, _COLUMNS, use_threads=False)
        while True:
            with self._named(path):
                if (batch := next(batches, None)) is None:
                    return
                images = batch.column("image")
                bodies = (each.as_buffer() for each in images.field("bytes"))
                paths, labels = images.field("path").to_pylist(), batch.column("label").to_pylist()
                rows = list(zip(bodies, paths, labels, strict=True))
            yield from rows

    def _wnid(self, label: Any, names: Sequence[str] | None, row: str) -> str:
        """The class of a label: itself, by the file's names if they are classes, or its rank."""
        if isinstance(label, str):
            return label
        classes: Sequence[str] = self._wnids
        if names is not None and set(names) <= self._dataset.label_of_wnid.keys():
            classes = names
        if label is None or not 0 <= label < len(classes):
            problem = f"{row} has the label {label}, which is none of {len(classes):,} classes"
            raise refused(self._files.name, problem)
        return classes[int(label)]

    def _name(self, image_path: str, wnid: str) -> str:
        """The file name, without the class that the hub writes behind it."""
        name = PurePosixPath(image_path.replace("\\", "/")).name
        if self._dataset.label_of(self._split, name, wnid) is not None:
            return name
        stem, dot, suffix = name.rpartition(".")
        own, _, last = stem.rpartition("_")
        return f"{own}{dot}{suffix}" if last in self._dataset.label_of_wnid else name

    @contextmanager
    def _opened(self, path: Path) -> Iterator[Any]:
        refuse_special(path)
        with self._named(path):
            file = parquet.ParquetFile(
                path, buffer_size=_BUFFER_BYTES, page_checksum_verification=True
            )
            _check_schema(file.schema_arrow)
        with closing(file):
            yield file

    @contextmanager
    def _named(self, path: Path) -> Iterator[None]:
        """Say which file an error of pyarrow is about."""
        try:
            yield
        except OSError as error:
            if error.errno is not None:
                error.filename = str(path)
                raise
            raise self._damaged(path, error) from error
        except _REASONS as error:
            raise self._damaged(path, error) from error

    def _damaged(self, path: Path, error: Exception) -> WrongBytes:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        return refused(self._files.name, f"{path.name} cannot be read as parquet: {reason}")


def _check_schema(schema: Any) -> None:
    """Raise ValueError unless the columns that are read are there, of kinds that can be read."""
    columns = {field.name: field.type for field in schema}
    image, label = columns.get("image"), columns.get("label")
    if image is None or label is None:
        raise ValueError(f"its columns are {', '.join(columns)}, not image and label")
    fields = {}
    if pyarrow.types.is_struct(image):
        fields = {field.name: field.type for field in image}
    if not _is_one("bytes", fields, _BINARY) or not _is_one("path", fields, _TEXT):
        raise ValueError("its images have no bytes and path, which says which image each is")
    if not pyarrow.types.is_integer(label) and not _is_one("label", columns, _TEXT):
        raise ValueError(f"its labels are {label}")


def _is_one(name: str, types: dict[str, Any], kinds: Iterable[Any]) -> bool:
    return name in types and any(is_kind(types[name]) for is_kind in kinds)


def _class_names(schema: Any) -> list[str] | None:
    """The names of the labels 0, 1, …, where the library `datasets` wrote them down."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features["label"]["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    return (
        names if isinstance(names, list) and all(isinstance(each, str) for each in names) else None
    )
