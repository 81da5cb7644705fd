"""Schedules: the rate at each step, early ends, and runs that are made longer."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from imnetprep.catalog.datasets import Root
from imnetprep.messages import WrongUsage
from imnetprep.recipes.plan_recipe import plan_recipe, resumed_recipe
from imnetprep.recipes.recipe import Recipe
from imnetprep.recipes.schedule import ends_early, lr_at
from imnetprep.training.checkpoint import load_checkpoint
from imnetprep.training.runs import Run
from tests.training.test_train import refuse_difference, trained

NAN = float("nan")
CHEAP = {"arch": "squeezenet1_1", "image_size": 32, "batch_size": 30, "lr": 0.001}


def recipe(**options: Any) -> Recipe:
    return plan_recipe({"lr": 1.0, "warmup_epochs": 0.0, **options}, amp_pays=False)


def rates(choices: Recipe, *, scores: tuple[float, ...] = ()) -> list[float]:
    """The rate of each epoch's first of ten steps, by the scores before it."""
    return [
        round(lr_at(10 * epoch, choices, steps_per_epoch=10, scores=scores[:epoch]), 9)
        for epoch in range(choices.epochs)
    ]


def test_rates_fall_as_each_schedule_has_it() -> None:
    assert rates(recipe(schedule="constant", epochs=3)) == [1, 1, 1]
    assert rates(recipe(schedule="step", epochs=5, step_epochs=2, drop=0.5)) == [
        1,
        1,
        0.5,
        0.5,
        0.25,
    ]
    assert rates(recipe(schedule="multi-step", epochs=4, milestones="1, 3")) == [1, 0.1, 0.1, 0.01]
    assert rates(recipe(schedule="one-cycle", epochs=4)) == [1, 0.75, 0.5, 0.25]
    warm = recipe(schedule="one-cycle", epochs=4, warmup_epochs=2.0)
    assert rates(warm) == [round(1 / 21, 9), round(11 / 21, 9), 1, 0.5]
    assert recipe(schedule="multi-step", epochs=90).milestone_epochs == (30, 60, 80)


def test_a_plateau_lowers_the_rate_after_epochs_without_progress() -> None:
    choices = recipe(schedule="plateau", epochs=8, plateau_epochs=2)
    scores = (5.0, 5.0, 6.0, 6.0, NAN, 6.0, 4.0, 9.0)
    assert rates(choices, scores=scores) == [1, 1, 1, 1, 1, 0.1, 0.1, 0.01]
    by_loss = replace(choices, watch="loss")
    assert rates(by_loss, scores=(NAN, 3.0, 2.0, 2.0, 2.5, 1.0, 1.0, 1.0))[5:] == [0.1, 0.1, 0.1]


def test_patience_ends_a_training() -> None:
    choices = recipe(epochs=9, patience=2)
    assert [ends_early(scores, choices) for scores in (
        (), (1.0,), (1.0, 1.0), (1.0, 1.0, 0.5), (NAN, NAN, NAN), (1.0, 0.0, 2.0, 1.0)
    )] == [False, False, False, True, True, False]  # fmt: skip
    assert not ends_early((1.0,) * 9, replace(choices, patience=0))


def test_a_schedule_that_begins_anew_rises_and_falls_over_the_rest() -> None:
    first = recipe(epochs=4, warmup_epochs=1.0)
    again = resumed_recipe(first, {"epochs": 8}, epoch=4, restart_schedule=True)
    assert rates(again)[4:] == rates(first)
    with pytest.raises(WrongUsage, match="needs more epochs"):
        resumed_recipe(first, {}, epoch=4, restart_schedule=True)


@pytest.mark.parametrize("schedule", ["step", "multi-step", "plateau", "constant"])
def test_what_has_no_end_goes_on(schedule: str) -> None:
    first = recipe(epochs=4, schedule=schedule)
    longer = resumed_recipe(first, {"epochs": 6, "lr": 1.0}, epoch=4, restart_schedule=False)
    assert rates(longer, scores=(1.0,) * 4)[:4] == rates(first, scores=(1.0,) * 4)
    for options in ({"epochs": 3}, {"epochs": 6, "lr": 2.0}):
        with pytest.raises(WrongUsage, match="contradicts"):
            resumed_recipe(first, options, epoch=2, restart_schedule=False)


@pytest.mark.parametrize("milestones", ["x", "1;2", "-1", "9" * 5000, "²"])
def test_milestones_are_epochs(milestones: str) -> None:
    with pytest.raises(WrongUsage, match="no list of epochs"):
        recipe(milestones=milestones)


@pytest.fixture(scope="module")
def constant(drawn: Root) -> Run:
    """A run of two epochs at a constant rate."""
    trained(drawn, run="constant", options=CHEAP | {"schedule": "constant", "epochs": 2})
    return Run(drawn.run("constant"))


def test_a_run_made_longer_is_the_run_that_was_planned_so(root: Root, constant: Run) -> None:
    trained(root, options=CHEAP | {"schedule": "constant", "epochs": 1})
    run = Run(root.run("a"))
    assert '"epochs": 1' in run.recipe.read_text()
    trained(root, options={"epochs": 2}, resume=True)
    refuse_difference(run, constant)
    assert '"epochs": 2' in run.recipe.read_text()
    assert len(load_checkpoint(run.last).scores) == 2


def test_a_cosine_made_longer_needs_a_word_more(root: Root) -> None:
    trained(root, options=CHEAP | {"epochs": 1})
    with pytest.raises(WrongUsage, match="--epochs 2 contradicts the run, whose cosine") as told:
        trained(root, options={"epochs": 2}, resume=True)
    assert "--restart-schedule begins a new one at epoch 2: up to lr 0.001" in told.value.hint
    (report,) = trained(root, options={"epochs": 2}, resume=True, restart_schedule=True)
    assert report.epoch == 2 and report.lr == 0.001


def test_patience_ends_a_run_and_a_resumed_one_knows(root: Root, tmp_path: Path) -> None:
    idle = CHEAP | {"epochs": 9, "patience": 1, "lr": 1e-12, "schedule": "plateau"}
    reports = trained(root, options=idle | {"plateau_epochs": 1})
    assert len(reports) == 2, "the second epoch is no better than the first"
    assert trained(root, options={}, resume=True) == []
    assert torch.load(Run(root.run("a")).last)["scores"] == [
        each.val.hits / each.val.images for each in reports
    ]
