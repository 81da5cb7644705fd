"""`imnetprep ladder`: a healthy recipe climbs it, and each usual fault stops at the rung for it."""

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from imnetprep.catalog.datasets import Root
from imnetprep.ladder.first_look import FirstLook
from imnetprep.networks import architectures
from imnetprep.networks.small_networks import SMALL_NETWORKS, cnn_small
from imnetprep.recipes.plan_recipe import plan_recipe
from imnetprep.training.checkpoint import Classes, save_checkpoint
from tests.conftest import Run
from tests.training.test_checkpoint import CHECKPOINT

SMALL = [
    "--image-size",
    "32",
    "--device",
    "cpu",
    "--workers",
    "0",
    "--batch-size",
    "16",
    "--lr",
    "0.05",
    "--crop-scale",
    "0.5",
]
Climb = Callable[..., dict[str, Any]]


@pytest.fixture
def climb(root: Root, tmp_path: Path, here: Run) -> Climb:
    """The rungs by their names; the third is on the drawn root, which is small."""

    def rungs(*words: object, place: Path = root.path, arch: str = "cnn-small") -> dict[str, Any]:
        options = ["--root", place, "--small", root.path, "--arch", arch, *SMALL, "--steps", 30]
        done = here("ladder", *options, "--out", tmp_path / "ladder.png", *words, "--json")
        outcomes = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(outcomes) == 4, done.stderr
        verdicts = [each["verdict"] for each in outcomes]
        at = verdicts.index("failed") if "failed" in verdicts else 4
        assert verdicts == (["ok"] * at + ["failed"] + ["not tried"] * 3)[:4]
        assert done.returncode == (5 if at < 4 else 0)
        return {each["rung"]: each for each in outcomes} | {"at": at}

    return rungs


def unmet(rung: dict[str, Any]) -> list[str]:
    """The signs of the gates that are not met."""
    return [gate["sign"] for gate in rung["gates"] if not gate["is_met"]]


def planted(monkeypatch: pytest.MonkeyPatch, change: Callable[[nn.Module], None]) -> str:
    """The name of an architecture whose networks have a change in them."""

    def make(*, num_classes: int) -> nn.Module:
        network = cnn_small(num_classes=num_classes)
        with torch.no_grad():
            change(network)
        return network

    monkeypatch.setattr(architectures, "SMALL_NETWORKS", {**SMALL_NETWORKS, "planted": make})
    return "planted"


def test_a_healthy_recipe_climbs_all_rungs(root: Root, tmp_path: Path, here: Run) -> None:
    """The third on drawings. The root stays as it was."""
    before = {path.name for path in root.path.iterdir()}
    out = tmp_path / "pictures.png"
    words = ["--root", root.path, "--arch", "cnn-small", *SMALL, "--steps", 40, "--out", out]
    done = here("ladder", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    for rung in ("one image", "one batch", "small set", "the root"):
        assert f"{rung}: ok, " in done.stdout
    assert "usually" not in done.stdout
    assert "a first loss of 1.09 where guesses have 1.1" in done.stdout
    assert "the first two rungs are without augmentation, dropout, warmup epochs" in done.stderr
    assert "small set: 40 steps on 480 images of 5 classes, at most" in done.stderr
    with Image.open(out) as picture:
        assert picture.width > 1000
    assert {path.name for path in root.path.iterdir()} == before | {out.name}


def test_labels_that_are_shuffled_stop_the_last_rung(
    climb: Climb, root: Root, tmp_path: Path, here: Run
) -> None:
    chance = random.Random(0)
    wnids = sorted(path.name for path in (root.path / "train").iterdir())
    for split in ("train", "val"):
        files = sorted((root.path / split).rglob("*.JPEG"))
        for number, path in enumerate(chance.sample(files, len(files))):
            folder = tmp_path / "other" / split / wnids[number % len(wnids)]
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder)
    assert here("adopt", tmp_path / "other").returncode == 0
    rungs = climb(place=tmp_path / "other")
    assert rungs["at"] == 3
    assert "validation" in unmet(rungs["the root"])
    assert "images lie under other classes" in rungs["the root"]["causes"][0]


def test_a_rate_of_a_thousand_times_stops_before_the_root(climb: Climb) -> None:
    rungs = climb("--lr", 50)
    assert rungs["at"] == 1
    assert "the learning rate 50 is too high: --lr 5" in rungs["one batch"]["causes"][0]


