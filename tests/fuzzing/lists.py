"""Fields of what people hand in: parquet files, lists of a subset, tables of labels."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from imnetprep.catalog.datasets import load_dataset
from tests.fuzzing.cases import JSON_VALUES, Case, body_case, paths_in, with_value
from tests.packings import openable

_TEXTS = (
    *("", " ", "x", ".", "..", "/", "../x", "a/b", "\\", "\0", "\x1b[2J\u202e", "\r", "\u2028"),
    *("é", "e\u0301", "9" * 5000, "x" * 256, "-1", "1e9", "nan", "#", '"', "'", ",", "\t", "{}"),
)
_NO_LINES = (b"", b"\n", b"\xff\xfe\0\0", "a\tb".encode("utf-16"), b"\0" * 5000, b"\n" * 100_000)


def list_cases(folder: Path, root: Path, packed: Path) -> dict[str, Iterator[Case]]:
    """Cases by the kind of file. `root` is organized of the dataset `packed`."""
    return {
        "parquet": _parquet_cases(folder / "hub", root, packed),
        "subset": _subset_cases(folder / "subset", root, packed),
        "labels": _table_cases(folder / "tables"),
    }


def _subset_cases(folder: Path, root: Path, packed: Path) -> Iterator[Case]:
    """A line of a list of classes, and of one of files, with each text."""
    folder.mkdir()
    to = ["--to", "ROOT/to", "--dry-run", "--quiet"]
    commands = [["subset", "ROOT/list.txt", "--root", str(root), *to]]
    archives = ["--archives", str(packed.parent), "--dataset", str(packed)]
    commands.append(["subset", "ROOT/list.txt", *archives, *to])
    classes = sorted(path.name for path in (root / "train").iterdir())[:2]
    names = [next((root / "train" / wnid).iterdir()).name for wnid in classes]
    (folder / "list.txt").write_text("")
    numbers = ("0", "00", "-1", "+1", "1_0", "1.5", "\u0661", str(1 << 63), "9" * 30, "9" * 5000)
    odd_names = [f"{classes[0]}_{number}.JPEG" for number in numbers]
    odd_names += [f"{text}/{names[0]}" for text in (*_TEXTS, *classes)]
    for lines in (classes, names):
        for text in (*_TEXTS, *odd_names):
            body = "\n".join([*lines[:1], text, *lines[1:]]).encode()
            yield body_case(folder, "list.txt", repr(text)[:40], body, commands)
    for body in (*_NO_LINES, b"\xef\xbb\xbf" + classes[0].encode(), b"# \xc3\xa9"):
        yield body_case(folder, "list.txt", repr(body[:20]), body, commands)


def _table_cases(folder: Path) -> Iterator[Case]:
    """A cell of a table, and of its first line, with each text; a field of JSON with each value."""
    (folder / "photos").mkdir(parents=True)
    rows = [["file", "label"]]
    for at in range(6):
        name = f"{at}.jpg"
        (folder / "photos" / name).write_bytes(openable(name))
        rows.append([name, "cat" if at % 2 else "dog"])
    words = ["divide", "ROOT/photos", "--root", "ROOT/root", "--dry-run", "--quiet", "--labels"]
    for file, separator in (("labels.csv", ","), ("labels.tsv", "\t")):
        (folder / file).write_text("")
        named = [*words, f"ROOT/{file}", "--columns", "file,label"]
        commands: list[Sequence[str]] = [[*words, f"ROOT/{file}"], named]
        for (line, column), text in product(product((0, 1, 6), (0, 1)), _TEXTS):
            body = _formatted(with_value(rows, (line, column), text), separator)
            yield body_case(folder, file, f"{line}, {column} = {text!r:.30}", body, commands)
        for body in (*_NO_LINES, b"file,label\n" + b'"' * 200_000, b"file,label,label\na,b,c"):
            yield body_case(folder, file, repr(body[:20]), body, commands)
    file = "labels.jsonl"
    (folder / file).write_text("")
    objects = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    commands = [[*words, f"ROOT/{file}"]]
    values = (*JSON_VALUES, *_TEXTS)
    for keys, value in product([(0,), (0, "file"), (0, "label"), (5, "label")], values):
        changed = with_value(objects, keys, value)
        body = "\n".join(map(json.dumps, changed)).encode()
        yield body_case(folder, file, f"{keys} = {value!r:.30}", body, commands)
    for body in (*_NO_LINES, b"[" * 100_000, b"9" * 5000, b'{"file": 1e999}'):
        yield body_case(folder, file, repr(body[:20]), body, commands)


def _formatted(rows: Sequence[Sequence[str]], separator: str) -> bytes:
    text = io.StringIO()
    csv.writer(text, delimiter=separator, escapechar="\\").writerows(rows)
    return text.getvalue().encode()


def _parquet_cases(folder: Path, root: Path, packed: Path) -> Iterator[Case]:
    """A field of a row, a kind of a column, a field of what `datasets` notes and a byte, wrong."""
    dataset, data = load_dataset(str(packed)), folder / "data"
    data.mkdir(parents=True)
    file = "data/train-00000-of-00001.parquet"
    rows = [
        _row(path.read_bytes(), path.name, synset.label)
        for synset in dataset.synsets
        for path in sorted((root / "train" / synset.wnid).iterdir())
    ]
    words = ["organize", "--root", "ROOT/root", "--dataset", str(packed), "--archives", "ROOT"]
    words += ["--split", "train", "--jobs", "1", "--quiet"]
    commands = [[*words, "--dry-run"], words, [*words, "--layout", "webdataset"]]
    (folder / file).write_bytes(_written(rows))
    wnids = [synset.wnid for synset in dataset.synsets]
    for bodies in (_wrong_rows(rows), _wrong_kinds(rows), _wrong_notes(rows, wnids)):
        for name, body in bodies:
            yield body_case(folder, file, name, body, commands, is_copied=True)
    whole = _written(rows)
    for at in (0, 4, len(whole) // 2, len(whole) - 8, len(whole) - 4):
        for wrong in (b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", None):
            body = whole[:at] if wrong is None else whole[:at] + wrong + whole[at + 4 :]
            yield body_case(folder, file, f"{at}: {wrong!r}", body, commands, is_copied=True)


def _row(body: Any, path: Any, label: Any) -> dict[str, Any]:
    return {"image": {"bytes": body, "path": path}, "label": label}


def _written(rows: Sequence[Any], *, notes: bytes = b"{}", **kinds: Any) -> bytes:
    """A parquet file of the rows; `kinds` of its columns, where they are not as usual."""
    import pyarrow
    from pyarrow import parquet

    usual = {"bytes": pyarrow.binary(), "path": pyarrow.string(), "label": pyarrow.int64()}
    kinds = usual | kinds
    image = kinds.get("image", pyarrow.struct([(key, kinds[key]) for key in ("bytes", "path")]))
    fields = [("image", image), ("label", kinds["label"])]
    schema, file = pyarrow.schema(fields, metadata={b"huggingface": notes}), io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows, schema), file, row_group_size=7)
    return file.getvalue()


def _wrong_rows(rows: Sequence[Any]) -> Iterator[tuple[str, bytes]]:
    import pyarrow

    body, path = rows[0]["image"]["bytes"], rows[0]["image"]["path"]
    for text in (*_TEXTS, None):
        bytes_ = None if text is None else text.encode()
        yield f"bytes = {text!r:.30}", _written([_row(bytes_, path, 0), *rows[1:]])
        yield f"path = {text!r:.30}", _written([_row(body, text, 0), *rows[1:]])
        by_name = [{**row, "label": text if at == 0 else "x"} for at, row in enumerate(rows)]
        yield f"label = {text!r:.30}", _written(by_name, label=pyarrow.string())
    no_text = [_row(body, b"\xff\x1b", 0), *({**row} for row in rows[1:])]
    yield "path = no text", _written(no_text, path=pyarrow.binary())
    yield "no image", _written([{**row, "image": None} for row in rows])
    yield "no rows", _written([])


def _wrong_kinds(rows: Sequence[Any]) -> Iterator[tuple[str, bytes]]:
    import pyarrow

    for kind, label in (
        (pyarrow.int64(), -1), (pyarrow.int64(), (1 << 63) - 1), (pyarrow.int64(), None),
        (pyarrow.uint64(), (1 << 64) - 1), (pyarrow.float64(), float("nan")),
        (pyarrow.bool_(), True),
        (pyarrow.list_(pyarrow.int64()), [1]), (pyarrow.null(), None), (pyarrow.int8(), 127),
        (pyarrow.timestamp("ns"), 1 << 62), (pyarrow.binary(), b"\xff"),
    ):  # fmt: skip
        yield f"label is {kind}", _written([{**row, "label": label} for row in rows], label=kind)
    texts = [{**row, "image": "x"} for row in rows]
    yield "image is text", _written(texts, image=pyarrow.string())


def _wrong_notes(rows: Sequence[Any], wnids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    notes = {"info": {"features": {"image": {"_type": "Image"}, "label": {"names": wnids}}}}
    for keys, value in product(paths_in(notes), JSON_VALUES):
        changed = json.dumps(with_value(notes, keys, value)).encode()
        yield f"{keys} = {value!r:.30}", _written(rows, notes=changed)
    for body in (b"", b"{", b"[" * 100_000, b"\xff", b"9" * 5000):
        yield f"notes = {body[:20]!r}", _written(rows, notes=body)
