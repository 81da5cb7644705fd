"""One rate or size of a training: `python scripts/bench_epochs.py NAME ROOT SIDE IMAGES`.

Of the second epoch, in which workers and memory are warm, over IMAGES images cropped to SIDE px by
batches of BATCH; prints JSON. `scripts/bench train` runs each in a process of its own.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from itertools import repeat
from pathlib import Path
from typing import Any

WORKERS = int(os.environ.get("IMNETPREP_BENCH_WORKERS", "2"))
SCALE, LR = 0.35, 0.1

Numbers = dict[str, float]


def _planned(root: Path, side_px: int, images: int, **options: Any) -> Any:
    """A plan of ours, its epochs of `images` images, and the checkpoint that it begins with."""
    import torch

    from imnetprep.catalog.datasets import Root
    from imnetprep.messages import Silent

    planning: Any = import_module("imnetprep.training.plan")

    def order(*_of_recipe: object) -> Any:
        def numbers(epoch: int) -> torch.Tensor:
            generator = torch.Generator().manual_seed(epoch)
            return torch.randperm(len(plan.data.train), generator=generator)[:images]

        return numbers

    recipe = {
        "arch": "resnet18", "image_size": side_px, "batch_size": _batch_size(side_px),
        "crop_scale": SCALE, "epochs": 2, "lr": LR, "val": False,
    }  # fmt: skip
    plan = planning.plan_training(
        Root(root), options=recipe, run=f"bench-{time.time_ns()}", device="cpu", workers=WORKERS,
        progress=Silent(), **options,
    )  # fmt: skip
    planning.train_order = order
    return plan


def _batch_size(side_px: int) -> int:
    return {32: 256, 64: 64}.get(side_px, 16)


def ours(root: Path, side_px: int, images: int, *, in_memory: bool = False) -> Numbers:
    """The epoch as `imnetprep train` has it; `in_memory`: one batch that is there, again."""
    from imnetprep.loading.loader import Loader
    from imnetprep.messages import Silent
    from imnetprep.training.loop import train

    if in_memory:
        whole = Loader.batches

        def one(loader: Loader, epoch: int, *, first_step: int = 0) -> Iterator[Any]:
            return repeat(next(whole(loader, epoch, first_step=first_step)), loader.steps)

        setattr(Loader, "batches", one)  # noqa: B010 - it is another's method
    *_, last = train(_planned(root, side_px, images), progress=Silent())
    return {"rate": last.train.images / last.seconds, "waited": last.waited_s / last.seconds}


def device(root: Path, side_px: int, images: int) -> Numbers:
    """Our steps alone."""
    return ours(root, side_px, images, in_memory=True)


def loader(root: Path, side_px: int, images: int, **options: Any) -> Numbers:
    """Our loader alone: batches as the loop receives them."""
    from imnetprep.messages import Silent
    from imnetprep.process_group.ranks import ALONE

    plan, checkpoint = _planned(root, side_px, images, **options).begin(Silent())
    batches = plan.loader(checkpoint.recipe, ALONE)
    for epoch in range(2):
        begun_s, count = time.monotonic(), 0
        for batch in batches.batches(epoch):
            count += len(batch.labels)
        seconds = time.monotonic() - begun_s
    batches.close()
    return {"rate": count / seconds}


def ram(root: Path, side_px: int, images: int) -> Numbers:
    """Our loader with `--cache ram`."""
    return loader(root, side_px, images, cache="ram")


def plain(root: Path, side_px: int, images: int) -> Numbers:
    """The loop of PyTorch's tutorials: torchvision alone, the same crops, batches and threads."""
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, Subset
    from torchvision import transforms
    from torchvision.datasets import ImageFolder
    from torchvision.models import resnet18

    crops = transforms.Compose([
        transforms.RandomResizedCrop(side_px, scale=(SCALE, 1)), transforms.RandomHorizontalFlip(),
        transforms.ToTensor(), transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ])  # fmt: skip
    folder = ImageFolder(str(root / "train"), crops)
    model = resnet18(num_classes=len(folder.classes))
    optimizer = torch.optim.SGD(model.parameters(), LR, momentum=0.9, weight_decay=1e-4)
    criterion, generator = nn.CrossEntropyLoss(), torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(folder), generator=generator)[:images].tolist()
    batches = DataLoader(
        Subset(folder, chosen), _batch_size(side_px), shuffle=True, num_workers=WORKERS,
        persistent_workers=True, drop_last=True,
    )  # fmt: skip
    for _epoch in range(2):
        begun_s, count, loss_sum = time.monotonic(), 0, 0.0
        for pixels, labels in batches:
            loss = criterion(model(pixels), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            count, loss_sum = count + len(labels), loss_sum + loss.item()
        seconds = time.monotonic() - begun_s
    return {"rate": count / seconds}


def memory(root: Path, side_px: int, images: int) -> Numbers:
    """What the process and its workers hold after a tenth of an epoch, and the most at its end, MB.

    Pages that they share count once (PSS). ROOT has a manifest of shards, and one file for all.
    """
    from imnetprep.messages import Silent
    from imnetprep.process_group.ranks import ALONE

    plan, checkpoint = _planned(root, side_px, images).begin(Silent())
    batches = plan.loader(checkpoint.recipe, ALONE)
    early = late = 0.0
    for number, _batch in enumerate(batches.batches(0)):
        if number == batches.steps // 10:
            early = _pss_mb()
    late = _pss_mb()
    batches.close()
    return {"early": early, "late": late, "images": images}


def _pss_mb() -> float:
    pids = [os.getpid(), *Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    sizes_kb = 0
    for pid in pids:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        sizes_kb += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return sizes_kb / 1000


KINDS = {each.__name__: each for each in (ours, device, loader, ram, plain, memory)}

if __name__ == "__main__":
    name, place, side, number_of_images = sys.argv[1:]
    print(json.dumps(KINDS[name](Path(place), int(side), int(number_of_images))), flush=True)
