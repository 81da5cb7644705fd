"""What of a machine may hinder a training, and how fast one was measured to be on it."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from imnetprep.catalog.datasets import Root
from imnetprep.devices.device import described, pick_device
from imnetprep.devices.precision import format_type, half_pays, half_type
from imnetprep.jobs import available_memory
from imnetprep.measuring.machine_rates import latest_rates
from imnetprep.measuring.verdict import verdict
from imnetprep.messages import format_bytes, shell_command

_FEWEST_FILES = 1024
_SMALLEST_DISK_BYTES = 5_000_000_000
_MEMORY_FOLDER = Path("/dev/shm")  # noqa: S108 - nothing is written there
_HALF = {
    True: "{} is faster here: train computes in it (--amp)",
    False: "this device has no units for {}: train computes in 32 bits",
    None: "train measures whether {} is faster here, before it begins",
}


class Diagnosis(NamedTuple):
    """A fact of `subject` in words; `remedy` where it is a finding: what to do about it."""

    subject: str
    text: str
    remedy: str = ""


def of_machine(root: Root, device: str | None) -> Iterator[Diagnosis]:
    """What the machine has: device, 16 bits, memory, disk, files."""
    place = pick_device(device)
    for name, text in described(place, 1):
        yield Diagnosis(name, text)
    yield Diagnosis("16 bits", _HALF[half_pays(place)].format(format_type(half_type(place))))
    folder = next(each for each in (root.path, *root.path.absolute().parents) if each.exists())
    free_bytes = shutil.disk_usage(folder).free
    yield Diagnosis("memory", f"{format_bytes(available_memory())} free")
    if _MEMORY_FOLDER.is_dir():
        free = format_bytes(shutil.disk_usage(_MEMORY_FOLDER).free)
        yield Diagnosis("shared memory", f"{free} free at {_MEMORY_FOLDER}")
    remedy = "free some, or name another --root" if free_bytes < _SMALLEST_DISK_BYTES else ""
    yield Diagnosis("disk", f"{format_bytes(free_bytes)} free at {folder}", remedy)
    if (files := _most_open_files()) is not None:
        remedy = f"ulimit -n {_FEWEST_FILES}" if files < _FEWEST_FILES else ""
        yield Diagnosis("files", f"{files:,} may be open at once", remedy)


def of_pace(root: Root, arch: str, image_size: int) -> Diagnosis:
    """What `imnetprep bench` said last of the network here."""
    subject, words = f"{arch}, {image_size} px", ("--arch", arch, "--image-size", str(image_size))
    entry = latest_rates(root, arch=arch, image_size=image_size)
    if entry is None:
        command = shell_command("imnetprep", "bench", "--root", root.path, *words)
        return Diagnosis(subject, f"its pace here is not known: {command} measures it")
    of = entry.subject
    text = verdict(entry.rates, device=of.device, cores=of.cores, workers=of.workers)
    return Diagnosis(subject, f"measured on {entry.at[:10]}: {text}")


def _most_open_files() -> int | None:
    """How many files this process may open; None: any number, or nobody knows."""
    try:
        import resource
    except ImportError:  # no Unix
        return None
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if files == resource.RLIM_INFINITY else files
