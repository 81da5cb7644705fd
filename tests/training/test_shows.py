"""What a training shows, and what is made of its checkpoint: one small run for all tests."""

import csv
import errno
import importlib
import io
import json
import os
import re
import shutil
import sqlite3
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from imnetprep import cli
from imnetprep.catalog.datasets import Root, Split
from imnetprep.manifest import open_manifest
from imnetprep.messages import Silent
from imnetprep.proving.receipt import DigestProof
from imnetprep.reports.curves import Curve, chart
from imnetprep.reports.log import step_lines
from imnetprep.reports.page import Page, write_page
from imnetprep.reports.parts import ClassScore, Sample
from imnetprep.reports.record import LogOptions, RunRecord
from imnetprep.samples.sample_list import read_samples
from imnetprep.training.origin import parse_origin, read_origin
from imnetprep.training.runs import Run as TrainingRun
from tests.conftest import Run
from tests.drawn import draw_root

RECIPE = "--arch mobilenet_v3_small --image-size 32 --batch-size 12 --epochs 2 --lr 0.01 --run r"


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> TrainingRun:
    """A run of two epochs, whose files no test changes."""
    root = draw_root(tmp_path_factory.mktemp("shown"))
    words = ["train", *RECIPE.split(), "--root", str(root.path), "--workers", "0"]
    assert cli.run([*words, "--device", "cpu", "--quiet", "--log-every", "2"]) == 0
    return TrainingRun(root.run("r"))


def test_show_tells_network_classes_score_and_origin(shown: TrainingRun, here: Run) -> None:
    text = here("show", shown.best).stdout
    for words in ("mobilenet_v3_small", "class 0, class 1", "of 21 validation", "60 images"):
        assert words in text
    assert all(len(line) < 100 for line in text.splitlines()[1:])
    table = json.loads(here("show", shown.last, "--json").stdout)
    assert table["position"] == {"epoch": 2, "step": 0}
    assert table["origin"]["splits"]["train"]["samples"] == 60
    commit = table["origin"]["commit"]
    assert commit is None or len(commit.removesuffix("-dirty")) == 40


def test_names_of_classes_steer_no_terminal(shown: TrainingRun, tmp_path: Path, here: Run) -> None:
    state = torch.load(shown.best, weights_only=True)
    state["names"][0] = "\x1b[31m\r\nred"
    torch.save(state, tmp_path / "c.pt")
    text = here("show", tmp_path / "c.pt").stdout
    assert "\\x1b[31m red" in text
    assert "\x1b" not in text


def test_the_origin_has_what_the_receipt_says(organized_once: Path) -> None:
    root = Root(organized_once)
    with open_manifest(root.manifest) as manifest:
        train = read_samples(manifest, Split.TRAIN, root)
    origin = read_origin(root, (train,))
    assert origin.splits is not None
    split = origin.splits["train"]
    assert (split.samples, split.archives) == (60, ("ILSVRC2012_img_train.tar",))
    assert isinstance(split.proof, DigestProof)
    assert parse_origin(json.loads(json.dumps(origin.as_json()))) == origin


@pytest.mark.parametrize(("number", "is_told"), [(errno.EIO, True), (errno.EACCES, False)])
def test_an_origin_does_without_a_receipt_that_may_not_be_read_and_not_where_the_disk_fails(
    number: int, is_told: bool, organized_once: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_path: Path) -> bytes:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("imnetprep.proving.receipt.read_file", refuse)
    with pytest.raises(OSError, match="Input/output") if is_told else nullcontext():
        assert read_origin(Root(organized_once), ()).splits == {}


