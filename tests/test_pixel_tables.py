"""Tables of pixels: each line an image of the right class; what is none is told with its line."""

import csv
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Run, tree
from tests.stopped import run_stopped

SIDE = 8
IMAGES = 60


def rows(white: float = 255) -> list[list[object]]:
    """A label and the pixels of each image, a third of each class; the first pixel is white."""
    chance = random.Random(5)
    kind = int if isinstance(white, int) else float
    return [
        [at % 3, *(white, *(kind(chance.random() * white) for _ in range(SIDE * SIDE - 1)))]
        for at in range(IMAGES)
    ]


def table(path: Path, lines: list[list[object]], header: list[str] | None = None) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([*([header] if header else []), *lines])
    return path


NAMES = [f"pixel{at}" for at in range(SIDE * SIDE)]


@pytest.mark.parametrize(
    ("header", "order", "white"),
    [
        (["label", *NAMES], 1, 255),
        ([*NAMES, "target"], -1, 16),
        (["label", *map(str, range(SIDE * SIDE))], 1, 16),
        ([*map(str, range(SIDE * SIDE)), "label"], -1, 16),
        (None, 1, 255),
        (["Class Name", *NAMES], 1, 1.0),
    ],
)
def test_each_line_is_an_image_of_its_class(
    header: list[str] | None, order: int, white: float, tmp_path: Path, here: Run
) -> None:
    lines = rows(white)
    own = lines if order == 1 else [[*line[1:], line[0]] for line in lines]
    path = table(tmp_path / "digits.csv", own, header)
    root = tmp_path / "root"
    done = here("divide", path, "--root", root)
    assert done.returncode == 0, done.stderr
    assert "3 classes: 0 20, 1 20, 2 20" in done.stdout
    assert ("is taken for white" in done.stderr) == (white != 255)
    assert ("has no header" in done.stderr) == (header is None)
    places = {each.name: each for each in root.glob("*/?/*.png")}
    assert len(places) == IMAGES
    for number, (label, *values) in enumerate(lines):
        place = places[f"{number:06}.png"]
        assert place.parent.name == str(label)
        with Image.open(place) as image:
            assert (image.mode, image.size) == ("L", (SIDE, SIDE))
            wanted = np.rint(np.array(values, np.float32) * np.float32(255 / white))
            assert np.abs(np.asarray(image).ravel() - wanted).max() <= 1
            assert image.getpixel((0, 0)) == 255, "white"
    done = here("verify", "--root", root, "--digests", "--decode")
    assert done.returncode == 0, done.stdout
    assert "organized already" in here("divide", path, "--root", root).stderr


@pytest.mark.parametrize("separator", [" ", ";", "\t", ","])
def test_numpy_writes_labels_as_numbers(separator: str, tmp_path: Path, here: Run) -> None:
    path = tmp_path / "digits.csv"
    np.savetxt(path, np.array(rows(16)), delimiter=separator)
    done = here("divide", path, "--root", tmp_path / "root")
    assert "3 classes: 0 20, 1 20, 2 20" in done.stdout, done.stderr


def test_what_is_lost_is_drawn_again(tmp_path: Path, here: Run) -> None:
    path, root = table(tmp_path / "digits.csv", rows()), tmp_path / "root"
    assert here("divide", path, "--root", root).returncode == 0
    before = tree(root / "train")
    (root / "train" / min(before)).unlink()
    done = here("repair", "--root", root)
    assert (done.returncode, f"1 taken from {path}" in done.stdout) == (0, True), done.stdout
    assert tree(root / "train") == before
    (root / "train" / min(before)).unlink()
    table(path, [[line[0], *reversed(line[1:])] for line in rows()])
    done = here("repair", "--root", root)
    assert (done.returncode, "has another digest in the manifest" in done.stdout) == (5, True)
    done = here("repair", "--root", root, "--from", tmp_path)
    assert (done.returncode, "is not where its images came from" in done.stderr) == (2, True)
    path.unlink()
    assert here("repair", "--root", root).returncode == 5


def test_a_kill_leaves_nothing_under_the_name(tmp_path: Path, here: Run) -> None:
    path, root = table(tmp_path / "digits.csv", rows()), tmp_path / "root"
    words = ["divide", path, "--jobs", "1"]
    run_stopped(root, "imnetprep.own_images.pixel_table:PixelTable.encode:30", *words)
    assert not (root / "train").exists()
    assert here(*words, "--root", root).returncode == 0
    assert sum(len(tree(root / split)) for split in ("train", "val")) == IMAGES


GOOD = ",".join(["1", *["7"] * SIDE * SIDE])
WRONG = {
    "empty": ("", "digits.csv is empty"),
    "a header alone": (",".join(["label", *NAMES]), "has no images"),
    "no label": (
        ",".join(NAMES) + "\n" + GOOD[2:],
        "has no column of labels; its first is 'pixel0'",
    ),
    "no square": (GOOD + ",7", "line 1: it has 65 pixels, which make no square"),
    "a short line": (f"{GOOD}\n{GOOD[:-2]}", "line 2: it has 64 cells, not 65"),
    "a word": (f"{GOOD}\n{GOOD[:-1]}x", "line 2: 'x' is no pixel"),
    "no number": (f"{GOOD}\n{GOOD[:-1]}nan", "line 2: a pixel is none of 0 to 255"),
    "too white": (f"{GOOD}\n{GOOD[:-1]}256", "line 2: a pixel is none of 0 to 255"),
    "below black": (f"{GOOD}\n{GOOD[:-1]}-1", "line 2: a pixel is none of 0 to 255"),
    "a class elsewhere": (f"{GOOD}\n../2{GOOD[1:]}", "line 2: '../2' is no name of a class"),
    "no text": (f"{GOOD}\n\udcff", "line 2: "),
    "compressed": ("\x1f\udc8b", "is compressed"),
    "one class": (f"{GOOD}\n{GOOD}", "are of one class, '1'"),
}


@pytest.mark.parametrize("which", WRONG)
def test_what_is_no_table_is_told(which: str, tmp_path: Path, here: Run) -> None:
    text, told = WRONG[which]
    path = tmp_path / "digits.csv"
    path.write_bytes(text.encode(errors="surrogateescape"))
    done = here("divide", path, "--root", tmp_path / "root")
    assert (done.returncode, told in done.stderr) == (1, True), done.stderr
    assert "Hint: " in done.stderr
    assert not (tmp_path / "root").exists()


def test_an_option_for_files_is_refused(tmp_path: Path, here: Run) -> None:
    path = table(tmp_path / "digits.csv", rows())
    done = here("divide", path, "--root", tmp_path / "root", "--copy")
    assert (done.returncode, "--copy cannot be used" in done.stderr) == (2, True)
