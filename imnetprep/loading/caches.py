"""The caches of a training: what they take is measured and told before."""

from typing import NamedTuple

import torch

from imnetprep.jobs import available_memory
from imnetprep.loading.device_cache import DeviceCache
from imnetprep.loading.ram_cache import HEAD_BYTES, RamCache
from imnetprep.loading.samples import SampleList
from imnetprep.messages import ImnetprepError, Progress, WrongBytes, count, format_bytes
from imnetprep.pixels.augmentation import TrainTransform
from imnetprep.pixels.transforms import ValTransform

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
    """Caches by --cache `kind`: RAM, or DEVICE, of which `processes` of this machine have one each.

    `skips_bad`: an image that cannot be read is no error.
    """

    kind: str
    device: torch.device
    processes: int
    skips_bad: bool

    def caches(
        self,
        train: tuple[SampleList, TrainTransform],
        val: tuple[SampleList, ValTransform],
        progress: Progress,
    ) -> Caches:
        """Caches for the images of both splits, and what is made of them.

        What they take is measured on some images, and told. Raises ImnetprepError where memory has
        no room for it, WrongBytes on an image that cannot be read.
        """
        samples = train[0], val[0]
        sizes = [_decoded_bytes(train[0]), len(val[0]) * (HEAD_BYTES + 3 * val[1].side_px ** 2)]
        self._require_room(sum(sizes), count(sum(map(len, samples)), "image"), progress)
        if self.kind == RAM:
            return Caches(*(
                RamCache(len(each), int(_SPARE * size_bytes) + _LEAST_BYTES)
                for each, size_bytes in zip(samples, sizes, strict=True)
            ))  # fmt: skip
        if self.device.type == "cpu":
            progress.note("a CPU makes crops one by one faster than in batches: --cache ram")
        return Caches(*(
            DeviceCache(samples, transform, self.device, progress, skips_bad=self.skips_bad)
            if samples else None for samples, transform in (train, val)
        ))  # fmt: skip

    def _require_room(self, size_bytes: int, images: str, progress: Progress) -> None:
        if self.device.type == "cuda" and self.kind == DEVICE:
            total, free, place = size_bytes, torch.cuda.mem_get_info(self.device)[0], "GPU memory"
        else:
            total, free, place = self.processes * size_bytes, available_memory(), "memory"
        sentence = f"{format_bytes(total)} for {images}; {format_bytes(free)} of {place} are free"
        if total > _SHARE * free:
            raise ImnetprepError(
                f"--cache {self.kind} would take about {sentence}",
                hint="leave out --cache, or train on smaller images: imnetprep organize --resize",
            )
        progress.note(f"--cache {self.kind} takes about {sentence}")


def _decoded_bytes(samples: SampleList) -> int:
    sizes: list[int] = []
    for index in samples.spread(_LOOKS):
        try:
            sizes.append(HEAD_BYTES + samples.pixels(index).size)
        except WrongBytes:
            continue  # told where it is trained on
    return round(len(samples) * sum(sizes) / max(len(sizes), 1))
