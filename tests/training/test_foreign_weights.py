"""Weights that other programs saved: read without running them, fitted, and told."""

import argparse
import os
import pickle
import shutil
import signal
import tarfile
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from imnetprep.catalog.datasets import Root
from imnetprep.evaluation.evaluate import evaluate
from imnetprep.loading.order import mixed_seed
from imnetprep.messages import ImnetprepError, Interruption, Silent, WrongUsage
from imnetprep.networks.model import build_model
from imnetprep.networks.weight_files import read_tensors
from imnetprep.networks.zoo import Weights
from imnetprep.pixels.transforms import Preprocessing
from imnetprep.recipes.recipe import parse_recipe
from imnetprep.training.checkpoint import load_checkpoint, save_checkpoint
from imnetprep.training.foreign_weights import first_weights, fit_weights, read_weights
from imnetprep.training.loop import train
from imnetprep.training.plan import TrainPlan, plan_training
from tests.conftest import Run as RunCommand
from tests.training.stops import SignalAt
from tests.training.test_checkpoint import CHECKPOINT
from tests.training.test_pixels import IS_WHOLE

SMALL = {"arch": "cnn-small", "image_size": 32, "batch_size": 12, "epochs": 2, "lr": 0.02}


def network(*, classes: int = 3, seed: int = 7) -> nn.Module:
    return build_model("cnn-small", classes=classes, image_size=32, seed=seed)


def planned(root: Root, **options: Any) -> TrainPlan:
    return plan_training(
        root, options=SMALL | options, run="a", device="cpu", workers=0, progress=Silent()
    )


def _prefixed(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in weights.items()}


# What programs save beside the weights, or around their names.
FORMS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "plain": lambda weights: weights,
    "pytorch/examples": lambda weights: {
        "epoch": 90, "arch": "resnet18", "state_dict": _prefixed("module.", weights),
        "best_acc1": torch.tensor(69.8), "optimizer": {"state": {}, "param_groups": []},
    },
    "torchvision references": lambda weights: {
        "model": weights, "epoch": 3, "args": argparse.Namespace(model="resnet18", lr=0.1),
    },
    "lightning": lambda weights: {
        "state_dict": _prefixed("model.", weights) | {"criterion.weight": torch.ones(3)},
        "pytorch-lightning_version": "2.4.0",
    },
    "compiled under DDP": lambda weights: _prefixed("module._orig_mod.", weights),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_of_any_program(form: str, tmp_path: Path) -> None:
    trained = network().state_dict()
    torch.save(FORMS[form](trained), tmp_path / "w.pth")
    model = network(seed=8)
    fit = fit_weights(model, read_weights(str(tmp_path / "w.pth"), "cnn-small"))
    assert not fit.misfits + fit.gaps
    assert fit.surplus == (("criterion.weight",) if form == "lightning" else ())
    assert all(torch.equal(trained[name], value) for name, value in model.state_dict().items())


def test_of_safetensors_and_in_half_precision(tmp_path: Path) -> None:
    trained = {name: tensor.half() for name, tensor in network().state_dict().items()}
    save_file(trained, tmp_path / "w.safetensors")
    model = network(seed=8)
    fit = fit_weights(model, read_weights(str(tmp_path / "w.safetensors"), "cnn-small"))
    assert len(fit.matches) == 17
    assert torch.equal(model.state_dict()["head.weight"], trained["head.weight"].float())


def test_of_our_own_checkpoint_with_its_pixels(tmp_path: Path) -> None:
    pixels = Preprocessing(48, 56, (0.5,) * 3, (0.5,) * 3, interpolation="bicubic")
    recipe = replace(CHECKPOINT.recipe, image_size=48, val_resize=56)
    weights = network().state_dict()
    ours = replace(CHECKPOINT, recipe=recipe, preprocessing=pixels, weights=weights)
    save_checkpoint(tmp_path / "best.pt", ours)
    read = read_weights(str(tmp_path / "best.pt"), "cnn-small")
    assert read.preprocessing == pixels
    assert read.tensors.keys() == weights.keys()


def test_the_head_is_new_for_other_classes_and_both_are_listed() -> None:
    model, fresh = network(classes=5), network(classes=5).state_dict()
    trained = network(classes=3, seed=9).state_dict()
    fit = fit_weights(model, Weights("w.pth", trained, None))
    assert str(fit) == ("15 of 17 tensors; of another shape, so new: head.weight, head.bias")
    now = model.state_dict()
    assert torch.equal(now["head.weight"], fresh["head.weight"])
    assert torch.equal(now["body.0.0.weight"], trained["body.0.0.weight"])


