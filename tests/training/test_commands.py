"""evaluate, predict and train as a user types them: what they print, how they refuse."""

import json
import os
import subprocess
import sys
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from PIL import Image

from imnetprep.catalog.datasets import Root
from imnetprep.evaluation.evaluate import evaluate
from imnetprep.messages import ImnetprepError, Silent, WrongUsage
from imnetprep.predict import Prediction, predictions
from imnetprep.training.checkpoint import load_checkpoint
from imnetprep.training.plan import plan_training
from imnetprep.training.runs import Run, named_run, pick_checkpoint
from tests.conftest import Run as RunCommand
from tests.conftest import snapshot
from tests.drawn import draw_root

ARGUMENTS = "--arch resnet18 --image-size 32 --crop-scale 0.5 --batch-size 12 --epochs 3 --lr 0.01"


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Root:
    return draw_root(tmp_path_factory.mktemp("learned"))


@pytest.fixture(scope="module")
def said(learned: Root, run: RunCommand) -> CompletedProcess[str]:
    options = ["--root", learned.path, "--workers", 0, "--device", "cpu"]
    return run("train", *ARGUMENTS.split(), *options)


@pytest.fixture(scope="module")
def best(learned: Root, said: CompletedProcess[str]) -> Path:
    assert said.returncode == 0, said.stderr
    return Run(learned.run("resnet18")).best


def test_train_tells_counts_percent_and_pace(best: Path, said: CompletedProcess[str]) -> None:
    lines = said.stdout.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("epoch")] == ["1/3", "2/3", "3/3"]
    assert "/60 " in lines[1]
    assert "/21 " in lines[2]
    assert all(word in lines[3] for word in ("images/s", "s waited for data"))
    assert "3 classes, 5 steps an epoch" in said.stderr


def test_train_without_lr_says_how_it_follows_from_the_batch(root: Root, run: RunCommand) -> None:
    small = "--arch squeezenet1_1 --image-size 32 --epochs 1 --batch-size 32 --device cpu --json"
    told = run("train", *small.split(), "--root", root.path, "--workers", 0)
    assert "lr 0.0125 = 0.1 × batch size 32 / 256" in told.stderr
    (line,) = map(json.loads, told.stdout.splitlines())
    assert (line["epoch"], line["val"]["images"]) == (1, 21)


def test_what_is_missing_is_told_before_torch_is_loaded(
    learned: Root, best: Path, tmp_path: Path
) -> None:
    root, absent = str(learned.path), str(tmp_path / "absent")
    lines = {
        f"train --root {absent}": "holds no dataset yet",
        f"train --root {root}": "there is a run resnet18",
        f"train --root {root} --run b --epochs 0": "--epochs 0 is not between",
        f"train --root {root} --run b --layout webdataset": "no train split as webdataset",
        f"evaluate --root {absent} {best}": "holds no dataset yet",
        f"evaluate --root {root} {absent}.pt": "there is no checkpoint",
        f"evaluate --root {root} --run b": "there is no best.pt",
        f"evaluate --root {root} --runs {absent}": "holds no run with an epoch",
        f"inspect --root {absent}": "holds no dataset yet",
        f"predict {absent}.pt {best}": "there is no checkpoint",
        f"predict {best} {absent}/a.jpg {absent}/b.jpg": "a.jpg, ",
    }
    script = "import sys; from imnetprep.cli import run\n"
    script += "print([run(line.split()) for line in sys.argv[1:]], 'torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script, *lines], check=False, capture_output=True, text=True
    )
    assert done.stdout == f"{[1, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1]} False\n"
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error")]
    for told, words in zip(errors, lines.values(), strict=True):
        assert words in told
    assert f"Hint: imnetprep train --root {root} --runs {absent} makes one" in done.stderr