@pytest.fixture(scope="module")
def photos(shown: TrainingRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images, one of them deeper, and what else lies in such folders."""
    folder = tmp_path_factory.mktemp("photos")
    first, second = sorted(shown.folder.parent.parent.glob("val/*/*"))[:2]
    (folder / "deep").mkdir()
    shutil.copy(first, folder / "a.jpg")
    shutil.copy(second, folder / "deep" / "b.jpg")
    (folder / "notes.txt").write_text("no image")
    (folder / ".DS_Store").write_bytes(b"\0")
    return folder


def test_predict_goes_through_a_folder_and_names_what_is_no_image(
    shown: TrainingRun, photos: Path, here: Run
) -> None:
    done = here("predict", shown.best, photos, "--top", 2, "--json")
    a, notes, b = map(json.loads, done.stdout.splitlines())
    assert [a["image"], b["image"]] == [f"{photos}/a.jpg", f"{photos}/deep/b.jpg"]
    assert len(a["best"]) == 2
    assert notes == {"image": f"{photos}/notes.txt", "problem": "is text, not an image"}
    assert done.returncode == 4
    assert done.stderr.startswith("Error: 1 of 3 files could not be read as an image\nHint: JPEG,")


def test_predict_takes_patterns_and_lines_and_prints_a_table(
    shown: TrainingRun, photos: Path, here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{photos}/a.jpg\n\n{photos}/gone.jpg\n"))
    done = here("predict", shown.best, f"{photos}/**/b.*", "-", "--top", 1, "--csv")
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert [row["image"] for row in rows] == [f"{photos}/deep/b.jpg", f"{photos}/a.jpg"]
    assert 1 / 3 <= float(rows[0]["probability"]) <= 1
    assert "gone.jpg No such file or directory" in done.stderr
    assert done.returncode == 4
    assert here("predict", shown.best, "-").returncode == 4  # no line is left
    assert here("predict", shown.best, photos / "x*.jpg").returncode == 1


def test_predict_draws_what_it_saw(
    shown: TrainingRun, photos: Path, tmp_path: Path, here: Run
) -> None:
    out = tmp_path / "drawn.png"
    done = here("predict", shown.best, photos, "--draw", out, "--device", "cpu")
    assert (done.returncode, f"{out}: 2 images" in done.stderr) == (4, True), done.stderr
    with Image.open(out) as sheet, Image.open(photos / "a.jpg") as image:
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
        small = np.asarray(image.convert("RGB").resize((144, 144))).astype(int)
    assert pixels.shape[0] == 40 + 2 * (144 + 14) + 20
    assert np.abs(pixels[40:184, 20:164] - small).mean() < 30, "the image is there"
    bars = (pixels == (0x2F, 0x6D, 0xB5)).all(2)
    assert bars[40:184].any() and bars[198:].any(), "and a bar of the best class of each"
    done = here("predict", shown.best, photos, "--draw", tmp_path / "drawn.gif")
    assert (done.returncode, "a sheet is a PNG or a JPEG" in done.stderr) == (2, True)


def test_the_log_has_a_line_every_few_steps(shown: TrainingRun) -> None:
    steps = step_lines(shown.log_lines())
    assert [line["step"] for line in steps] == [2, 4, 5] * 2  # five steps an epoch
    first, second = steps[:2]
    loss = 12 * 2 * (first["loss"] + second["loss"])
    assert second["epoch_loss"] * second["images"] == pytest.approx(loss, rel=1e-5)
    assert all(line["images_per_second"] > 0 for line in steps)


def test_plot_draws_runs_side_by_side(shown: TrainingRun, tmp_path: Path, here: Run) -> None:
    other = TrainingRun(tmp_path / "cost $5_^{x}")  # which is no formula
    other.folder.mkdir()
    words = ["plot", shown.folder, other.folder, "--out", tmp_path / "p.png"]
    assert "has no log yet" in here(*words).stderr
    other.log.write_text(shown.log.read_text().splitlines()[0] + "\n")  # not one epoch is over
    assert "(0 epochs), not drawn" in here(*words, "--dry-run").stdout
    assert not (tmp_path / "p.png").exists()
    told = here(*words, "--json")
    assert json.loads(told.stdout)["epochs"] == {"r": 2, "cost $5_^{x}": 0}
    with Image.open(tmp_path / "p.png") as image:
        assert len(image.getcolors(1 << 20) or ()) > 20


def test_a_run_of_the_root_comes_before_a_folder_of_its_name(
    shown: TrainingRun, tmp_path: Path, here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / shown.folder.name).mkdir()
    monkeypatch.chdir(tmp_path)
    words = ["plot", shown.folder.name, "--runs", shown.folder.parent, "--dry-run"]
    assert "(2 epochs), not drawn" in here(*words).stdout


def test_the_page_shows_the_run_and_needs_no_other_file(shown: TrainingRun) -> None:
    page = (shown.folder / "report.html").read_text()
    for words in (
        "2 of 2 epochs",
        "60 images, imagefolder",
        "mobilenet_v3_small",
        "torch 2",
        "/7<",
    ):
        assert words in page
    assert page.count("<svg") == 4
    assert page.count("<img") == page.count("data:image/png") == 12
    assert not re.findall(r"""(?:src|href|url)[=(]\W*(?!data:)\w+""", page)
    assert "<script" not in page


def test_a_page_of_a_broken_run_with_hostile_names(tmp_path: Path) -> None:
    name = "<script>alert(1)</script>\x1b\u202e"
    score = {"top1": 1, "images": 2, "top1_percent": 50.0, "top5_percent": 100.0}
    part = {"loss": float("nan"), **score}
    line = {"epoch": 1, "epochs": 9, "lr": 0.1, "seconds": 1.0, "images_per_second": 3.0}
    page = Page(
        name, [{**line, "train": part, "val": part}], {name: {name: name}},
        [Sample(b"", name)], [ClassScore(name, (1, 2)), ClassScore("empty", (0, 0))],
    )  # fmt: skip
    write_page(page, tmp_path / "p.html")
    text = (tmp_path / "p.html").read_text()
    assert "no number yet" in text  # of the loss
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\x1b\\u202e" in text
    assert not re.search("<script|nan|>empty<|[\x1b\u202e]", text)
    write_page(Page("none", [], {}), tmp_path / "none.html")
    assert "no epoch is over" in (tmp_path / "none.html").read_text()


def test_a_plot_waits_until_it_is_due_or_the_training_ends(
    shown: TrainingRun, tmp_path: Path
) -> None:
    text = (shown.folder / "log.jsonl").read_text()
    *lines, last = map(json.loads, text.splitlines())
    record = RunRecord(tmp_path, lines, LogOptions(), ["a"], {"Recipe": {}}, Silent())
    record.draw(list, [(1, 2)])
    plot, page = ((tmp_path / name).read_bytes() for name in ("plot.png", "report.html"))
    record.add_epoch(last)
    record.draw(list, [(1, 2)])
    assert (tmp_path / "plot.png").read_bytes() == plot, "no time went by that would pay for it"
    assert (tmp_path / "report.html").read_bytes() != page
    record.close()
    assert (tmp_path / "plot.png").read_bytes() != plot


def test_a_page_that_cannot_be_written_ends_no_training(
    shown: TrainingRun, tmp_path: Path, here: Run
) -> None:
    (tmp_path / "r" / "report.html" / "in the way").mkdir(parents=True)
    root = shown.folder.parent.parent
    words = ["--root", root, "--runs", tmp_path, "--workers", 0, "--device", "cpu"]
    done = here("train", *RECIPE.replace("--epochs 2", "--epochs 1").split(), *words)
    assert done.returncode == 0
    assert "the run could not be drawn: IsADirectoryError" in done.stderr
    assert len((tmp_path / "r" / "log.jsonl").read_text().splitlines()) == 2


@pytest.fixture
def tracked(shown: TrainingRun, tmp_path: Path, here: Run, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A run of one epoch, followed by a tracker that keeps all below the run."""
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))

    def trained(tracker: str) -> tuple[Path, str]:
        pytest.importorskip(tracker, reason=f"{tracker} is not installed: scripts/test --all")
        words = ["--root", shown.folder.parent.parent, "--runs", tmp_path, "--track", tracker]
        words += ["--workers", 0, "--device", "cpu", "--log-every", 2]
        done = here("train", *RECIPE.replace("--epochs 2", "--epochs 1").split(), *words)
        assert done.returncode == 0, done.stderr
        return tmp_path, done.stderr

    return trained


