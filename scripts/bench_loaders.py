"""One loader's rate on photographs: `python scripts/bench_loaders.py NAME FOLDER`, for bench_train.

Each loader reads FOLDER by the same number of workers, shuffled, and gives batches of 100 crops of
224 px to the process that would train: RandomResizedCrop(0.08 to 1), mirrored half the time, and at
the end float32, normalised (B, 3, 224, 224). It goes over the images PASSES times in one pass of
its own, so that no end of an epoch is inside; seconds and CPU count from the fifth batch on, so
that no start is. Prints them as JSON: images, seconds, CPU seconds of the process and its workers.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

WORKERS = int(os.environ.get("IMNETPREP_BENCH_WORKERS", "2"))
PASSES = int(os.environ.get("IMNETPREP_BENCH_PASSES", "3"))
BATCH, SIDE_PX, SCALE = 100, 224, (0.08, 1.0)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_WARM = 2 * 2  # batches that workers have ready before anybody asks, by PyTorch's default

Batches = Iterator[Any]


def _classic_transform() -> Any:
    from torchvision import transforms

    return transforms.Compose([
        transforms.RandomResizedCrop(SIDE_PX), transforms.RandomHorizontalFlip(),
        transforms.ToTensor(), transforms.Normalize(MEAN, STD),
    ])  # fmt: skip


def classic(folder: Path) -> Batches:
    """The loader of pytorch/examples, its workers persistent: floats are made by the workers."""
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder

    images = ImageFolder(str(folder / "train"), _classic_transform())
    images.samples *= PASSES
    loader = DataLoader(
        images, BATCH, shuffle=True, num_workers=WORKERS, persistent_workers=WORKERS > 0
    )
    return (pixels for pixels, _ in loader)


def timm(folder: Path, **options: Any) -> Batches:
    """The loader of timm's train.py, its crops and mirrors: no colour jitter, one interpolation.

    Workers hand over uint8, and its PrefetchLoader normalises on the device.
    """
    import torch

    data: Any = import_module("timm.data")
    images = data.create_dataset("", str(folder / "train"))
    images.reader.samples *= PASSES
    loader = data.create_loader(
        images, SIDE_PX, BATCH, is_training=True, color_jitter=None, interpolation="bilinear",
        num_workers=WORKERS, device=torch.device("cpu"), **options,
    )  # fmt: skip
    return (pixels for pixels, _ in loader)


def timm_fast(folder: Path) -> Batches:
    """timm with `--use-multi-epochs-loader`, under Pillow-SIMD where the bench has built it."""
    return timm(folder, use_multi_epochs_loader=True)


def dali(folder: Path) -> Batches:
    """DALI's pipeline on the CPU, by as many threads: only the crop is decoded, floats come out."""
    nvidia: Any = import_module("nvidia.dali")
    pytorch: Any = import_module("nvidia.dali.plugin.pytorch")
    fn, types = nvidia.fn, nvidia.types

    @nvidia.pipeline_def(batch_size=BATCH, num_threads=WORKERS, device_id=None)  # type: ignore[untyped-decorator]
    def pipeline() -> tuple[Any, Any]:
        jpegs, labels = fn.readers.file(
            file_root=str(folder / "train"), random_shuffle=True, initial_fill=1000, name="images"
        )
        images = fn.decoders.image_random_crop(
            jpegs, device="cpu", output_type=types.RGB, random_area=SCALE,
            random_aspect_ratio=(3 / 4, 4 / 3), num_attempts=10,
        )  # fmt: skip
        images = fn.resize(images, size=(SIDE_PX, SIDE_PX), interp_type=types.INTERP_TRIANGULAR)
        images = fn.crop_mirror_normalize(
            images, dtype=types.FLOAT, output_layout="CHW", mirror=fn.random.coin_flip(),
            mean=[255 * value for value in MEAN], std=[255 * value for value in STD],
        )  # fmt: skip
        return images, labels

    made = pipeline()
    made.build()
    while True:  # the pipeline itself has no end
        yield from (parts[0]["data"] for parts in pytorch.DALIClassificationIterator(made, -1))


def webdataset(folder: Path) -> Batches:
    """webdataset's loader over our shards: Pillow and the classic transform in its workers."""
    import webdataset as wds

    shards = sorted(map(str, (folder / "shards" / "train").glob("*.tar"))) * PASSES
    images = (
        wds.WebDataset(shards, shardshuffle=len(shards), empty_check=False)
        .shuffle(1000)
        .decode("pil")
        .to_tuple("jpg;jpeg", "cls")
        .map_tuple(_classic_transform(), int)
        .batched(BATCH)
    )
    loader = wds.WebLoader(images, batch_size=None, num_workers=WORKERS)
    return (pixels for pixels, _ in loader)


def ours(folder: Path, **options: Any) -> Batches:
    """The loader that a training by classic90 gets, and its Normaliser, in the process that trains.

    Workers hand over uint8. Of FOLDER's layouts it reads the shards, where it has some.
    """
    from imnetprep.catalog.datasets import Layout, Root
    from imnetprep.loading.order import Order
    from imnetprep.messages import Silent
    from imnetprep.pixels.transforms import Normaliser
    from imnetprep.process_group.ranks import ALONE

    planning: Any = import_module("imnetprep.training.plan")

    def repeated(*_: object, **_options: object) -> Order:
        import torch

        images = len(plan.data.train)
        return lambda epoch: torch.cat([torch.randperm(images) + k * images for k in range(PASSES)])

    in_shards = (folder / "shards").exists()
    plan = planning.plan_training(
        Root(folder), options={"recipe": "classic90", "batch_size": BATCH, "val": False},
        run=f"bench-{os.getpid()}", device="cpu", workers=WORKERS, progress=Silent(),
        layout=Layout.WEBDATASET if in_shards else None, **options,
    )  # fmt: skip
    plan, checkpoint = plan.begin(Silent())
    planning.train_order = repeated
    loader = plan.loader(checkpoint.recipe, ALONE)
    normaliser = Normaliser(checkpoint.preprocessing, "cpu")
    return (normaliser.normalised(batch.pixels) for batch in loader.batches(0))


LOADERS: dict[str, Callable[[Path], Batches]] = {
    "classic": classic, "timm": timm, "timm-fast": timm_fast,
    "dali": dali, "webdataset": webdataset, "ours": ours,
}  # fmt: skip


def main() -> None:
    """Measure the loader that is named."""
    name, folder = sys.argv[1], Path(sys.argv[2])
    batches = LOADERS[name](folder)
    images, begun_s, begun_cpu_s = 0, 0.0, 0.0
    for number in range(PASSES * 1000 // BATCH):
        pixels = next(batches)
        assert pixels.shape == (BATCH, 3, SIDE_PX, SIDE_PX), pixels.shape
        assert str(pixels.dtype) == "torch.float32", pixels.dtype
        if number == _WARM:
            begun_s, begun_cpu_s = time.monotonic(), _cpu_s()
        images += BATCH * (number > _WARM)
    seconds, cpu_s = time.monotonic() - begun_s, _cpu_s() - begun_cpu_s
    print(json.dumps({"images": images, "seconds": seconds, "cpu_s": cpu_s}), flush=True)
    os._exit(0)  # workers that read ahead are no part of it


def _cpu_s() -> float:
    """What this process and its workers have computed so far."""
    pids = [os.getpid(), *Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
