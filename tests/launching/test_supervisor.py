"""The supervisor of a machine, without one: a real bucket, real verbs, a real training."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imnetprep.catalog.datasets import Root
from imnetprep.launching.contents import read_rates
from imnetprep.launching.folder import Ending, LaunchFolder
from imnetprep.launching.supervisor import supervise
from imnetprep.s3.address import S3Address, Settings
from imnetprep.s3.bucket import Bucket
from imnetprep.training.checkpoint import load_checkpoint
from imnetprep.training.runs import Run
from tests.aws_gate import AwsGate
from tests.conftest import Run as RunCommand
from tests.launching.launched import drawn_orders, make_group
from tests.pocket import Metadata, metadata_served
from tests.servers import BUCKET, S3Server
from tests.training.test_train import refuse_difference

TRAIN = (
    "train --arch mobilenet_v3_small --image-size 32 --batch-size 8 --lr 0.02 --workers 0"
    " --no-amp"  # no two machines decide it alike
)


class Launch:
    """A launch as `imnetprep launch` leaves it: orders in the bucket, a group of one machine."""

    def __init__(self, s3: S3Server, aws: AwsGate, drawings: Path, prefix: str) -> None:
        self.s3, self.aws, self.drawings, self.prefix = s3, aws, drawings, prefix
        self.folder = LaunchFolder(Bucket(BUCKET, Settings()), S3Address(BUCKET, prefix), "demo")
        self.orders = replace(
            drawn_orders(s3, drawings, prefix),
            command=(*TRAIN.split(), "--epochs", "2"),
            push_s=1.0,
            lease_s=30.0,
        )
        aws.reset()
        make_group(aws)

    def write(self, **changes: Any) -> None:
        self.orders = replace(self.orders, **changes)
        assert self.folder.write_orders(self.orders)

    @property
    def group_size(self) -> int:
        scaling = self.aws.client("autoscaling")
        (group,) = scaling.describe_auto_scaling_groups()["AutoScalingGroups"]
        return int(group["DesiredCapacity"])

    @property
    def story(self) -> list[tuple[str, str]]:
        """What happened, each with the stage or the reason."""
        return [
            (each.kind, str(each.details.get("stage") or each.details.get("reason") or ""))
            for each in self.folder.events()
        ]

    def wait_for(self, kind: str, **details: Any) -> None:
        """Wait until an event has come."""

        def has_come() -> bool:
            return any(
                each.kind == kind and each.details.items() >= details.items()
                for each in self.folder.events()
            )

        wait_until(has_come, lambda: f"no {kind} {details}: {self.story}")


def wait_until(is_so: Callable[[], bool], problem: Callable[[], str] = str) -> None:
    """Wait until something is so; two minutes and no longer."""
    deadline = time.monotonic() + 120
    while not is_so():
        assert time.monotonic() < deadline, problem()
        time.sleep(0.1)


@pytest.fixture
def launch(
    s3: S3Server, aws: AwsGate, drawings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Launch]:
    settings = {**s3.environment, "AWS_ENDPOINT_URL": aws.url, "AWS_ENDPOINT_URL_S3": s3.endpoint}
    for name, value in {**settings, "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    launch = Launch(s3, aws, drawings, tmp_path.name)
    with closing(launch.folder):
        yield launch


@pytest.fixture
def machine(
    launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], int]]:
    """The supervisor of one machine in this process: returns its exit code."""
    with metadata_served(Metadata("i-1", "")) as address:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", address)
        yield lambda: supervise(launch.folder, "demo", tmp_path / "root")


@pytest.fixture
def machines() -> Iterator[Callable[..., "Started"]]:
    """Start supervisors as processes."""
    with ExitStack() as stack:

        def start(launch: Launch, instance: str, place: Path) -> Started:
            metadata = Metadata(instance, "")
            address = stack.enter_context(metadata_served(metadata))
            words = [sys.executable, "-m", "imnetprep.launching.supervisor", "work"]
            words += [launch.orders.address, "demo", str(place)]
            process = subprocess.Popen(
                words, env={**os.environ, "AWS_EC2_METADATA_SERVICE_ENDPOINT": address}
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            return Started(metadata, process)

        yield start


class Started:
    """A supervisor that runs as a process, and what the metadata service tells it."""

    def __init__(self, metadata: Metadata, process: "subprocess.Popen[bytes]") -> None:
        self.metadata, self.process = metadata, process


def keys(launch: Launch) -> set[str]:
    found = launch.s3.client().list_objects_v2(Bucket=BUCKET, Prefix=f"{launch.prefix}/")
    return {each["Key"].removeprefix(f"{launch.prefix}/") for each in found["Contents"]}


def test_trains_what_the_orders_say_and_ends_its_group(
    launch: Launch, machine: Callable[[], int], tmp_path: Path
) -> None:
    steps = TRAIN.replace("--batch-size 8", "--batch-size 2")
    launch.write(command=(*steps.split(), "--epochs", "4"))
    assert machine() == 0
    done = launch.folder.done()
    assert done is not None and (done.code, done.reason) == (0, "the training is done")
    assert launch.group_size == 0
    recipe = load_checkpoint(Run(Root(tmp_path / "root").run("demo")).last).recipe
    address = S3Address(BUCKET, launch.prefix)
    assert read_rates(launch.folder.bucket, address, recipe, ["g5.2xlarge"])["g5.2xlarge"] > 0
    stages = ["checks", "lease", "pull", "data", "verify", "train"]
    assert launch.story == [
        ("starts", ""), *(("stage", stage) for stage in stages),
        *[each for each in launch.story if each[0] in ("push", "progress")],
        ("ended", "the training is done"),
    ]  # fmt: skip
    files = {f"runs/demo/{name}" for name in ("last.pt", "best.pt", "log.jsonl", "recipe.json")}
    assert keys(launch) >= files
    lease = launch.folder.lease()
    assert lease is not None and lease.end == 0


def test_a_second_machine_waits_and_resumes_to_the_same_numbers(
    launch: Launch, machines: Callable[..., Started], tmp_path: Path, run: RunCommand
) -> None:
    launch.write(command=(*TRAIN.split(), "--epochs", "6"))
    first = machines(launch, "i-1", tmp_path / "first")
    launch.wait_for("stage", stage="lease")
    second = machines(launch, "i-2", tmp_path / "second")
    wait_until(Run(Root(tmp_path / "first").run("demo")).last.exists)  # of many epochs the first
    assert ("interrupted", "") not in launch.story
    first.metadata.give_notice()
    launch.wait_for("interrupted", reason="EC2 takes the machine back")
    assert first.process.poll() is None  # EC2 comes for it
    assert second.process.wait(120) == 0
    begun = [
        each.instance for each in launch.folder.events() if each.details.get("stage") == "pull"
    ]
    assert begun == ["i-1", "i-2"]
    assert launch.group_size == 0
    root = tmp_path / "unbroken"
    words = ["--dataset", launch.drawings / "drawn.toml", "--archives", launch.drawings]
    assert run("organize", "--root", root, *words).returncode == 0
    done = run(*launch.orders.command, "--root", root, "--run", "demo")
    assert done.returncode == 0, done.stderr
    there = tmp_path / "second"
    refuse_difference(Run(Root(there).run("demo")), Run(Root(root).run("demo")))


def test_a_run_that_another_machine_took_over_is_let_go_at_once(
    launch: Launch, machines: Callable[..., Started], tmp_path: Path
) -> None:
    launch.write(command=(*TRAIN.split(), "--epochs", "300"))
    machine = machines(launch, "i-1", tmp_path / "root")
    launch.wait_for("progress")
    launch.folder.write("lease", json.dumps({"owner": "i-2", "end": time.time() + 99}).encode())
    assert machine.process.wait(60) == 143
    before = keys(launch)
    assert launch.story[-1] == ("interrupted", "another machine has taken the run over")
    lease = launch.folder.lease()
    assert lease is not None and lease.owner == "i-2" and lease.end > 0
    assert launch.folder.done() is None and launch.group_size == 1
    assert keys(launch) == before


def test_a_stop_from_the_laptop_saves_pushes_and_ends_the_group(
    launch: Launch, machines: Callable[..., Started], tmp_path: Path
) -> None:
    launch.write(command=(*TRAIN.split(), "--epochs", "300"))
    machine = machines(launch, "i-1", tmp_path / "root")
    launch.wait_for("stage", stage="train")
    launch.wait_for("push")
    launch.folder.request_stop()
    assert machine.process.wait(60) == 143
    done = launch.folder.done()
    assert done is not None and (done.code, done.reason) == (143, "stopped on request")
    assert launch.group_size == 0
    last = launch.s3.client().get_object(Bucket=BUCKET, Key=f"{launch.prefix}/runs/demo/last.pt")
    assert last["Body"].read() == (tmp_path / "root/runs/demo/last.pt").read_bytes()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"needed_bytes": 1 << 60}, "the dataset needs 1.15e+06 TB"),
        ({"needs_gpu": True}, "this machine has no cuda"),
        ({"dataset_files": ("gone.toml",), "dataset": "gone.toml"}, "gone.toml is not there"),
        ({"dataset": "nosuch", "dataset_files": ()}, "organize ended with exit code 2"),
        ({"command": ("train", "--arch", "resnet1")}, "train ended with exit code 2"),
        ({"deadline": time.time() + 60}, "its time is over"),
    ],
)
def test_what_no_machine_can_do_ends_for_good_with_the_reason(
    launch: Launch, machine: Callable[[], int], changes: Mapping[str, Any], reason: str
) -> None:
    launch.write(**changes)
    assert machine() != 0
    done = launch.folder.done()
    assert done is not None and reason in done.reason
    assert launch.group_size == 0
    assert launch.story[-1] == ("ended", done.reason)


def test_starts_that_come_to_nothing_are_counted(
    launch: Launch, machine: Callable[[], int]
) -> None:
    launch.write()
    for instance in ("i-1", "i-2"):
        launch.folder.add_event(instance, "starts")
    launch.folder.add_event("i-2", "progress", epoch=0, step=1)
    for instance in ("i-3", "i-4", "i-5"):
        assert launch.folder.done() is None
        launch.folder.add_event(instance, "starts")
    assert machine() == 1
    done = launch.folder.done()
    assert done is not None and done.reason.startswith("3 machines started and none came further")
    assert launch.group_size == 0


def test_a_server_that_fails_is_left_to_the_next_machine_until_all_starts_are_used(
    launch: Launch, machine: Callable[[], int]
) -> None:
    launch.write(starts=2)
    archive = next(each.name for each in launch.drawings.glob("*.tar"))
    launch.s3.client().delete_object(Bucket=BUCKET, Key=f"{launch.prefix}/archives/{archive}")
    assert machine() == 3
    assert launch.folder.done() is None and launch.group_size == 1
    assert launch.story[-1][0] == "failed"
    lease = launch.folder.lease()
    assert lease is not None and lease.end == 0
    assert machine() == 1
    assert launch.folder.done() is not None and launch.group_size == 0


def test_a_machine_that_comes_after_the_end_only_ends_its_group(
    launch: Launch, machine: Callable[[], int]
) -> None:
    launch.write()
    launch.folder.write_done(Ending(0, "the training is done", 1000.0))
    assert machine() == 0
    assert launch.story == [] and launch.group_size == 0


@pytest.mark.parametrize("body", [None, b"{}"])
def test_orders_that_cannot_be_read_end_the_group(
    launch: Launch, machine: Callable[[], int], body: bytes | None
) -> None:
    if body is not None:
        launch.folder.write("launch.json", body)
    assert machine() == 4
    assert launch.folder.done() is not None and launch.group_size == 0
