"""Launches for tests: AWS and a bucket on loopback, and a plan as `launch` makes one."""

import os
import time
from dataclasses import replace
from functools import cache
from typing import Any

from imnetprep.launching.aws import Aws
from imnetprep.launching.facts import Image, Subnet
from imnetprep.launching.folder import LaunchFolder
from imnetprep.launching.group import Step, carry_out_launch
from imnetprep.launching.plan import LaunchPlan
from imnetprep.launching.policies import role_name
from imnetprep.s3.address import S3Address, Settings, parse_s3_address
from imnetprep.s3.bucket import Bucket
from tests.aws_gate import IMAGE, IMAGE_GIB, IMAGE_NAME, AwsGate
from tests.launching.test_folder import ORDERS
from tests.servers import BUCKET

PLACE = S3Address(BUCKET, "p")
WHEEL = b"a wheel"


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
