"""A root holds one dataset, and a damaged manifest is told, never guessed around."""

import subprocess
import sys
from pathlib import Path

import pytest

from imnetprep.catalog.datasets import Split, load_dataset
from imnetprep.errors import ImnetprepError
from imnetprep.manifest import (
    SampleRecord,
    SplitRecord,
    create_manifest,
    dataset_for,
    open_manifest,
)
from imnetprep.roots import Layout
from tests.conftest import DATASETS

TINY = load_dataset(str(DATASETS / "tiny10.toml"))


def test_it_carries_a_dataset_that_is_not_built_in(tmp_path: Path) -> None:
    create_manifest(tmp_path / "manifest.db", TINY)
    held = dataset_for(tmp_path / "manifest.db", None)
    assert held.fingerprint == TINY.fingerprint
    assert held.synsets == TINY.synsets
    assert held.counts(Split.VAL) == TINY.counts(Split.VAL)


def test_another_dataset_of_the_same_name_is_refused(tmp_path: Path) -> None:
    create_manifest(tmp_path / "manifest.db", TINY)
    changed = tmp_path / "tiny10.toml"
    for file in DATASETS.glob("tiny10*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    changed.write_text(changed.read_text().replace("samples = 500\n", "samples = 501\n"))
    with pytest.raises(ImnetprepError, match="holds another tiny10, not tiny10"):
        dataset_for(tmp_path / "manifest.db", str(changed))


def test_samples_come_back_by_label_and_name(tmp_path: Path) -> None:
    create_manifest(tmp_path / "manifest.db", TINY)
    records = [SampleRecord(label, name, 7, bytes(16)) for label in (1, 0) for name in "ba"]
    with open_manifest(tmp_path / "manifest.db", write=True) as manifest:
        manifest.add_split(Split.TRAIN, Layout.IMAGEFOLDER, records)
        held = SplitRecord(Split.TRAIN, Layout.IMAGEFOLDER, 4, 28)
        assert manifest.splits() == {(Split.TRAIN, Layout.IMAGEFOLDER): held}
        assert list(manifest.samples(held, 0)) == [records[3], records[2]]
        assert manifest.joined(held, 1, "name", "size_bytes") == ("a\nb", "7\n7")
        assert manifest.joined(held, 2, "name") == ("",)


def test_a_split_in_two_layouts_is_two_lists(tmp_path: Path) -> None:
    create_manifest(tmp_path / "manifest.db", TINY)
    files = [SampleRecord(0, "a", 7, bytes(16))]
    shards = [SampleRecord(0, "a", 5, bytes(16), "resized 256 q90", 0, 512)]
    with open_manifest(tmp_path / "manifest.db", write=True) as manifest:
        manifest.add_split(Split.VAL, Layout.IMAGEFOLDER, files)
        manifest.add_split(Split.VAL, Layout.WEBDATASET, shards, change="resize 256 q90")
        held = manifest.splits()
        assert list(manifest.samples(held[Split.VAL, Layout.IMAGEFOLDER], 0)) == files
        assert list(manifest.in_shards(held[Split.VAL, Layout.WEBDATASET])) == shards
        assert held[Split.VAL, Layout.WEBDATASET].change == "resize 256 q90"
        manifest.drop_split(Split.VAL, Layout.WEBDATASET)
        assert list(manifest.splits()) == [(Split.VAL, Layout.IMAGEFOLDER)]
        assert list(manifest.samples(held[Split.VAL, Layout.IMAGEFOLDER], 0)) == files


def test_a_damaged_manifest_is_told(tmp_path: Path) -> None:
    (tmp_path / "manifest.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 4096)
    with pytest.raises(ImnetprepError, match=r"manifest\.db"):
        dataset_for(tmp_path / "manifest.db", None)


def test_what_a_killed_writer_left_is_rolled_back(tmp_path: Path) -> None:
    """More than SQLite's cache holds, so that half a split is in the file when it is killed."""
    code = """
import os, sys
from pathlib import Path
from imnetprep.catalog.datasets import Split, load_dataset
from imnetprep.manifest import SampleRecord, create_manifest, open_manifest

def samples():
    for number in range(100_000):
        yield SampleRecord(number % 1000, f"{number}.JPEG", 1, bytes(16))
    os.kill(os.getpid(), 9)

path = Path(sys.argv[1])
create_manifest(path, load_dataset("ilsvrc2012"))
with open_manifest(path, write=True) as manifest:
    manifest.add_split(Split.TRAIN, "imagefolder", samples())
"""
    path = tmp_path / "manifest.db"
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -9
    assert path.with_name("manifest.db-journal").exists()
    with open_manifest(path) as manifest:
        assert manifest.splits() == {}