@pytest.mark.parametrize("has_head", [True, False])
def test_a_new_head_begins_small_and_else_as_the_seed_has_it(has_head: bool) -> None:
    trained = network(classes=5, seed=9).state_dict()
    if not has_head:
        trained = {name: value for name, value in trained.items() if "head" not in name}
    recipe = replace(CHECKPOINT.recipe, arch="cnn-small", image_size=32)
    now, fit = first_weights(recipe, CHECKPOINT.classes, Weights("w.pth", trained, None))
    assert set(fit.misfits + fit.gaps) == {"head.weight", "head.bias"}
    seed = mixed_seed(recipe.seed, "weights")
    fresh = network(classes=len(CHECKPOINT.classes.wnids), seed=seed).state_dict()
    small = 0.01 / fresh["head.weight"].square().mean().sqrt()
    assert small < 1
    assert torch.allclose(now["head.weight"], small * fresh["head.weight"])
    assert torch.equal(now["head.bias"], fresh["head.bias"])
    assert all(torch.equal(now[name], trained[name]) for name in fit.matches)


def test_weights_of_which_less_than_half_fits_are_refused() -> None:
    other = build_model("squeezenet1_1", classes=3, image_size=32, seed=0).state_dict()
    with pytest.raises(ImnetprepError, match=r"w.pth fits 0 of 17 tensors: its own are") as refused:
        fit_weights(network(), Weights("w.pth", other, None))
    assert "--arch" in refused.value.hint


class _Evil:
    def __init__(self, trace: Path) -> None:
        self._trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._trace,)


def test_a_pickle_never_runs(tmp_path: Path) -> None:
    trace, path = tmp_path / "it ran", tmp_path / "w.pth"
    for write in (
        lambda: torch.save({"state_dict": network().state_dict(), "x": _Evil(trace)}, path),
        lambda: path.write_bytes(pickle.dumps(_Evil(trace))),
    ):
        write()
        with pytest.raises(ImnetprepError, match=r"would run getattr|is no file of weights"):
            read_tensors(path)
    assert not trace.exists()


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("body", [b"", b"hello", b"PK\x03\x04" + b"\0" * 99, b"\xff" * 999])
def test_other_files_are_refused(name: str, body: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(body)
    with pytest.raises(ImnetprepError, match=f"{name} is no file of weights"):
        read_tensors(tmp_path / name)


def test_what_holds_no_weights_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "w.pth")
    torch.save([torch.ones(2)], tmp_path / "list.pth")
    os.mkfifo(tmp_path / "pipe.pth")
    for name, why in (
        ("w.pth", "holds no tensors"), ("list.pth", "holds no tensors"),
        ("absent.pth", "there is no file"), ("pipe.pth", "there is no file"),
        (".", "there is no file"),
    ):  # fmt: skip
        with pytest.raises(ImnetprepError, match=why):
            read_weights(str(tmp_path / name), "cnn-small")


def test_pixels_travel_with_weights_unless_typed(root: Root, tmp_path: Path) -> None:
    arch = "timm:tf_efficientnet_lite0"
    path = tmp_path / "w.pth"
    torch.save(build_model(arch, classes=1000, image_size=64, seed=0).state_dict(), path)
    options: dict[str, Any] = {"arch": arch, "weights": str(path), "image_size": None}
    _, start = planned(root, **options).begin(Silent())
    half = (0.5, 0.5, 0.5)
    assert start.preprocessing == Preprocessing(224, 256, half, half, interpolation="bicubic")
    assert (start.recipe.image_size, start.recipe.interpolation) == (224, "bicubic")
    assert start.recipe.weights == str(path)
    options |= {"image_size": 112, "interpolation": "bilinear"}
    _, start = planned(root, **options).begin(Silent())
    assert start.preprocessing == Preprocessing(112, 128, half, half)
    assert parse_recipe({**start.recipe.__dict__}) == start.recipe