def test_a_rate_that_is_too_low_stops_the_first_rung_that_takes_too_long(
    climb: Climb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imnetprep.ladder.climb._BY_HEART_STEPS", 60)
    rungs = climb("--lr", 0.0005)
    assert (rungs["at"], unmet(rungs["one image"])) == (0, ["loss"])
    assert rungs["one image"]["causes"] == [
        "the learning rate 0.0005 is too low, or the steps are too few: --lr 0.005"
    ]


def test_pixels_that_are_not_normalised_stop_the_first_rung(climb: Climb, tmp_path: Path) -> None:
    """As weights want them that were saved with a mean of 0 and the std of pixels from 0 to 1."""
    weights = tmp_path / "raw.pt"
    options = {"arch": "cnn-small", "image_size": 32}
    recipe = plan_recipe(options, amp_pays=False)
    network = cnn_small(num_classes=3)
    pixels = replace(
        CHECKPOINT.preprocessing, image_size=32, resize=37, mean=(0.0,) * 3, std=(1 / 255,) * 3
    )
    save_checkpoint(
        weights,
        replace(
            CHECKPOINT, recipe=recipe, weights=network.state_dict(), preprocessing=pixels,
            classes=Classes("drawn", ("a", "b", "c"), ("a", "b", "c")), optimizer={},
        ),
    )  # fmt: skip
    rungs = climb("--weights", weights)
    assert rungs["at"] == 0
    assert "pixels" in unmet(rungs["one image"])
    assert "not normalised" in rungs["one image"]["causes"][0]


def freeze_first(network: nn.Module) -> None:
    next(network.parameters()).requires_grad_(False)


def freeze_all(network: nn.Module) -> None:
    network.requires_grad_(False)


@pytest.mark.parametrize(
    ("change", "told"),
    [(freeze_first, "no gradient in 1 % of the parameters: body.0.0.weight"),
     (freeze_all, "no parameter of the network trains")],
)  # fmt: skip
def test_frozen_weights_stop_the_first_rung(
    climb: Climb, monkeypatch: pytest.MonkeyPatch, change: Callable[[nn.Module], None], told: str
) -> None:
    rungs = climb(arch=planted(monkeypatch, change))
    assert (rungs["at"], unmet(rungs["one image"])) == (0, ["gradient"])
    assert told in [gate["text"] for gate in rungs["one image"]["gates"]]
    assert "requires_grad is False" in rungs["one image"]["causes"][0]


def kill(network: nn.Module) -> None:
    """Let no output of the second ReLU be more than 0."""
    norms = [each for each in network.modules() if isinstance(each, nn.BatchNorm2d)]
    norms[1].bias.fill_(-100)


def test_a_dead_layer_stops_the_first_rung(climb: Climb, monkeypatch: pytest.MonkeyPatch) -> None:
    rungs = climb(arch=planted(monkeypatch, kill))
    assert rungs["at"] == 0
    assert {"dead outputs", "gradient"} <= set(unmet(rungs["one image"]))
    texts = [gate["text"] for gate in rungs["one image"]["gates"]]
    assert "100 % of the outputs of body.1.2 are 0 for each image" in texts
    assert any("biases begin too low" in cause for cause in rungs["one image"]["causes"])


def grow_head(network: nn.Module) -> None:
    network.get_submodule("head").weight.mul_(1000)  # type: ignore[operator]


def test_a_head_that_begins_too_large_stops_the_first_rung(
    climb: Climb, monkeypatch: pytest.MonkeyPatch
) -> None:
    rungs = climb(arch=planted(monkeypatch, grow_head))
    assert (rungs["at"], unmet(rungs["one image"])[0]) == (0, "first loss")


@pytest.mark.parametrize(
    ("mean", "std", "is_met"),
    [(0.1, 0.9, True), (-1.5, 1.4, True), (110, 60, False), (0, 0.01, False), (0.5, 9, False)],
)
def test_pixels_are_judged_by_mean_and_std(mean: float, std: float, is_met: bool) -> None:
    gates = list(FirstLook(mean, std, 2.3, "", 0.0, (), 0.0).gates(guess_loss=2.3))
    assert [gate.is_met for gate in gates] == [is_met, True, True]


def test_what_cannot_be_drawn_or_trained_is_refused(root: Root, here: Run) -> None:
    done = here("ladder", "--root", root.path, "--out", "ladder.jpg")
    assert (done.returncode, "a plot is a PNG" in done.stderr) == (2, True)
    done = here("ladder", "--root", root.path, "--arch", "resnet81", "--device", "cpu")
    assert (done.returncode, "no architecture 'resnet81'" in done.stderr) == (2, True)
