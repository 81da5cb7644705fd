"""A training as a whole: what it leaves, how it stops, and that going on changes no number."""

import errno
import json
import math
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from imnetprep.catalog.datasets import Root
from imnetprep.evaluation.evaluate import evaluate
from imnetprep.messages import ImnetprepError, Interruption, Silent, WrongBytes, WrongUsage
from imnetprep.reports.log import epoch_lines, step_lines, tables
from imnetprep.reports.record import LogOptions
from imnetprep.training.checkpoint import load_checkpoint
from imnetprep.training.loop import train
from imnetprep.training.plan import plan_training
from imnetprep.training.runs import EpochReport, Run
from imnetprep.training.saves import SavePlan
from tests.conftest import Run as RunCommand
from tests.conftest import command
from tests.drawn import draw_root
from tests.training.stops import SignalAt

# BatchNorm, dropout, and a checkpoint of a few megabytes.
SMALL = {
    "arch": "mobilenet_v3_small", "image_size": 32, "batch_size": 8, "epochs": 2, "lr": 0.02,
    "amp": False,  # which a process that a test starts would measure
}  # fmt: skip


def trained(
    root: Root, *, save_every_s: float = 600, keep: int = 0, **options: Any
) -> list[EpochReport]:
    options = {"options": SMALL, "run": "a", "device": "cpu", "workers": 0, **options}
    options = {"progress": Silent(), **options}
    plan = plan_training(root, log_options=LogOptions(log_every=2), **options)
    return list(train(plan, progress=options["progress"], saves=SavePlan(save_every_s, keep)))


def numbers(run: Run) -> list[dict[str, Any]]:
    """The log without what depends on the clock."""
    lines = epoch_lines(tables(run.log.read_text()))
    return [
        {key: line[key] for key in ("epoch", "lr", "train", "val", "is_best")} for line in lines
    ]


def steps(run: Run) -> list[dict[str, Any]]:
    """What the log has of steps, without what depends on the clock."""
    keys = ("epoch", "step", "lr", "loss", "epoch_loss", "top1", "images")
    lines = step_lines(tables(run.log.read_text()))
    return [{key: line[key] for key in keys} for line in lines]


def refuse_difference(run: Run, other: Run) -> None:
    ours, theirs = load_checkpoint(run.last), load_checkpoint(other.last)
    assert numbers(run) == numbers(other)
    assert steps(run) == steps(other)
    assert ours.position == theirs.position
    assert ours.best == theirs.best
    assert ours.scores == theirs.scores
    for name in ("weights", "average"):
        refuse_other_tensors(getattr(ours, name), getattr(theirs, name))
    assert ours.optimizer.keys() == theirs.optimizer.keys()
    for name, memory in ours.optimizer.items():
        refuse_other_tensors(memory, theirs.optimizer[name])


