"""Parquet files as the Hugging Face hub has them are organized as any archive, or refused."""

import hashlib
import importlib.util
import json
import os
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from imnetprep.archives.tar import FileStream
from imnetprep.catalog.datasets import Dataset, Split, load_dataset
from imnetprep.messages import WrongBytes
from tests.conftest import Run, receipt_of, tree
from tests.http_server import Answering, http_served
from tests.packings import picture, write_dataset

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
from imnetprep.archives.parquet import ParquetFiles, Rows  # noqa: E402

Row = dict[str, Any]
HUB = {Split.TRAIN: "train", Split.VAL: "validation"}


def _write(path: Path, rows: list[Row], *, names: list[str] | None = None, size: int = 5) -> None:
    image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    is_text = any(isinstance(row["label"], str) for row in rows)
    label = pyarrow.string() if is_text else pyarrow.int64()
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    about = {"huggingface": json.dumps({"info": {"features": features}})}
    schema = pyarrow.schema([("image", image), ("label", label)], metadata=about if names else None)
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.Table.from_pylist(rows, schema)
    parquet.write_table(table, path, row_group_size=size, write_batch_size=2, use_dictionary=False)


def _row(body: bytes, path: str | None, label: int | str | None) -> Row:
    return {"image": {"bytes": body, "path": path}, "label": label}


def _rows(root: Path, dataset: Dataset, split: Split) -> list[Row]:
    """The images of an organized root in any order, named as the hub names them."""
    rows = []
    for name, body in tree(root / split).items():
        wnid, file = name.split("/")
        path = f"{file.removesuffix('.JPEG')}_{wnid}.JPEG"
        rows.append(_row(body, path, dataset.label_of_wnid[wnid]))
    random.Random(0).shuffle(rows)
    return rows


def _hub(folder: Path, root: Path, toml: Path, *, files: int = 3) -> Path:
    """The files of both splits as the hub has them, in FOLDER/data."""
    dataset = load_dataset(str(toml))
    words = [synset.words for synset in dataset.synsets]
    for split, name in HUB.items():
        rows = _rows(root, dataset, split)
        for at in range(files):
            path = folder / "data" / f"{name}-{at:05}-of-{files:05}.parquet"
            _write(path, rows[at::files], names=words)
    return folder


@pytest.fixture
def hub(tmp_path: Path, organized_once: Path, packed: Path) -> Path:
    return _hub(tmp_path / "hub", organized_once, packed)


@pytest.mark.parametrize("layout", ["imagefolder", "webdataset"])
@pytest.mark.parametrize("place", ["", "data", "data/train-00001-of-00003.parquet"])
def test_the_hubs_files_make_the_same_root(
    place: str, layout: str, hub: Path, organized_once: Path, packed: Path, here: Run
) -> None:
    root = hub / "root"
    words = ["--root", root, "--dataset", packed, "--archives", hub / place, "--layout", layout]
    done = here("organize", *words)
    assert done.returncode == 0, done.stderr
    if layout == "imagefolder":
        for split in HUB:
            assert tree(root / split) == tree(organized_once / split)
        of_val = receipt_of(root)["splits"]["val"]
        assert isinstance(of_val, Mapping)
        assert of_val["archive"] == "the parquet files of val"
        assert "nobody vouches" in of_val["proof"]["why"]
    assert here("verify", "--root", root, "--digests").returncode == 0


