"""Stopped at any step and resumed, a training with all that has a memory or a chance is the same.

`scripts/bench resumes` does it for each recipe, at many steps.
"""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from imnetprep.catalog.datasets import Root
from imnetprep.evaluation.evaluate import evaluate
from imnetprep.messages import Interruption, Silent
from imnetprep.networks.model import build_model
from imnetprep.training.average import Average
from imnetprep.training.checkpoint import load_checkpoint
from imnetprep.training.runs import EpochReport, Run
from tests.training.stops import SignalAt
from tests.training.test_train import numbers, refuse_difference, trained

# All that is random, and all that remembers, in two recipes of 4 epochs of 3 steps.
FULL: dict[str, Any] = {
    "arch": "cnn-small", "image_size": 32, "train_size": 24, "first_size": 16, "batch_size": 20,
    "epochs": 4, "lr": 0.002, "ema": 0.9, "augment": "trivial", "erase": 0.3, "mixup": 0.2,
    "cutmix": 1.0, "repeats": 2, "label_smoothing": 0.1, "norm_decay": False, "clip_norm": 1.0,
}  # fmt: skip
RECIPES = {
    "adamw": FULL | {"optimizer": "adamw", "schedule": "plateau", "plateau_epochs": 1},
    "sgd": FULL | {"nesterov": True, "schedule": "one-cycle", "balance": "sampler", "lr": 0.05},
}


@pytest.fixture(scope="module")
def unbroken(drawn: Root) -> dict[str, tuple[Run, list[EpochReport]]]:
    """Each recipe trained in one go: its run, and the reports of its epochs."""
    return {
        name: (Run(drawn.run(name)), trained(drawn, run=name, options=options))
        for name, options in RECIPES.items()
    }


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize(("what", "stops"), [("epoch", (4, 3, 1)), ("validation", (1, 3, 2))])
def test_stopped_and_resumed_is_the_same(
    name: str, what: str, stops: tuple[int, ...], root: Root, unbroken: Any
) -> None:
    for batches in stops:
        with pytest.raises(Interruption):
            trained(
                root,
                options=RECIPES[name],
                resume=True,
                progress=SignalAt(signal.SIGTERM, batches=batches, what=what),
            )
    trained(root, options={}, resume=True)
    refuse_difference(Run(root.run("a")), unbroken[name][0])


def test_best_is_the_better_of_network_and_average(drawn: Root, unbroken: Any) -> None:
    for run, reports in unbroken.values():
        checkpoint = load_checkpoint(run.best)
        best = checkpoint.best
        assert best is not None and not checkpoint.average and not checkpoint.optimizer
        report = reports[best.epoch - 1]
        winner = report.average if best.is_average else report.val
        assert best.hits == winner.hits == max(report.val.hits, report.average.hits)
        assert "average" in run.log.read_text()
        score = evaluate(drawn, run.best, device="cpu", workers=0, progress=Silent()).score
        assert score == winner
    assert len(numbers(run)) == 4


def test_an_average_forgets_its_first_steps_and_takes_buffers_in() -> None:
    network = build_model("resnet18", classes=2, image_size=32, seed=0)
    average = Average(network, 0.9, {})
    assert average.network is not None
    for step in range(200):
        with torch.no_grad():
            for each in (network.get_parameter("fc.bias"), network.get_buffer("bn1.running_mean")):
                each.fill_(0.0 if step < 10 else 1.0)
            network.get_buffer("bn1.num_batches_tracked").fill_(step)
        average.follow(network, step=step)
    weights = average.weights()
    assert weights["fc.bias"].tolist() == pytest.approx([1, 1], abs=1e-3)
    assert weights["bn1.running_mean"][0].item() == pytest.approx(1, abs=1e-3)
    assert weights["bn1.num_batches_tracked"] == 199
    assert Average(network, 0.0, {}).weights() == {}


def test_an_average_of_another_network_is_refused(tmp_path: Path) -> None:
    small, large = (build_model("resnet18", classes=n, image_size=32, seed=0) for n in (2, 3))
    again = Average(small, 0.9, Average(small, 0.9, {}).weights())
    assert again.network is not None
    with pytest.raises(Exception, match="do not fit its architecture"):
        Average(small, 0.9, large.state_dict())
