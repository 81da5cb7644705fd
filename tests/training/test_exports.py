"""An exported network gives the logits that ours gives, in the programs of others."""

import importlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import safetensors
import torch
from PIL import Image
from torch import Tensor

from imnetprep.catalog.datasets import Root
from imnetprep.exports.card import model_card
from imnetprep.exports.hugging_face import write_folder
from imnetprep.messages import ImnetprepError
from imnetprep.networks.model import build_model
from imnetprep.pixels.transforms import Normaliser, ValTransform
from imnetprep.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from tests.conftest import Run
from tests.opened import block_with, run_code
from tests.training.test_checkpoint import CHECKPOINT
from tests.training.test_train import SMALL, trained

Export = Callable[[str], Path]


def _checkpoint(arch: str) -> Checkpoint:
    """A network of two classes, one with a hostile name, that nobody has trained."""
    recipe = replace(CHECKPOINT.recipe, arch=arch)
    model = build_model(arch, classes=2, image_size=32, seed=1)
    classes = replace(CHECKPOINT.classes, names=("crane", "<b>\n---\nlicense: *none*"))
    weights = model.state_dict()
    return replace(CHECKPOINT, recipe=recipe, weights=weights, classes=classes, optimizer={})


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return _checkpoint("timm:test_byobnet")


@pytest.fixture(scope="module")
def logits(checkpoint: Checkpoint) -> tuple[Tensor, Tensor]:
    """Five images, and what our network says of them."""
    images = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return images, checkpoint.network(torch.device("cpu")).eval()(images)


@pytest.fixture
def export(checkpoint: Checkpoint, tmp_path: Path, here: Run) -> Export:
    """The checkpoint exported to a form, by the command."""

    def exported(form: str) -> Path:
        save_checkpoint(tmp_path / "c.pt", checkpoint)
        done = here("export", tmp_path / "c.pt", tmp_path / "out", "--to", form)
        assert (done.returncode, done.stderr) == (0, "")
        return tmp_path / "out"

    return exported


def test_onnx(export: Export, logits: tuple[Tensor, Tensor]) -> None:
    images, ours = logits
    session = onnxruntime.InferenceSession(str(export("onnx") / "model.onnx"))
    for number in (1, 5):
        (theirs,) = session.run(["logits"], {"images": images[:number].numpy()})
        np.testing.assert_allclose(theirs, ours[:number].numpy(), atol=1e-5)
    texts = session.get_modelmeta().custom_metadata_map
    assert json.loads(texts["classes"]) == ["crane", "<b>\n---\nlicense: *none*"]
    assert json.loads(texts["preprocessing"])["image_size"] == 32


def test_torch_export(export: Export, logits: tuple[Tensor, Tensor]) -> None:
    images, ours = logits
    texts = {"classes": "", "imnetprep": ""}
    program = torch.export.load(export("torch-export") / "model.pt2", extra_files=texts)
    with torch.inference_mode():
        torch.testing.assert_close(program.module()(images), ours, atol=1e-5, rtol=0)
    assert json.loads(texts["imnetprep"])["recipe"]["arch"] == "timm:test_byobnet"


def test_safetensors(export: Export, checkpoint: Checkpoint) -> None:
    with safetensors.safe_open(export("safetensors") / "model.safetensors", "pt") as file:
        assert all(torch.equal(file.get_tensor(k), v) for k, v in checkpoint.weights.items())
        assert json.loads(file.metadata()["wnids"]) == ["n1", "n2"]


def test_a_folder_that_timm_and_transformers_load(
    export: Export, checkpoint: Checkpoint, logits: tuple[Tensor, Tensor]
) -> None:
    timm, transformers = map(importlib.import_module, ("timm", "transformers"))
    images, ours = logits
    folder = export("hf")
    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    theirs = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        torch.testing.assert_close(network(images), ours, atol=1e-5, rtol=0)
        torch.testing.assert_close(theirs(images).logits, ours, atol=1e-5, rtol=0)
    assert theirs.config.num_labels == 2
    image = Image.fromarray(np.random.default_rng(1).integers(0, 255, (50, 70, 3), np.uint8))
    pixels = torch.from_numpy(ValTransform(checkpoint.preprocessing)(np.asarray(image)).copy())[
        None
    ]
    seen = Normaliser(checkpoint.preprocessing, "cpu").normalised(pixels)[0]
    options = timm.data.resolve_data_config(model=network)
    torch.testing.assert_close(timm.data.create_transform(**options)(image), seen)


def test_a_resnet_of_torchvision_is_one_of_timm_and_a_mobilenet_is_not(tmp_path: Path) -> None:
    write_folder(tmp_path / "c.pt", _checkpoint("resnet18"), tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["architecture"] == "resnet18"
    with pytest.raises(ImnetprepError, match="has no network with the weights of mobilenet_v3"):
        write_folder(tmp_path / "c.pt", _checkpoint("mobilenet_v3_small"), tmp_path)


def test_the_card_has_measured_numbers_and_plain_names(checkpoint: Checkpoint) -> None:
    val: dict[str, Any] = {"top1_percent": 81.25, "top5_percent": 97.5, "images": 1600}
    card = model_card(checkpoint, "test_byobnet", {"epoch": 2, "val": val})
    assert "Top-1 81.25 %, top-5 97.50 % of 1,600 validation images, after epoch 2." in card
    assert "value: 81.25" in card
    assert "crane, \\<b\\> --- license: \\*none\\*." in card
    assert card.count("\n---\n") == 1  # nothing ends the front matter, or begins another
    assert "Top-1 7 of 9 validation images, after epoch 2." in model_card(checkpoint, "x", None)


def test_a_dry_run_writes_nothing(checkpoint: Checkpoint, tmp_path: Path, here: Run) -> None:
    save_checkpoint(tmp_path / "c.pt", checkpoint)
    done = here("export", tmp_path / "c.pt", tmp_path / "out", "--to", "hf", "--dry-run")
    assert "config.json, model.safetensors, README.md, not written" in done.stdout
    assert not (tmp_path / "out").exists()


def test_onnx_answers_in_keras_as_predict_does(root: Root, tmp_path: Path, here: Run) -> None:
    """Equal where nothing is resized; else as near as Keras' way of resizing is to Pillow's."""
    trained(root, options=SMALL | {"arch": "cnn-small"})
    best = root.run("a") / "best.pt"
    assert here("export", best, tmp_path / "out", "--to", "onnx").returncode == 0
    side = load_checkpoint(best).preprocessing.resize
    for path in (root.path / "val").glob("*/*"):
        square = tmp_path / "square" / path.parent.name / f"{path.stem}.png"
        square.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).resize((side, side)).save(square)
    for folder, tolerance in ((tmp_path / "square", 1e-5), (root.path / "val", 0.01)):
        words = {"out/model.onnx": str(tmp_path / "out/model.onnx"), "tiny10/val": str(folder)}
        names = run_code(block_with("keras", "training", **words))
        theirs = torch.from_numpy(np.concatenate(names["logits"])).softmax(1).numpy()
        done = here("predict", best, *names["images"].file_paths, "--json", "--device", "cpu")
        rows = [json.loads(line)["best"] for line in done.stdout.splitlines()]
        assert len(rows) == len(theirs) == 21
        wnids = [names["images"].class_names[label] for label in theirs.argmax(1)]
        assert wnids == [row[0]["wnid"] for row in rows]
        ours = [[guess["probability"] for guess in row] for row in rows]
        np.testing.assert_allclose(-np.sort(-theirs), ours, atol=tolerance)
