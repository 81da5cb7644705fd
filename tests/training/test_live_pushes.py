"""A run pushed again and again while it is trained: each push resumes to the same numbers.

IMNETPREP_TEST_PUSHES=200 is what `scripts/bench pushes` asks for.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from imnetprep.catalog.datasets import Root
from imnetprep.messages import Silent
from imnetprep.reports.log import epoch_lines
from imnetprep.training.checkpoint import load_checkpoint
from imnetprep.training.loop import train
from imnetprep.training.plan import plan_training
from imnetprep.training.runs import Run
from tests.conftest import Run as RunCommand
from tests.servers import BUCKET, S3Server, s3_served

PUSHES = int(os.environ.get("IMNETPREP_TEST_PUSHES", "6"))
# Small checkpoints, so that a push often meets a new one; they are saved after each step.
RECIPE = {
    "arch": "shufflenet_v2_x0_5",
    "image_size": 32,
    "batch_size": 8,
    "epochs": 9999,
    "lr": 0.01,
    "amp": False,
}
TRAINING = """
import json, sys
from pathlib import Path
import torch
from imnetprep.catalog.datasets import Root
from imnetprep.messages import Interruption, Silent
from imnetprep.training.loop import train
from imnetprep.training.saves import SavePlan
from imnetprep.training.plan import plan_training
torch.set_num_threads(1)
options = json.loads(sys.argv[2])
plan = plan_training(Root(Path(sys.argv[1])), options=options, run="a", device="cpu", workers=0,
                     progress=Silent())
try:
    for _ in train(plan, progress=Silent(), saves=SavePlan(0)): pass
except Interruption:
    pass
"""


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_served(tmp_path_factory.mktemp("weed")) as server:
        yield server


def numbers(line: Mapping[str, Any]) -> dict[str, Any]:
    """A line of the log without what depends on the clock."""
    return {key: line[key] for key in ("epoch", "lr", "train", "val", "is_best")}


def resumed(root: Root, run: str) -> dict[str, Any]:
    """The numbers of the epoch that is under way, once the run has resumed and ended it."""
    plan = plan_training(
        root, options={}, run=run, resume=True, device="cpu", workers=0, progress=Silent()
    )
    epochs = train(plan, progress=Silent())
    report = next(epochs)
    epochs.close()  # type: ignore[attr-defined]
    return numbers(json.loads(json.dumps(report.as_json())))


def test_each_push_of_a_run_that_is_trained_resumes_to_the_same_numbers(
    root: Root, s3: S3Server, here: RunCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    words = [sys.executable, "-c", TRAINING, str(root.path), json.dumps(RECIPE)]
    run, client, prefix = Run(root.run("a")), s3.client(), tmp_path.name
    push = ["sync-s3", f"s3://{BUCKET}/{prefix}", "--push", "--what", "runs", "--run", "a"]
    with subprocess.Popen(words) as training:
        while not run.best.exists():
            assert training.poll() is None
            time.sleep(0.02)
        positions = set()
        for number in range(PUSHES):
            done = here(*push, "--replace", "--root", root.path)
            assert done.returncode == 0, done.stderr
            assert training.poll() is None
            copy = root.run(f"copy{number}")
            copy.mkdir()
            for item in client.list_objects_v2(Bucket=BUCKET, Prefix=f"{prefix}/runs/a/")[
                "Contents"
            ]:
                client.download_file(BUCKET, item["Key"], str(copy / Path(item["Key"]).name))
            positions.add(load_checkpoint(copy / "last.pt").position)
        last = max(position.epoch for position in positions)
        while len(epoch_lines(run.log_lines(RECIPE["epochs"]))) <= last:  # type: ignore[arg-type]
            assert training.poll() is None
            time.sleep(0.02)
        training.send_signal(signal.SIGTERM)
        assert training.wait() == 0
    assert len(positions) > 1
    lines = {line["epoch"]: numbers(line) for line in epoch_lines(run.log_lines(last + 1))}
    for number in range(PUSHES):
        pushed = Run(root.run(f"copy{number}"))
        checkpoint, best = load_checkpoint(pushed.last), load_checkpoint(pushed.best)
        assert checkpoint.best and best.best and best.best.epoch >= checkpoint.best.epoch
        report = resumed(root, pushed.folder.name)
        assert report == lines[report["epoch"]]
        assert report["epoch"] == checkpoint.position.epoch + 1
