"""A network as one file: its state dict, or the whole of it as a graph that needs no code of ours.

A graph takes normalised images (B, 3, S, S) of float32 and gives logits (B, C), for any B.
"""

import importlib
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from imnetprep.exports.facts import metadata_of
from imnetprep.fs import written_whole
from imnetprep.messages import ImnetprepError
from imnetprep.networks.model import heads
from imnetprep.training.checkpoint import Checkpoint


class Logits(nn.Module):
    """A network that gives its logits alone, whatever else it gives in training."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return heads(self.network(images))[0]


def network_of(checkpoint: Checkpoint) -> nn.Module:
    """The network on the CPU, in evaluation mode."""
    return checkpoint.network(torch.device("cpu")).eval().to(memory_format=torch.contiguous_format)


def example_images(checkpoint: Checkpoint) -> Tensor:
    """Two images of noise as the network takes them: (2, 3, S, S)."""
    side = checkpoint.preprocessing.image_size
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, side, side, generator=generator)


def write_safetensors(checkpoint: Checkpoint, folder: Path) -> Path:
    """The state dict under the names of its architecture, the facts in its metadata."""
    save = needed("safetensors.torch").save
    weights = {name: tensor.contiguous() for name, tensor in checkpoint.weights.items()}
    path = folder / "model.safetensors"
    with written_whole(path) as file:
        file.write(save(weights, metadata={"format": "pt", **metadata_of(checkpoint)}))
    return path


def write_torch_export(checkpoint: Checkpoint, folder: Path) -> Path:
    """The network as torch.export has it, each fact in an extra file of its name."""
    program = _graph(checkpoint)
    path = folder / "model.pt2"
    with written_whole(path) as file:
        body = io.BytesIO()
        torch.export.save(program, body, extra_files=metadata_of(checkpoint))
        file.write(body.getvalue())
    return path


def write_onnx(checkpoint: Checkpoint, folder: Path) -> Path:
    """The network as ONNX, `images` to `logits`, each fact in the metadata of the model."""
    needed("onnxscript")
    path = folder / "model.onnx"
    with _quiet():
        program: Any = torch.onnx.export(
            _graph(checkpoint),
            input_names=["images"],
            output_names=["logits"],
            dynamo=True,
            verbose=False,
        )
    program.model.metadata_props.update(metadata_of(checkpoint))
    with written_whole(path) as file:
        file.write(program.model_proto.SerializeToString())
    return path


def needed(name: str) -> ModuleType:
    """The module `name` of a package of the extra [export]. Raises ImnetprepError without it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImnetprepError(
            f"{name.partition('.')[0]} is not installed", hint="pip install 'imnetprep[export]'"
        ) from error


def _graph(checkpoint: Checkpoint) -> torch.export.ExportedProgram:
    """The network for a batch of any size. Raises ImnetprepError where it is no fixed graph."""
    dynamic = ({0: torch.export.Dim.DYNAMIC},)
    try:
        with _quiet(), torch.no_grad():
            network = Logits(network_of(checkpoint))
            return torch.export.export(
                network, (example_images(checkpoint),), dynamic_shapes=dynamic
            )
    except ImnetprepError:
        raise
    except Exception as error:  # what a network of the user's own does is not for torch to foresee
        reason = str(error).strip().partition("\n")[0]
        raise ImnetprepError(
            f"torch.export cannot take {checkpoint.recipe.arch}: {reason}",
            hint="--to safetensors writes its weights alone",
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporters of torch print and log of their own progress."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