_READ_ONLY = """
import os, subprocess, sys
from imnetprep.cli import run
root, image, best, runs = sys.argv[1:]
subprocess.run(["mount", "--bind", root, root], check=True)
subprocess.run(["mount", "-o", "remount,ro,bind", root], check=True)
os.chdir(runs)
small = "--image-size 32 --batch-size 16 --epochs 1 --workers 0 --device cpu".split()
train = ["train", "--root", root, "--arch", "squeezenet1_1", *small]
print([run(line) for line in (
    ["verify", "--root", root, "--digests"], ["inspect", "--root", root, "--classes", "1"], train,
    [*train, "--runs", runs], ["evaluate", "--root", root, "--runs", runs, "--workers", "0"],
    ["evaluate", "--root", root, "--workers", "0"], ["predict", best, image],
    ["status", "--root", root, "--runs", runs], ["clean", "--root", root, "--runs", runs],
)])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_a_root_that_is_not_to_be_written_to_is_used_with_runs_elsewhere(
    learned: Root, best: Path, tmp_path: Path
) -> None:
    image = next(learned.path.glob("val/n10000000/*"))
    before = snapshot(learned.path)
    arguments = map(str, (learned.path, image, best, tmp_path))
    done = subprocess.run(
        ["unshare", "-m", sys.executable, "-c", _READ_ONLY, *arguments],
        check=False, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert done.stdout.endswith("[0, 0, 1, 0, 0, 0, 0, 0, 0]\n"), done.stdout + done.stderr
    assert f"{learned.receipt} is not to be written to" in done.stderr
    assert "Hint: --runs DIR names another folder for trainings" in done.stderr
    assert "squeezenet1_1  1 of 1 epochs" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"squeezenet1_1", "inspect-train.png"}
    assert snapshot(learned.path) == before


def test_evaluate_scores_the_newest_run(learned: Root, best: Path, run: RunCommand) -> None:
    told = run("evaluate", "--root", learned.path, "--workers", 0, "--quiet")
    evaluation = evaluate(learned, best, device="cpu", workers=0, progress=Silent())
    assert told.stdout == f"{evaluation.score}\n"
    assert evaluation.score.images == 21
    told = run("evaluate", best, "--root", learned.path, "--workers", 0, "--json")
    assert json.loads(told.stdout) == {"checkpoint": str(best), **evaluation.as_json()}


def test_the_score_is_the_same_in_any_batches(learned: Root, best: Path) -> None:
    scores = [
        evaluate(
            learned, best, device="cpu", batch_size=size, workers=workers, progress=Silent()
        ).score
        for size, workers in ((1, 0), (4, 1), (500, 0))
    ]
    assert len({(score.top1, score.top5, score.images) for score in scores}) == 1
    assert scores[0].loss == pytest.approx(scores[2].loss, rel=1e-5)


def test_evaluate_refuses_a_root_of_other_classes(best: Path, tmp_path: Path) -> None:
    other = draw_root(tmp_path, classes=5, train=1, val=1)
    with pytest.raises(ImnetprepError, match="of 5 classes to be scored it lacks 2, n10000003"):
        evaluate(other, best, device="cpu", workers=0, progress=Silent())


def test_the_checkpoint_is_named_once(learned: Root, best: Path, tmp_path: Path) -> None:
    assert pick_checkpoint(learned, path=None, run="resnet18") == best
    with pytest.raises(WrongUsage):
        pick_checkpoint(learned, path=best, run="resnet18")
    with pytest.raises(WrongUsage, match="plain name"):
        named_run(learned, "../elsewhere")
    with pytest.raises(ImnetprepError, match="no run with an epoch"):
        pick_checkpoint(Root(tmp_path), path=None, run=None)


def test_predict_names_the_best_classes(learned: Root, best: Path, run: RunCommand) -> None:
    images = [next(learned.path.glob(f"val/n1000000{label}/*")) for label in (0, 1, 2)]
    told = run("predict", best, *images, "--device", "cpu", "--json")
    lines = list(map(json.loads, told.stdout.splitlines()))
    assert [line["image"] for line in lines] == list(map(str, images))
    for line in lines:
        shares = [guess["probability"] for guess in line["best"]]
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) == pytest.approx(1)
    told = run("predict", best, images[0], "--device", "cpu")
    assert told.stdout.splitlines()[0] == str(images[0])
    assert "n10000000  class 0" in told.stdout


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_predict_takes_images_of_any_mode(best: Path, tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    Image.new(mode, (300, 20)).save(path)
    (prediction,) = predictions(load_checkpoint(best), [path], device="cpu")
    assert isinstance(prediction, Prediction)
    assert len(prediction.best) == 3


def test_a_root_without_a_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImnetprepError, match="holds no dataset yet"):
        plan_training(Root(tmp_path), options={}, progress=Silent())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("train --arch squeezenet1_1 --dry-run", "squeezenet1_1 on cpu, 90 epochs of 60 images"),
        ("train --resume --epochs 3 --dry-run", "resnet18 on cpu, 0 epochs of 60 images"),
        ("inspect --dry-run", "inspect-train.png: 12 images of 3 classes, not drawn"),
        ("inspect --split val --dry-run --json", '"drawn": false'),
        ("evaluate", "top-1"),
    ],
)
def test_a_dry_run_changes_nothing_on_the_disk(
    words: str, told: str, learned: Root, best: Path, run: RunCommand
) -> None:
    options = ["--root", learned.path, *(["--device", "cpu"] if "inspect" not in words else [])]
    before = snapshot(learned.path)
    done = run(*words.split(), *options)
    assert told in done.stdout, done.stderr
    assert snapshot(learned.path) == before