def test_organizing_goes_on_behind_the_files_that_are_right(
    hub: Path, organized_once: Path, packed: Path, here: Run
) -> None:
    last = hub / "data" / "train-00002-of-00003.parquet"
    right = last.read_bytes()
    status = last.stat()
    last.write_bytes(right[:4] + bytes(700) + right[704:])
    root = hub / "root"
    words = ["--root", root, "--dataset", packed, "--archives", hub, "--split", "train"]
    done = here("organize", *words, "--jobs", 1)
    assert done.returncode == 4, done.stderr
    assert f"{last.name} cannot be read as parquet" in done.stderr
    assert done.stderr.count("\n") == 2
    assert not (root / "train").exists()
    last.write_bytes(right)
    os.utime(last, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert here("organize", *words).returncode == 0
    assert tree(root / "train") == tree(organized_once / "train")


def test_without_pyarrow_it_is_said_what_reads_them(
    hub: Path, packed: Path, here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "pyarrow" else find(name)
    )
    done = here("organize", "--root", hub / "root", "--dataset", packed, "--archives", hub)
    assert done.returncode == 1
    assert "train-00000-of-00003.parquet is parquet, as the Hugging Face hub" in done.stderr
    assert "imnetprep[parquet]" in done.stderr


def test_files_that_are_missing_are_named(hub: Path, packed: Path, here: Run) -> None:
    (hub / "data" / "train-00001-of-00003.parquet").unlink()
    words = ["organize", "--root", hub / "root", "--dataset", packed, "--archives", hub]
    done = here(*words)
    assert done.returncode == 1
    assert "missing: train-00001-of-00003.parquet" in done.stderr
    other = hub / "data" / "train-00003-of-00004.parquet"
    other.write_bytes((hub / "data" / "train-00002-of-00003.parquet").read_bytes())
    done = here(*words)
    assert done.returncode == 1
    assert "missing: train-00000-of-00004.parquet" in done.stderr


REFUSALS = [
    (lambda row: _row(row["image"]["bytes"], None, row["label"]), "has no image.path, so nobody"),
    (lambda row: _row(row["image"]["bytes"], "x.JPEG", row["label"]), "does not have there"),
    (lambda row: _row(row["image"]["bytes"], row["image"]["path"], 5), "none of 5 classes"),
    (lambda row: _row(row["image"]["bytes"], row["image"]["path"], None), "the label None"),
    (
        lambda row: _row(row["image"]["bytes"], row["image"]["path"], (row["label"] + 1) % 5),
        "which packed has in n",
    ),
    (lambda row: {**row, "image": {"bytes": None, "path": row["image"]["path"]}}, "no image.bytes"),
]


@pytest.mark.parametrize(("change", "told"), REFUSALS)
def test_a_row_that_is_not_the_datasets_is_refused(
    change: Any, told: str, organized_once: Path, packed: Path, tmp_path: Path, here: Run
) -> None:
    rows = _rows(organized_once, load_dataset(str(packed)), Split.VAL)
    rows[7] = change(rows[7])
    _write(tmp_path / "val-00000-of-00001.parquet", rows)
    words = ["--root", tmp_path / "root", "--dataset", packed, "--archives", tmp_path]
    done = here("organize", *words, "--split", "val")
    assert done.returncode == 4, done.stderr
    assert told in done.stderr
    assert done.stderr.count("\n") == 2
    assert not (tmp_path / "root" / "val").exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [(lambda rows: rows[1:], "images, not 4"), (lambda rows: [*rows, rows[3]], "listed twice")],
)
def test_rows_are_counted(
    change: Any, told: str, organized_once: Path, packed: Path, tmp_path: Path, here: Run
) -> None:
    rows = _rows(organized_once, load_dataset(str(packed)), Split.VAL)
    _write(tmp_path / "val-00000-of-00001.parquet", change(rows))
    words = ["--root", tmp_path / "root", "--dataset", packed, "--archives", tmp_path]
    done = here("organize", *words, "--split", "val")
    assert done.returncode == 4, done.stderr
    assert told in done.stderr


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"img": [b"x"], "label": [0]}, "its columns are img, label, not image and label"),
        ({"image": [b"x"], "label": [0]}, "its images have no bytes and path"),
        ({"image": [{"bytes": b"x", "path": "a"}], "label": [0.5]}, "its labels are double"),
    ],
)
def test_other_columns_are_told(
    columns: Any, told: str, packed: Path, tmp_path: Path, here: Run
) -> None:
    parquet.write_table(pyarrow.table(columns), tmp_path / "val-00000-of-00001.parquet")
    words = ["--root", tmp_path / "root", "--dataset", packed, "--archives", tmp_path]
    done = here("organize", *words, "--split", "val")
    assert done.returncode == 4, done.stderr
    assert told in done.stderr


PETS = 'name = "pets"\n[train]\nlabels = "train.tsv"\n'


@pytest.mark.parametrize("kind", ["numbers by names of their own order", "names"])
def test_classes_of_ones_own_are_found_by_their_names(kind: str, tmp_path: Path, here: Run) -> None:
    """Both classes have an image of one name; the dataset has no archive of its own."""
    names = ["grey wolf", "cat (small)"]
    images = [(name, f"{at}.jpg") for name in names for at in range(3)]
    lists = [("train.tsv", "".join(f"{file}\t{name}\n" for name, file in images))]
    toml = write_dataset(tmp_path / "definition", PETS, lists)
    rows = [
        _row(picture(name + file), f"folder/{file}", name if kind == "names" else names.index(name))
        for name, file in images
    ]
    _write(tmp_path / "pets" / "train" / "0000.parquet", rows[:4], names=names)
    _write(tmp_path / "pets" / "train" / "0001.parquet", rows[4:], names=names)
    root = tmp_path / "root"
    done = here("organize", "--root", root, "--dataset", toml, "--archives", tmp_path / "pets")
    assert done.returncode == 0, done.stderr
    assert tree(root / "train") == {f"{name}/{file}": picture(name + file) for name, file in images}


