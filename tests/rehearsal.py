"""Rehearse a launch on this computer: a real systemd, cloud-init and `shutdown`, no account of AWS.

    scripts/rehearse [TREE]   TREE: the Debian tree to boot; made by mmdebstrap if it is absent

`imnetprep launch --yes` starts a group of one machine at moto, the bucket is SeaweedFS, and each
machine boots a clean Debian under systemd-nspawn: cloud-init fetches the user data by the metadata
service and runs it. The first machine gets a spot notice, the second is killed without one, the
third ends. Needs .venv (scripts/test makes it), root on Linux, mmdebstrap and systemd-container.
"""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from imnetprep import cli
from imnetprep.launching import plan
from imnetprep.launching.folder import LaunchFolder
from imnetprep.s3.address import S3Address, Settings
from imnetprep.s3.bucket import Bucket
from imnetprep.synthetic import draw_dataset
from tests import pocket
from tests.aws_gate import AwsGate, aws_served
from tests.http_server import Answering
from tests.servers import BUCKET, KEY, SECRET, S3Server, s3_served

PROGRAMS = {
    "mmdebstrap": "mmdebstrap", "systemd-nspawn": "systemd-container", "ip": "iproute2"
}  # fmt: skip
PACKAGES = (
    "ca-certificates,screen,curl,iproute2,cloud-init,openssh-server,systemd,systemd-sysv,dbus,"
    "python3-venv"
)
# A container has no DMI, by which cloud-init knows EC2; the rest saves a minute.
CLOUD_CONFIG = """datasource_list: [ Ec2 ]
datasource: {Ec2: {strict_id: false, timeout: 2, max_wait: 8}}
network: {config: disabled}
ssh_genkeytypes: [ed25519]
locale: false
"""
TRAIN = (
    "train --arch mobilenet_v3_small --image-size 32 --batch-size 8 --lr 0.02 --no-amp --epochs 120"
    " --workers 0 --device cpu"
)
BEGIN = time.monotonic()


def tell(*words: object) -> None:
    print(f"{time.monotonic() - BEGIN:7.1f} s ", *words, flush=True)


class Metadata(pocket.Metadata):
    """The metadata service as cloud-init asks it in a container: by folders, without a token."""

    def __init__(self, instance: str, user_data: str) -> None:
        super().__init__(instance, user_data, credentials=(KEY, SECRET))
        self.texts |= {
            "ami-id": "ami-0d1a0000000000024",
            "hostname": f"ip-{instance}",
            "local-hostname": f"ip-{instance}",
            "local-ipv4": "10.0.0.2",
            "mac": "0e:00:00:00:00:01",
        }
        self.document = {"instanceId": instance, "region": "us-east-1", "accountId": "1" * 12}

    def answer(self, path: str) -> str | None:
        """What lies at `path`, under whatever version of the service; of a folder its names."""
        top, _, name = path.lstrip("/").partition("/")[2].partition("/")
        if top == "user-data":
            return self.user_data
        if top == "dynamic":
            return json.dumps(self.document) if name.endswith("document") else "document"
        if name in self.texts and not name.endswith("/"):
            return self.texts[name]
        stem = f"{name.rstrip('/')}/".removeprefix("/")
        inside = [each.removeprefix(stem) for each in self.texts if each.startswith(stem)]
        folders = {each.partition("/")[0] + "/" * ("/" in each) for each in inside if each}
        return "\n".join(sorted(folders)) or None

    def handler(self) -> type[Answering]:
        metadata, base = self, super().handler()

        class Handler(base):  # type: ignore[misc, valid-type]
            def do_GET(self) -> None:
                agent = self.headers.get("User-Agent", "")
                if agent.startswith(("Cloud-Init", "python-requests")):
                    self.answer_text(metadata.answer(self.path))
                else:
                    super().do_GET()

        return Handler


