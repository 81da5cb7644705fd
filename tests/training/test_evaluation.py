"""evaluate beyond top-1 and top-5: each number again by a plain count."""

import csv
import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import CenterCrop, Resize
from torchvision.transforms.functional import normalize

from imnetprep.catalog.datasets import Layout, Root, Split, load_dataset
from imnetprep.catalog.real_labels import real_labels
from imnetprep.evaluation.guesses import Guesses, GuessRecorder
from imnetprep.evaluation.real_score import real_score
from imnetprep.evaluation.scored_classes import only_classes
from imnetprep.layouts.imagefolder import make_class_folder, write_sample
from imnetprep.manifest import SampleRecord, manifest_written, open_manifest
from imnetprep.networks.model import build_model
from imnetprep.pixels.transforms import MEAN, STD
from imnetprep.recipes.plan_recipe import plan_recipe
from imnetprep.reports.evaluation_page import Confusion, EvaluationPage, Reliability
from imnetprep.reports.parts import ClassScore, Sample
from imnetprep.samples.sample_list import SampleList, read_samples
from imnetprep.training.checkpoint import save_checkpoint
from imnetprep.training.classes import classes_of
from tests.conftest import Run
from tests.drawn import draw_root
from tests.training.test_checkpoint import CHECKPOINT

ILSVRC2012 = load_dataset("ilsvrc2012")
# Of the first images in real.json: nobody agreed, 970 and 795, 230 and 231, 809, 516 and 850.
REAL = {1: (), 2: (970, 795), 3: (230, 231), 4: (809,), 5: (516, 850)}


WORDS = ("--device", "cpu", "--workers", 0, "--batch-size", 8)


@pytest.fixture(scope="module")
def seven(tmp_path_factory: pytest.TempPathFactory) -> Root:
    """Seven drawn classes of six validation images."""
    return draw_root(tmp_path_factory.mktemp("seven"), classes=7, train=1, val=6)


