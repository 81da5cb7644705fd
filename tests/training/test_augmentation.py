"""What a recipe makes of training images: crops, orders, mixtures, and what classes weigh."""

from typing import Any

import numpy as np
import pytest
import torch

from imnetprep.messages import WrongUsage
from imnetprep.networks.model import build_model, loss_of
from imnetprep.pixels.augmentation import Sizes, TrainTransform
from imnetprep.pixels.chances import chances
from imnetprep.recipes.plan_recipe import plan_recipe, resumed_recipe
from imnetprep.recipes.recipe import Recipe
from imnetprep.training.inputs import class_weights, train_order, train_transform
from imnetprep.training.mixture import Mixture, mixed

IMAGE = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
LABELS = np.repeat(np.arange(3, dtype=np.int32), [40, 10, 2])


def recipe(**options: Any) -> Recipe:
    return plan_recipe({"lr": 0.1, "image_size": 64, **options}, amp_pays=False)


def test_chances_are_even_and_no_two_places_have_the_same() -> None:
    drawn = np.stack([
        chances(seed, epoch, range(3000), 8) for seed, epoch in ((0, 0), (0, 1), (1, 0))
    ])  # fmt: skip
    assert len(np.unique(drawn)) == drawn.size
    counts, _ = np.histogram(drawn, bins=20, range=(0, 1))
    assert np.ptp(counts) < 0.1 * counts.mean()
    between = np.corrcoef(drawn.transpose(0, 2, 1).reshape(24, -1))
    assert np.abs(between - np.eye(24)).max() < 0.1
    steps = np.corrcoef(drawn[:, :-1].ravel(), drawn[:, 1:].ravel())[0, 1]
    assert abs(steps) < 0.02
    assert np.array_equal(chances(0, 1, [7, 2999], 3), drawn[1, [7, 2999], :3])


def test_crops_grow_in_the_last_third() -> None:
    options = {"image_size": 224, "train_size": 192, "first_size": 128, "epochs": 20}
    transform = train_transform(recipe(**options))
    sizes = [transform.sizes.at(epoch) for epoch in range(20)]
    assert sizes == [128] * 15 + [160, 160, 192, 192, 192]
    assert transform(IMAGE, epoch=19, index=0).shape == (192, 192, 3)
    assert transform(IMAGE, epoch=0, index=0).shape == (128, 128, 3)
    again = resumed_recipe(recipe(**options), {"epochs": 40}, epoch=20, restart_schedule=True)
    assert [train_transform(again).sizes.at(epoch) for epoch in range(20, 40)] == sizes
    assert train_transform(recipe()).sizes == Sizes(64, 64, 90 * 0.7, 90 * 0.85)


def test_sizes_that_cannot_be_are_refused() -> None:
    with pytest.raises(WrongUsage, match="--first-size 65 is larger than --train-size 64"):
        recipe(first_size=65)
    steady = recipe(first_size=32, schedule="constant", epochs=4)
    with pytest.raises(WrongUsage, match="crops grow") as refused:
        resumed_recipe(steady, {"epochs": 8}, epoch=4, restart_schedule=False)
    assert "--restart-schedule" in refused.value.hint
    with pytest.raises(WrongUsage, match="48 × 48"):
        build_model("vit_b_32", classes=3, image_size=64, seed=0, train_sizes=(64, 48))


@pytest.mark.parametrize("options", [{"augment": "trivial"}, {"erase": 1.0}, {"mirror": False}])
def test_a_changed_crop_is_a_function_of_seed_epoch_and_sample(options: dict[str, Any]) -> None:
    state = torch.random.get_rng_state()
    transforms = [TrainTransform(Sizes(32, 32), 0.1, seed, **options) for seed in (0, 1)]
    crops = {
        transform(IMAGE, epoch=epoch, index=index).tobytes()
        for _ in range(2)
        for transform in transforms
        for epoch in (0, 1)
        for index in (0, 1)
    }
    assert len(crops) == 8
    assert torch.equal(torch.random.get_rng_state(), state), "nobody else's numbers are drawn"


def test_a_share_of_crops_has_a_grey_rectangle() -> None:
    plain, erased = (TrainTransform(Sizes(32, 32), 1, 0, erase=share) for share in (0.0, 0.5))
    changed = 0
    for index in range(100):
        before, after = (each(IMAGE, epoch=0, index=index) for each in (plain, erased))
        where = (before != after).any(axis=2)
        changed += bool(where.any())
        assert (after[where] == (124, 116, 104)).all()
        assert 0.01 * 32**2 < where.sum() < 0.35 * 32**2 or not where.any()
    assert 30 < changed < 70


