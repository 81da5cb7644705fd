"""Named recipes: what they show, what they scale, and one batch that is learnt."""

import json
from typing import Any

import pytest

from imnetprep.catalog.datasets import Root
from imnetprep.messages import Silent
from imnetprep.recipes.plan_recipe import plan_recipe
from imnetprep.recipes.publications import DEFAULT, RECIPES
from imnetprep.training.runs import Run
from tests.conftest import Run as Command
from tests.training.test_train import trained


class Notes(Silent):
    """Keeps the notes of a training."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(line)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_its_values_and_any_option_overrides(name: str) -> None:
    values = RECIPES[name].values
    recipe = plan_recipe({"recipe": name}, amp_pays=False)
    assert {field: getattr(recipe, field) for field in values} == dict(values)
    assert recipe.recipe == name
    assert plan_recipe({"recipe": name, "epochs": 7, "lr": 0.3}, amp_pays=False).lr == 0.3
    double = plan_recipe({"recipe": name, "batch_size": recipe.batch_size * 2}, amp_pays=False)
    assert double.lr == pytest.approx(recipe.lr * (1 if name == "segment" else 2))
    small = plan_recipe({"recipe": name, "image_size": recipe.image_size // 2}, amp_pays=False)
    for size in ("train_size", "first_size", "val_resize"):
        assert getattr(small, size) == pytest.approx(getattr(recipe, size) / 2, abs=0.5)


def test_claims_have_sources() -> None:
    assert DEFAULT == "classic90"
    for recipe in RECIPES.values():
        assert recipe.source or not recipe.claims
        assert all(0 < claim.top1 < claim.top5 < 100 for claim in recipe.claims)


def test_the_default_is_what_it_was() -> None:
    assert plan_recipe({}, amp_pays=False) == plan_recipe({"recipe": DEFAULT}, amp_pays=False)


def test_recipes_are_shown(here: Command) -> None:
    shown = here("recipes")
    assert all(f"{name}: " in shown.stdout for name in RECIPES)
    shown = here("recipes", "fast88")
    assert "--first-size 160 --epochs 88 --ema 0.9999" in shown.stdout
    assert "BlurPool" in shown.stdout
    table = json.loads(here("recipes", "v2", "--json").stdout)
    assert table["claims"][0]["top1"] == 80.858 and table["values"]["mixup"] == 0.2
    refused = here("recipes", "fast12")
    assert refused.returncode == 2 and "imnetprep recipes lists them" in refused.stderr


def test_one_batch_is_learnt_and_the_recipe_recorded(root: Root) -> None:
    options: dict[str, Any] = {
        "recipe": "overfit-one-batch", "arch": "cnn-small", "image_size": 32, "epochs": 12,
    }  # fmt: skip
    notes = Notes()
    reports = trained(root, options=options, progress=notes)
    assert (reports[-1].train.hits, reports[-1].train.images) == (32, 32)
    words = "recipe overfit-one-batch, with --arch cnn-small --image-size 32 --epochs 12"
    assert words in notes.lines
    recorded = json.loads(Run(root.run("a")).recipe.read_text())["recipe"]
    assert (recorded["recipe"], recorded["one_batch"]) == ("overfit-one-batch", True)
