"""MNIST's files: grey images in one, their labels in another; wrong pairs are refused."""

import gzip
import hashlib
import random
import struct
from pathlib import Path

import pytest
from PIL import Image

from imnetprep.catalog.datasets import load_dataset
from tests.conftest import Run, receipt_of, tree
from tests.packings import write_dataset
from tests.servers import web_served

LABELS = {"train": [at * 7 % 10 for at in range(30)], "t10k": [at * 3 % 10 for at in range(10)]}
SIDE = 28


def images_of(name: str) -> list[bytes]:
    chance = random.Random(name)
    return [chance.randbytes(SIDE * SIDE) for _ in LABELS[name]]


def idx_images(images: list[bytes]) -> bytes:
    return struct.pack(">IIII", 0x803, len(images), SIDE, SIDE) + b"".join(images)


def idx_labels(labels: list[int]) -> bytes:
    return struct.pack(">II", 0x801, len(labels)) + bytes(labels)


def published(folder: Path) -> Path:
    """Both splits in four files, called as those of MNIST; their definition."""
    text = load_dataset("mnist").read("dataset.toml").decode()
    text = text.replace("60000", "30").replace("10000", "10")
    for split, name in (("train", "train"), ("val", "t10k")):
        begin = text.index(f"[{split}]")
        line = text[text.index("samples_per_class", begin) :].partition("\n")[0]
        counts = [LABELS[name].count(label) for label in range(10)]
        text = text.replace(line, f"samples_per_class = {counts}", 1)
    lines = []
    folder.mkdir(parents=True)
    for line in text.splitlines():
        key, _, value = line.partition(" = ")
        if key == "name" and value.strip('"').endswith(".gz"):
            name = value.strip('"')
            own = name.partition("-")[0]
            plain = idx_images(images_of(own)) if "images" in name else idx_labels(LABELS[own])
            body = gzip.compress(plain)
            (folder / name).write_bytes(body)
        if key == "md5":
            line = f'md5 = "{hashlib.md5(body).hexdigest()}"'
        if key not in ("size_bytes", "url"):
            lines.append(line)
    synsets = load_dataset("mnist").read("synsets.tsv").decode()
    return write_dataset(folder, "\n".join(lines), [("synsets.tsv", synsets)])


def test_each_image_has_the_label_of_its_place(tmp_path: Path, here: Run) -> None:
    toml = published(tmp_path / "archives")
    words = ["--root", tmp_path / "root", "--dataset", toml]
    done = here("organize", *words, "--archives", toml.parent)
    assert done.returncode == 0, done.stderr
    for split, name in (("train", "train"), ("val", "t10k")):
        for number, (label, pixels) in enumerate(zip(LABELS[name], images_of(name), strict=True)):
            path = tmp_path / "root" / split / f"{label}" / f"{label}_{number:05}.png"
            with Image.open(path) as image:
                assert (image.mode, image.size) == ("L", (SIDE, SIDE))
                assert image.tobytes() == pixels
    kinds = [each["proof"]["kind"] for each in receipt_of(tmp_path / "root")["splits"].values()]  # type: ignore[index]
    assert kinds == ["md5", "md5"]
    done = here("verify", "--root", tmp_path / "root", "--digests", "--decode")
    assert done.returncode == 0, done.stderr


def test_both_files_are_fetched_and_read_from_afar(tmp_path: Path, here: Run) -> None:
    toml = published(tmp_path / "archives")
    with web_served(toml.parent) as web:
        words = ["--dataset", toml]
        done = here("download", web.address, *words, "--root", tmp_path / "a", "--split", "val")
        assert done.returncode == 0, done.stderr
        done = here("organize", *words, "--root", tmp_path / "b", "--archives", web.address)
        assert done.returncode == 0, done.stderr
    names = {path.name for path in (tmp_path / "a" / "archives").glob("t*")}
    assert names == {"t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"}
    done = here("verify-archives", "--root", tmp_path / "a")
    assert (done.returncode, done.stdout.count("md5")) == (0, 2), done.stdout + done.stderr
    assert here("organize", "--root", tmp_path / "a", "--split", "val").returncode == 0
    assert tree(tmp_path / "a" / "val") == tree(tmp_path / "b" / "val")
    done = here("download", "--root", tmp_path / "a", "--dataset", toml, "--split", "val")
    assert "nothing to fetch" in done.stdout, done.stdout + done.stderr


