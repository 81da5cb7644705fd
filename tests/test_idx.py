"""MNIST's files: grey images in one, their labels in another; wrong pairs are refused."""

import gzip
import hashlib
import random
import re
import struct
from pathlib import Path

import pytest
from PIL import Image

from imnetprep.catalog.datasets import load_dataset
from tests.conftest import Run, receipt_of, tree
from tests.http_server import Answering, http_served
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


@pytest.mark.parametrize("splits", [[], ["--split", "train"]])
def test_it_is_prepared_from_where_it_is_published(
    splits: list[str], tmp_path: Path, here: Run
) -> None:
    toml = published(tmp_path / "archives")
    with web_served(toml.parent) as web:
        lines = []
        for line in toml.read_text().splitlines():
            lines.append(line)
            if match := re.fullmatch('name = "(.*gz)"', line):
                lines.append(f'url = "{web.address}/{match[1]}"')
        toml.write_text("\n".join(lines))
        root = tmp_path / "root"
        done = here("prepare", "--root", root, "--dataset", toml, *splits)
        assert done.returncode == 0, done.stderr
        assert len(tree(root / "train")) == len(LABELS["train"])
        assert (root / "val").exists() == (not splits)
        done = here("download", "--root", root, "--dataset", toml)
        assert done.returncode == 0, done.stderr
    done = here("clean", "--root", root, "--only", "archive", "--yes")
    assert done.returncode == 0, done.stderr
    gone = {path.name for path in toml.parent.glob("*.gz") if not splits or "train" in path.name}
    names = {path.name for path in (root / "archives").glob("*.gz")}
    assert names == {path.name for path in toml.parent.glob("*.gz")} - gone


def test_a_subset_has_the_images_of_its_classes(tmp_path: Path, here: Run) -> None:
    toml = published(tmp_path / "archives")
    (tmp_path / "list").write_text("3\n5\n")
    words = ["subset", tmp_path / "list", "--archives", toml.parent, "--dataset", toml]
    done = here(*words, "--to", tmp_path / "part")
    assert done.returncode == 0, done.stderr
    assert {path.parent.name for path in (tmp_path / "part" / "train").rglob("*.png")} == {"3", "5"}
    assert len(tree(tmp_path / "part" / "train")) == 6
    assert here("verify", "--root", tmp_path / "part").returncode == 0


def test_labels_come_from_a_server_that_tells_no_length(tmp_path: Path, here: Run) -> None:
    toml = published(tmp_path / "archives")

    class Handler(Answering):
        def do_GET(self) -> None:
            path = toml.parent / self.path.rpartition("/")[2]
            self.send_response(200 if path.is_file() else 404)
            self.end_headers()
            self.wfile.write(path.read_bytes() if path.is_file() else b"")

    with http_served(Handler) as server:
        address = f"http://127.0.0.1:{server.server_port}/mnist"
        words = ["--dataset", toml, "--archives", address, "--root", tmp_path / "root"]
        done = here("organize", *words)
    assert done.returncode == 0, done.stderr


def test_archives_beside_the_labels_are_proved_with_them(tmp_path: Path, here: Run) -> None:
    toml = published(tmp_path / "root" / "archives")
    words = ["--root", tmp_path / "root"]
    assert here("organize", *words, "--dataset", toml).returncode == 0
    assert receipt_of(tmp_path / "root")["archives"].keys() == {
        path.name for path in toml.parent.glob("*.gz")
    }
    done = here("organize", *words, "--archives", toml.parent / OWN_LABELS, "--split", "train")
    assert "has the labels of train-images" in done.stderr


def test_what_needs_single_images_is_told_what_to_do(tmp_path: Path, here: Run) -> None:
    toml, root = published(tmp_path / "archives"), tmp_path / "root"
    words = ["--root", root, "--dataset", toml]
    assert here("organize", *words, "--archives", toml.parent).returncode == 0
    (root / "train" / "3").rename(root / "train" / "three")
    min((root / "train" / "5").iterdir()).unlink()
    done = here("repair", "--root", root, "--from", toml.parent)
    assert done.returncode == 5, "what is misplaced is moved, what is gone is a finding"
    assert "is read as a whole: no single image is taken from it" in done.stderr
    assert not (root / ".organizing" / "repair").exists()
    assert len(tree(root / "train")) == len(LABELS["train"]) - 1
    done = here("repair", "--root", root, "--from", tmp_path / "nowhere")
    assert (done.returncode, "nowhere is not there" in done.stderr) == (2, True), done.stderr
    done = here("repair-archives", *words)
    assert "nothing tells which bytes are wrong" in done.stderr or "has no archive" in done.stderr
    done = here("prepare", toml.parent / OWN_LABELS, "--root", tmp_path / "new", "--dataset", toml)
    assert (done.returncode, "has labels, and no images" in done.stderr) == (2, True), done.stderr


IMAGES, OWN_LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
ONE = random.Random(1).randbytes(SIDE * SIDE)
WRONG = {
    "labels that are another file": (OWN_LABELS, gzip.compress(b"no labels"), "has no labels"),
    "no gzip": (OWN_LABELS, b"labels", "is no gz file"),
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
    text = toml.read_text()
    for each in re.findall('name = "(train-.*)"', text):
        begin = text.index("md5", text.index(f'name = "{each}"'))
        line = text[begin:].partition("\n")[0]
        digest = hashlib.md5((toml.parent / each).read_bytes()).hexdigest()
        text = text.replace(line, f'md5 = "{digest}"')
    toml.write_text(text)
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
        ('labels = "train-labels', 'labels = "t10k-labels', "has more than the labels of"),
        ('labels = "train-labels-idx1', 'labels = "train-images-idx3', "has more than the labels"),
        ("members.train = ", 'members.val = "x"\nmembers.train = ', "images of one split"),
        ('name = "t10k-labels', 'name = "train-labels', "two of its archives have one name"),
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
