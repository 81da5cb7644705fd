"""The caches of a training: what they take is measured and told before."""

from typing import NamedTuple

import torch

from imnetprep.jobs import available_memory
from imnetprep.loading.device_cache import DeviceCache
from imnetprep.loading.ram_cache import HEAD_BYTES, RamCache
from imnetprep.messages import ImnetprepError, Progress, WrongBytes, count, format_bytes
from imnetprep.pixels.augmentation import TrainTransform
from imnetprep.pixels.transforms import ValTransform
from imnetprep.samples.sample_list import SampleList

RAM, DEVICE = "ram", "device"

_LOOKS = 64  # images whose size is measured
# Of the measured mean, for a set whose images differ; pages that nobody writes take no memory.
_SPARE, _LEAST_BYTES = 1.5, 1 << 26
_SHARE = 0.8  # of the memory that is available


class Caches(NamedTuple):
    """The caches of the two splits of a training; None: none."""

    train: RamCache | DeviceCache | None = None
    val: RamCache | DeviceCache | None = None


class CachePlan(NamedTuple):
    """Caches by --cache `kind`, RAM or DEVICE: `processes` have one each, in `free_bytes`."""

    kind: str
    device: torch.device
    processes: int
    free_bytes: int

    def caches(
        self,
        train: tuple[SampleList, TrainTransform],
        val: tuple[SampleList, ValTransform],
        progress: Progress,
    ) -> Caches:
        """Caches for the images of both splits, and what is made of them; nothing is read yet.

        What they take is measured on some images, and told. Raises ImnetprepError where memory has
        no room for it.
        """
        sizes = [_decoded_bytes(train[0]), len(val[0]) * (HEAD_BYTES + 3 * val[1].side_px ** 2)]
        images = count(len(train[0]) + len(val[0]), "image")
        self._require_room(sum(sizes), images, progress)
        if self.kind == RAM:
            return Caches(*(
                RamCache(len(samples), int(_SPARE * size_bytes) + _LEAST_BYTES)
                for (samples, _), size_bytes in zip((train, val), sizes, strict=True)
            ))  # fmt: skip
        if self.device.type == "cpu":
            progress.note("on a CPU --cache ram is faster")
        return Caches(
            DeviceCache(*train, self.device, progress, expected_bytes=sizes[0]),
            DeviceCache(*val, self.device, progress, expected_bytes=sizes[1]),
        )

    def _require_room(self, size_bytes: int, images: str, progress: Progress) -> None:
        total, place = self.processes * size_bytes, "memory"
        if _is_of_gpu(self.kind, self.device):
            total, place = size_bytes, f"the memory of {self.device}"
        free = f"{format_bytes(self.free_bytes)} of {place} are free"
        sentence = f"{format_bytes(total)} for {images}; {free}"
        if total > _SHARE * self.free_bytes:
            raise ImnetprepError(
                f"--cache {self.kind} would take about {sentence}",
                hint="leave out --cache, or train on smaller images: imnetprep organize --resize",
            )
        progress.note(f"--cache {self.kind} takes about {sentence}")


def free_bytes(kind: str, device: torch.device) -> int:
    """The memory that a cache may take of `device`, or of the machine."""
    if _is_of_gpu(kind, device):
        return int(torch.cuda.mem_get_info(device)[0])
    return available_memory()


def _is_of_gpu(kind: str, device: torch.device) -> bool:
    return kind == DEVICE and device.type == "cuda"


def _decoded_bytes(samples: SampleList) -> int:
    sizes: list[int] = []
    for index in samples.spread(_LOOKS):
        try:
            sizes.append(HEAD_BYTES + samples.pixels(index).size)
        except WrongBytes:
            continue  # told where it is trained on
    return round(len(samples) * sum(sizes) / max(len(sizes), 1))
