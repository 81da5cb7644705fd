"""Several processes that train one network: the numbers of one, and a common end."""

import os
import socket
import sys
from collections.abc import Callable
from multiprocessing import get_context
from typing import Any

import pytest

from imnetprep.catalog.datasets import Root
from imnetprep.messages import ImnetprepError, Interruption, Silent
from imnetprep.training.checkpoint import load_checkpoint
from imnetprep.training.loop import train
from imnetprep.training.plan import plan_training
from imnetprep.training.ranks import typed_ranks
from imnetprep.training.runs import Run
from tests.training.test_train import SMALL, numbers


def as_ranks(world: int, work: Callable[[int], None]) -> list[int]:
    """Do `work` in so many processes, as torchrun starts them; their exit codes."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def run(rank: int) -> None:
        os.environ |= {
            "TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
            "RANK": str(rank), "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world),
        }  # fmt: skip
        try:
            work(rank)
        except Interruption as stop:
            print(stop, file=sys.stderr)
            os._exit(stop.exit_code)
        except ImnetprepError as error:
            print(f"rank {rank}: {error}", file=sys.stderr)
            os._exit(error.exit_code)
        os._exit(0)

    processes = [get_context("fork").Process(target=run, args=(rank,)) for rank in range(world)]
    for each in processes:
        each.start()
    for each in processes:
        each.join()
    return [each.exitcode or 0 for each in processes]


def train_as_ranks(root: Root, world: int, **options: Any) -> list[int]:
    """Train with so many processes."""

    def work(rank: int) -> None:
        progress = options.pop("progresses", {}).get(rank, Silent())
        values = {"options": SMALL, "run": "a", "device": "cpu", "workers": 0, **options}
        save_every_s = values.pop("save_every_s", 600)
        plan = plan_training(root, ranks=typed_ranks(), progress=progress, **values)
        list(train(plan, progress=progress, save_every_s=save_every_s))

    return as_ranks(world, work)


@pytest.mark.parametrize("world", [2, 3])
def test_validation_counts_each_image_once(root: Root, world: int) -> None:
    """21 images in batches of 8 among 2 and 3: no slice is as long as another."""
    assert train_as_ranks(root, world, options={**SMALL, "epochs": 1}) == [0] * world
    run = Run(root.run("a"))
    (line,) = numbers(run)
    assert line["val"]["images"] == 21 and line["train"]["images"] == 56
    from imnetprep.training.evaluate import evaluate

    score = evaluate(root, run.best, device="cpu", workers=0, progress=Silent())
    assert (score.top1, score.top5, score.images) == tuple(
        line["val"][name] for name in ("top1", "top5", "images")
    )
    assert score.loss == pytest.approx(line["val"]["loss"], rel=1e-5)
    assert load_checkpoint(run.last).processes == world