def refuse_other_tensors(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


@pytest.fixture(scope="module")
def unbroken(drawn: Root) -> Run:
    """The run that nothing stops."""
    trained(drawn, run="unbroken")
    return Run(drawn.run("unbroken"))


def test_leaves_a_log_a_plot_and_checkpoints(drawn: Root, unbroken: Run) -> None:
    assert {path.name for path in unbroken.folder.iterdir()} == {
        ".lock", "best.pt", "last.pt", "log.jsonl", "plot.png", "recipe.json",
        "report.html",
    }  # fmt: skip
    lines = numbers(unbroken)
    assert [line["epoch"] for line in lines] == [1, 2]
    assert [line["train"]["images"] for line in lines] == [56, 56]  # whole batches of 8 of 60
    assert [line["val"]["images"] for line in lines] == [21, 21]
    assert lines[0]["val"]["top5"] == 21  # three classes
    assert unbroken.plot.read_bytes().startswith(b"\x89PNG")
    assert json.loads(unbroken.recipe.read_text())["recipe"]["lr"] == 0.02


def test_the_log_is_the_stored_one(tmp_path: Path, here: RunCommand) -> None:
    """tests/training/stored_log.jsonl is of 2026-11-30: what moves code moves no number.

    The images are noise in PNG, since another Pillow draws and decodes others. Processors round
    in different ways, so losses are compared to 1 in 1,000.
    """
    noise = np.random.default_rng(0)
    for split, count in (("train", 20), ("val", 7)):
        for label in range(3):
            (tmp_path / split / f"class{label}").mkdir(parents=True)
            for number in range(count):
                pixels = noise.integers(0, 128, (48, 40, 3), dtype=np.uint8)
                pixels[..., label] += 100
                Image.fromarray(pixels).save(tmp_path / split / f"class{label}" / f"{number}.png")
    assert here("adopt", tmp_path).returncode == 0
    trained(Root(tmp_path))
    text = (Path(__file__).parent / "stored_log.jsonl").read_text()
    lines = numbers(Run(tmp_path / "runs" / "a"))
    for line, stored in zip(lines, map(json.loads, text.splitlines()), strict=True):
        assert line["lr"] == stored["lr"]
        for part in ("train", "val"):
            assert line[part]["images"] == stored[part]["images"]
            assert line[part]["loss"] == pytest.approx(stored[part]["loss"], rel=1e-3)


def test_the_weights_of_the_last_epochs_are_kept(root: Root) -> None:
    reports = trained(root, options=SMALL | {"arch": "mlp-small", "epochs": 3}, keep=2)
    run = Run(root.run("a"))
    kept = sorted(path.name for path in run.folder.glob("epoch-*"))
    assert kept == ["epoch-0002.pt", "epoch-0003.pt"]
    score = evaluate(root, run.of_epoch(2), device="cpu", workers=0, progress=Silent()).score
    assert score == reports[1].val


def test_best_is_scored_as_the_log_says(drawn: Root, unbroken: Run) -> None:
    best = load_checkpoint(unbroken.best)
    assert best.best is not None
    score = evaluate(drawn, unbroken.best, device="cpu", workers=0, progress=Silent()).score
    assert score.as_json() == numbers(unbroken)[best.best.epoch - 1]["val"]


@pytest.mark.parametrize(
    ("number", "code", "what", "batches", "workers"),
    [
        (signal.SIGTERM, 143, "epoch", 3, 0),
        (signal.SIGINT, 130, "epoch", 9, 2),
        (signal.SIGHUP, 143, "epoch", 2, 1),
        (signal.SIGTERM, 143, "epoch", 7, 1),  # the last step of the first epoch
        (signal.SIGTERM, 143, "validation", 1, 0),
        (signal.SIGINT, 130, "validation", 5, 2),
    ],
)
def test_stopped_and_resumed_gives_the_same_numbers(
    root: Root, unbroken: Run, number: int, code: int, what: str, batches: int, workers: int
) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Interruption) as stopped:
        trained(root, progress=SignalAt(number, batches=batches, what=what), workers=workers)
    assert stopped.value.exit_code == code
    assert "--resume --run a" in str(stopped.value)
    assert signal.getsignal(number) is before
    trained(root, options={}, resume=True, workers=workers)
    refuse_difference(Run(root.run("a")), unbroken)


@pytest.mark.parametrize("batches", [5, 12])
def test_killed_and_resumed_gives_the_same_numbers(root: Root, unbroken: Run, batches: int) -> None:
    script = (
        "import signal, sys; from pathlib import Path\n"
        "from imnetprep.catalog.datasets import Root\n"
        "from imnetprep.reports.record import LogOptions\n"
        "from imnetprep.training.loop import train\n"
        "from imnetprep.training.saves import SavePlan\n"
        "from imnetprep.training.plan import plan_training\n"
        "from tests.training.stops import SignalAt; from tests.training.test_train import SMALL\n"
        "progress = SignalAt(signal.SIGKILL, batches=int(sys.argv[2]))\n"
        "plan = plan_training(Root(Path(sys.argv[1])), options=SMALL, run='a', device='cpu',"
        " workers=1, log_options=LogOptions(2), progress=progress)\n"
        "list(train(plan, progress=progress, saves=SavePlan(0)))"
    )
    arguments = [sys.executable, "-c", script, str(root.path), str(batches)]
    killed = subprocess.run(arguments, check=False, cwd=Path(__file__).parents[2])
    assert killed.returncode == -signal.SIGKILL
    position = load_checkpoint(Run(root.run("a")).last).position
    assert (position.epoch * 7 + position.step) == batches - 1
    trained(root, resume=True)
    refuse_difference(Run(root.run("a")), unbroken)


