"""`imnetprep machines` against moto: what is shown, stopped, terminated, followed and cleaned."""

import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imnetprep.launching.control import follow
from imnetprep.launching.folder import Ending, LaunchFolder
from imnetprep.launching.tags import PLACE_TAG, TAG
from tests.aws_gate import IMAGE, NO_CAPACITY, AwsGate
from tests.conftest import Run
from tests.launching.launched import PLACE, folder_of, launch, machines_of, plan_of
from tests.servers import BUCKET


@pytest.fixture
def folder(gate: AwsGate) -> LaunchFolder:
    """The folder of a launch `demo` that has its machine."""
    plan = plan_of(gate)
    launch(plan)
    return folder_of(plan)


def end(gate: AwsGate, run: str = "demo") -> None:
    """What the machine does at its end."""
    gate.client("autoscaling").update_auto_scaling_group(
        AutoScalingGroupName=f"imnetprep-{run}", MinSize=0, MaxSize=0, DesiredCapacity=0
    )


def test_without_a_launch_it_says_so(gate: AwsGate, here: Run) -> None:
    done = here("machines")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "no launch in us-east-1\n")
    failed = here("machines", "demo")
    assert failed.returncode == 1
    assert failed.stderr.startswith("Error: AWS has no launch demo in us-east-1\nHint: ")


def test_a_launch_is_shown_by_what_its_machine_told_last(
    gate: AwsGate, folder: LaunchFolder, here: Run
) -> None:
    [machine] = machines_of(gate)
    assert here("machines").stdout.startswith(f"demo: starts; {machine['InstanceId']} g5.2xlarge")
    folder.add_event(machine["InstanceId"], "trains", epoch=3)
    folder.write("log.txt", b"epoch 2\nepoch 3\n\n")
    lines = here("machines", "demo").stdout.splitlines()
    assert lines[0] == f"run       demo at {PLACE}"
    assert lines[1].startswith("state     trains (epoch 3), 0:0")
    assert "us-east-1" in lines[2] and "spot" in lines[2]
    assert lines[3].startswith("end       by itself at 20")
    assert lines[4].startswith("cost      $0.00 so far at most")
    assert lines[5] == "log       epoch 3"
    assert "!" not in "".join(lines)


def test_json_has_it_all(gate: AwsGate, folder: LaunchFolder, here: Run) -> None:
    [shown] = map(json.loads, here("machines", "--json").stdout.splitlines())
    assert (shown["run"], shown["state"], shown["capacity"]) == ("demo", "starts", 1)
    assert shown["machines"][0]["is_spot"] is True
    assert shown["disagreements"] == []


@pytest.mark.parametrize(
    ("refusal", "said", "typed"),
    [
        (NO_CAPACITY, "EC2 has no such machine to give in us-east-1 now", "--instance A,B,C"),
        (
            "Launching a new EC2 instance: i-1. Status Reason: Instance became unhealthy while"
            " waiting for instance to be in InService state. Termination Reason:"
            " Client.InvalidKMSKey.InvalidState: The KMS key provided is in an incorrect state",
            "the key that encrypts volumes in us-east-1 does not let the group use it",
            "aws ec2 reset-ebs-default-kms-key-id --region us-east-1",
        ),
    ],
)
def test_why_no_machine_starts_is_told_with_what_to_do(
    gate: AwsGate, here: Run, refusal: str, said: str, typed: str
) -> None:
    gate.group_refusal = refusal
    launch(plan_of(gate))
    for words in (("machines",), ("machines", "demo")):
        lines = here(*words).stdout.splitlines()
        assert "waits for a machine" in "".join(lines[:2])
        (line,) = [number for number, text in enumerate(lines) if text.startswith("!")]
        assert said in lines[line]
        assert typed in lines[line + 1]
    gate.group_refusal = None
    gate.start_machines()
    assert here("machines").stdout.startswith("demo: starts; i-")


def test_a_stop_asks_the_machine(gate: AwsGate, folder: LaunchFolder, here: Run) -> None:
    assert "is asked to save, push and end" in here("machines", "demo", "--stop").stdout
    assert folder.is_stop_requested()
    assert len(machines_of(gate)) == 1
    assert "asked to stop" in here("machines", "demo").stdout


def test_a_stop_before_there_is_a_machine_ends_the_launch(gate: AwsGate, here: Run) -> None:
    gate.no_capacity = {"g5.2xlarge", "g6.2xlarge"}
    launch(plan_of(gate))
    assert "had no machine yet; it is over" in here("machines", "demo", "--stop").stdout
    gate.no_capacity = set()
    gate.start_machines()
    assert machines_of(gate) == []
    assert "ended 143" in here("machines").stdout


