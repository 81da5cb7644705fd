"""What a network sees: how large its maps are, and how far a point of them looks."""

import warnings
from typing import Any, NamedTuple

import torch
from torch import nn

from imnetprep.messages import ImnetprepError
from imnetprep.networks.architectures import make_network

_WINDOWS = nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d


class Stage(NamedTuple):
    """The layers whose maps are `side_px` high: convolutions and poolings of more than a pixel.

    A point of the last of their maps sees `sees_px` of the image at most. `wide_layers` of the
    `layers` have windows wider than the map that comes into them: they see its padding.
    """

    side_px: int
    layers: int
    sees_px: int
    wide_layers: int


class Geometry(NamedTuple):
    """The stages of a network, the largest maps first.

    `by_windows`: do its windows alone carry what is far apart together? Not where layers on all
    pixels, such as attention, come between. `problem`: why no image goes through it, or none
    without numbers.
    """

    stages: list[Stage]
    by_windows: bool
    problem: str = ""


def geometry(arch: str, *, classes: int, image_size: int) -> Geometry:
    """What `arch` sees of an image of that side, by pushing shapes through it.

    Without stages where it has no windows, or a `problem`. Raises WrongUsage on an unknown name.
    """
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            with torch.device("meta"):
                network = make_network(arch, classes=classes, image_size=image_size).eval()
            recorder = _Recorder(image_size)
            for module in network.modules():
                if isinstance(module, _WINDOWS):
                    module.register_forward_hook(recorder.hear)
            network(torch.empty(1, 3, image_size, image_size, device="meta"))
        except ImnetprepError:
            raise
        except Exception as error:  # the network may be anybody's
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            return Geometry([], by_windows=False, problem=reason)
    linear_layers = sum(isinstance(module, nn.Linear) for module in network.modules())
    found = [recorder.stages[side_px] for side_px in sorted(recorder.stages, reverse=True)]
    return Geometry(found, by_windows=linear_layers < 2)


class _Recorder:
    """Hears of each window in the order of the calls.

    Of branches side by side all are added up, and those of one pixel add nothing: of a residual
    network that is its longest way, and of others no less.
    """

    def __init__(self, image_size: int) -> None:
        self._image_size, self._sees_px = image_size, 1.0
        self.stages = dict[int, Stage]()  # by the side of their maps

    def hear(self, module: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        """A hook of torch, called behind `module`."""
        reach, dilation = (_first(getattr(module, name, 1)) for name in ("kernel_size", "dilation"))
        window_px = (reach - 1) * dilation + 1
        if output.ndim != 4 or window_px == 1:
            return
        side_before_px, side_px = max(inputs[0].shape[2:]), max(output.shape[2:])
        self._sees_px += (window_px - 1) * self._image_size / side_before_px
        sees_px = min(self._image_size, round(self._sees_px))
        stage = self.stages.get(side_px, Stage(side_px, 0, 0, 0))
        wide_layers = stage.wide_layers + (window_px > side_before_px)
        self.stages[side_px] = Stage(side_px, stage.layers + 1, sees_px, wide_layers)


def _first(value: Any) -> int:
    return int(value[0] if isinstance(value, tuple) else value)
