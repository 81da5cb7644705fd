"""A folder as the Hugging Face hub has them: timm and transformers load it, a card explains it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from imnetprep import __version__
from imnetprep.exports.card import model_card
from imnetprep.exports.facts import best_line
from imnetprep.exports.formats import example_images, network_of, write_safetensors
from imnetprep.fs import written_whole
from imnetprep.messages import ImnetprepError
from imnetprep.networks.architectures import timm_module
from imnetprep.recipes.recipe import TIMM
from imnetprep.training.checkpoint import Checkpoint

_TOLERANCE = 1e-4  # of logits, between two programs of the same network


def write_folder(path: Path, checkpoint: Checkpoint, folder: Path) -> Path:
    """config.json, model.safetensors and README.md of the checkpoint at `path`.

    Raises ImnetprepError where timm has no network that gives its logits.
    """
    name = _timm_name(checkpoint)
    write_safetensors(checkpoint, folder)
    with written_whole(folder / "config.json") as file:
        file.write(json.dumps(_config(checkpoint, name), indent=2).encode() + b"\n")
    with written_whole(folder / "README.md") as file:
        file.write(model_card(checkpoint, name, best_line(path, checkpoint)).encode())
    return folder


def _timm_name(checkpoint: Checkpoint) -> str:
    """How timm calls the network, after a look that it gives the logits that ours gives."""
    arch, classes = checkpoint.recipe.arch, len(checkpoint.classes.wnids)
    name, timm = arch.removeprefix(TIMM), timm_module()
    try:
        network = timm.create_model(name, pretrained=False, num_classes=classes).eval()
        network.load_state_dict(checkpoint.weights)
    except Exception as error:  # no such name, other layers, another size: each says it its way
        raise _unknown(arch) from error
    images = example_images(checkpoint)
    with torch.inference_mode():
        difference = (network(images) - network_of(checkpoint)(images)).abs().max().item()
    if not difference <= _TOLERANCE:
        raise _unknown(arch)
    return name


def _unknown(arch: str) -> ImnetprepError:
    return ImnetprepError(
        f"timm, by which such folders are loaded, has no network with the weights of {arch}",
        hint="--to onnx writes the whole network; timm has all timm: networks and most ResNets",
    )


def _config(checkpoint: Checkpoint, name: str) -> dict[str, Any]:
    """The config.json of timm, which transformers reads as well."""
    pixels, classes = checkpoint.preprocessing, checkpoint.classes
    size = (3, pixels.image_size, pixels.image_size)
    return {
        "architecture": name,
        "num_classes": len(classes.wnids),
        "label_names": list(classes.wnids),
        "label_descriptions": dict(zip(classes.wnids, classes.names, strict=True)),
        "pretrained_cfg": {
            "input_size": size,
            "fixed_input_size": False,
            "interpolation": pixels.interpolation,
            # timm resizes to the whole part of image size / crop_pct.
            "crop_pct": pixels.image_size / (pixels.resize + 1e-3),
            "crop_mode": "center",
            "mean": pixels.mean,
            "std": pixels.std,
            "num_classes": len(classes.wnids),
        },
        "imnetprep": {"version": __version__, "recipe": asdict(checkpoint.recipe)},
    }