def test_tensorboard_follows_a_run(tracked: Any) -> None:
    folder, _ = tracked("tensorboard")
    events = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    accumulator = events.EventAccumulator(str(folder / "r" / "tensorboard"))
    accumulator.Reload()
    names = {name for kinds in accumulator.Tags().values() if isinstance(kinds, list)
             for name in kinds}  # fmt: skip
    assert {"train/loss", "lr", "images_per_second", "val/top1", "val/loss"} <= names
    assert [event.step for event in accumulator.Tensors("train/loss")] == [2, 4, 5]


def test_mlflow_follows_a_run(tracked: Any) -> None:
    folder, _ = tracked("mlflow")
    mlflow = importlib.import_module("mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{folder}/r/mlflow.db")
    experiment = client.get_experiment_by_name("imnetprep").experiment_id
    (run,) = client.search_runs([experiment])
    assert run.data.params["arch"] == "mobilenet_v3_small"
    assert [each.step for each in client.get_metric_history(run.info.run_id, "lr")] == [2, 4, 5]
    assert run.info.status == "FINISHED"


def test_wandb_follows_a_run(tracked: Any) -> None:
    folder, _ = tracked("wandb")
    (file,) = folder.glob("r/wandb/offline-run-*/*.wandb")
    body = file.read_bytes()
    assert b"val/top1" in body
    assert b"mobilenet_v3_small" in body


def test_trackio_follows_a_run(tracked: Any) -> None:
    folder, _ = tracked("trackio")
    (file,) = folder.glob("trackio/imnetprep*.db")
    with closing(sqlite3.connect(file)) as database:
        rows = database.execute("SELECT metrics FROM metrics").fetchall()
    assert any("val/top1" in json.loads(row[0]) for row in rows)


def test_a_tracker_that_fails_ends_no_training(tracked: Any, tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "tensorboard").write_text("in the way")
    _, told = tracked("tensorboard")
    assert told.count("tensorboard follows the run no more: FileExistsError") == 1


def test_points_that_differ_by_rounding_have_short_numbers_on_the_axis() -> None:
    picture = chart("loss", [Curve("train", [(1.0, 1.0414348), (1.0, 1.04143483)], "train")])
    labels = re.findall(r'text-anchor="end">([^<]*)<', picture)
    assert len(labels) >= 2 and max(map(len, labels)) <= 5, labels
