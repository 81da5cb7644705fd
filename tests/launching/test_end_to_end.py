"""The whole story: a group of one machine, its user data as root in namespaces, and its end.

The bucket is SeaweedFS, the group moto's, the machine namespaces of this computer: it boots the
generated user data, installs the wheel with pip, and trains under a real screen.
"""

import base64
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from imnetprep.catalog.datasets import Root
from imnetprep.launching.folder import Ending, LaunchFolder
from imnetprep.launching.user_data import LOG, user_data
from imnetprep.launching.wheel import Wheel, build_wheel
from imnetprep.s3.address import S3Address, Settings
from imnetprep.s3.bucket import Bucket
from imnetprep.training.runs import Run
from tests.aws_gate import AwsGate
from tests.conftest import Run as RunCommand
from tests.launching.launched import drawn_orders, make_group
from tests.pocket import Machine, Metadata, require_machines
from tests.servers import BUCKET, KEY, SECRET, S3Server
from tests.training.test_train import refuse_difference

TRAIN = (
    "train --arch mobilenet_v3_small --image-size 32 --batch-size 8 --lr 0.02 --workers 0"
    " --no-amp"  # no two machines decide it alike
)
WORK = "/var/lib/imnetprep"
SUPERVISOR = ("imnetprep.launching.supervisor", "work")


@pytest.fixture(scope="module", autouse=True)
def _machines() -> None:
    require_machines()


@pytest.fixture(scope="module")
def wheel() -> Wheel:
    return build_wheel()


class Cloud:
    """EC2 with one launch: a machine boots for each that the group starts, and what is off goes."""

    def __init__(
        self, s3: S3Server, aws: AwsGate, drawings: Path, wheel: Wheel, prefix: str
    ) -> None:
        self.s3, self.aws, self.prefix, self.drawings = s3, aws, prefix, drawings
        self.folder = LaunchFolder(Bucket(BUCKET, Settings()), S3Address(BUCKET, prefix), "demo")
        self.machines = dict[str, Machine]()
        self.image: Path | None = None
        self.local_disk = ""
        self.orders = replace(
            drawn_orders(s3, drawings, prefix),
            command=(*TRAIN.split(), "--epochs", "24"),
            wheel=wheel.name,
            wheel_sha256=wheel.sha256,
            push_s=2.0,
            lease_s=20.0,
        )
        self.folder.write(wheel.name, wheel.body)

    def objects(self) -> dict[str, bytes]:
        """All that lies in the bucket."""
        client = self.s3.client()
        listed = client.list_objects_v2(Bucket=BUCKET, Prefix=f"{self.prefix}/")["Contents"]
        return {
            each["Key"].removeprefix(f"{self.prefix}/"): client.get_object(
                Bucket=BUCKET, Key=each["Key"]
            )["Body"].read()
            for each in listed
        }

    def launch(self, **changes: Any) -> None:
        """Write the orders, and make the group of one machine."""
        self.orders = replace(self.orders, **changes)
        assert self.folder.write_orders(self.orders)
        make_group(self.aws, user_data(self.orders))

    @property
    def group(self) -> list[str]:
        """The machines of the group."""
        scaling = self.aws.client("autoscaling")
        (group,) = scaling.describe_auto_scaling_groups()["AutoScalingGroups"]
        return [each["InstanceId"] for each in group["Instances"]]

    def pass_on(self) -> None:
        """What EC2 does meanwhile: boot what the group has started, end what is off."""
        ec2 = self.aws.client("ec2")
        for instance in self.group:
            if instance not in self.machines:
                self.machines[instance] = self._booted(instance)
            elif not self.machines[instance].is_running:
                ec2.terminate_instances(InstanceIds=[instance])

    def _booted(self, instance: str) -> Machine:
        answer = self.aws.client("ec2").describe_instance_attribute(
            InstanceId=instance, Attribute="userData"
        )
        script = base64.b64decode(answer["UserData"]["Value"]).decode()
        ports = [urlsplit(each).port for each in (self.s3.endpoint, self.aws.url)]
        return Machine(
            Metadata(instance, script, credentials=(KEY, SECRET)),
            ports=[port for port in ports if port],
            settings={
                "AWS_ENDPOINT_URL": self.aws.url,
                "OMP_NUM_THREADS": "1",
                "PIP_NO_INDEX": "1",
            },
            local_disk=self.local_disk,
            image=self.image,
        )

    def until(self, is_so: Callable[[], object]) -> None:
        """Let EC2 go on until something is so."""
        deadline = time.monotonic() + 300
        while True:
            is_over = time.monotonic() > deadline or (self.folder.done() and not self.group)
            if is_so():
                return
            assert not is_over, f"{self.told()}\n{self.logs()}"
            self.pass_on()
            time.sleep(0.1)

    def has_told(self, kind: str, count: int = 1, **details: Any) -> bool:
        """Have so many such events come?"""
        found = [
            each
            for each in self.folder.events()
            if each.kind == kind and each.details.items() >= details.items()
        ]
        return len(found) >= count

    def told(self) -> str:
        return "\n".join(
            f"{each.instance} {each.kind} {each.details}" for each in self.folder.events()
        )

    def logs(self) -> str:
        """All that the machines have said."""
        session = "/root/.local/state/imnetprep/sessions/demo/log"
        return "\n".join(
            f"{name} {path}\n{machine.text(path)}"
            for name, machine in self.machines.items()
            for path in (LOG, session)
        ) + "".join((each.home / "console").read_text() for each in self.machines.values())

    def close(self) -> None:
        for each in self.machines.values():
            each.remove()
        self.folder.close()


