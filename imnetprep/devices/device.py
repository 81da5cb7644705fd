"""The device that a network runs on: picked, and what is fast there."""

import platform
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torchvision

from imnetprep import __version__
from imnetprep.jobs import BATCHES_FOR_CPU, BATCHES_FOR_GPU, Jobs
from imnetprep.messages import ImnetprepError, WrongUsage


@dataclass(frozen=True)
class Place:
    """The device that computes, and how many processes read images for it."""

    device: torch.device
    workers: int


def pick_place(
    device_name: str | None, workers: int | None, *, local_rank: int = 0, local_world: int = 1
) -> Place:
    """Where to compute, as `pick_device` has it; on a CPU few `workers` unless a number is named:
    training itself wants the cores.

    `local_rank` of `local_world` processes here takes the GPU of its number and its share of cores.
    """
    device = pick_device(device_name)
    if local_world > 1 and device.type == "cuda":
        device = pick_device(f"cuda:{local_rank}")
    if workers is None:
        workers = (BATCHES_FOR_CPU if device.type == "cpu" else BATCHES_FOR_GPU).count()
        workers = -(-workers // local_world)
    return Place(device, workers)


def pick_device(name: str | None) -> torch.device:
    """The device called `name` (`cpu`, `cuda`, `cuda:1`, `mps`), or the best that this machine has.

    Raises WrongUsage on a name that is none, ImnetprepError where this machine lacks it.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name is None:
        return torch.device(next(kind for kind, usable in available.items() if usable))
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in available:
        raise WrongUsage(f"--device {name} is no device", hint="--device cpu, cuda, cuda:1 or mps")
    count = torch.cuda.device_count() if device.type == "cuda" else 1
    if not available[device.type] or (device.index or 0) >= count:
        found = ", ".join(kind for kind, usable in available.items() if usable)
        raise ImnetprepError(f"this machine has no {name}", hint=f"--device one of: {found}")
    return device


def device_name(device: torch.device) -> str:
    """What the maker of `device` calls it, as far as the system says."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    return name or platform.machine()


def described(device: torch.device, processes: int) -> Iterator[tuple[str, str]]:
    """What people read of the machine: names of facts, and their texts."""
    times = f"{processes} × " if processes > 1 else ""
    yield "device", f"{times}{device}, {device_name(device)}"
    yield "cores", f"{Jobs().count()}, {platform.system()} {platform.release()}"
    yield "versions", ", ".join((
        f"imnetprep {__version__}", f"torch {torch.__version__}",
        f"torchvision {torchvision.__version__}", f"Python {platform.python_version()}",
    ))  # fmt: skip


def memory_format(device: torch.device) -> torch.memory_format:
    """Channels-last where kernels are made for it. MPS copies it back and forth."""
    return torch.contiguous_format if device.type == "mps" else torch.channels_last
