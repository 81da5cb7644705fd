"""Several processes that train one network: the numbers of one, and a common end."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch

from imnetprep.catalog.datasets import Root
from imnetprep.evaluation.evaluate import evaluate
from imnetprep.messages import ImnetprepError, Interruption, Silent, WrongBytes
from imnetprep.process_group.ranks import FailedPeer, LostPeer, typed_ranks
from imnetprep.training.checkpoint import load_checkpoint
from imnetprep.training.loop import train
from imnetprep.training.plan import plan_training
from imnetprep.training.runs import Run
from imnetprep.training.saves import SavePlan
from tests.conftest import command
from tests.training.stops import SignalAt
from tests.training.test_train import SMALL, numbers, trained


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
        list(train(plan, progress=progress, saves=SavePlan(save_every_s)))

    return as_ranks(world, work)


@pytest.mark.parametrize("world", [2, 3])
def test_validation_counts_each_image_once(root: Root, world: int) -> None:
    """21 images in batches of 8 among 2 and 3: no slice is as long as another."""
    assert train_as_ranks(root, world, options={**SMALL, "epochs": 1}) == [0] * world
    run = Run(root.run("a"))
    (line,) = numbers(run)
    assert line["val"]["images"] == 21 and line["train"]["images"] == 56
    score = evaluate(root, run.best, device="cpu", workers=0, progress=Silent()).score
    assert (score.top1, score.top5, score.images) == tuple(
        line["val"][name] for name in ("top1", "top5", "images")
    )
    assert score.loss == pytest.approx(line["val"]["loss"], rel=1e-5)
    assert load_checkpoint(run.last).processes == world


PLAIN = {"arch": "mlp-small", "image_size": 32, "batch_size": 8, "epochs": 3, "lr": 0.02}


def refuse_distance(run: Run, other: Run) -> None:
    """All numbers of two runs are the same but for rounding."""
    ours, theirs = load_checkpoint(run.last), load_checkpoint(other.last)
    assert ours.position == theirs.position
    for name, weight in ours.weights.items():
        torch.testing.assert_close(weight, theirs.weights[name], rtol=1e-3, atol=1e-5)
    for line, other_line in zip(numbers(run), numbers(other), strict=True):
        for part in ("train", "val"):
            assert line[part]["images"] == other_line[part]["images"]
            assert line[part]["loss"] == pytest.approx(other_line[part]["loss"], rel=1e-3)


@pytest.fixture(scope="module")
def alone(drawn: Root) -> Run:
    """21 steps of one process."""
    trained(drawn, run="alone", options=PLAIN)
    return Run(drawn.run("alone"))


@pytest.mark.parametrize(("world", "accumulate"), [(2, 1), (3, 2), (4, 1)])
def test_several_train_to_the_weights_of_one(
    root: Root, alone: Run, world: int, accumulate: int
) -> None:
    """Batches of 8 among 3 are 3, 3 and 2 images: gradients are means over images, not slices."""
    options = {**PLAIN, "accumulate": accumulate}
    assert train_as_ranks(root, world, options=options) == [0] * world
    refuse_distance(Run(root.run("a")), alone)


def test_one_that_takes_a_batch_in_parts_comes_to_the_same(root: Root, alone: Run) -> None:
    trained(root, options={**PLAIN, "accumulate": 3})
    refuse_distance(Run(root.run("a")), alone)


@pytest.mark.parametrize(
    ("what", "batches", "position"), [("epoch", 4, (0, 4)), ("validation", 2, (0, 7))]
)
def test_a_signal_to_one_stops_all_and_another_number_goes_on(
    root: Root, alone: Run, what: str, batches: int, position: tuple[int, int]
) -> None:
    stops = {1: SignalAt(signal.SIGTERM, batches=batches, what=what)}
    assert train_as_ranks(root, 2, options=PLAIN, progresses=stops) == [143, 143]
    run = Run(root.run("a"))
    at = load_checkpoint(run.last).position
    assert (at.epoch, at.step) == position
    assert train_as_ranks(root, 3, options={}, resume=True) == [0] * 3
    refuse_distance(run, alone)


def test_one_that_is_killed_is_missed_by_the_others(
    root: Root, alone: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    kills = {1: SignalAt(signal.SIGKILL, batches=4)}
    codes = train_as_ranks(root, 3, options=PLAIN, progresses=kills, save_every_s=0)
    assert codes == [LostPeer.exit_code, -signal.SIGKILL, LostPeer.exit_code]
    assert "a process of the training is gone" in capfd.readouterr().err
    trained(root, options={}, resume=True)
    refuse_distance(Run(root.run("a")), alone)


def test_an_image_that_one_cannot_read_is_named_once_and_the_run_goes_on(
    root: Root, drawn: Root, alone: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    (root.path / "train").unlink()
    shutil.copytree(drawn.path / "train", root.path / "train")
    image = sorted((root.path / "train").rglob("*.JPEG"))[40]
    body = image.read_bytes()
    image.write_bytes(b"no image")
    codes = train_as_ranks(root, 2, options=PLAIN)
    assert sorted(codes) == [FailedPeer.exit_code, WrongBytes.exit_code]
    error = capfd.readouterr().err
    assert error.count(image.name) == 1 and "Traceback" not in error
    image.write_bytes(body)
    assert train_as_ranks(root, 2, options={}, resume=True) == [0, 0]
    refuse_distance(Run(root.run("a")), alone)


def test_what_all_refuse_is_said_once(root: Root, capfd: pytest.CaptureFixture[str]) -> None:
    assert train_as_ranks(root, 3, options={**PLAIN, "batch_size": 2}) == [2, 1, 1]
    assert "a batch of 2 images is too small for 3 processes" in capfd.readouterr().err
    assert train_as_ranks(root, 2, options={**PLAIN, "sync_batch_norm": True}) == [2, 1]
    assert "--sync-batch-norm works between CUDA GPUs only" in capfd.readouterr().err
    assert not root.runs.exists()


def test_a_run_with_one_batch_norm_goes_on_where_there_is_one_process(root: Root) -> None:
    """Its recipe stays, and there is nothing to share: no hint could free it else."""
    trained(root, options={**PLAIN, "epochs": 1, "sync_batch_norm": True})
    assert load_checkpoint(Run(root.run("a")).last).recipe.sync_batch_norm


def test_devices_are_trained_on_by_the_agent_of_torchrun(drawn: Root, tmp_path: Path) -> None:
    words = "--arch mlp-small --image-size 32 --batch-size 8 --epochs 1 --workers 0 --device cpu"
    done = subprocess.run(
        command("train", "--root", drawn.path, "--runs", tmp_path, *words.split(), "--devices", 2),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout.count("epoch 1/1")) == (0, 1), done.stderr
    assert "2 processes" in done.stderr and "Traceback" not in done.stderr
    assert load_checkpoint(tmp_path / "mlp-small" / "last.pt").processes == 2


@pytest.mark.slow
def test_torchrun_starts_all_again_and_they_resume(drawn: Root, tmp_path: Path) -> None:
    agent = "-m torch.distributed.run --standalone --nproc-per-node 2 --max-restarts 1 -m --"
    words = "--arch mlp-small --image-size 32 --batch-size 8 --epochs 12 --workers 0 --device cpu"
    places = ["--root", str(drawn.path), "--runs", str(tmp_path)]
    line = [sys.executable, *agent.split(), "imnetprep", "train", *words.split(), *places]
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
    run = Run(tmp_path / "mlp-small")
    while not run.log.exists():
        assert process.poll() is None
        time.sleep(0.05)
    (second,) = (
        int(each)
        for each in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        if b"\0RANK=1\0" in Path(f"/proc/{each}/environ").read_bytes()
    )
    os.kill(second, signal.SIGKILL)
    assert "resumes at epoch" in process.communicate()[1]
    assert process.returncode == 0
    assert len(numbers(run)) == 12
