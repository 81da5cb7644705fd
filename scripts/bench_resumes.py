"""`scripts/bench resumes`: trainings stopped at random batches and resumed, by each recipe.

Each named recipe, and a few with other memories (plateau, AdamW, a sampler) or another arithmetic
(bfloat16, compiled), trains a small network on a drawn root: once in one go, and again and again
with a SIGTERM after some batch of training or validation, resumed each time. Weights, their
average, the optimizer's memory, scores, sums and log must be those of the run in one go, to the
bit.

IMNETPREP_BENCH_ONLY=v2,plateau picks recipes; IMNETPREP_BENCH_STOPS (40) are the stops of each, and
IMNETPREP_BENCH_SEED draws others.
"""

import os
import random
import shutil
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from imnetprep.catalog.datasets import Root
from imnetprep.messages import Interruption
from imnetprep.recipes.publications import RECIPES
from imnetprep.training.runs import Run
from tests.drawn import draw_root
from tests.training.stops import SignalAt
from tests.training.test_train import refuse_difference, trained

ONLY = os.environ.get("IMNETPREP_BENCH_ONLY", "")
STOPS = int(os.environ.get("IMNETPREP_BENCH_STOPS", "40"))
SEED = os.environ.get("IMNETPREP_BENCH_SEED", "0")

# In 32 bits: a run for each stop would measure anew whether 16 are faster here.
_SMALL: Mapping[str, Any] = {
    "arch": "cnn-small", "image_size": 32, "batch_size": 10, "epochs": 4, "amp": False,
}  # fmt: skip
_OTHERS: dict[str, Mapping[str, Any]] = {
    "plateau": {"schedule": "plateau", "plateau_epochs": 1, "ema": 0.9, "watch": "loss"},
    "adamw": {"optimizer": "adamw", "lr": 0.01, "clip_norm": 0.5, "schedule": "multi-step"},
    "sampler": {"balance": "sampler", "repeats": 2, "nesterov": True, "accumulate": 2},
    "patience": {"patience": 2, "schedule": "constant", "balance": "loss", "epochs": 8},
    "dropout": {"arch": "mobilenet_v3_small", "ema": 0.9, "epochs": 3},
    "bfloat16": {"amp": True, "ema": 0.9},
}
if shutil.which("g++"):  # crops of two sizes: kernels of both
    _OTHERS |= {"compiled": {"compile": True, "first_size": 24}}
_LONGEST_WAY = 16  # batches between two stops: two validations have 6 of them


def main(folder: Path) -> None:
    """Each recipe, one line each; ends with an AssertionError on the first number that differs."""
    torch.set_num_threads(1)
    choices: dict[str, Mapping[str, Any]] = {name: {"recipe": name} for name in RECIPES}
    root = draw_root(folder)
    for name, options in (choices | _OTHERS).items():
        if not ONLY or name in ONLY.split(","):
            _prove(root, name, {**_SMALL, **options})


def _prove(root: Root, name: str, options: Mapping[str, Any]) -> None:
    chance, begun_s = random.Random(f"{SEED} {name}"), time.monotonic()
    whole = Run(root.run(name))
    epochs = len(trained(root, run=name, options=dict(options)))
    stops = runs = 0
    while stops < STOPS:
        runs += 1
        parts = Run(root.run(f"{name}-{runs}"))
        is_stopped = True
        while is_stopped:
            batches = chance.randint(1, _LONGEST_WAY)
            progress = SignalAt(signal.SIGTERM, batches=batches, what="")
            is_stopped = _is_stopped(root, parts, options, progress)
            stops += is_stopped
        refuse_difference(parts, whole)
    seconds = time.monotonic() - begun_s
    print(
        f"{name:<18} {epochs} epochs; {stops} stops in {runs} runs, all to the bit"
        f" ({seconds:.0f} s)",
        flush=True,
    )


def _is_stopped(root: Root, run: Run, options: Mapping[str, Any], progress: SignalAt) -> bool:
    try:
        trained(root, run=run.folder.name, options=dict(options), resume=True, progress=progress)
    except Interruption:
        return True
    return False
