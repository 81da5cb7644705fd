"""The floating-point type that a step computes in, and whether 16 bits pay on this device."""

import statistics
import time
from collections.abc import Mapping
from functools import cache

import torch
from torch import nn

from imnetprep.devices.device import memory_format
from imnetprep.messages import Progress
from imnetprep.networks.model import loss_of

_MEASURE_S, _IMAGES, _GAIN = 2.0, 16, 1.1
_FIRST_SCALE = 2.0**16
_TENSOR_CORES = (7, 0)  # compute capability of the V100


@cache
def half_type(device: torch.device) -> torch.dtype:
    """The 16 bits of `device`: bfloat16, or float16 on a GPU without it, as T4 and V100 are."""
    is_older = device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.float16 if is_older else torch.bfloat16


def format_type(dtype: torch.dtype) -> str:
    """`bfloat16`."""
    return str(dtype).removeprefix("torch.")


def autocast(device: torch.device, *, is_on: bool) -> torch.autocast:
    """Compute in 16 bits on `device` while the block runs, where that keeps a network accurate."""
    return torch.autocast(device.type, half_type(device), enabled=is_on)


def make_scaler(
    device: torch.device, *, is_on: bool, memory: Mapping[str, float]
) -> torch.amp.GradScaler:
    """What scales the loss of a float16 network, which rounds small gradients to 0 (Micikevicius
    et al. 2017, arXiv:1710.03740); it does nothing for bfloat16. `memory` is of `memory_of_scaler`.
    """
    is_on = is_on and half_type(device) is torch.float16
    scaler = torch.amp.GradScaler(device.type, _FIRST_SCALE, enabled=is_on)
    if is_on and memory:
        state = {"scale": memory["scale"], "_growth_tracker": int(memory["steps"])}
        scaler.load_state_dict(scaler.state_dict() | state)
    return scaler


def memory_of_scaler(scaler: torch.amp.GradScaler) -> dict[str, float]:
    """The scale, and the steps since it changed or overflowed; empty where there is none."""
    state = scaler.state_dict()
    return {"scale": state["scale"], "steps": state["_growth_tracker"]} if state else {}


def half_pays(device: torch.device) -> bool | None:
    """Is a network faster in 16 bits on `device`? None: that is to be measured there."""
    if device.type == "cuda":
        is_bfloat16 = half_type(device) is torch.bfloat16
        return True if is_bfloat16 else _has_tensor_cores(device)
    has_units = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return None if device.type == "cpu" and has_units else False


def _has_tensor_cores(device: torch.device) -> bool | None:
    return None if torch.cuda.get_device_capability(device) >= _TENSOR_CORES else False


def measured_half(
    network: nn.Module, *, size_px: int, device: torch.device, progress: Progress
) -> bool:
    """Is `network`, which is thrown away, faster in 16 bits? Told with the rates of both."""
    rates = {
        is_on: _IMAGES / statistics.median(seconds)
        for is_on, seconds in _step_seconds(network, size_px=size_px, device=device).items()
    }
    pays = is_gain(rates[False], rates[True])
    progress.note(
        f"{format_type(half_type(device))} is {rates[True] / rates[False]:.1f} × as fast here:"
        f" --{'' if pays else 'no-'}amp"
    )
    return pays


def is_gain(full_rate: float, half_rate: float) -> bool:
    """Are 16 bits worth it at these rates, in images/s? Not for less than a tenth."""
    return half_rate >= _GAIN * full_rate


def _step_seconds(
    network: nn.Module, *, size_px: int, device: torch.device
) -> dict[bool, list[float]]:
    """Seconds of steps of 16 images in 32 bits and in 16, taken in turns for two seconds."""
    images = torch.rand(_IMAGES, 3, size_px, size_px, device=device)
    images = images.contiguous(memory_format=memory_format(device))
    labels = torch.zeros(_IMAGES, dtype=torch.int64, device=device)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    seconds: dict[bool, list[float]] = {False: [], True: []}

    def step(*, is_on: bool) -> float:
        begun_s = time.monotonic()
        optimizer.zero_grad()
        with autocast(device, is_on=is_on):
            output = network(images)
        loss_of(output, labels, label_smoothing=0)[0].backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        _ = next(network.parameters()).flatten()[0].item()  # waits for the device
        return time.monotonic() - begun_s

    for is_on in seconds:
        step(is_on=is_on)  # the first one makes its kernels ready
    begun_s = time.monotonic()
    while not seconds[True] or time.monotonic() - begun_s < _MEASURE_S:
        for is_on, each in seconds.items():
            each.append(step(is_on=is_on))
    return seconds