def test_terminate_ends_the_machine_and_lets_none_follow(
    gate: AwsGate, folder: LaunchFolder, here: Run
) -> None:
    assert here("machines", "demo", "--terminate").returncode == 0
    gate.start_machines()
    assert machines_of(gate) == []
    done = folder.done()
    assert done is not None and (done.code, done.reason) == (143, "terminated by its user")
    assert here("machines", "demo", "--stop").stdout.startswith("demo is over already; ")
    assert not folder.is_stop_requested()
    said = here("machines", "demo").stdout
    assert "ended 143: terminated by its user" in said
    assert "imnetprep machines demo --clean --yes removes it" in said


def test_a_machine_is_ended_though_the_bucket_is_not_reached(
    gate: AwsGate, folder: LaunchFolder, here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    failed = here("machines", "demo", "--terminate")
    assert failed.returncode == 3
    error, hint = failed.stderr.splitlines()
    assert error.startswith("Error: demo has no machine any more, and the bucket could not be told")
    assert hint.startswith("Hint: check the network")
    assert machines_of(gate) == []


def log(epochs: int, seconds: float) -> bytes:
    """The log of a run of 90 epochs, of 100 images for training and 50 for validation each."""
    line = {"epochs": 90, "seconds": seconds, "train": {"images": 100}, "val": {"images": 50}}
    lines = [json.dumps({"epoch": number, **line}) for number in range(1, epochs + 1)]
    lines.insert(1, json.dumps({"epoch": 2, "step": 50, "loss": 1}))
    return "".join(f"{each}\n" for each in lines).encode()


@pytest.mark.parametrize(
    ("seconds", "told", "cost"),
    [
        (20, "80 of 90 epochs, 0:30 each, done in about ", "; $0.04 when it is done"),
        (4000, "80 of 90 epochs, 1:40:00 each: not done before its end", "; $0.45 "),
    ],
)
def test_how_far_it_is_and_when_it_will_be_done(
    gate: AwsGate, folder: LaunchFolder, here: Run, seconds: float, told: str, cost: str
) -> None:
    [machine] = machines_of(gate)
    put = gate.client("s3").put_object
    put(Bucket=BUCKET, Key="p/runs/demo/log.jsonl", Body=log(80, seconds))
    folder.add_event(machine["InstanceId"], "stage", stage="pull")
    lines = rows(here("machines", "demo").stdout)
    assert lines["progress"] == "80 of 90 epochs"  # of an earlier machine
    folder.add_event(machine["InstanceId"], "stage", stage="train")
    lines = rows(here("machines", "demo").stdout)
    assert lines["progress"].startswith(told)
    assert cost in lines["cost"]
    assert f"; {told}" in here("machines").stdout
    left_s = json.loads(here("machines", "--json").stdout)["training_ends"] - time.time()
    assert 10 * seconds < left_s <= 15 * seconds
    put(Bucket=BUCKET, Key="p/runs/demo/log.jsonl", Body=b"no JSON\n")
    assert "progress" not in rows(here("machines", "demo").stdout)


def rows(text: str) -> dict[str, str]:
    """What is shown of one launch, by its titles."""
    return {line[:9].strip(): line[10:] for line in text.splitlines()}


def test_after_the_end_it_says_what_is_still_there(
    gate: AwsGate, folder: LaunchFolder, here: Run
) -> None:
    end(gate)
    folder.write_done(Ending(0, "trained", time.time()))
    lines = here("machines", "demo").stdout.splitlines()
    assert lines[1] == "state     ended 0: trained"
    assert lines[-1] == (
        "exists    group imnetprep-demo, launch template imnetprep-demo, security group"
        " imnetprep-demo: free; imnetprep machines demo --clean --yes removes it"
    )


@pytest.mark.parametrize("what", ["done", "no group", "deadline", "lease", "no orders", "idle"])
def test_where_aws_and_the_bucket_disagree_it_is_said(
    gate: AwsGate, folder: LaunchFolder, here: Run, what: str
) -> None:
    assert here("machines").stdout.count("!") == 0
    orders = folder.orders()
    assert orders is not None
    match what:
        case "done":
            folder.write_done(Ending(0, "trained", time.time()))
            text = "its group still asks for a machine"
        case "no group":
            gate.client("ec2").run_instances(
                ImageId=IMAGE, MinCount=1, MaxCount=1,
                TagSpecifications=[{"ResourceType": "instance", "Tags": [
                    {"Key": TAG, "Value": "other"}, {"Key": PLACE_TAG, "Value": str(PLACE)}]}],
            )  # fmt: skip
            text = "is in no group, and nothing ends it"
        case "deadline":
            folder.write("launch.json", replace(orders, deadline=1.0).as_json().encode())
            text = "its deadline has passed"
        case "lease":
            folder.take_lease("i-gone", lease_s=60, moment=time.time())
            text = "i-gone is gone, and holds the run for"
        case "no orders":
            folder.remove("launch.json")
            text = "has no orders of it"
        case _:
            end(gate)
            text = "neither a machine nor a wish for one"
    said = here("machines").stdout
    assert said.count("!") == 1 and text in said


def test_a_bucket_that_refuses_is_told_and_hides_no_machine(
    gate: AwsGate, folder: LaunchFolder, here: Run
) -> None:
    for key in gate.client("s3").list_objects_v2(Bucket=BUCKET)["Contents"]:
        gate.client("s3").delete_object(Bucket=BUCKET, Key=key["Key"])
    gate.client("s3").delete_bucket(Bucket=BUCKET)
    done = here("machines")
    assert done.returncode == 0
    assert "i-" in done.stdout and "the bucket says nothing of it" in done.stdout
    assert "--no-sign-request" not in done.stdout


def test_follow_prints_each_line_once_and_each_machine_anew(folder: LaunchFolder) -> None:
    lease = folder.take_lease("i-1", lease_s=60, moment=1000.0)
    assert lease is not None
    folder.write("log.txt", b"one\ntw")

    def steps() -> Iterator[None]:
        folder.write("log.txt", "one\ntwo\nthré".encode()[:-1])
        yield
        folder.write("log.txt", "one\ntwo\nthré\n".encode())
        yield
        folder.take_lease("i-2", lease_s=60, moment=2000.0)
        folder.write("log.txt", b"four\n")
        yield
        folder.write("log.txt", b"four\nfive")
        folder.write_done(Ending(0, "trained", 3000.0))
        yield

    pauses = steps()
    lines = list(follow(folder, pause=lambda: next(pauses)))
    assert lines == ["--- i-1", "one", "two", "thré", "--- i-2", "four", "five"]


def test_who_leaves_the_log_leaves_the_machine_at_work(
    gate: AwsGate, folder: LaunchFolder, here: Run
) -> None:
    def interrupt(_body: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    gate.refusals[f"GET /{BUCKET}/p/launches/demo/log.txt"] = interrupt
    done = here("machines", "demo", "--follow")
    assert done.returncode == 130
    assert done.stderr.strip() == "Stopped: demo goes on; imnetprep machines demo --stop ends it"


def test_attach_goes_by_session_manager(
    gate: AwsGate, folder: LaunchFolder, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("aws", "session-manager-plugin"):
        program = tmp_path / name
        program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
        program.chmod(0o755)
    [machine] = machines_of(gate)
    done = run(
        "machines",
        "demo",
        "--attach",
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    words = done.stdout.splitlines()
    assert words[:2] == ["ssm", "start-session"]
    assert machine["InstanceId"] in words
    assert json.loads(words[-1])["command"][0].endswith("sessions demo --attach")


def test_attach_without_its_programs_says_what_needs_none(
    gate: AwsGate, folder: LaunchFolder, here: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    failed = here("machines", "demo", "--attach")
    assert failed.returncode == 1
    assert "aws is not installed here" in failed.stderr and "--follow" in failed.stderr


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--stop"], "--stop needs a name\nHint: imnetprep machines NAME --stop;"),
        (["demo", "--stop", "--follow"], "cannot be done at once"),
        (["--yes"], "--yes cannot be used"),
        (["demo", "--clean", "--stop"], "cannot be done at once"),
    ],
)
def test_what_makes_no_sense_is_refused(
    gate: AwsGate, here: Run, words: list[str], text: str
) -> None:
    failed = here("machines", *words)
    assert failed.returncode == 2 and text in failed.stderr


def strangers(gate: AwsGate) -> None:
    """Things with names like ours, and one tag of two at most."""
    ec2, iam = gate.client("ec2"), gate.client("iam")
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    one = [{"Key": TAG, "Value": "demo"}]
    ec2.create_security_group(GroupName="imnetprep-other", Description="x", VpcId=vpc)
    ec2.create_launch_template(
        LaunchTemplateName="imnetprep-other", LaunchTemplateData={"InstanceType": "t3.large"},
        TagSpecifications=[{"ResourceType": "launch-template", "Tags": one}],
    )  # fmt: skip
    gate.client("autoscaling").create_auto_scaling_group(
        AutoScalingGroupName="imnetprep-other", MinSize=0, MaxSize=1, DesiredCapacity=1,
        VPCZoneIdentifier=subnet,
        LaunchTemplate={"LaunchTemplateName": "imnetprep-other", "Version": "1"},
        Tags=[{**one[0], "ResourceId": "imnetprep-other", "ResourceType": "auto-scaling-group"}],
    )  # fmt: skip
    ec2.create_volume(Size=1, AvailabilityZone="us-east-1a", TagSpecifications=[
        {"ResourceType": "volume", "Tags": one}])  # fmt: skip
    ec2.run_instances(ImageId=IMAGE, MinCount=1, MaxCount=1)
    iam.create_instance_profile(InstanceProfileName="imnetprep-other")
    iam.create_role(RoleName="imnetprep-other", AssumeRolePolicyDocument="{}")
    iam.add_role_to_instance_profile(
        InstanceProfileName="imnetprep-other", RoleName="imnetprep-other"
    )


def inventory(gate: AwsGate) -> dict[str, list[str]]:
    """The names of all that the account has; of volumes only those with a tag, since moto keeps
    that of a machine which is gone.
    """
    ec2, iam, scaling = gate.client("ec2"), gate.client("iam"), gate.client("autoscaling")
    volumes = [each for each in ec2.describe_volumes()["Volumes"] if each.get("Tags")]
    lists: dict[str, tuple[str, list[Any]]] = {
        "security groups": ("GroupName", ec2.describe_security_groups()["SecurityGroups"]),
        "templates": ("LaunchTemplateName", ec2.describe_launch_templates()["LaunchTemplates"]),
        "groups": (
            "AutoScalingGroupName",
            scaling.describe_auto_scaling_groups()["AutoScalingGroups"],
        ),
        "volumes": ("VolumeId", volumes),
        "machines": ("InstanceId", machines_of(gate)),
        "profiles": ("InstanceProfileName", iam.list_instance_profiles()["InstanceProfiles"]),
        "roles": ("RoleName", iam.list_roles()["Roles"]),
    }
    return {kind: sorted(each[name] for each in things) for kind, (name, things) in lists.items()}


def test_clean_shows_then_removes_what_is_ours_and_nothing_else(gate: AwsGate, here: Run) -> None:
    strangers(gate)
    before = inventory(gate)
    launch(plan_of(gate, "over"))
    end(gate, "over")
    ours = [{"Key": TAG, "Value": "over"}, {"Key": PLACE_TAG, "Value": str(PLACE)}]
    ec2 = gate.client("ec2")
    ec2.create_volume(Size=1, AvailabilityZone="us-east-1a", TagSpecifications=[
        {"ResourceType": "volume", "Tags": ours}])  # fmt: skip
    ec2.run_instances(
        ImageId=IMAGE,
        MinCount=1,
        MaxCount=1,
        TagSpecifications=[{"ResourceType": "instance", "Tags": ours}],
    )
    full = inventory(gate)
    gate.calls.clear()
    shown = here("machines", "--clean").stdout.splitlines()
    assert gate.writing_calls == []
    assert [line[:15].strip() for line in shown[:-1]] == [
        "machine", "group", "launch template", "security group", "volume", "role",
    ]  # fmt: skip
    assert shown[-1] == "6 things: nothing is removed yet; --clean --yes does it"
    assert inventory(gate) == full
    removed = here("machines", "--clean", "--yes").stdout.splitlines()
    assert removed[-1] == "6 things removed"
    assert inventory(gate) == before
    assert here("machines", "--clean", "--yes").stdout == "nothing to remove\n"


def test_clean_leaves_what_runs(gate: AwsGate, folder: LaunchFolder, here: Run) -> None:
    before = inventory(gate)
    done = here("machines", "--clean", "--yes")
    assert "demo uses it; imnetprep machines demo --terminate ends that" in done.stdout
    assert done.stdout.endswith("nothing to remove\n")
    assert inventory(gate) == before


def test_clean_of_one_run_leaves_the_others_and_the_role(gate: AwsGate, here: Run) -> None:
    launch(plan_of(gate, "first"))
    launch(plan_of(gate, "second"))
    end(gate, "first")
    end(gate, "second")
    assert here("machines", "first", "--clean", "--yes").stdout.endswith("3 things removed\n")
    left = inventory(gate)
    assert left["groups"] == left["templates"] == ["imnetprep-second"]
    assert len(left["roles"]) == 1


@pytest.mark.parametrize(
    ("action", "refusal", "told"),
    [
        (
            "DeleteSecurityGroup",
            ("DependencyViolation", "resource sg-1 has a dependent object"),
            "stays: not yet: ",
        ),
        (
            "ListInstanceProfiles",
            ("AccessDenied", "x is not authorized to perform: iam:ListInstanceProfiles on"),
            "not seen: access denied: your credentials may not do iam:ListInstanceProfiles",
        ),
    ],
)
def test_what_cannot_be_removed_stays_and_is_told_and_the_rest_goes(
    gate: AwsGate, here: Run, action: str, refusal: tuple[str, str], told: str
) -> None:
    launch(plan_of(gate))
    end(gate)
    gate.refusals[action] = refusal
    said = here("machines", "--clean", "--yes").stdout
    assert told in said and said.endswith("3 things removed\n")
    gate.refusals.clear()
    assert here("machines", "--clean", "--yes").stdout.endswith("1 thing removed\n")