def test_nothing_is_mirrored_unless_asked() -> None:
    crops = {
        TrainTransform(Sizes(50, 50), 1, 0, mirror=False)(IMAGE[:, :50],
        epoch=epoch, index=0).tobytes() for epoch in range(8)
    }  # fmt: skip
    assert crops == {IMAGE[:, :50].tobytes()}


def test_repeats_lie_side_by_side_with_crops_of_their_own() -> None:
    choices = recipe(batch_size=8, repeats=3)
    keys = train_order(choices, LABELS)(0)
    assert len(keys) == 48 == len({*keys.tolist()}), "whole batches, and no key twice"
    assert keys[:6].tolist() == [keys[0] + 52 * time for time in range(3)] + [
        keys[3] + 52 * time for time in range(3)
    ]
    assert torch.equal(keys, train_order(choices, LABELS)(0))
    assert not torch.equal(keys, train_order(choices, LABELS)(1))
    assert (train_order(recipe(batch_size=8), LABELS)(0) < 52).all()


def test_a_sampler_draws_rare_classes_as_often() -> None:
    order = train_order(recipe(batch_size=2, balance="sampler"), LABELS)
    keys = torch.cat([order(epoch) for epoch in range(60)]).numpy()
    shares = np.bincount(LABELS[keys % 52]) / len(keys)
    assert shares == pytest.approx([1 / 3] * 3, abs=0.03)
    assert len({*order(0).tolist()}) == 52, "each time a sample comes its crop is another one"


def test_one_batch_is_the_same_in_each_epoch() -> None:
    order = train_order(recipe(batch_size=8, one_batch=True), LABELS)
    assert len(order(0)) == 8
    assert torch.equal(order(0), order(5))


def test_classes_weigh_the_same_in_the_loss() -> None:
    weights = class_weights(recipe(balance="loss"), LABELS, classes=4)
    assert weights is not None
    assert (weights[:3] * torch.tensor([40, 10, 2])).tolist() == pytest.approx([52 / 3] * 3)
    assert weights[3] == 0
    assert class_weights(recipe(), LABELS, classes=4) is None
    logits, labels = torch.rand(6, 4), torch.tensor([0, 0, 1, 1, 2, 2])
    whole, _ = loss_of(logits, labels, label_smoothing=0.0, weights=weights)
    halves = [
        loss_of(logits[part], labels[part], label_smoothing=0.0, weights=weights)[0].item()
        for part in (slice(0, 3), slice(3, 6))
    ]
    assert whole.item() == pytest.approx(sum(halves) / 2), "parts add up to the batch"


@pytest.mark.parametrize("way", ["mixup", "cutmix"])
def test_pairs_are_mixed_by_a_function_of_the_position(way: str) -> None:
    images = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 3, 16, 16)
    labels = torch.arange(5)

    def at(step: int, part: slice = slice(0, 5), **options: Any) -> Mixture:
        choices = recipe(**({way: 1.0} | options))
        return mixed(images[part], labels[part], choices, classes=5, position=(0, step))

    mixture = at(3)
    for number in range(4):
        share = mixture.targets[number, number].item()
        assert mixture.targets[number].sum().item() == pytest.approx(1)
        assert mixture.targets[number, number ^ 1].item() == pytest.approx(1 - share)
        own = images[number] * share + images[number ^ 1] * (1 - share)
        assert mixture.images[number].mean().item() == pytest.approx(own.mean().item(), abs=1e-5)
        assert mixture.labels[number] == (number if share >= 0.5 else number ^ 1)
    assert torch.equal(mixture.images[4], images[4]) and mixture.targets[4, 4] == 1
    assert torch.equal(at(3).images, mixture.images)
    assert not torch.equal(at(4).images, mixture.images)
    assert torch.equal(at(3, slice(2, 4)).images, mixture.images[2:4]), "parts are as the whole"
    assert at(3, mixup=0.0, cutmix=0.0).images is not mixture.images
    shares = [at(step).targets[0, 0].item() for step in range(60)]
    assert 0.3 < sum(shares) / 60 < 0.7
