"""Small networks of our own, for digits, CIFAR and a first look at a dataset."""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from torchvision import models

_MLP_SIDE_PX = 32


def cnn_small(*, num_classes: int) -> nn.Module:
    """Three convolutions, each half as large and twice as wide, and a mean: 0.1 M parameters.

    (B, 3, S, S) to logits (B, num_classes), for any S of 8 or more.
    """
    layers = [_convolution(*widths, stride=2) for widths in pairwise((3, 32, 64, 128))]
    return _Network(nn.Sequential(*layers), nn.Linear(128, num_classes))


def mlp_small(*, num_classes: int) -> nn.Module:
    """Two hidden layers of 256 on all pixels, first averaged to 32 × 32: 0.9 M parameters."""
    layers: list[nn.Module] = [nn.AdaptiveAvgPool2d(_MLP_SIDE_PX), nn.Flatten()]
    for width, next_width in pairwise((3 * _MLP_SIDE_PX**2, 256, 256)):
        layers += [nn.Linear(width, next_width), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Linear(256, num_classes))


def resnet9(*, num_classes: int) -> nn.Module:
    """The network of the fast CIFAR-10 trainings (Page 2018, DAWNBench): 6.6 M parameters.

    For images of 32 px; larger ones are averaged over their whole area.
    """
    body = nn.Sequential(
        _convolution(3, 64),
        _convolution(64, 128),
        nn.MaxPool2d(2),
        _Residual(128),
        _convolution(128, 256),
        nn.MaxPool2d(2),
        _convolution(256, 512),
        nn.MaxPool2d(2),
        _Residual(512),
    )
    return _Network(body, nn.Linear(512, num_classes))


def _resnet_small(arch: str, *, num_classes: int) -> nn.Module:
    """torchvision's network of that name with the stem of He et al. (2016, 4.2) for CIFAR-10: one
    convolution of 3 px, and no pooling. Its maps are four times as high as with that for 224 px.
    """
    network: Any = models.get_model(arch, weights=None, num_classes=num_classes)
    network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()
    result: nn.Module = network
    return result


SMALL_NETWORKS: Mapping[str, Callable[..., nn.Module]] = {
    **{
        f"{arch}-small": partial(_resnet_small, arch)
        for arch in ("resnet18", "resnet34", "resnet50")
    },
    "cnn-small": cnn_small,
    "mlp-small": mlp_small,
    "resnet9": resnet9,
}


def _convolution(width: int, next_width: int, *, stride: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(width, next_width, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(next_width),
        nn.ReLU(inplace=True),
    )


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(_convolution(width, width), _convolution(width, width))

    def forward(self, features: Tensor) -> Tensor:
        total: Tensor = features + self.layers(features)
        return total


class _Network(nn.Module):
    """A body of convolutions, the mean of its map, and a head."""

    def __init__(self, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.body, self.head = body, head

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(images).mean(dim=(2, 3)))
        return logits
