"""Optimizers: which parameters decay, how gradients are clipped, and memory that comes back."""

from typing import Any

import pytest
import torch
from torch import nn

from imnetprep.messages import ImnetprepError, WrongUsage
from imnetprep.networks.model import build_model
from imnetprep.recipes.plan_recipe import plan_recipe
from imnetprep.recipes.recipe import Recipe
from imnetprep.training.optimizer import clip_gradients, make_optimizer, memory_of, restore_memory


def recipe(**options: Any) -> Recipe:
    return plan_recipe({"lr": 0.1, **options}, amp_pays=False)


def net() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))


def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    images = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad(set_to_none=True)
    model(images).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("arch", ["resnet18", "convnext_tiny", "vit_b_32"])
def test_norms_and_biases_are_found_by_their_module(arch: str) -> None:
    model = build_model(arch, classes=3, image_size=32, seed=0)
    decaying, free = make_optimizer(model, recipe(norm_decay=False)).param_groups
    assert (decaying["weight_decay"], free["weight_decay"]) == (1e-4, 0)
    assert all(parameter.ndim > 1 for parameter in decaying["params"] if arch == "resnet18")
    names = {
        name for name, each in model.named_parameters() if any(each is p for p in free["params"])
    }
    assert {name for name, _ in model.named_parameters() if name.endswith("bias")} <= names
    if arch == "resnet18":
        assert "layer2.0.downsample.1.weight" in names, "which has no bn in its name"
    count = len(decaying["params"]) + len(free["params"])
    assert count == len(list(model.parameters()))


def test_a_network_of_which_nothing_trains_is_refused() -> None:
    with pytest.raises(WrongUsage, match="no parameter of resnet18 trains"):
        make_optimizer(net().requires_grad_(False), recipe())


def test_what_decays_in_torchs_own_way() -> None:
    (group,) = make_optimizer(net(), recipe()).param_groups
    assert group["weight_decay"] == 1e-4 and group["momentum"] == 0.9 and not group["nesterov"]
    (group,) = make_optimizer(net(), recipe(nesterov=True)).param_groups
    assert group["nesterov"]
    (group,) = make_optimizer(net(), recipe(optimizer="adamw", momentum=0.8)).param_groups
    assert group["betas"] == (0.8, 0.999)


@pytest.mark.parametrize(
    "options", [{}, {"momentum": 0.0}, {"nesterov": True}, {"optimizer": "adamw"}]
)
def test_memory_comes_back_to_the_bit(options: dict[str, Any]) -> None:
    choices = recipe(**options, norm_decay=False)
    unbroken, model = net(), net()
    optimizer = make_optimizer(unbroken, choices)
    for seed in range(4):
        step(unbroken, optimizer, seed)
    first = make_optimizer(model, choices)
    for seed in range(2):
        step(model, first, seed)
    memory = {name: {key: value.clone() for key, value in table.items()}
              for name, table in memory_of(first, model).items()}  # fmt: skip
    again = make_optimizer(model, choices)
    restore_memory(again, model, memory)
    for seed in range(2, 4):
        step(model, again, seed)
    for ours, theirs in zip(model.parameters(), unbroken.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    "wrong",
    [
        {"9.weight": {}},
        {"0.bias": {"momentum_buffer": torch.zeros(4)}},
        {"0.bias": {"step": torch.tensor(1.0)}},
        *(
            {"0.bias": {"step": counter, "exp_avg": torch.zeros(4), "exp_avg_sq": square}}
            for counter, square in (
                (torch.tensor(-1.0), torch.zeros(4)),
                (torch.tensor(float("nan")), torch.zeros(4)),
                (torch.tensor(1), torch.zeros(4)),
                (torch.tensor([1.0]), torch.zeros(4)),
                (torch.tensor(1.0), torch.zeros(5)),
            )
        ),
    ],
)
def test_memory_of_another_optimizer_is_refused(wrong: dict[str, Any]) -> None:
    model = net()
    with pytest.raises(ImnetprepError, match="the checkpoint has"):
        restore_memory(make_optimizer(model, recipe(optimizer="adamw")), model, wrong)


def test_gradients_are_clipped_to_a_norm() -> None:
    model = nn.Linear(4, 4)
    for norm, length in ((3.0, 3.0), (1e6, 200.0)):
        model.weight.grad, model.bias.grad = torch.full((4, 4), 50.0), torch.zeros(4)
        clip_gradients(model, norm=norm)
        assert model.weight.grad.norm().item() == pytest.approx(length)


def test_what_no_optimizer_does_is_refused() -> None:
    for options in ({"optimizer": "adamw"}, {"momentum": 0.0}):
        with pytest.raises(WrongUsage, match="--nesterov"):
            recipe(nesterov=True, **options)
    with pytest.raises(WrongUsage, match="'lamb' is none that there is"):
        recipe(optimizer="lamb")