def test_cache_and_decoder_change_no_number_and_may_change_in_a_run(
    root: Root, unbroken: Run
) -> None:
    with pytest.raises(Interruption):
        stop = SignalAt(signal.SIGTERM, batches=10)
        trained(root, progress=stop, workers=1, cache="ram", decode="torchcodec")
    with pytest.raises(Interruption):
        stop = SignalAt(signal.SIGTERM, batches=3)
        trained(root, resume=True, progress=stop, cache="device")
    trained(root, resume=True, decode="pillow")
    refuse_difference(Run(root.run("a")), unbroken)


def test_a_stop_is_honoured_while_images_go_to_the_device(root: Root) -> None:
    stop = SignalAt(signal.SIGTERM, batches=6, what="train images to cpu")
    with pytest.raises(Interruption, match="before its first step"):
        trained(root, progress=stop, cache="device")
    assert stop.left == 0, "no further image was read"


@pytest.mark.parametrize("at", [1, 3, 5, 6])
def test_no_fault_of_the_disk_leaves_a_checkpoint_without_its_recipe(
    at: int, root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the `at`-th call on that gives a file its name or syncs it, the disk fails for good."""
    run, left = Run(root.run("a")), at

    def failing(call: Callable[..., Any]) -> Callable[..., Any]:
        def fails(*arguments: Any) -> Any:
            nonlocal left
            left -= 1
            if left <= 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return call(*arguments)

        return fails

    monkeypatch.setattr(Path, "replace", failing(Path.replace))
    monkeypatch.setattr(os, "fsync", failing(os.fsync))
    with pytest.raises((OSError, ImnetprepError), match=os.strerror(errno.EIO)):
        trained(root, save_every_s=0)
    assert run.last.exists() == (at > 5), "three calls for the recipe, two before the checkpoint"
    assert run.recipe.exists() == run.last.exists()


def test_a_disk_that_does_not_say_whether_a_checkpoint_is_there_costs_no_recipe(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From Python 3.14 on `exists` is no then, as of a file that is not there."""
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: path.name != "last.pt" and exists(path))
    with pytest.raises(Interruption):
        trained(root, progress=SignalAt(signal.SIGTERM, batches=2))
    assert {"last.pt", "recipe.json"} < {path.name for path in root.run("a").iterdir()}


def test_a_run_that_lost_its_recipe_gets_it_again(root: Root, unbroken: Run) -> None:
    run = Run(root.run("a"))
    shutil.copytree(unbroken.folder, run.folder)
    recipe = json.loads(run.recipe.read_text())
    run.recipe.unlink()
    trained(root, options={}, resume=True)
    assert json.loads(run.recipe.read_text()) == recipe


def test_a_second_interrupt_leaves_at_once(root: Root) -> None:
    class Twice(SignalAt):
        def batch_is_done(self) -> None:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interruption, match="at once"):
        trained(root, progress=Twice(signal.SIGINT, batches=0))
    assert not root.runs.exists()  # there is no step to keep


def test_a_signal_to_the_whole_group_spares_the_workers(root: Root) -> None:
    arguments = ["--arch", SMALL["arch"], "--image-size", 32, "--batch-size", 2, "--epochs", 500]
    options = ["--root", root.path, "--run", "a", "--workers", 2, "--device", "cpu"]
    process = subprocess.Popen(
        command("train", *arguments, *options), stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    run = Run(root.run("a"))
    while not run.best.exists():
        assert process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    told = process.communicate()[1]
    assert process.returncode == 130, told
    assert "Stopped: saved at epoch" in told
    assert "Traceback" not in told


def test_a_closed_terminal_saves(root: Root) -> None:
    """The terminal hangs up on the command, and on its workers; what they print then is lost."""
    words = ["--arch", SMALL["arch"], "--image-size", 32, "--batch-size", 2, "--epochs", 500]
    words += ["--root", root.path, "--run", "a", "--workers", 2, "--device", "cpu"]
    run = Run(root.run("a"))
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, command("train", *words))
    while not run.last.exists():  # since the first step
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
        os.read(terminal, 1 << 16)  # which waits for the bars to move
    before = run.last.stat().st_mtime_ns
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 143
    assert run.last.stat().st_mtime_ns > before


