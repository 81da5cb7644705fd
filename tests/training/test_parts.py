"""The small parts: recipe, schedule, transforms, meters, networks, devices."""

import random
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from imnetprep.devices.device import Place, pick_device, pick_place
from imnetprep.messages import ImnetprepError, WrongUsage
from imnetprep.networks.model import build_model, loss_of
from imnetprep.pixels.augmentation import Sizes, TrainTransform, random_box
from imnetprep.pixels.transforms import Normaliser, Preprocessing, ValTransform
from imnetprep.recipes.plan_recipe import plan_recipe, refuse_contradiction
from imnetprep.recipes.recipe import parse_recipe
from imnetprep.recipes.schedule import lr_at
from imnetprep.training.meters import Meter

CPU = torch.device("cpu")


def test_what_is_left_out_of_a_recipe_follows_from_the_rest() -> None:
    usual = plan_recipe({"lr": None}, amp_pays=True)
    assert (usual.lr, usual.warmup_epochs, usual.val_resize, usual.amp) == (0.1, 5, 256, True)
    small = plan_recipe({"batch_size": 64, "epochs": 12, "image_size": 64}, amp_pays=False)
    assert (small.lr, small.warmup_epochs, small.val_resize, small.amp) == (0.025, 1.2, 73, False)
    assert plan_recipe({"lr": 3.0, "batch_size": 64}, amp_pays=False).lr == 3.0


@pytest.mark.parametrize(
    "given", [{"epochs": 0}, {"lr": -1.0}, {"lr": float("nan")}, {"val_resize": 100}]
)
def test_a_recipe_that_makes_no_sense_is_refused(given: dict[str, float]) -> None:
    with pytest.raises(WrongUsage, match="--" + next(iter(given)).replace("_", "-")):
        plan_recipe(given, amp_pays=False)


