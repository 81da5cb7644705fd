"""A training on a root that has no validation split, or whose split is not asked for."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imnetprep.catalog.datasets import Layout, Root, Split
from imnetprep.evaluation.evaluate import evaluate
from imnetprep.messages import ImnetprepError, Silent, WrongUsage
from imnetprep.recipes.plan_recipe import plan_recipe
from imnetprep.reports.log import epoch_lines, tables
from imnetprep.samples.held_out import held_out
from imnetprep.samples.listing import open_listing
from imnetprep.training.checkpoint import load_checkpoint
from imnetprep.training.runs import Run
from tests.conftest import Run as RunCommand
from tests.training.test_train import SMALL, refuse_other_tensors, trained

OPTIONS: dict[str, Any] = {"arch": "mlp-small", "image_size": 32, "batch_size": 8, "epochs": 2}


@pytest.fixture
def only_train(drawn: Root, tmp_path: Path) -> Root:
    """A plain tree of class folders of a train split, 60 images."""
    shutil.copytree(drawn.path / "train", tmp_path / "photos" / "train")
    return Root(tmp_path / "photos", tmp_path / "runs")


def test_trains_without_validation_and_keeps_the_last_weights(
    only_train: Root, here: RunCommand, tmp_path: Path
) -> None:
    reports = trained(only_train, options={**OPTIONS, "val": False, "ema": 0.5})
    assert [report.val.images for report in reports] == [0, 0]
    run = Run(only_train.run("a"))
    lines = epoch_lines(tables(run.log.read_text()))
    assert [set(line) & {"val", "average", "train"} for line in lines] == [{"train"}] * 2
    best, last = load_checkpoint(run.best), load_checkpoint(run.last)
    assert best.best is None and best.position.epoch == 2
    refuse_other_tensors(best.weights, last.average)  # which is what the average is for
    page = (run.folder / "report.html").read_text()
    assert "not validated" in page and "Worst classes" not in page and ">val</span>" not in page
    assert run.plot.read_bytes().startswith(b"\x89PNG")
    options = ("--root", only_train.path, "--runs", only_train.runs)
    more = here("train", *options, "--run", "a", "--resume", "--epochs", "3",
                "--restart-schedule", "--device", "cpu", "--workers", "0")  # fmt: skip
    assert more.returncode == 0, more.stderr
    assert "60 training and no validation images" in more.stderr
    assert (
        "val " not in more.stdout
        and "best" not in more.stdout
        and "epochs are done, without validation: " in more.stderr
    )
    shown = here("show", run.best)
    assert shown.returncode == 0 and "\n  best " not in shown.stdout, shown.stdout
    out = tmp_path / "card"
    assert here("export", run.best, out, "--to", "safetensors").returncode == 0
    told = here("status", *options)
    assert "3 of 3 epochs" in told.stdout, told.stdout + told.stderr


def test_a_part_of_train_is_held_out_alike_for_every_seed(only_train: Root) -> None:
    with open_listing(only_train, layout=None) as listing:
        samples = listing.samples(Split.TRAIN)
    held = held_out(samples, 0.3)
    train, val = samples.chosen(~held), samples.chosen(held)
    names = [{each.name(at) for at in range(len(each))} for each in (samples, train, val)]
    assert names[1] | names[2] == names[0] and not names[1] & names[2]
    assert all(np.bincount(each.labels, minlength=3).min() > 0 for each in (train, val))
    assert all(val.read(at) == (val.path(at)).read_bytes() for at in range(len(val)))
    assert [samples.name(int(at)) for at in np.flatnonzero(held)] == [
        val.name(at) for at in range(len(val))
    ]
    for seed in (0, 1):
        options = {**OPTIONS, "val_fraction": 0.3, "seed": seed, "epochs": 1}
        (report,) = trained(only_train, run=f"seed{seed}", options=options)
        assert report.val.images == len(val)
        best = Run(only_train.run(f"seed{seed}")).best
        scored = evaluate(only_train, best, device="cpu", workers=0, progress=Silent())
        assert scored.score == report.val and scored.real is None
        assert report.train.images == len(train) // 8 * 8


def test_the_held_out_images_are_those_that_divide_would_take(
    only_train: Root, tmp_path: Path, here: RunCommand
) -> None:
    with open_listing(only_train, layout=None) as listing:
        samples = listing.samples(Split.TRAIN)
    val = samples.chosen(held_out(samples, 0.25))
    divided = tmp_path / "divided"
    done = here("divide", only_train.path / "train", "--root", divided, "--val-fraction", "0.25")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in divided.glob("val/*/*")} == {
        val.name(at) for at in range(len(val))
    }


def test_no_val_split_is_told_with_what_to_do(only_train: Root, here: RunCommand) -> None:
    with pytest.raises(ImnetprepError, match="has no val split") as caught:
        trained(only_train, options=OPTIONS)
    assert "--no-val" in caught.value.hint and "--val-fraction" in caught.value.hint
    for options in ({"val_fraction": 0.1}, {"patience": 2}, {"schedule": "plateau"}):
        with pytest.raises(WrongUsage, match="--no-val"):
            plan_recipe({"val": False, **options}, amp_pays=False)


def test_a_val_split_that_is_not_asked_for_is_not_read(root: Root) -> None:
    (root.path / "val").unlink()  # a link: it is listed by the manifest alone
    (report,) = trained(root, options={**SMALL, "epochs": 1, "val": False})
    assert (report.train.images, report.val.images) == (56, 0)
    recipe = json.loads(Run(root.run("a")).recipe.read_text())["recipe"]
    assert recipe["val"] is False


def test_the_progress_tells_the_end_of_the_run(root: Root) -> None:
    """The line of an epoch: how far it is, and beside it what is learnt and the time left."""
    told: list[str] = []

    class Told(Silent):
        """A progress that keeps what is told beside the bar."""

        def tell(self, detail: str) -> None:
            told.append(detail)

    trained(root, options=SMALL, progress=Told())
    form = re.compile(r"loss \d\.\d{3}, top-1 \d{1,3}\.\d %, run ends in \d+:\d\d(:\d\d)?")
    assert form.fullmatch(f"{told[0]}, run ends in 0:00")  # one step shows no pace
    assert told[1:] and all(form.fullmatch(detail) for detail in told[1:])
    assert told[-1].endswith("run ends in 0:00")


def test_classes_of_one_image_hold_out_nothing_which_is_told(only_train: Root) -> None:
    for folder in (only_train.path / "train").iterdir():
        for path in sorted(folder.iterdir())[1:]:
            path.unlink()
    options = {**OPTIONS, "val_fraction": 0.3, "batch_size": 2}
    with pytest.raises(ImnetprepError, match="none can be held out"):
        trained(only_train, options=options)


def test_a_val_split_is_scored_where_it_is_there_and_another_layout_is_no_lack(root: Root) -> None:
    trained(root, options={**OPTIONS, "val_fraction": 0.2, "epochs": 1})
    best = Run(root.run("a")).best
    scored = evaluate(root, best, device="cpu", workers=0, progress=Silent())
    assert scored.score.images == 21 and scored.samples.split is Split.VAL
    with pytest.raises(ImnetprepError, match="no val split as webdataset"):
        evaluate(root, best, layout=Layout.WEBDATASET, device="cpu", progress=Silent())