class SystemdMachine:
    """A Debian tree under systemd-nspawn, with a metadata service and relays in its network."""

    def __init__(
        self, metadata: pocket.Metadata, tree: Path, ports: list[int], aws_url: str
    ) -> None:
        self.metadata = metadata
        self.home = Path(tempfile.mkdtemp(prefix="rehearse-"))
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8g", "rehearse", self.home], check=True)
        for name in ("upper", "work", "root"):
            (self.home / name).mkdir()
        root = self.home / "root"
        layers = f"lowerdir={tree},upperdir={self.home}/upper,workdir={self.home}/work"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", layers, root], check=True)
        (root / "etc/cloud/cloud.cfg.d/99-rehearse.cfg").write_text(CLOUD_CONFIG)
        # moto stands at another address than AWS; PID 1 hands its environment to every unit.
        conf = root / "etc/systemd/system.conf.d"
        conf.mkdir(parents=True, exist_ok=True)
        settings = f'"AWS_ENDPOINT_URL={aws_url}" "OMP_NUM_THREADS=1"'
        (conf / "aws.conf").write_text(f"[Manager]\nDefaultEnvironment={settings}\n")
        packages = root / "opt/packages"  # as an image of one's own that has torch
        packages.mkdir()
        site = Path(sysconfig.get_paths()["purelib"])
        for each in site.iterdir():
            if not each.name.startswith(("imnetprep", "__editable__", "pip")):
                (packages / each.name).symlink_to(each)
        lists = root / "usr/local/lib" / site.parent.name / "dist-packages"
        lists.mkdir(parents=True, exist_ok=True)
        (lists / "image.pth").write_text("/opt/packages\n")
        # torch wants a newer one than Debian's venv brings; no index is in reach of the machine.
        words = [
            "download",
            "--quiet",
            "--no-deps",
            "--dest",
            str(root / "opt/wheels"),
            "setuptools",
        ]
        subprocess.run([sys.executable, "-m", "pip", *words], check=True)
        (root / "etc/pip.conf").write_text("[install]\nno-index = true\nfind-links = /opt/wheels\n")
        self.network = f"rehearse-{metadata.texts['instance-id'][-6:]}"
        for words in (
            ["netns", "add", self.network],
            ["-n", self.network, "link", "set", "lo", "up"],
            ["-n", self.network, "addr", "add", f"{pocket.ADDRESS}/32", "dev", "lo"],
        ):
            subprocess.run(["ip", *words], check=True)
        self.services = pocket.Services(Path("/run/netns", self.network), metadata, ports)
        self.console = (self.home / "console").open("wb")
        self.process = subprocess.Popen(
            [
                "systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--console=pipe",
                f"--hostname=ip-{metadata.texts['instance-id']}",
                f"--network-namespace-path=/run/netns/{self.network}",
                f"--bind-ro={site}", "-b", "-D", str(root),
            ],
            # Where the kernel has version 1 of control groups only.
            env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "0"},
            stdin=subprocess.DEVNULL, stdout=self.console, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def text(self, path: str) -> str:
        file = self.home / "upper" / path.lstrip("/")
        return file.read_text(errors="replace") if file.exists() else ""

    def kill(self) -> None:
        subprocess.run(["pkill", "-KILL", "-P", str(self.process.pid)], check=False)
        self.process.kill()
        self.process.wait()

    def remove(self) -> None:
        if self.is_running:
            self.kill()
        self.services.close()
        self.console.close()
        subprocess.run(["ip", "netns", "del", self.network], check=False)
        subprocess.run(["umount", "-R", "-l", self.home / "root"], check=False)
        subprocess.run(["umount", "-l", self.home], check=False)
        self.home.rmdir()