def test_a_recipe_comes_back_from_json_and_nothing_else_does() -> None:
    recipe = plan_recipe({}, amp_pays=False)
    table = asdict(recipe)
    assert parse_recipe(table) == recipe
    for wrong in ({"epochs": "9"}, {"epochs": True}, {"amp": 1}, {"lr": float("inf")}, {"arch": 1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            parse_recipe(table | wrong)
    with pytest.raises(ValueError, match="seed"):
        parse_recipe({name: value for name, value in table.items() if name != "seed"})


def test_only_what_contradicts_is_refused() -> None:
    recipe = plan_recipe({"epochs": 7}, amp_pays=False)
    refuse_contradiction(recipe, {"epochs": 7, "lr": None})
    with pytest.raises(WrongUsage, match=r"--epochs 8 contradicts the run, which has --epochs 7"):
        refuse_contradiction(recipe, {"epochs": 8})


def test_the_rate_climbs_then_falls_to_nothing() -> None:
    recipe = plan_recipe({"epochs": 10, "lr": 0.4, "warmup_epochs": 2.0}, amp_pays=False)
    rates = [lr_at(step, recipe, steps_per_epoch=50) for step in range(500)]
    assert rates[0] == pytest.approx(0.4 / 101)
    assert rates[100] == max(rates) == 0.4
    assert rates[:101] == sorted(rates[:101])
    assert rates[100:] == sorted(rates[100:], reverse=True)
    assert 0 < rates[-1] < 1e-5
    assert lr_at(500, recipe, steps_per_epoch=50) == 0
    all_warm = replace(recipe, warmup_epochs=99.0)
    assert lr_at(499, all_warm, steps_per_epoch=50) < 0.4


@pytest.mark.parametrize("size", [(500, 375), (1, 1), (2000, 3), (3, 2000), (64, 64)])
def test_crops_lie_within_the_image(size: tuple[int, int]) -> None:
    chance = iter(random.Random(0).random, None)
    areas = []
    for _ in range(300):
        left, top, right, bottom = random_box(*size, smallest=0.08, chance=chance)
        assert 0 <= left < right <= size[0]
        assert 0 <= top < bottom <= size[1]
        areas.append((right - left) * (bottom - top) / (size[0] * size[1]))
    if size == (500, 375):
        assert min(areas) < 0.15
        assert max(areas) > 0.85
        assert 0.35 < sum(areas) / len(areas) < 0.65


def test_a_crop_is_a_function_of_seed_epoch_and_sample() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    made = {
        TrainTransform(Sizes(32, 32), 0.1, seed)(noise, epoch=epoch, index=index).tobytes()
        for _ in range(2)
        for seed in (0, 1)
        for epoch in (0, 1)
        for index in (0, 1)
    }
    assert len(made) == 8


def test_validation_keeps_the_shape_and_takes_the_centre() -> None:
    image = Image.new("RGB", (400, 200), "white")
    ImageDraw.Draw(image).ellipse((160, 60, 240, 140), fill="black")
    seen = ValTransform(Preprocessing(56, 64))(np.asarray(image))
    assert seen.shape == (56, 56, 3)
    rows, columns = np.nonzero(seen[..., 0] < 128)
    assert np.ptp(rows) == np.ptp(columns) == pytest.approx(80 * 64 / 200, abs=2)
    assert rows.mean() == columns.mean() == pytest.approx(27.5, abs=0.6)


def test_denormalising_undoes_normalising() -> None:
    normaliser = Normaliser(Preprocessing(16, 16), CPU)
    pixels = torch.randint(0, 256, (2, 16, 16, 3), dtype=torch.uint8)
    seen = normaliser.normalised(pixels)
    assert seen.shape == (2, 3, 16, 16)
    assert seen.is_contiguous(memory_format=torch.channels_last)
    white = normaliser.normalised(torch.full((1, 1, 1, 3), 255, dtype=torch.uint8))
    assert white.flatten().tolist() == pytest.approx([2.2489, 2.4286, 2.64], abs=1e-4)
    assert np.array_equal(normaliser.denormalised(seen), pixels.numpy())


def test_a_meter_counts_and_goes_on_from_its_sums() -> None:
    logits = torch.eye(8)[[0, 1, 2]] + torch.arange(8) / 100
    labels = torch.tensor([0, 7, 1])  # first; second; among the last
    meter, again = Meter(CPU), Meter(CPU)
    meter.add(torch.tensor(2.0), logits, labels)
    meter.add(torch.tensor(1.0), logits[:1], labels[:1])
    again.restore(meter.sums())
    for score in (meter.score(), again.score()):
        assert (score.top1, score.top5, score.images) == (2, 3, 4)
        assert score.loss == (2.0 * 3 + 1.0) / 4
    assert str(meter.score()) == "top-1 2/4 50.00 %  top-5 3/4 75.00 %  loss 1.7500"


def test_fewer_than_five_classes_have_a_top_five() -> None:
    meter = Meter(CPU)
    meter.add(torch.tensor(0.0), torch.eye(2), torch.tensor([0, 0]))
    assert (meter.score().top1, meter.score().top5) == (1, 2)


@pytest.mark.parametrize("arch", ["resnet18", "regnet_y_400mf", "vit_b_32", "googlenet"])
def test_networks_are_made_for_the_classes_and_the_size(arch: str) -> None:
    model = build_model(arch, classes=7, image_size=96, seed=3)
    loss, main = loss_of(model(torch.rand(2, 3, 96, 96)), torch.tensor([0, 6]), label_smoothing=0.1)
    assert (loss.item() > main.item() * 1.3) == (arch == "googlenet")
    assert model.eval()(torch.rand(2, 3, 96, 96)).shape == (2, 7)


def test_the_same_seed_makes_the_same_weights() -> None:
    first, same, other = (
        build_model("resnet18", classes=3, image_size=32, seed=seed).state_dict()["conv1.weight"]
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("arch", "image_size", "hint"),
    [("resnet8", 64, "resnet18"), ("inception_v3", 224, "299"), ("vit_b_16", 100, "224")],
)
def test_what_cannot_be_built_is_refused_with_a_hint(arch: str, image_size: int, hint: str) -> None:
    with pytest.raises(WrongUsage, match=arch) as refused:
        build_model(arch, classes=3, image_size=image_size, seed=0)
    assert hint in refused.value.hint


def test_devices_are_picked_by_name() -> None:
    assert pick_device("cpu") == CPU
    assert pick_place("cpu", None) in (Place(CPU, 1), Place(CPU, 2))
    assert pick_place("cpu", 7) == Place(CPU, 7)
    with pytest.raises(WrongUsage, match="toaster"):
        pick_device("toaster")
    with pytest.raises(ImnetprepError, match="cuda:99"):
        pick_device("cuda:99")
