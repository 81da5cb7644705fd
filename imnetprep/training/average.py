"""The average of a network's weights over its steps, buffers of BatchNorm among them."""

from copy import deepcopy
from itertools import compress

from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from imnetprep.networks.model import load_weights


class Average:
    """An exponential moving average (Polyak, Juditsky 1992); with a `decay` of 0 it is none.

    Its warm-up lets the first steps be forgotten: after t steps it decays by (1 + t) / (10 + t) at
    most, a function of the step alone.
    """

    def __init__(self, network: nn.Module, decay: float, weights: dict[str, Tensor]) -> None:
        self._decay = decay
        self.network = deepcopy(network).requires_grad_(False) if decay else None
        if self.network and weights:
            load_weights(self.network, weights)

    def follow(self, network: nn.Module, *, step: int) -> None:
        """Take in the weights of `network` after `step`, counted from 0 over all epochs."""
        if self.network is None:
            return
        decay = min(self._decay, (1 + step) / (10 + step))
        average, current = (list(each.state_dict().values()) for each in (self.network, network))
        is_float = [tensor.is_floating_point() for tensor in average]
        update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        update(list(compress(average, is_float)), list(compress(current, is_float)), None)
        for tensor, source in zip(average, current, strict=True):
            if not tensor.is_floating_point():
                tensor.copy_(source)  # a counter of batches

    def weights(self) -> dict[str, Tensor]:
        """The average as a state dict; empty where there is none."""
        return self.network.state_dict() if self.network else {}
