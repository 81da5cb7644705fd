"""What is frozen does not move, nor do its statistics; the head may learn at a rate of its own."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from imnetprep.catalog.datasets import Root
from imnetprep.messages import Interruption, Silent, WrongUsage
from imnetprep.networks.fine_tuning import freeze, head_of
from imnetprep.networks.model import build_model
from imnetprep.recipes.plan_recipe import plan_recipe
from imnetprep.recipes.recipe import Recipe
from imnetprep.training.checkpoint import load_checkpoint
from imnetprep.training.loop import train
from imnetprep.training.optimizer import make_optimizer
from imnetprep.training.plan import plan_training
from tests.training.stops import SignalAt

SMALL = {"arch": "cnn-small", "image_size": 32, "batch_size": 12, "epochs": 2, "lr": 0.02}


def recipe_of(**options: Any) -> Recipe:
    return plan_recipe({"weights": "w.pth", "image_size": 64, **options}, amp_pays=False)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "w.pth"
    torch.save(build_model("cnn-small", classes=3, image_size=32, seed=9).state_dict(), path)
    return path


def tuned(root: Root, weights: Path, progress: Any = None, **options: Any) -> dict[str, Tensor]:
    """The last weights of a training from `weights`; resumed where it had begun."""
    options = {**SMALL, "weights": str(weights), **options}
    progress = progress or Silent()
    plan = plan_training(
        root, options=options, run="a", resume=True, device="cpu", workers=0, progress=progress
    )
    list(train(plan, progress=progress))
    return load_checkpoint(plan.run.last).weights


@pytest.mark.parametrize(
    ("arch", "head"),
    [
        ("resnet18", {"fc.weight", "fc.bias"}),
        ("squeezenet1_1", {"classifier.1.weight", "classifier.1.bias"}),
        ("vit_b_32", {"heads.head.weight", "heads.head.bias"}),
        ("regnet_y_400mf", {"fc.weight", "fc.bias"}),  # which no meta device can make
        ("timm:tf_efficientnet_lite0", {"classifier.weight", "classifier.bias"}),
        ("resnet9", {"head.weight", "head.bias"}),
    ],
)
def test_the_head_is_what_depends_on_the_classes(arch: str, head: set[str]) -> None:
    assert head_of(recipe_of(arch=arch, freeze="all-but-head"), classes=5) == head
    assert head_of(recipe_of(arch=arch), classes=5) == frozenset()


def test_heads_beside_the_main_one_are_heads_too() -> None:
    names = head_of(recipe_of(arch="googlenet", freeze="all-but-head"), classes=5)
    assert {name.rpartition(".")[0] for name in names} == {"fc", "aux1.fc2", "aux2.fc2"}


def test_all_but_the_head_stays_to_the_bit(root: Root, weights: Path) -> None:
    before = torch.load(weights, weights_only=True)
    after = tuned(root, weights, freeze="all-but-head")
    assert {name for name in before if not torch.equal(before[name], after[name])} == {
        "head.weight", "head.bias"
    }  # fmt: skip


def test_what_lies_before_a_layer_stays(root: Root, weights: Path) -> None:
    before = torch.load(weights, weights_only=True)
    after = tuned(root, weights, freeze="until:body.2", ema=0.9)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if name.startswith(("body.2.", "head."))}


def test_a_frozen_training_resumes_with_the_same_numbers(
    root: Root, weights: Path, tmp_path: Path
) -> None:
    options = {"freeze": "until:body.1", "head_lr": 0.1, "optimizer": "adamw"}
    with pytest.raises(Interruption):
        tuned(root, weights, SignalAt(signal.SIGTERM, batches=4), **options)
    resumed = tuned(root, weights, **options)
    (tmp_path / "runs" / "a").rename(tmp_path / "runs" / "b")
    whole = tuned(root, weights, **options)
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_norms_that_are_frozen_stay_in_evaluation_mode() -> None:
    recipe = recipe_of(arch="resnet18", freeze="until:layer2")
    model = build_model("resnet18", classes=3, image_size=64, seed=0)
    freeze(model, recipe, head=head_of(recipe, classes=3))
    modules = dict(model.named_modules())
    for mode in (False, True):
        model.train(mode)
        assert not modules["bn1"].training
        assert not modules["layer1.0.bn1"].training
        assert modules["layer2.0.bn1"].training is mode
        assert modules["layer1"].training is mode
    grads = {name for name, each in model.named_parameters() if each.requires_grad}
    assert grads == {
        name for name, _ in model.named_parameters()
        if name.startswith(("layer2", "layer3", "layer4", "fc"))
    }  # fmt: skip


def test_the_head_has_a_learning_rate_of_its_own() -> None:
    recipe = recipe_of(arch="cnn-small", lr=0.01, head_lr=0.1, norm_decay=False, weight_decay=0.5)
    model = build_model("cnn-small", classes=3, image_size=32, seed=0)
    head = head_of(recipe, classes=3)
    groups = make_optimizer(model, recipe, head=head).param_groups
    rows = [
        (each["weight_decay"], round(each["lr_scale"], 9), len(each["params"])) for each in groups
    ]
    assert rows == [(0.5, 1, 3), (0.5, 10, 1), (0, 1, 6), (0, 10, 1)]
    assert recipe_of(arch="cnn-small", lr=0.3).head_lr == 0.3


@pytest.mark.parametrize(
    ("options", "why", "hint"),
    [
        ({"freeze": "layer4"}, "names no layers", "until:layer4"),
        ({"freeze": "until:"}, "names no layers", "until:layer4"),
        ({"freeze": "all-but-head", "weights": ""}, "never trained", "--weights"),
    ],
)
def test_a_freezing_that_makes_no_sense_is_refused(
    options: dict[str, str], why: str, hint: str
) -> None:
    with pytest.raises(WrongUsage, match=why) as refused:
        recipe_of(**options)
    assert hint in refused.value.hint


def test_a_layer_that_is_not_there_is_told_with_those_that_are() -> None:
    recipe = recipe_of(arch="resnet18", freeze="until:layer9")
    model = build_model("resnet18", classes=3, image_size=64, seed=0)
    with pytest.raises(WrongUsage, match="resnet18 has no layer layer9") as refused:
        freeze(model, recipe, head=frozenset())
    assert "layer1, layer2, layer3, layer4" in refused.value.hint
