"""What `launch` plans: each figure with its source, refusals before any cost, and no call that
changes anything.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imnetprep.catalog.datasets import load_dataset
from imnetprep.launching.aws import Aws
from imnetprep.launching.contents import Contents
from imnetprep.launching.estimate import stages
from imnetprep.launching.facts import Image, MachineType, read_types
from imnetprep.launching.plan import volume_for
from imnetprep.recipes.plan_recipe import plan_recipe
from tests.aws_gate import KEY, REGION, SECRET, AwsGate
from tests.conftest import TRAIN, Run
from tests.launching.launched import PLACE

BUCKET, PREFIX, ROOT = PLACE.bucket, PLACE.key, str(PLACE)
Launch = Callable[..., Any]


@pytest.fixture
def launch(archives: None, here: Run, packed: Path) -> Launch:
    """`launch` of a training on g5.2xlarge, unless other words are said."""

    def run(*options: object, train: tuple[object, ...] = ("--", "train")) -> Any:
        words = list(options)
        for name, value in (("--instance", "g5.2xlarge"), ("--root", ROOT), ("--dataset", packed)):
            if name not in words:
                words += [name, value]
        return here("launch", *words, *train)

    return run


def rows(text: str) -> dict[str, str]:
    """The lines of a plan by their labels."""
    return {line[:10].strip(): line[10:] for line in text.splitlines()}


def test_the_plan_says_all_and_changes_nothing(gate: AwsGate, launch: Launch) -> None:
    done = launch("--instance", "g5.2xlarge,g6.2xlarge")
    assert done.returncode == 0, done.stderr
    plan = rows(done.stdout)
    assert [*plan] == [
        "run",
        "machine",
        "image",
        "disk",
        "stages",
        "price",
        "cost",
        "quota",
        "stays",
    ]
    assert plan["run"] == f"resnet18 → {ROOT}/runs/resnet18   (nothing there yet)"
    assert plan["machine"].startswith("g5.2xlarge or g6.2xlarge, spot, us-east-1 any of ")
    assert "A10G 24 GB or L4 24 GB, 8 vCPU (4 cores), 32 GB" in plan["machine"]
    assert "Ubuntu 24.04" in plan["image"]
    assert plan["disk"].startswith("local NVMe 450 GB holds 5 GB (451 kB of class folders)")
    assert "volume 90 GiB gp3" in plan["disk"]
    assert "90 epochs ≥ 1 min (loader: 2,400 images/s by its cores; GPU unknown)" in plan["stages"]
    assert "$0.39/h spot now for g6.2xlarge in us-east-1b (its history)" in plan["price"]
    assert "$0.98 to $1.21/h on demand (Pricing API)" in plan["price"]
    assert "volume $0.0099/h (Pricing API); IPv4 $0.005/h (list price)" in plan["price"]
    assert "at most $11.40 ($29.44 should spot rise to the price on demand)" in plan["cost"]
    assert plan["cost"].endswith("ends by itself after 24 h whatever happens")
    assert plan["quota"] == "64 of 64 vCPU free (G and VT spot, L-3819A6DF)"
    assert "No volume, no machine, no address" in plan["stays"]
    assert "nothing is done yet: --yes launches it" in done.stderr
    assert gate.writing_calls == []


def test_a_command_may_begin_with_dashes_or_without(launch: Launch) -> None:
    for words in (("train", "--arch", "resnet50"), ("--", "train", "--arch", "resnet50")):
        assert rows(launch(train=words).stdout)["run"].startswith("resnet50 → ")


def test_yes_launches_and_again_finds_it(gate: AwsGate, launch: Launch) -> None:
    gate.quotas["L-3819A6DF"] = 8.0  # for one g5.2xlarge, the launch's own
    first = launch("--yes", "--create-role")
    assert first.returncode == 0, first.stderr
    assert "group: imnetprep-resnet18 (made)" in first.stdout
    assert "imnetprep machines resnet18" in first.stderr
    again = launch("--yes", "--create-role")
    assert again.returncode == 0, again.stderr
    assert "group: imnetprep-resnet18 (there already)" in again.stdout
    machines = [
        each["InstanceType"]
        for group in gate.client("ec2").describe_instances()["Reservations"]
        for each in group["Instances"]
    ]
    assert machines == ["g5.2xlarge"]


def test_a_dry_run_launches_nothing_even_with_yes(gate: AwsGate, launch: Launch) -> None:
    assert launch("--yes", "--dry-run").returncode == 0
    assert gate.writing_calls == []


def test_the_plan_in_json_has_the_same(launch: Launch) -> None:
    done = launch("--json")
    plan = json.loads(done.stdout)
    assert plan["orders"]["types"] == ["g5.2xlarge"]
    assert plan["orders"]["source"] == "archives"
    assert plan["orders"]["dataset"] == "dataset.toml"
    assert plan["quota"]["free"] == 64
    assert plan["cost_usd"]["highest"] == pytest.approx(24 * (0.46 + 0.08 * 90 / 730 + 0.005))
    assert done.stderr == ""


def test_what_is_not_known_is_said_so(gate: AwsGate, launch: Launch) -> None:
    gate.prices, gate.spot_prices, gate.quotas = {}, {}, {}
    done = launch()
    plan = rows(done.stdout)
    assert plan["price"].startswith("spot unknown; on demand unknown; volume unknown")
    assert plan["cost"] == "unknown: ends by itself after 24 h whatever happens"
    assert plan["quota"] == "unknown (G and VT spot, L-3819A6DF); 0 vCPU in use"
    refused = launch("--max-cost", "5")
    assert refused.returncode == 2
    assert "--max-hours" in refused.stderr


def test_max_cost_ends_it_sooner(launch: Launch) -> None:
    plan = json.loads(launch("--json", "--max-cost", "2", "--on-demand").stdout)
    assert plan["max_hours"] == pytest.approx(2 / (1.212 + 0.08 * 90 / 730 + 0.005))
    assert plan["cost_usd"]["highest"] == pytest.approx(2)


def test_what_runs_counts_against_the_quota(gate: AwsGate, launch: Launch) -> None:
    market = {"MarketType": "spot"}
    ec2 = gate.client("ec2")
    image = ec2.describe_images()["Images"][0]["ImageId"]
    for options in ({"InstanceMarketOptions": market}, {}):
        ec2.run_instances(
            ImageId=image, InstanceType="g4dn.xlarge", MinCount=1, MaxCount=1, **options
        )
    assert rows(launch().stdout)["quota"].startswith("60 of 64 vCPU free")


def test_no_quota_is_told_with_the_page_that_raises_it(gate: AwsGate, launch: Launch) -> None:
    gate.quotas["L-3819A6DF"] = 0.0
    done = launch("--yes")
    assert done.returncode == 1
    assert rows(done.stdout)["quota"].startswith("0 of 0 vCPU free")
    assert "8 vCPU are needed, and 0 of 0 are free in us-east-1" in done.stderr
    page = "https://us-east-1.console.aws.amazon.com/servicequotas/home/services/ec2/quotas"
    assert f"{page}/L-3819A6DF" in done.stderr
    assert gate.writing_calls == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("g5g.xlarge", "arm64"),
        ("g6f.large", "a part of a GPU (0.125 of L4)"),
        ("t3.large", "it has no GPU"),
        ("g5.nosuch", "us-east-1 has no such type"),
    ],
)
def test_a_type_that_cannot_train_is_refused(
    gate: AwsGate, launch: Launch, name: str, reason: str
) -> None:
    done = launch("--instance", f"g5.2xlarge,{name}")
    assert done.returncode == 2
    assert f"--instance {name}: " in done.stderr
    assert reason in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_a_machine_without_a_gpu_trains_on_its_cores(launch: Launch) -> None:
    done = launch("--instance", "t3.large", train=("train", "--device", "cpu"))
    assert done.returncode == 0, done.stderr
    assert "no GPU" in rows(done.stdout)["machine"]
    assert "Standard spot" in rows(done.stdout)["quota"]


def test_several_gpus_are_named(gate: AwsGate, launch: Launch) -> None:
    gate.quotas["L-7212CCBC"] = 96.0
    done = launch("--instance", "p4d.24xlarge")
    assert "8 × A100" in rows(done.stdout)["machine"]
    told = "p4d.24xlarge has 8 GPUs, and training uses one of them: train --devices 8 uses all"
    assert told in done.stderr
    done = launch("--instance", "p4d.24xlarge", train=("train", "--devices", "8", "--workers", "4"))
    assert done.returncode == 0 and "GPUs" not in done.stderr, done.stderr


def test_a_bucket_in_another_region_is_refused(gate: AwsGate, launch: Launch) -> None:
    where = {"LocationConstraint": "eu-west-1"}
    gate.client("s3", region="eu-west-1").create_bucket(
        Bucket="elsewhere", CreateBucketConfiguration=where
    )
    done = launch("--root", "s3://elsewhere/imagenet")
    assert done.returncode == 2
    assert "is in eu-west-1 and the machine would be in us-east-1" in done.stderr
    assert "--region eu-west-1" in done.stderr


def test_a_bucket_of_another_owner_is_told(gate: AwsGate, launch: Launch) -> None:
    gate.refusals[f"GET /{BUCKET}"] = "AccessDenied", "Access Denied"
    done = launch()
    assert done.returncode == 3
    error, hint = done.stderr.splitlines()
    assert f"{ROOT}: access denied to ListObjectsV2" in error
    assert hint.startswith("Hint: your credentials need s3:ListBucket; aws sts"), "no option"


def test_a_bucket_without_the_archives_is_told(launch: Launch) -> None:
    done = launch("--root", f"s3://{BUCKET}/other")
    assert done.returncode == 3
    assert f"s3://{BUCKET}/other has no archives/{TRAIN}" in done.stderr
    assert f"imnetprep sync-s3 s3://{BUCKET}/other --push" in done.stderr


def test_imagenet_is_trained_on_without_its_test_images(gate: AwsGate, launch: Launch) -> None:
    for name in ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"):
        gate.client("s3").put_object(Bucket=BUCKET, Key=f"whole/archives/{name}", Body=b"")
    place = ("--root", f"s3://{BUCKET}/whole", "--dataset", "ilsvrc2012")
    done = launch(*place)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("end", [("--max-hours", "0.12"), ("--max-cost", "0.01")])
def test_an_end_before_any_training_is_refused(
    gate: AwsGate, launch: Launch, end: tuple[str, str]
) -> None:
    done = launch(*end, "--yes")
    assert done.returncode == 2
    assert "it ends before anything is trained" in done.stderr
    assert "the last save take 8 min at least" in done.stderr
    assert gate.writing_calls == []


def test_an_end_before_that_of_the_training_is_told(launch: Launch) -> None:
    done = launch("--max-hours", "0.15", train=("train", "--epochs", "9999"))
    assert done.returncode == 0, done.stderr
    assert "after 9 min it is saved as far as it came; launched again it resumes" in done.stderr


def test_a_volume_that_is_too_small_is_refused(launch: Launch) -> None:
    done = launch("--volume", "20")
    assert done.returncode == 2
    assert "--volume 20 is too small for image and packages" in done.stderr
    assert "--volume 90" in done.stderr
    assert "volume 200 GiB" in rows(launch("--volume", "200").stdout)["disk"]


def test_a_disk_that_is_too_small_lets_the_data_lie_on_the_volume(gate: AwsGate) -> None:
    """A g4dn.xlarge has 125 GB of its own."""
    small, large = types_of(gate, "g4dn.xlarge", "g5.2xlarge")
    image = Image("ami-1", "", "/dev/sda1", 75)
    assert volume_for(IMAGENET.needed_bytes, (large,), image) == (90, False)
    gib, on_volume = volume_for(IMAGENET.needed_bytes, (large, small), image)
    assert on_volume
    assert gib * (1 << 30) >= IMAGENET.needed_bytes + (90 << 30)


def test_a_zone_is_taken_where_it_has_the_type(launch: Launch) -> None:
    assert ", us-east-1b:" in rows(launch("--zone", "us-east-1b").stdout)["machine"]
    done = launch("--zone", "us-east-1e")
    assert done.returncode == 2
    assert "us-east-1e has no g5.2xlarge" in done.stderr
    assert "--zone us-east-1a or us-east-1b" in done.stderr


def test_no_default_vpc_is_told(gate: AwsGate, launch: Launch) -> None:
    ec2 = gate.client("ec2")
    for each in ec2.describe_subnets()["Subnets"]:
        ec2.delete_subnet(SubnetId=each["SubnetId"])
    done = launch()
    assert done.returncode == 3
    assert "us-east-1 has no default VPC" in done.stderr
    assert "aws ec2 create-default-vpc --region us-east-1" in done.stderr


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (("train", "--arhc", "resnet18"), "No such option"),
        (("train", "--epochs", "0"), "--epochs 0 is not between"),
        (("train", "--root", "x"), "--root is not for the machine"),
        (("train", "--resume"), "--resume is not for the machine"),
        (("train", "--run", "x"), "write it before the word train"),
        (("train", "--yes"), "--yes is an option of launch"),
        (("train", "--track", "tensorboard"), "--track is not for the machine"),
        (("organize",), "'organize' is no training"),
        ((), "nothing is said of what to train"),
    ],
)
def test_a_training_that_would_fail_there_is_refused_here(
    gate: AwsGate, launch: Launch, train: tuple[str, ...], message: str
) -> None:
    done = launch(train=train)
    assert done.returncode == 2
    assert message in done.stderr
    assert gate.calls == [], "before anything is asked of AWS"


def test_a_run_that_is_there_resumes(gate: AwsGate, launch: Launch) -> None:
    s3 = gate.client("s3")
    for name, body in (("last.pt", b"x"), ("log.jsonl", b"{}\n{}\n")):
        s3.put_object(Bucket=BUCKET, Key=f"{PREFIX}/runs/mine/{name}", Body=body)
    plan = rows(launch("--run", "mine", train=("train", "--epochs", "5")).stdout)
    assert plan["run"] == f"resnet18 → {ROOT}/runs/mine   (2 of 5 epochs there: it resumes)"
    assert "3 epochs ≥" in plan["stages"]


def test_what_earlier_runs_showed_is_what_is_planned_with(gate: AwsGate, launch: Launch) -> None:
    key = f"{PREFIX}/launches/rates/g5.2xlarge-resnet18-224.json"
    gate.client("s3").put_object(Bucket=BUCKET, Key=key, Body=b'{"images_per_s": 0.5}')
    plan = rows(launch().stdout)
    # 80 images an epoch, 90 epochs, two seconds an image
    assert "90 epochs 4 h (0.5 images/s, as earlier runs showed)" in plan["stages"]


def test_what_a_machine_and_its_launcher_may_do_is_printed(launch: Launch) -> None:
    policies = json.loads(launch("--print", "policy").stdout)
    assert {*policies} == {"launcher", "machine", "role"}
    assert policies["role"]["name"].startswith(f"imnetprep-{BUCKET}-{PREFIX}-")
    assert f"arn:aws:s3:::{BUCKET}/{PREFIX}/*" in json.dumps(policies["machine"])


def test_the_script_of_the_machine_is_printed_and_has_no_secret(launch: Launch) -> None:
    script = launch("--print", "user-data").stdout
    assert script.startswith("#!/bin/sh")
    assert len(script.encode()) <= 16384
    assert SECRET not in script
    assert KEY not in script


def lines_of(done: Any) -> dict[str, tuple[str, str]]:
    """What `--check` says, by name: ok or no, and the text with its mend."""
    lines: dict[str, tuple[str, str]] = {}
    for line in done.stdout.splitlines():
        if line[0] != " ":
            name = line[4:20].strip()
            lines[name] = line[:4].strip(), line[20:]
        else:
            lines[name] = lines[name][0], f"{lines[name][1]} {line.strip()}"
    return lines


def test_an_account_that_has_all_is_told_so(gate: AwsGate, here: Run) -> None:
    gate.quotas["L-DB2E81BA"] = 8.0
    done = here("launch", "--check")
    assert done.returncode == 0, done.stdout
    lines = lines_of(done)
    assert {state for state, _ in lines.values()} == {"ok"}
    assert lines["credentials"][1].startswith("arn:aws:")
    assert lines["region"][1].startswith("us-east-1: g5.2xlarge in us-east-1a, ")
    assert "Ubuntu 24.04" in lines["image"][1]
    assert lines["quota on demand"][1] == "8 of 8 vCPU free (G and VT on demand, L-DB2E81BA)"
    assert gate.writing_calls == []


def test_what_an_account_lacks_is_told_with_its_mend(gate: AwsGate, here: Run) -> None:
    gate.denials |= {"ec2:RunInstances", "iam:PassRole"}
    gate.quotas["L-3819A6DF"] = 4.0
    gate.refusals["GetParameter"] = "ParameterNotFound", "no such parameter"
    gate.ebs_key = "arn:aws:kms:us-east-1:1:key/of-the-firm"
    done = here("launch", "--check", "--root", ROOT)
    assert done.returncode == 5
    lines = lines_of(done)
    assert [name for name, (state, _) in lines.items() if state == "no"] == [
        "image", "policy", "quota spot", "volumes", "role"
    ]  # fmt: skip
    assert (
        f"not allowed: ec2:RunInstances, iam:PassRole imnetprep launch --root {ROOT} --print policy"
        in (lines["policy"][1])
    )
    assert "8 are needed" in lines["quota spot"][1]
    assert "quotas/L-3819A6DF" in lines["quota spot"][1]
    assert "aws kms create-grant" in lines["volumes"][1]
    assert "--create-role" in lines["role"][1]


def test_credentials_that_fail_are_the_only_thing_told(gate: AwsGate, here: Run) -> None:
    gate.refusals["GetCallerIdentity"] = "ExpiredToken", "The security token is expired"
    done = here("launch", "--check", "--json")
    assert done.returncode == 5
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["name"] == "credentials"
    assert "aws sso login" in json.loads(line)["mend"]


# ILSVRC2012 as it is published.
IMAGENET = Contents(
    dataset=load_dataset("ilsvrc2012"),
    dataset_name="ilsvrc2012",
    files={},
    source="archives",
    size_bytes=154_643_220_480,
    epochs=None,
    run_bytes=0,
)


def types_of(gate: AwsGate, *names: str) -> tuple[MachineType, ...]:
    return read_types(Aws(region=REGION), names, needs_gpu=True, is_spot=True)


def test_imagenet_on_a_g5(gate: AwsGate) -> None:
    install, transfer, epochs = stages(
        IMAGENET, plan_recipe({}, amp_pays=True), types_of(gate, "g5.2xlarge"),
        rates={}, on_volume=False,
    )  # fmt: skip
    assert (install.least_minutes, install.most_minutes) == (3, 6)
    assert transfer.least_minutes == pytest.approx(2.06, abs=0.01), "at 10 Gb/s"
    assert transfer.most_minutes == pytest.approx(7.36, abs=0.01), "by one reader's MD5"
    assert epochs.least_minutes / 60 == pytest.approx(13.87, abs=0.01), "90 × 1,331,167 at 2,400/s"
    assert epochs.most_minutes is None


def test_images_that_are_not_validated_take_no_time(gate: AwsGate) -> None:
    recipe, types = plan_recipe({"val": False}, amp_pays=True), types_of(gate, "g5.2xlarge")
    *_, epochs = stages(IMAGENET, recipe, types, rates={}, on_volume=False)
    assert epochs.least_minutes == pytest.approx(90 * 1_281_167 / 2_400 / 60)


def test_a_volume_slower_than_the_cores_is_the_limit(gate: AwsGate) -> None:
    recipe = plan_recipe({}, amp_pays=True)
    *_, on_volume = stages(
        IMAGENET, recipe, types_of(gate, "g4dn.xlarge"), rates={}, on_volume=True
    )
    assert "volume: 1,106 images/s at 125 MiB/s" in on_volume.reason
    shards = replace(IMAGENET, source="shards")
    assert shards.needed_bytes < IMAGENET.needed_bytes