IMAGES, OWN_LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
ONE = random.Random(1).randbytes(SIDE * SIDE)
WRONG = {
    "labels that are another file": (OWN_LABELS, gzip.compress(b"no labels"), "has no labels"),
    "no gzip": (OWN_LABELS, b"labels", "it cannot be read"),
    "a label too few": (OWN_LABELS, gzip.compress(idx_labels([1] * 29)), "29 labels"),
    "labels cut short": (OWN_LABELS, gzip.compress(idx_labels([1] * 30)[:-1]), "not all of them"),
    "other labels": (OWN_LABELS, gzip.compress(idx_labels([1] * 30)), "1 has 30 images, not 3"),
    "a label of no class": (
        OWN_LABELS,
        gzip.compress(idx_labels([10, *LABELS["train"][1:]])),
        "'10/00000.png'",
    ),
    "images cut short": (
        IMAGES, gzip.compress(idx_images(images_of("train"))[:-1]), "ends before its last image",
    ),
    "images and more": (
        IMAGES, gzip.compress(idx_images(images_of("train")) + b"x"), "goes on behind",
    ),
    "labels for images": (IMAGES, gzip.compress(idx_labels([1] * 30)), "has no images"),
    "giants": (IMAGES, gzip.compress(struct.pack(">IIII", 0x803, 30, 1 << 20, 1 << 20)),
               "has no images"),
    "nothing": (IMAGES, gzip.compress(b""), "ends before"),
}  # fmt: skip


@pytest.mark.parametrize("which", WRONG)
def test_what_does_not_belong_together_is_refused(which: str, tmp_path: Path, here: Run) -> None:
    toml = published(tmp_path / "archives")
    name, body, told = WRONG[which]
    (toml.parent / name).write_bytes(body)
    words = ["--dataset", toml, "--archives", toml.parent, "--root"]
    done = here("organize", *words, tmp_path / "proved")
    assert done.returncode == 4, done.stderr
    assert not (tmp_path / "proved" / "train").exists()
    lines = [line for line in toml.read_text().splitlines() if not line.startswith("md5")]
    toml.write_text("\n".join(lines))
    done = here("organize", *words, tmp_path / "root")
    assert (done.returncode, told in done.stderr) == (4, True), done.stderr
    assert not (tmp_path / "root" / "train").exists()


def test_one_of_the_two_is_not_enough(tmp_path: Path, here: Run) -> None:
    toml = published(tmp_path / "archives")
    words = ["--root", tmp_path / "root", "--dataset", toml, "--split", "train"]
    done = here("organize", *words, "--archives", "-")
    assert (done.returncode, "its labels are in train-labels" in done.stderr) == (2, True)
    (toml.parent / OWN_LABELS).unlink()
    done = here("organize", *words, "--archives", toml.parent)
    assert (done.returncode, f"{OWN_LABELS} is not there" in done.stderr) == (1, True), done.stderr


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('labels = "train-labels-idx1-ubyte.gz"\n', "", "idx.gz has labels"),
        ('labels = "train-labels-idx1-ubyte.gz"', 'labels = "x.gz"', "in no archive"),
        ("samples_per_class = [3, ", "samples_per_class = [", "9 numbers, and there are 10"),
        ("samples_per_class = [3, ", "samples_per_class = [-3, ", "samples_per_class = -3"),
    ],
)
def test_a_definition_that_is_none_is_told(
    old: str, new: str, told: str, tmp_path: Path, here: Run
) -> None:
    toml = published(tmp_path / "archives")
    assert old in toml.read_text()
    toml.write_text(toml.read_text().replace(old, new, 1))
    done = here("datasets", "check", toml)
    assert done.returncode != 0
    assert told in done.stdout + done.stderr, done.stdout + done.stderr