@pytest.fixture(scope="module")
def checkpoint(seven: Root, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of these seven classes that has learned nothing, and so says much that is wrong."""
    recipe = plan_recipe({"arch": "cnn-small", "image_size": 32}, amp_pays=False)
    model = build_model("cnn-small", classes=7, image_size=32, seed=3)
    with open_manifest(seven.manifest) as manifest:
        classes = classes_of(manifest.dataset())
    state = replace(
        CHECKPOINT, recipe=recipe, classes=classes, weights=model.state_dict(), average={}
    )
    path = tmp_path_factory.mktemp("checkpoint") / "best.pt"
    save_checkpoint(path, state)
    return path


@pytest.fixture(scope="module")
def logits(seven: Root, checkpoint: Path) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """What the network says (42, 7) of each image, and its label, without our loader."""
    state = torch.load(checkpoint, weights_only=True)
    model = build_model("cnn-small", classes=7, image_size=32, seed=0).eval()
    model.load_state_dict(state["weights"])
    rows, labels = [], []
    for label, folder in enumerate(sorted((seven.path / "val").iterdir())):
        for path in sorted(folder.iterdir()):
            with Image.open(path) as image:
                crop = CenterCrop(32)(Resize(37)(image.convert("RGB")))
            pixels = torch.from_numpy(np.asarray(crop) / 255.0).permute(2, 0, 1)
            pixels = normalize(pixels, list(MEAN), list(STD))
            with torch.inference_mode():
                rows.append(model(pixels[None].float())[0].double().numpy())
            labels.append(label)
    return np.array(rows), np.array(labels)


@pytest.fixture(scope="module")
def first_five(drawn: Root, tmp_path_factory: pytest.TempPathFactory) -> Root:
    """A root of ilsvrc2012 with the first five validation images, whose pixels are drawn."""
    root = Root(tmp_path_factory.mktemp("five"))
    body = next(drawn.path.glob("val/*/*")).read_bytes()
    records = []
    for number in REAL:
        name = f"ILSVRC2012_val_{number:08}.JPEG"
        label = ILSVRC2012.label_of(Split.VAL, name)
        assert label is not None
        folder = make_class_folder(root.split(Split.VAL), ILSVRC2012.synsets[label].wnid)
        write_sample(str(folder), name, body)
        records.append(SampleRecord.of_body(label, name, body))
    with manifest_written(root.manifest, ILSVRC2012) as manifest:
        manifest.add_split(Split.VAL, Layout.IMAGEFOLDER, sorted(records))
    return root


@pytest.fixture
def samples(first_five: Root) -> SampleList:
    with open_manifest(first_five.manifest) as manifest:
        return read_samples(manifest, Split.VAL, first_five)


def always(label: int, path: Path, *, classes: int = 1000) -> Path:
    """Weights of a network that takes every image for the class `label`."""
    weights = build_model("cnn-small", classes=classes, image_size=32, seed=0).state_dict()
    weights["head.weight"].zero_()
    weights["head.bias"][label] += 9
    torch.save(weights, path)
    return path


def test_the_real_labels_are_the_published_ones() -> None:
    labels = real_labels(ILSVRC2012)
    body = json.dumps([labels[number] for number in range(1, 50_001)]).encode()
    published = "d83e9bff374c631aae8439eb064c7019acc56e1b3bc3f56b8380c2a710b0220b"  # real.json's
    assert hashlib.sha256(body).hexdigest() == published
    assert sum(map(bool, labels.values())) == 46_837


def test_a_guess_among_the_real_labels_counts(first_five: Root, tmp_path: Path, here: Run) -> None:
    weights = always(795, tmp_path / "w.pth")
    words = ["evaluate", weights, "--arch", "cnn-small", "--root", first_five.path, *WORDS]
    done = here(*words)
    first, second = done.stdout.splitlines()
    assert first.startswith("top-1 0/5 0.00 %"), done.stderr  # the label of image 2 is 970
    assert second == "ReaL top-1 1/4 25.00 %"
    table = json.loads(here(*words, "--json").stdout)
    assert table["real"] == {"top1": 1, "images": 4, "top1_percent": 25.0}


def test_images_are_known_by_their_number_not_their_place(samples: SampleList) -> None:
    numbers = [int(samples.name(index)[15:23]) for index in range(5)]
    assert numbers != sorted(numbers)
    for pick in (0, -1):
        guesses = [(REAL[number] or [999])[pick] for number in numbers]
        assert real_score(samples, np.array(guesses)) == (4, 4)
        assert real_score(samples, np.roll(guesses, 1)) == (0, 4)


def test_other_images_have_no_real_labels(samples: SampleList, drawn: Root) -> None:
    guesses = samples.labels.copy()
    assert real_score(samples, guesses) == (4, 4)
    moved = replace(samples, labels=samples.labels[::-1])
    assert real_score(moved, guesses) is None
    renamed = replace(samples, names=samples.names.replace(b"_val_0", b"_val_1"))
    assert real_score(renamed, guesses) is None
    with open_manifest(drawn.manifest) as manifest:
        others = read_samples(manifest, Split.VAL, drawn)
    assert real_score(others, others.labels) is None


@pytest.mark.parametrize("form", ["commas", "list"])
def test_only_some_classes_are_scored_and_guessed(
    form: str,
    seven: Root,
    checkpoint: Path,
    logits: tuple[NDArray[np.float64], NDArray[np.int64]],
    tmp_path: Path,
    here: Run,
) -> None:
    (tmp_path / "list.txt").write_text("n10000006\nn10000001  # the second\nn10000004\n")
    choice = "n10000004, n10000001,n10000006" if form == "commas" else tmp_path / "list.txt"
    words = ["evaluate", checkpoint, "--root", seven.path, *WORDS, "--json"]
    done = here(*words, "--only-classes", choice)
    table = json.loads(done.stdout)
    columns = [1, 4, 6]
    rows, labels = logits
    of_these = np.isin(labels, columns)
    guesses = np.array(columns)[rows[of_these][:, columns].argmax(axis=1)]
    assert table["top1"] == (guesses == labels[of_these]).sum()
    assert (table["images"], table["top5"]) == (18, 18)
    assert "scored among 3 classes: the other 4 outputs of the network are left out" in done.stderr
    free = rows[of_these].argmax(axis=1)
    assert (free != guesses).any()  # the choice made a difference


def test_a_root_of_fewer_classes_is_scored_by_their_outputs(
    seven: Root, checkpoint: Path, tmp_path: Path, here: Run
) -> None:
    (tmp_path / "list.txt").write_text("n10000005\nn10000002\n")
    part = tmp_path / "part"
    done = here("subset", tmp_path / "list.txt", "--root", seven.path, "--to", part, "--quiet")
    assert done.returncode == 0, done.stderr
    words = ["evaluate", checkpoint, *WORDS, "--json", "--root"]
    chosen = here(*words, seven.path, "--only-classes", tmp_path / "list.txt")
    assert here(*words, part).stdout == chosen.stdout
    assert json.loads(chosen.stdout)["images"] == 12


def test_weights_of_ilsvrc2012_are_scored_on_a_tree_of_some_of_its_classes(
    seven: Root, tmp_path: Path, here: Run
) -> None:
    first, second = ILSVRC2012.synsets[7].wnid, ILSVRC2012.synsets[970].wnid
    for split in ("train", "val"):
        for wnid, images in ((first, 2), (second, 3)):
            folder = tmp_path / "tree" / split / wnid
            folder.mkdir(parents=True)
            for path in sorted(seven.path.glob("val/*/*"))[:images]:
                shutil.copy(path, folder)
    weights = always(970, tmp_path / "w.pth")
    words = ["evaluate", weights, "--arch", "cnn-small", "--root", tmp_path / "tree", *WORDS]
    done = here(*words)
    assert done.stdout.startswith("top-1 3/5 60.00 %  top-5 5/5"), done.stderr
    assert "scored among 2 classes: the other 998 outputs" in done.stderr
    done = here(*words, "--only-classes", first)
    assert done.stdout.startswith("top-1 2/2 100.00 %")


@pytest.mark.parametrize(
    ("choice", "sentence"),
    [
        ("n10000001,n1", "--only-classes: drawn7 has no class 'n1'"),
        ("imagenette", "imagenette: 'n01440764' is neither a class nor a train file of drawn7"),
        ("nowhere.txt", "no list is called 'nowhere.txt'"),
    ],
)
def test_a_choice_that_cannot_be_made(
    choice: str, sentence: str, seven: Root, checkpoint: Path, here: Run
) -> None:
    done = here("evaluate", checkpoint, "--root", seven.path, *WORDS, "--only-classes", choice)
    assert done.returncode in (1, 2)
    assert sentence in done.stderr and "Hint: " in done.stderr


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_report_has_what_a_plain_script_counts(
    seven: Root,
    checkpoint: Path,
    logits: tuple[NDArray[np.float64], NDArray[np.int64]],
    tmp_path: Path,
    here: Run,
) -> None:
    words = ["evaluate", checkpoint, "--root", seven.path, *WORDS, "--json"]
    table = json.loads(here(*words, "--report", tmp_path / "out").stdout)
    files = ["report.html", "mistakes.csv", "confusion.csv", "classes.csv"]
    assert table["files"] == [str(tmp_path / "out" / name) for name in files]
    assert sorted(files) == sorted(path.name for path in (tmp_path / "out").iterdir())

    rows, labels = logits
    shares = np.exp(rows) / np.exp(rows).sum(axis=1, keepdims=True)
    order = np.argsort(-rows, axis=1)
    guesses, sure = order[:, 0], shares.max(axis=1)
    wnids = [f"n1000000{label}" for label in range(7)]
    classes = rows_of(tmp_path / "out" / "classes.csv")
    assert [row["wnid"] for row in classes] == wnids
    for label, row in enumerate(classes):
        own = labels == label
        assert int(row["images"]) == own.sum() == 6
        assert int(row["top1"]) == (guesses[own] == label).sum()
        assert int(row["top5"]) == sum(label in top[:5] for top in order[own])
        assert int(row["guesses"]) == (guesses == label).sum()
    assert table["top1"] == sum(int(row["top1"]) for row in classes)
    assert table["top5"] == sum(int(row["top5"]) for row in classes)

    pairs: dict[tuple[str, str], int] = {}
    for label, guess in zip(labels, guesses, strict=True):
        if label != guess:
            pair = wnids[label], wnids[guess]
            pairs[pair] = pairs.get(pair, 0) + 1
    confusion = rows_of(tmp_path / "out" / "confusion.csv")
    assert {(row["wnid"], row["guess_wnid"]): int(row["images"]) for row in confusion} == pairs
    assert [int(row["images"]) for row in confusion] == sorted(pairs.values(), reverse=True)

    mistakes = rows_of(tmp_path / "out" / "mistakes.csv")
    wrong = np.flatnonzero(guesses != labels)
    surest = wrong[np.argsort(-sure[wrong], kind="stable")]
    assert [float(row["confidence"]) for row in mistakes] == pytest.approx(sure[surest], abs=2e-4)
    for row in mistakes:
        assert (seven.path / "val" / row["image"]).is_file()
        assert row["image"].startswith(row["wnid"])

    error = 0.0
    for part in range(15):
        inside = (sure > part / 15) & (sure <= (part + 1) / 15)
        if inside.any():
            gap = abs(sure[inside].mean() - (guesses == labels)[inside].mean())
            error += inside.mean() * gap
    assert table["calibration_error_percent"] == pytest.approx(100 * error, abs=0.05)

    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") == min(len(wrong), 24)
    assert f"The surest of {len(wrong)} mistakes" in page
    assert f"calibration error {table['calibration_error_percent']:.2f} %" in page
    assert not re.search(r"<script|https?:|src=\"(?!data:)", page)


@pytest.mark.parametrize("classes", [1, 3])
def test_a_report_of_few_classes(classes: int, tmp_path: Path, here: Run) -> None:
    root = draw_root(tmp_path / "root", classes=classes, train=1, val=4)
    weights = always(0, tmp_path / "w.pth", classes=classes)
    out = tmp_path / "out"
    words = ["evaluate", weights, "--arch", "cnn-small", "--root", root.path, *WORDS]
    done = here(*words, "--report", out)
    images = 4 * classes
    assert done.stdout.startswith(f"top-1 4/{images} "), done.stderr
    assert f"top-5 {images}/{images} 100.00 %" in done.stdout
    assert done.stdout.endswith(f"{out}: report.html, mistakes.csv, confusion.csv, classes.csv\n")
    page = (out / "report.html").read_text()
    if classes == 1:
        assert "calibration error 0.00 %" in done.stdout  # it is sure, and right
        assert "<h2>Mistakes</h2><p>none</p>" in page
        assert not rows_of(out / "confusion.csv") + rows_of(out / "mistakes.csv")
    else:
        assert [row["guess_wnid"] for row in rows_of(out / "confusion.csv")] == ["n10000000"] * 2


def test_counts_of_a_thousand_classes_are_those_of_the_whole_matrix() -> None:
    chance = np.random.default_rng(0)
    labels = np.repeat(np.arange(1000), 50)
    guesses = np.where(chance.random(50_000) < 0.7, labels, chance.integers(0, 1000, 50_000))
    matrix = np.zeros((1000, 1000), int)
    np.add.at(matrix, (labels, guesses), 1)
    rows = Guesses(
        labels.astype(np.int32),
        guesses.astype(np.int32),
        chance.random(50_000, np.float32),
        np.ones(50_000, bool),
    )
    counts = rows.counts(1000)
    assert (counts.images == matrix.sum(axis=1)).all()
    assert (counts.top1 == matrix.diagonal()).all()
    assert (counts.guesses == matrix.sum(axis=0)).all()
    np.fill_diagonal(matrix, 0)
    pairs = rows.confusions()
    assert len(pairs) == (matrix > 0).sum()
    assert all(matrix[pair.label, pair.guess] == pair.images for pair in pairs)
    assert sum(each.images for each in rows.calibration()) == 50_000


def test_a_network_that_says_no_number_is_counted_too() -> None:
    recorder = GuessRecorder()
    recorder.add(torch.full((3, 4), torch.nan), torch.tensor([0, 1, 2]))
    guesses = recorder.guesses()
    assert guesses.confidences.tolist() == [0, 0, 0]
    assert 0 <= guesses.calibration_error() <= 1


def test_where_no_report_can_be_is_told_before_all_is_scored(
    seven: Root, checkpoint: Path, tmp_path: Path, here: Run
) -> None:
    (tmp_path / "file").touch()
    words = ["evaluate", checkpoint, "--root", seven.path, *WORDS, "--report"]
    done = here(*words, tmp_path / "file" / "out")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{tmp_path / 'file'} is no folder" in done.stderr


def test_what_strangers_named_is_text_on_the_page() -> None:
    name = "<img src=x onerror=alert(1)>\x1b[31m"
    pair, part = Confusion(name, name, 1, 2), Reliability(2, 0.5, 1)
    page = EvaluationPage(
        name, [name], [ClassScore(name, (1, 2))], [pair], [Sample(b"", name, name)], [part],
        {name: {name: name}},
    ).html()  # fmt: skip
    assert b"<img src=x" not in page and b"\x1b" not in page
    assert page.count(b"&lt;img src=x") == 11


def test_two_hundred_classes_may_be_typed(drawn: Root) -> None:
    with open_manifest(drawn.manifest) as manifest:
        samples, dataset = read_samples(manifest, Split.VAL, drawn), manifest.dataset()
    wnids = [*dataset.label_of_wnid][:2]
    part = only_classes(samples, dataset, ",".join(100 * wnids))  # longer than a name of a file
    assert part.wnids == tuple(wnids) and len(part) == 14


def test_what_is_noted_of_a_batch_holds_nothing_of_it() -> None:
    """A batch of a worker keeps a file descriptor: 1,024 of them are all that a process has."""
    recorder, labels = GuessRecorder(), torch.tensor([1, 0])
    recorder.add(torch.tensor([[0.0, 1.0], [0.0, 1.0]]), labels)
    labels.fill_(7)
    assert recorder.guesses().labels.tolist() == [1, 0]
