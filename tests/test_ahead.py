"""A far archive that is walked while it is read."""

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imnetprep.archives.file import LocalFile
from imnetprep.archives.prefetch import PrefetchedFile
from imnetprep.archives.ranges import Range, plan_ranges, walked_ranges
from imnetprep.catalog.datasets import Split, load_dataset
from imnetprep.synthetic import pack_dataset
from tests.conftest import Run, tree
from tests.servers import web_served

CLASSES = 4
# Less than a chunk, more than the first guess, and much more than what is read in vain.
SIZES = (0, 1_000, 450_000, 1_500_000, 5_000_000, 9_000_000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("ahead")
    pack_dataset(made / "packed", classes=CLASSES, train_per_class=1, val_per_class=0)
    return made


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.sampled_from(SIZES), min_size=CLASSES, max_size=CLASSES),
    st.permutations(range(CLASSES)),
    st.integers(0, CLASSES),
)
def test_whatever_was_guessed_the_ranges_and_their_bytes_are_those_of_the_file(
    folder: Path, sizes: list[int], order: Sequence[int], known_first: int
) -> None:
    dataset = load_dataset(str(folder / "packed" / "packed.toml"))
    archive = dataset.archive(Split.TRAIN)
    path = folder / "classes.tar"
    with tarfile.open(path, "w") as packed:
        for synset, size in zip(dataset.synsets, sizes, strict=True):
            info = tarfile.TarInfo(f"{synset.wnid}.tar")
            info.size = size
            packed.addfile(info, io.BytesIO(bytes([synset.label + 1]) * size))
    file = LocalFile(path)
    size_bytes = file.size_bytes or 0
    planned = plan_ranges(archive, dataset, size_bytes=size_bytes, read_at=file.read_at)
    ahead = PrefetchedFile(file)
    walk = walked_ranges(archive, dataset, size_bytes=size_bytes, read_at=ahead.read_at)
    found = [next(walk) for _ in range(known_first)]
    asked = [at for at in order if at < known_first]
    read = {at: _read(ahead, planned[at]) for at in asked}  # before the rest is known
    found += walk
    read |= {at: _read(ahead, planned[at]) for at in order if at not in read}
    ahead.close()
    assert found == planned
    for at, each in enumerate(planned):
        assert read[at] == file.read_at(each.start, each.end - each.start)
    file.close()


def _read(ahead: PrefetchedFile, each: Range) -> bytes:
    return b"".join(bytes(chunk) for chunk in ahead.chunks(each.start, each.end, 1 << 20))


def test_from_the_web_no_header_is_asked_for_alone(tmp_path: Path, run: Run) -> None:
    dataset = pack_dataset(
        tmp_path / "packed", classes=8, train_per_class=20, val_per_class=0, image_bytes=60_000
    )
    lines = [line for line in dataset.read_text().splitlines() if not line.startswith("md5")]
    dataset.write_text("\n".join(lines) + "\n")
    words = ["--dataset", dataset, "--split", "train"]
    with web_served(dataset.parent) as web:
        done = run("organize", "--root", tmp_path / "far", *words, "--archives", web.address)
        assert done.returncode == 0, done.stderr
        spans = [span.removeprefix("bytes=").split("-") for _, span in web.asked if span]
    lengths = [int(end) - int(start) + 1 for start, end in spans]
    assert not [length for length in lengths if 1 < length <= 512]
    archive = dataset.parent / "ILSVRC2012_img_train.tar"
    assert sum(lengths) < 1.5 * archive.stat().st_size
    assert (tmp_path / "far" / "archives" / f"{archive.name}.index.json").exists()
    done = run("organize", "--root", tmp_path / "near", *words, "--archives", dataset.parent)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "far" / "train") == tree(tmp_path / "near" / "train")