def test_a_resumed_run_never_reads_the_file_again(root: Root, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(network(classes=9).state_dict(), path)
    whole, part = planned(root, weights=str(path)), planned(root, weights=str(path))
    part = replace(part, run=replace(part.run, folder=part.run.folder.with_name("b")))
    list(train(whole, progress=Silent()))
    with pytest.raises(Interruption):
        list(train(part, progress=SignalAt(signal.SIGTERM, batches=2)))
    path.unlink()
    list(train(part, progress=Silent()))
    ours, theirs = (load_checkpoint(plan.run.last).weights for plan in (part, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_torchvision_publishes_from_a_cache_or_says_where(
    root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: RunCommand
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    command = ["train", "--root", root.path, "--arch", "squeezenet1_1", "--device", "cpu"]
    done = here(*command, "--dry-run", "--weights", "torchvision", "--workers", 0)
    assert done.returncode == 1
    error, hint = done.stderr.splitlines()[-2:]
    assert error.startswith("Error: SqueezeNet1_1_Weights.IMAGENET1K_V1 cannot be downloaded: ")
    assert "squeezenet1_1-b8a52dc0.pth" in hint
    folder = tmp_path / "hub" / "checkpoints"
    model = build_model("squeezenet1_1", classes=1000, image_size=32, seed=0)
    torch.save(model.state_dict(), folder / "squeezenet1_1-b8a52dc0.pth")
    done = here(*command, "--dry-run", "--weights", "torchvision:IMAGENET1K_V1", "--workers", 0)
    assert done.returncode == 0, done.stderr
    fit = "50 of 52 tensors; of another shape, so new: classifier.1.weight, classifier.1.bias"
    assert f"weights of SqueezeNet1_1_Weights.IMAGENET1K_V1: {fit}" in done.stderr


@pytest.mark.parametrize(
    ("weights", "arch", "why", "hint"),
    [
        ("torchvision:V9", "resnet50", "no weights V9", "torchvision:IMAGENET1K_V2"),
        ("torchvision", "cnn-small", "no weights of cnn-small", "FILE"),
        ("timm:no_such_network", "resnet18", "timm has no weights", "imnetprep archs"),
    ],
)
def test_weights_that_nobody_publishes(weights: str, arch: str, why: str, hint: str) -> None:
    with pytest.raises(WrongUsage, match=why) as refused:
        read_weights(weights, arch)
    assert hint in refused.value.hint


def test_timm_without_a_network_says_where_its_weights_are() -> None:
    """tests/conftest.py has Hugging Face's client offline."""
    with pytest.raises(ImnetprepError, match=r"timm's resnet18 cannot be downloaded: ") as refused:
        read_weights("timm", "resnet18")
    assert "https://huggingface.co/timm/resnet18.a1_in1k" in refused.value.hint


def test_evaluate_takes_weights_of_another_program(root: Root, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"model": _prefixed("module.", network().state_dict())}, path)
    options: dict[str, Any] = {"device": "cpu", "workers": 0, "progress": Silent()}
    assert evaluate(root, path, arch="cnn-small", **options).score.images == 21
    with pytest.raises(ImnetprepError, match="not a checkpoint of imnetprep") as refused:
        evaluate(root, path, **options)
    assert "--arch" in refused.value.hint
    torch.save(network(classes=9).state_dict(), path)
    with pytest.raises(ImnetprepError, match=r"no head.weight, head.bias as cnn-small has it"):
        evaluate(root, path, arch="cnn-small", **options)


@pytest.mark.skipif(not IS_WHOLE, reason="1,000 photographs: scripts/test --all")
def test_lite0_scores_as_it_does_by_torchvisions_transforms(
    real_data: Path, tmp_path: Path, here: RunCommand
) -> None:
    """883 top-1 and 977 top-5 of 1,000 photographs by a plain script."""
    for split in ("train", "val"):
        with tarfile.open(real_data / "sample1000" / "ILSVRC2012_img_train.tar") as outer:
            for member in outer:
                with tarfile.open(fileobj=outer.extractfile(member)) as inner:
                    inner.extractall(tmp_path / split / member.name[:-4], filter="data")
    assert here("adopt", tmp_path).returncode == 0
    weights = real_data / "weights" / "tf_efficientnet_lite0.pth"
    options = ["--arch", "timm:tf_efficientnet_lite0", "--root", tmp_path, "--workers", 0]
    done = here("evaluate", weights, *options, "--device", "cpu", "--batch-size", 50)
    assert done.stdout.startswith("top-1 883/1000 88.30 %  top-5 977/1000 97.70 %"), done.stderr
    options = ["--arch", "timm:tf_efficientnet_lite0", "--device", "cpu", "--root"]
    done = here("doctor", weights, *options, tmp_path)
    assert (done.returncode, "finding: labels" in done.stdout) == (0, False), done.stdout
    wnids, other = sorted(path.name for path in (tmp_path / "val").iterdir()), tmp_path / "other"
    for split in ("train", "val"):
        for wnid, next_wnid in pairwise([*wnids, wnids[0]]):
            shutil.copytree(tmp_path / split / wnid, other / split / next_wnid)
    assert here("adopt", other, "--root", tmp_path / "shuffled").returncode == 0
    done = here("doctor", weights, *options, tmp_path / "shuffled")
    assert (done.returncode, "the classes are in another order" in done.stdout) == (5, True)