@pytest.fixture
def cloud(
    s3: S3Server, aws: AwsGate, drawings: Path, wheel: Wheel, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Cloud]:  # fmt: skip
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    aws.reset()
    with closing(Cloud(s3, aws, drawings, wheel, tmp_path.name)) as cloud:
        yield cloud


def test_two_machines_one_after_the_other_train_what_one_would(
    cloud: Cloud, image: Path, tmp_path: Path, run: RunCommand
) -> None:
    """The first loses its power, the second ends; scripts/rehearse has one with a notice, too."""
    cloud.image = image
    cloud.launch()
    cloud.until(lambda: cloud.has_told("progress"))
    assert len(cloud.machines) == 1, cloud.logs()
    (first,) = cloud.machines.values()
    assert first.pids("SCREEN") or not shutil.which("screen")
    first.kill()
    cloud.until(lambda: not cloud.group)
    assert len(cloud.machines) == 2
    second = [*cloud.machines.values()][-1]
    second.wait_off(30)
    assert second.shutdowns[-1] == "-h now"
    done = cloud.folder.done()
    assert done is not None and done.code == 0, cloud.logs()
    assert done.reason == "the training is done"
    root = tmp_path / "unbroken"
    words = ["--dataset", cloud.drawings / "drawn.toml", "--archives", cloud.drawings]
    assert run("organize", "--root", root, *words).returncode == 0
    assert run(*cloud.orders.command, "--root", root, "--run", "demo").returncode == 0
    pulled = tmp_path / "pulled"
    words = ["--root", pulled, "--pull", "--what", "runs"]
    assert run("sync-s3", cloud.orders.address, *words).returncode == 0
    refuse_difference(Run(Root(pulled).run("demo")), Run(Root(root).run("demo")))
    told = [cloud.logs().encode(), user_data(cloud.orders).encode(), *cloud.objects().values()]
    assert not any(SECRET.encode() in each for each in told)
    assert not any(machine.metadata.refused for machine in cloud.machines.values())


@pytest.fixture(scope="module")
def image(s3: S3Server, aws: AwsGate, drawings: Path, wheel: Wheel) -> Iterator[Path]:
    """The layer of a machine that has installed everything, and found nothing to do."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3.environment.items():
            patch.setenv(name, value)
        aws.reset()
        with closing(Cloud(s3, aws, drawings, wheel, "image")) as cloud:
            cloud.folder.write_done(Ending(0, "nothing to do", 0.0))
            cloud.launch()
            cloud.until(lambda: not cloud.group)
            (machine,) = cloud.machines.values()
            machine.wait_off(30)
            yield machine.path("/")


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ("data", SUPERVISOR),
        ("train", SUPERVISOR),
        ("train", ("imnetprep.sessions.window",)),
        ("train", ("SCREEN",)),
    ],
)
def test_whatever_is_killed_the_machine_goes_off_and_another_one_starts(
    cloud: Cloud, image: Path, stage: str, words: tuple[str, ...]
) -> None:
    cloud.image = image
    cloud.launch(command=(*TRAIN.split(), "--epochs", "300"))
    cloud.until(lambda: cloud.has_told("stage", stage=stage))
    (machine,) = cloud.machines.values()
    if words == ("SCREEN",) and not shutil.which("screen"):
        pytest.skip("screen is not installed")
    for pid in machine.pids(*words):
        os.kill(pid, signal.SIGKILL)
    machine.wait_off(90)
    assert machine.shutdowns[0].startswith("-h +") and machine.shutdowns[-1] == "-h now"
    assert cloud.folder.done() is None
    cloud.until(lambda: len(cloud.machines) == 2)


def test_a_wheel_that_was_tampered_with_is_not_installed(cloud: Cloud) -> None:
    cloud.launch(wheel_sha256="0" * 64)
    cloud.until(lambda: not cloud.group)
    done = cloud.folder.done()
    assert done is not None and done.code == 1
    assert done.reason == "the installation failed three times: see log.txt"
    assert b"FAILED" in cloud.objects()["launches/demo/log.txt"]
    (machine,) = cloud.machines.values()
    machine.wait_off(30)
    assert not machine.path("/var/lib/imnetprep-install/venv").exists()


def test_where_no_disk_holds_the_data_it_ends_before_they_come(cloud: Cloud, image: Path) -> None:
    """The local disk is too small, so the volume is asked; that is too small as well."""
    cloud.image, cloud.local_disk = image, "100m"
    cloud.launch(needed_bytes=10**14)
    cloud.until(lambda: not cloud.group)
    done = cloud.folder.done()
    assert done is not None
    assert "needs 100 TB and the disk of /var/lib/imnetprep has" in done.reason
    assert not cloud.has_told("stage", stage="data")


def test_a_machine_that_boots_after_its_time_goes_off_at_once(cloud: Cloud) -> None:
    cloud.launch(deadline=time.time() + 30)
    cloud.until(lambda: cloud.machines)
    (machine,) = cloud.machines.values()
    machine.wait_off(30)
    assert machine.shutdowns == ["-h now"]
