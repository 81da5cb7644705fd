"""Networks that tell the foreground pixels of an image: a decoder over an encoder of timm.

They are those of segmentation-models-pytorch, `DECODER/ENCODER`: one logit a pixel.
"""

import importlib
from types import ModuleType

from torch import nn

from imnetprep.messages import ImnetprepError, WrongUsage

STRIDE_PX = 32  # images have sides that are multiples of it: encoders halve them five times
_ENCODER = "encoder.model."  # before the names of timm's own tensors


def mask_decoders() -> list[str]:
    """The decoders that there are. Raises ImnetprepError where their package is not installed."""
    return sorted(_package().MODEL_ARCHITECTURES_MAPPING)


def split_name(arch: str) -> tuple[str, str]:
    """`unet/resnet18` as decoder and encoder."""
    decoder, _, encoder = arch.partition("/")
    return decoder, encoder


def mask_network(arch: str, *, logits: int) -> nn.Module:
    """The network, with fresh weights: images (B, 3, H, W) to logits (B, `logits`, H, W)."""
    decoder, encoder = split_name(arch)
    try:
        network: nn.Module = _package().create_model(
            decoder, f"tu-{encoder}", encoder_weights=None, in_channels=3, classes=logits
        )
    except (ValueError, RuntimeError, AttributeError, KeyError) as error:
        raise WrongUsage(
            f"{decoder} cannot be put on {encoder}: {error}",
            hint="another encoder, such as resnet18, or another decoder, such as unet",
        ) from error
    return network


def in_encoder(name: str) -> str:
    """The name inside a mask network of a tensor of its encoder."""
    return _ENCODER + name


def flat_name(name: str) -> str:
    """A name of a tensor with underscores for dots: timm changes some where it cuts a network."""
    return name.replace(".", "_")


def is_of_encoder(name: str) -> bool:
    """Is the tensor of that name the encoder's?"""
    return name.startswith(_ENCODER)


def _package() -> ModuleType:
    try:
        return importlib.import_module("segmentation_models_pytorch")
    except ImportError as error:
        raise ImnetprepError(
            "segmentation-models-pytorch is not installed", hint="pip install 'imnetprep[segment]'"
        ) from error