def test_a_training_under_nohup_ignores_a_hangup(root: Root) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        reports = trained(root, progress=SignalAt(signal.SIGHUP, batches=3))
        assert len(reports) == SMALL["epochs"]
    finally:
        signal.signal(signal.SIGHUP, before)


def test_refuses_a_run_that_exists(drawn: Root, unbroken: Run) -> None:
    with pytest.raises(WrongUsage, match="run unbroken") as refused:
        trained(drawn, run="unbroken")
    assert "--resume" in refused.value.hint


def test_refuses_an_option_that_contradicts_the_run(drawn: Root, unbroken: Run) -> None:
    for given, told in (({"lr": 0.1}, "--lr 0.1 .*--lr 0.02"), ({"amp": True}, "--amp .*--no-amp")):
        with pytest.raises(WrongUsage, match=told):
            trained(drawn, run="unbroken", resume=True, options=given)


def test_a_finished_run_stays_as_it_is(drawn: Root, unbroken: Run) -> None:
    before = unbroken.last.read_bytes()
    assert trained(drawn, run="unbroken", resume=True) == []
    assert unbroken.last.read_bytes() == before


def test_resume_without_words_takes_the_newest_run(drawn: Root, unbroken: Run) -> None:
    assert trained(drawn, run=None, options={}, resume=True) == []


def test_refuses_to_go_on_with_other_classes_or_images(tmp_path: Path, unbroken: Run) -> None:
    for place, options, told in (
        ("classes", {"classes": 4}, "3 classes and the root has 4"),
        ("images", {"train": 21}, "60 images and the root has 63"),
    ):
        other = draw_root(tmp_path / place, **options)
        run = Run(other.run("a"))
        run.folder.mkdir(parents=True)
        run.last.write_bytes(unbroken.last.read_bytes())
        with pytest.raises(ImnetprepError, match=told):
            trained(other, resume=True)


def test_a_loss_that_explodes_ends_with_a_hint_and_keeps_the_checkpoint(root: Root) -> None:
    with pytest.raises(ImnetprepError, match="NaN or infinite") as exploded:
        trained(root, options=SMALL | {"lr": 1e6, "warmup_epochs": 0}, save_every_s=0)
    assert "--lr" in exploded.value.hint
    weights = load_checkpoint(Run(root.run("a")).last).weights
    assert all(bool(torch.isfinite(weight).all()) for weight in weights.values())


def test_an_image_that_is_none_is_named_and_the_state_saved(tmp_path: Path) -> None:
    root = draw_root(tmp_path, train=6, val=2)
    (bad,) = tmp_path.glob("train/*/n10000001_3.JPEG")
    whole = bad.read_bytes()
    bad.write_bytes(whole[:200])
    with pytest.raises(WrongBytes, match=r"n10000001_3\.JPEG"):
        trained(root, workers=1)
    bad.write_bytes(whole)
    assert len(trained(root, resume=True)) == 2


def test_learns_what_is_easy(root: Root) -> None:
    given = SMALL | {"arch": "resnet18", "epochs": 4, "lr": 0.01, "crop_scale": 0.5}
    reports = trained(root, options=given)
    assert reports[-1].val.hits >= 17  # of 21; by chance 7
    assert math.isfinite(reports[-1].val.loss)


def test_an_architecture_with_aux_heads_trains(root: Root) -> None:
    given = {"arch": "googlenet", "image_size": 64, "batch_size": 60, "epochs": 1}
    (report,) = trained(root, options=given)
    assert report.val.images == 21


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_trains_on_a_gpu_in_bfloat16(root: Root) -> None:
    reports = trained(root, device="cuda", workers=2)
    assert len(reports) == 2
    assert load_checkpoint(Run(root.run("a")).last).recipe.amp