def test_a_large_row_group_is_not_held_in_memory(
    organized_once: Path, packed: Path, tmp_path: Path, here: Run
) -> None:
    rows = _rows(organized_once, load_dataset(str(packed)), Split.TRAIN)
    for row in rows:
        row["image"]["bytes"] = random.Random(row["image"]["path"]).randbytes(1 << 20)
    _write(tmp_path / "train-00000-of-00001.parquet", rows, size=len(rows))
    pool = pyarrow.default_memory_pool()
    counted = pyarrow.proxy_memory_pool(pool)
    pyarrow.set_memory_pool(counted)
    try:
        words = ["--root", tmp_path / "root", "--dataset", packed, "--archives", tmp_path]
        done = here("organize", *words, "--split", "train")
    finally:
        pyarrow.set_memory_pool(pool)
    assert done.returncode == 0, done.stderr
    assert 0 < counted.max_memory() < 30 << 20, "of 60 MB in one row group"


def test_damage_anywhere_is_refused_or_changes_no_name(
    organized_once: Path, packed: Path, tmp_path: Path
) -> None:
    """pyarrow has no word for what it meets in 300 damaged files but that one."""
    dataset = load_dataset(str(packed))
    path = tmp_path / "val.parquet"
    _write(path, _rows(organized_once, dataset, Split.VAL), names=["a", "b", "c", "d", "e"])
    right, rng, outcomes = path.read_bytes(), random.Random(3), set()
    for _ in range(300):
        body = bytearray(right)
        for _ in range(rng.randint(1, 3)):
            first = rng.choice([0, len(body) - 2000])  # half of it in the footer
            body[rng.randrange(first, len(body))] = rng.randrange(256)
        path.write_bytes(body[: rng.choice([len(body), rng.randrange(len(body))])])
        try:
            files = ParquetFiles("files", [path])
            rows = Rows(files, dataset, Split.VAL)
            for span in rows.ranges:
                section = rows.section(span, FileStream(files.read_at, position=span.start))
                for member in section.members:
                    assert len(section.take(member.size_bytes)) == member.size_bytes
            outcomes.add("read")
        except WrongBytes as error:
            assert error.hint
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}


def test_a_file_without_rows_lacks_all_images(tmp_path: Path, packed: Path, here: Run) -> None:
    _write(tmp_path / "data" / "train-00000-of-00001.parquet", [])
    words = ["--root", tmp_path / "root", "--dataset", packed, "--split", "train"]
    done = here("organize", *words, "--archives", tmp_path)
    assert done.returncode == 4, done.stderr
    assert done.stderr.count("\n") == 2


class _Hub(Answering):
    """The files in `folder` as the hub has them, listed two a page, each with its SHA-256."""

    folder = Path()

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        files = sorted(self.folder.iterdir())
        if path == "/api/datasets/me/set/tree/main/data":
            at = int(query.removeprefix("at=") or 0)
            names = [{"type": "file", "path": f"data/{file.name}"} for file in files[at : at + 2]]
            entries = [{"type": "directory", "path": "data/old"}, *names]
            host = f"http://{self.headers['Host']}"
            link = {"Link": f'<{host}{path}?at={at + 2}>; rel="next"'} if files[at + 2 :] else {}
            self.answer(json.dumps(entries).encode(), headers=link)
            return
        body = (self.folder / path.rpartition("/")[2]).read_bytes()
        start, end = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        headers = {"Content-Range": f"bytes {start}-{end}/{len(body)}"}
        headers["X-Linked-Etag"] = f'"{hashlib.sha256(body).hexdigest()}"'
        self.answer(body[start : end + 1], 206, headers)


def test_a_folder_of_the_hub_is_fetched_and_organized(
    packed: Path, organized_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: Run
) -> None:
    folder = _hub(tmp_path / "hub", organized_once, packed)
    handler = type("Hub", (_Hub,), {"folder": folder / "data"})
    root = ["--root", tmp_path / "root", "--dataset", packed]
    with http_served(handler) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        address = "hf:datasets/me/set/data"
        done = here("download", address, *root, "--split", "val", "--dry-run")
        assert done.stdout.count("validation-0000") == 6, done.stderr  # name and address of each
        assert "train" not in done.stdout
        done = here("prepare", address, *root, "--dry-run")
        assert "train: organized from 3 parquet files, downloaded first" in done.stdout
        done = here("prepare", address, *root)
        assert done.returncode == 0, done.stderr
        done = here("download", address, *root)
        assert done.stdout.count("nothing to fetch") == 6, done.stderr
        shutil.rmtree(tmp_path / "root" / "archives")
        done = here("prepare", address, *root)
        assert done.returncode == 0, done.stderr
        assert not list((tmp_path / "root").glob("archives/*.parquet")), "both are organized"
    for split in ("train", "val"):
        assert tree(tmp_path / "root" / split) == tree(organized_once / split)
    proof = receipt_of(tmp_path / "root")["archives"]["train-00000-of-00003.parquet"]["proof"]  # type: ignore[index]
    assert (proof["kind"], proof["of"]) == ("sha256", f"{address}/train-00000-of-00003.parquet")
