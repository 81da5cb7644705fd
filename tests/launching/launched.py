"""Launches for tests: AWS and a bucket on loopback, and a plan as `launch` makes one."""

import base64
import os
import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from imnetprep.launching.aws import Aws
from imnetprep.launching.facts import Image, Subnet
from imnetprep.launching.folder import LaunchFolder
from imnetprep.launching.group import Step, carry_out_launch
from imnetprep.launching.orders import Orders
from imnetprep.launching.plan import LaunchPlan
from imnetprep.launching.policies import role_name
from imnetprep.s3.address import S3Address, Settings, parse_s3_address
from imnetprep.s3.bucket import Bucket
from tests.aws_gate import IMAGE, IMAGE_GIB, IMAGE_NAME, AwsGate
from tests.launching.test_folder import ORDERS
from tests.servers import BUCKET, S3Server

PLACE = S3Address(BUCKET, "p")
WHEEL = b"a wheel"


def fresh(gate: AwsGate) -> None:
    """An account with nothing in it but a bucket."""
    gate.reset()
    gate.client("s3").create_bucket(Bucket=BUCKET)
    gate.calls.clear()


def drawn_orders(s3: S3Server, drawings: Path, prefix: str) -> Orders:
    """Orders for a training on `drawings`, and their archives and definition in the bucket."""
    files = {True: "archives", False: "launches/demo/dataset"}
    for each in drawings.iterdir():
        key = f"{prefix}/{files[each.suffix == '.tar']}/{each.name}"
        s3.client().upload_file(str(each), BUCKET, key)
    return replace(
        ORDERS,
        address=f"s3://{BUCKET}/{prefix}",
        endpoint_url=s3.endpoint,
        dataset="drawn.toml",
        dataset_files=tuple(each.name for each in drawings.iterdir() if each.suffix != ".tar"),
        needed_bytes=1_000_000,
        needs_gpu=False,
        deadline=time.time() + 3600,
    )


def make_group(gate: AwsGate, script: str = "") -> None:
    """The group of one machine of a launch `demo`, whose user data is `script`."""
    ec2, scaling = gate.client("ec2"), gate.client("autoscaling")
    text = base64.b64encode(script.encode()).decode()
    data = {"ImageId": "ami-12c6146b", "InstanceType": "g5.2xlarge", "UserData": text}
    ec2.create_launch_template(LaunchTemplateName=ORDERS.group, LaunchTemplateData=data)
    scaling.create_auto_scaling_group(
        AutoScalingGroupName=ORDERS.group, MinSize=0, MaxSize=1, DesiredCapacity=1,
        AvailabilityZones=["us-east-1a"],
        LaunchTemplate={"LaunchTemplateName": ORDERS.group, "Version": "$Latest"},
    )  # fmt: skip


def plan_of(
    gate: AwsGate, run: str = "demo", *, creates_role: bool = True, **orders: Any
) -> LaunchPlan:
    """A plan for a machine of g5.2xlarge or g6.2xlarge, which ends in an hour."""
    values = {
        "address": str(PLACE),
        "types": ("g5.2xlarge", "g6.2xlarge"),
        "deadline": time.time() + 3600,
        **orders,
    }
    subnets = gate.client("ec2").describe_subnets()["Subnets"]
    return LaunchPlan(
        orders=replace(ORDERS, run=run, **values),
        files={ORDERS.wheel: WHEEL},
        settings=Settings(),
        types=(),
        image=Image(IMAGE, IMAGE_NAME, "/dev/sda1", IMAGE_GIB),
        vpc=subnets[0]["VpcId"],
        subnets=tuple(Subnet(each["SubnetId"], each["AvailabilityZone"]) for each in subnets),
        is_spot=True,
        volume_gib=100,
        role=role_name(parse_s3_address(values["address"])),
        creates_role=creates_role,
        usd_per_hour=0.45,
    )


@cache
def aws_of(_url: str, _key: str) -> Aws:
    """AWS as this environment reaches it: a client takes long to make."""
    return Aws()


@cache
def bucket_of(name: str, _url: str, _key: str) -> Bucket:
    """A bucket as this environment reaches it."""
    return Bucket(name, Settings())


def _environment() -> tuple[str, str]:
    return os.environ["AWS_ENDPOINT_URL"], os.environ["AWS_ACCESS_KEY_ID"]


def folder_of(plan: LaunchPlan) -> LaunchFolder:
    """The folder of a launch in the bucket."""
    address = parse_s3_address(plan.orders.address)
    return LaunchFolder(bucket_of(address.bucket, *_environment()), address, plan.orders.run)


def launch(plan: LaunchPlan) -> list[Step]:
    """Launch as the user of this environment."""
    return list(carry_out_launch(plan, aws_of(*_environment()), folder_of(plan)))


def machines_of(gate: AwsGate) -> list[Any]:
    """The machines that are not gone."""
    answer = gate.client("ec2").describe_instances()
    instances = [
        each for reservation in answer["Reservations"] for each in reservation["Instances"]
    ]
    return [each for each in instances if each["State"]["Name"] != "terminated"]
