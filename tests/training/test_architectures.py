"""Networks by name: of torchvision, of timm, of ours, and by a function of the user's own."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from imnetprep.catalog.datasets import Root
from imnetprep.evaluation.evaluate import evaluate
from imnetprep.messages import ImnetprepError, Silent, WrongUsage
from imnetprep.networks.architectures import described
from imnetprep.networks.model import build_model
from imnetprep.predict import predictions
from imnetprep.training.checkpoint import load_checkpoint
from imnetprep.training.loop import train
from imnetprep.training.plan import plan_training
from tests.conftest import Run as RunCommand

OWN = """
import pathlib
from torch import nn

pathlib.Path("imported").touch()

def network(num_classes, image_size):
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * image_size**2, num_classes))

def ten(num_classes):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(10))

def nothing():
    return None

def broken(num_classes):
    return num_classes
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module of the user's own in the working directory."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "own_networks.py").write_text(OWN)
    monkeypatch.chdir(folder)
    yield folder
    sys.modules.pop("own_networks", None)


@pytest.mark.parametrize(
    ("arch", "image_size"),
    [("cnn-small", 8), ("cnn-small", 64), ("mlp-small", 28), ("resnet9", 32),
     ("timm:tf_efficientnet_lite0", 64), ("timm:vit_tiny_patch16_224.augreg_in21k", 48)],
)  # fmt: skip
def test_a_name_is_a_network_for_the_classes_and_the_size(arch: str, image_size: int) -> None:
    model = build_model(arch, classes=7, image_size=image_size, seed=3)
    assert model.training
    assert model.eval()(torch.rand(2, 3, image_size, image_size)).shape == (2, 7)
    again = build_model(arch, classes=7, image_size=image_size, seed=3).state_dict()
    assert all(torch.equal(again[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("arch", "why"),
    [
        ("timm:tf_efficientnet_light0", "timm:tf_efficientnet_lite0"),
        ("timm:hf-hub:stranger/network", "no architecture"),
        ("own_networks:absent", "cannot be imported: AttributeError"),
        ("no_such_module:network", "cannot be imported: ModuleNotFoundError"),
        ("own_networks:nothing", "takes no num_classes"),
        ("own_networks:broken", "gives a int"),
        ("own_networks:ten", "gives (10,) for an image where logits (3,)"),
        ("own_networks:pathlib", "is no function"),
    ],
)
def test_what_is_no_network_is_refused(arch: str, why: str, own_module: Path) -> None:
    with pytest.raises(WrongUsage) as refused:
        build_model(arch, classes=3, image_size=32, seed=0)
    assert why in f"{refused.value} {refused.value.hint}"


def test_a_checkpoint_imports_nothing_that_was_not_typed(root: Root, own_module: Path) -> None:
    arch, trace = "own_networks:network", own_module / "imported"
    options = {"arch": arch, "image_size": 16, "batch_size": 30, "epochs": 1, "lr": 0.01}
    plan = plan_training(root, options=options, device="cpu", workers=0, progress=Silent())
    list(train(plan, progress=Silent()))
    assert plan.run.folder.name == "own_networks-network"
    best, image = plan.run.best, next(root.path.glob("val/*/*"))
    del sys.modules["own_networks"]
    trace.unlink()
    for attempt in (
        lambda: evaluate(root, best, device="cpu", workers=0, progress=Silent()),
        lambda: list(predictions(load_checkpoint(best), [image], device="cpu")),
        lambda: _resumed(root, arch=None),
    ):
        with pytest.raises(WrongUsage, match="made by a function") as refused:
            attempt()
        assert refused.value.hint.startswith(f"--arch {arch} ")
    assert not trace.exists()
    with pytest.raises(WrongUsage, match="is of --arch own_networks:network, not own_networks:ten"):
        evaluate(root, best, arch="own_networks:ten", progress=Silent())
    score = evaluate(root, best, arch=arch, device="cpu", workers=0, progress=Silent()).score
    assert score.images == 21
    assert len(list(predictions(load_checkpoint(best, arch=arch), [image], device="cpu"))) == 1
    assert not _resumed(root, arch=arch)
    assert trace.exists()


def _resumed(root: Root, *, arch: str | None) -> list[object]:
    plan = plan_training(
        root, options={"arch": arch}, run="own_networks-network", resume=True, device="cpu",
        workers=0, progress=Silent(),
    )  # fmt: skip
    return list(train(plan, progress=Silent()))


def test_archs_are_listed_with_parameters_and_input(here: RunCommand) -> None:
    lines = here("archs", "--json").stdout.splitlines()
    rows = {row["arch"]: row for row in map(json.loads, lines)}
    assert rows["resnet18"] == {"arch": "resnet18", "parameters": 11_689_512, "input_px": 224}
    assert rows["inception_v3"]["input_px"] == 299
    assert {"cnn-small", "mlp-small", "resnet9", "vit_b_16"} <= rows.keys()
    assert not any(name.startswith("timm:") for name in rows)
    done = here("archs", "timm:tf_*_lite0")
    assert done.stdout == "timm:tf_efficientnet_lite0        4.7 M  224 px\n"
    assert [each.name for each in described("squeezenet1_1")] == ["squeezenet1_1"]
    done = here("archs", "no-such-network")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no network has 'no-such-network' in its name" in done.stderr


def test_without_timm_its_networks_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)  # as Python has it where an import is blocked
    with pytest.raises(ImnetprepError, match="timm is not installed") as refused:
        build_model("timm:resnet18", classes=3, image_size=32, seed=0)
    assert "imnetprep[timm]" in refused.value.hint
    assert [each.name for each in described("resnet9")] == ["resnet9"]