class Rehearsal:
    """One launch: what `imnetprep launch` starts boots here, and what is off is ended."""

    def __init__(self, s3: S3Server, aws: AwsGate, tree: Path, work: Path) -> None:
        self.s3, self.aws, self.tree = s3, aws, tree
        self.machines: dict[str, SystemdMachine] = {}
        self.folder = LaunchFolder(
            Bucket(BUCKET, Settings(endpoint_url=s3.endpoint)), S3Address(BUCKET, "p"), "demo"
        )
        drawings = draw_dataset(work, classes=3, train_per_class=20, val_per_class=4, side_px=40)
        for each in drawings.parent.glob("*.tar"):
            s3.client().put_object(
                Bucket=BUCKET, Key=f"p/archives/{each.name}", Body=each.read_bytes()
            )
        self.definition = drawings
        self.notices = 0

    def launch(self) -> None:
        plan.PUSH_S, plan.LEASE_S = 15.0, 60.0  # a rehearsal is short
        words = ["launch", "--instance", "g5.2xlarge,g6.2xlarge", "--root", f"s3://{BUCKET}/p"]
        words += ["--run", "demo", "--dataset", str(self.definition), "--endpoint-url"]
        words += [self.s3.endpoint, "--max-hours", "1", "--create-role", "--yes", "--"]
        os.environ["AWS_ENDPOINT_URL"] = self.aws.url
        if code := cli.run([*words, *TRAIN.split()]):
            sys.exit(code)

    def close(self) -> None:
        """Leave nothing of the machines."""
        for each in self.machines.values():
            each.remove()

    def carry_on(self) -> bool:
        """What EC2 does meanwhile; is there still a machine?"""
        scaling, ec2 = self.aws.client("autoscaling"), self.aws.client("ec2")
        (group,) = scaling.describe_auto_scaling_groups()["AutoScalingGroups"]
        instances = [each["InstanceId"] for each in group["Instances"]]
        for instance in instances:
            if instance not in self.machines:
                self.machines[instance] = self._booted(instance)
            elif not self.machines[instance].is_running:
                tell(f"{instance} is off")
                ec2.terminate_instances(InstanceIds=[instance])
        return bool(instances)

    def _booted(self, instance: str) -> SystemdMachine:
        tell(f"{instance} boots")
        answer = self.aws.client("ec2").describe_instance_attribute(
            InstanceId=instance, Attribute="userData"
        )
        script = base64.b64decode(answer["UserData"]["Value"]).decode()
        metadata = Metadata(instance, script)
        ports = [urlsplit(each).port or 80 for each in (self.s3.endpoint, self.aws.url)]
        return SystemdMachine(metadata, self.tree, ports, self.aws.url)

    def disturb(self, kinds: list[str]) -> None:
        """Take the first machine back with a notice, and the second without a word."""
        progress = kinds.count("progress")
        machine = [*self.machines.values()][-1]
        if progress == 1 and self.notices == 0:
            self.notices = 1
            tell("spot notice")
            machine.metadata.give_notice()
        elif self.notices == 1 and kinds.count("interrupted") == 1 and machine.is_running:
            self.notices = 2
            tell("the machine is taken")
            machine.kill()
        elif self.notices == 2 and progress == 2:
            self.notices = 3
            tell("killed without a notice")
            machine.kill()


def main() -> None:
    """Rehearse, and say what happened when."""
    if os.geteuid() != 0 or sys.platform != "linux":
        sys.exit("scripts/rehearse boots machines: it needs root on Linux")
    if absent := [package for program, package in PROGRAMS.items() if not shutil.which(program)]:
        sys.exit(f"scripts/rehearse needs {', '.join(absent)}: apt-get install {' '.join(absent)}")
    with contextlib.ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rehearse-")))
        tree = Path(sys.argv[1]) if len(sys.argv) > 1 else work / "tree"
        if not tree.exists():
            tell("making a Debian tree")
            subprocess.run(
                [
                    "mmdebstrap",
                    "--quiet",
                    "--variant=apt",
                    f"--include={PACKAGES}",
                    "bookworm",
                    tree,
                ],
                check=True,
            )
        (work / "weed").mkdir()
        s3 = stack.enter_context(s3_served(work / "weed"))
        aws = stack.enter_context(aws_served())
        os.environ.update(s3.environment)
        rehearsal = Rehearsal(s3, aws, tree, work)
        stack.callback(rehearsal.close)
        rehearsal.launch()
        shown = 0
        while rehearsal.carry_on():
            events = list(rehearsal.folder.events())
            for event in events[shown:]:
                tell(event.instance, event.kind, dict(event.details))
            shown = len(events)
            rehearsal.disturb([each.kind for each in events])
            time.sleep(0.5)
        for event in [*rehearsal.folder.events()][shown:]:
            tell(event.instance, event.kind, dict(event.details))
        tell(f"the group is empty after {len(rehearsal.machines)} machines")
        ending = rehearsal.folder.done()
        tell(ending)
        if len(rehearsal.machines) != 3 or ending is None or ending.code != 0:
            sys.exit("it was to be trained to its end by three machines")


if __name__ == "__main__":
    main()
