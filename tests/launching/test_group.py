"""A launch carried out against moto: a group of one with an end, whatever it is killed at."""

import base64
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from imnetprep.launching.folder import Ending
from imnetprep.launching.plan import LaunchPlan
from imnetprep.launching.tags import PLACE_TAG, TAG
from imnetprep.launching.user_data import user_data
from imnetprep.messages import ImnetprepError
from tests.aws_gate import AwsGate
from tests.launching.launched import PLACE, WHEEL, folder_of, fresh, launch, machines_of, plan_of
from tests.servers import BUCKET

TAGS = {TAG: "demo", PLACE_TAG: str(PLACE)}


def group_of(gate: AwsGate) -> Any:
    groups = gate.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    assert len(groups) == 1
    return groups[0]


def schedule_of(gate: AwsGate) -> list[Any]:
    answer: list[Any] = gate.client("autoscaling").describe_scheduled_actions()[
        "ScheduledUpdateGroupActions"
    ]
    return answer


def tags(thing: Any) -> dict[str, str]:
    return {each["Key"]: each["Value"] for each in thing["Tags"]}


def test_a_launch_is_a_group_of_one_that_ends_by_itself(gate: AwsGate) -> None:
    plan = plan_of(gate)
    assert [each.kind for each in launch(plan)] == [
        "orders", "file", "role", "security group", "launch template", "group", "end", "machine",
    ]  # fmt: skip
    group = group_of(gate)
    assert (group["MinSize"], group["MaxSize"], group["DesiredCapacity"]) == (0, 1, 1)
    assert len(machines_of(gate)) == 1
    assert not group["CapacityRebalance"]
    assert [each["ProcessName"] for each in group["SuspendedProcesses"]] == ["AZRebalance"]
    policy = group["MixedInstancesPolicy"]
    overrides = policy["LaunchTemplate"]["Overrides"]
    assert [each["InstanceType"] for each in overrides] == ["g5.2xlarge", "g6.2xlarge"]
    distribution = policy["InstancesDistribution"]
    assert distribution["OnDemandPercentageAboveBaseCapacity"] == 0
    assert distribution["SpotAllocationStrategy"] == "price-capacity-optimized"
    assert tags(group) == TAGS
    [action] = schedule_of(gate)
    assert (action["MinSize"], action["MaxSize"], action["DesiredCapacity"]) == (0, 0, 0)
    assert action["StartTime"].timestamp() == int(plan.orders.deadline)


def test_its_machines_are_closed_and_encrypted_and_end_when_they_shut_down(gate: AwsGate) -> None:
    plan = plan_of(gate)
    launch(plan)
    ec2 = gate.client("ec2")
    [version] = ec2.describe_launch_template_versions(LaunchTemplateName="imnetprep-demo")[
        "LaunchTemplateVersions"
    ]
    data = version["LaunchTemplateData"]
    assert data["MetadataOptions"]["HttpTokens"] == "required"
    assert data["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
    assert data["InstanceInitiatedShutdownBehavior"] == "terminate"
    [device] = data["BlockDeviceMappings"]
    assert device["Ebs"]["Encrypted"] and device["Ebs"]["DeleteOnTermination"]
    assert (device["Ebs"]["VolumeType"], device["Ebs"]["VolumeSize"]) == ("gp3", 100)
    assert base64.b64decode(data["UserData"]).decode() == user_data(plan.orders)
    assert "KeyName" not in data
    [security] = ec2.describe_security_groups(GroupIds=data["SecurityGroupIds"])["SecurityGroups"]
    assert security["IpPermissions"] == []
    assert tags(security) == TAGS
    for each in data["TagSpecifications"]:
        assert tags(each) == TAGS
    folder = folder_of(plan)
    [event] = folder.events()
    assert (event.kind, event.details["usd_per_hour"]) == ("launched", 0.45)
    wheel = folder.read(plan.orders.wheel)
    assert wheel is not None and wheel[0] == WHEEL


def test_no_machine_is_asked_for_before_its_end_is_set(gate: AwsGate) -> None:
    launch(plan_of(gate))
    actions = [each.action for each in gate.calls]
    asked = [
        number
        for number, each in enumerate(gate.calls)
        if each.action == "UpdateAutoScalingGroup" and each.body["DesiredCapacity"] == "1"
    ]
    assert actions.index("PutScheduledUpdateGroupAction") < asked[0]


def ended(gate: AwsGate) -> LaunchPlan:
    """An account in which a launch of other orders has come to its end."""
    fresh(gate)
    earlier = plan_of(gate, command=("train", "--arch", "resnet50"), deadline=time.time() + 1800)
    launch(earlier)
    folder = folder_of(earlier)
    folder.add_event("i-1", "starts")
    folder.request_stop()
    folder.write_done(Ending(143, "stopped on request", time.time()))
    gate.client("autoscaling").update_auto_scaling_group(
        AutoScalingGroupName="imnetprep-demo", MinSize=0, MaxSize=0, DesiredCapacity=0
    )
    return plan_of(gate)


def unlaunched(gate: AwsGate) -> LaunchPlan:
    """An account in which nothing was launched."""
    fresh(gate)
    return plan_of(gate)


@pytest.mark.slow
@pytest.mark.parametrize(("before", "versions"), [(unlaunched, 1), (ended, 2)])
def test_killed_at_each_call_and_run_again_there_is_one_group_with_one_machine(
    gate: AwsGate, before: Callable[[AwsGate], LaunchPlan], versions: int
) -> None:
    plan = before(gate)
    gate.calls.clear()
    launch(plan)
    assert len(gate.calls) > 15
    # Of the second launch those that change anything: between two of them all is the same.
    numbers = [
        number for number, call in enumerate(gate.calls) if call.is_writing or before is unlaunched
    ]
    for number in numbers:
        plan = before(gate)
        gate.calls_left = number
        with pytest.raises(ImnetprepError):
            launch(plan)
        assert gate.calls_left == -1, "it goes on after it was killed"
        gate.calls_left = None
        assert len(schedule_of(gate)) >= len(machines_of(gate))
        later = replace(plan, orders=replace(plan.orders, deadline=plan.orders.deadline + 60))
        launch(later)
        assert group_of(gate)["DesiredCapacity"] == 1
        assert len(machines_of(gate)) == 1
        ec2, iam = gate.client("ec2"), gate.client("iam")
        [template] = ec2.describe_launch_templates()["LaunchTemplates"]
        assert template["LatestVersionNumber"] == versions
        names = [each["GroupName"] for each in ec2.describe_security_groups()["SecurityGroups"]]
        assert names.count("imnetprep-demo") == 1
        [profile] = iam.list_instance_profiles()["InstanceProfiles"]
        assert [each["RoleName"] for each in profile["Roles"]] == [plan.role]
        [action] = schedule_of(gate)
        folder = folder_of(plan)
        orders = folder.orders()
        assert orders is not None and orders.command == plan.orders.command
        assert action["StartTime"].timestamp() == int(orders.deadline)
        assert [each.kind for each in folder.events()] == ["launched"]
        assert folder.done() is None and not folder.is_stop_requested()


def test_launched_twice_it_runs_once(gate: AwsGate) -> None:
    launch(plan_of(gate))
    gate.calls.clear()
    steps = launch(plan_of(gate))
    assert [(each.kind, each.is_new) for each in steps] == [("orders", False), ("group", False)]
    assert gate.writing_calls == []
    assert len(machines_of(gate)) == 1


def test_other_orders_under_the_same_name_are_refused(gate: AwsGate) -> None:
    launch(plan_of(gate))
    gate.calls.clear()
    said = "its command differs: train --arch resnet18, not train --arch resnet50"
    with pytest.raises(ImnetprepError, match=said) as error:
        launch(plan_of(gate, command=("train", "--arch", "resnet50")))
    assert "--run NAME" in error.value.hint
    assert gate.writing_calls == []


def test_the_same_name_at_another_place_is_refused(gate: AwsGate) -> None:
    launch(plan_of(gate))
    with pytest.raises(ImnetprepError, match=f"launched already, for s3://{BUCKET}/p"):
        launch(plan_of(gate, address=f"s3://{BUCKET}/q"))


def test_a_group_of_a_stranger_is_left_alone(gate: AwsGate) -> None:
    plan = plan_of(gate)
    gate.client("autoscaling").create_auto_scaling_group(
        AutoScalingGroupName=plan.orders.group,
        MinSize=0,
        MaxSize=0,
        VPCZoneIdentifier=plan.subnets[0].id,
        LaunchTemplate={"LaunchTemplateName": strange_template(gate), "Version": "1"},
    )
    gate.calls.clear()
    with pytest.raises(ImnetprepError, match="group imnetprep-demo, and it is not of imnetprep"):
        launch(plan)
    assert gate.writing_calls == []


def strange_template(gate: AwsGate, name: str = "strange") -> str:
    gate.client("ec2").create_launch_template(
        LaunchTemplateName=name, LaunchTemplateData={"InstanceType": "t3.large"}
    )
    return name


def test_without_a_role_nothing_is_launched(gate: AwsGate) -> None:
    gate.calls.clear()
    with pytest.raises(ImnetprepError, match="there is no role imnetprep-") as error:
        launch(plan_of(gate, creates_role=False))
    assert "--create-role" in error.value.hint
    assert gate.writing_calls == []


def test_a_role_that_is_there_serves_the_next_launch(gate: AwsGate) -> None:
    launch(plan_of(gate, "first"))
    launch(plan_of(gate, "second", creates_role=False))
    assert len(machines_of(gate)) == 2


def test_a_new_role_is_waited_for(gate: AwsGate) -> None:
    answers = iter([("ValidationError", "Invalid IAM Instance Profile name"), None])
    gate.refusals["CreateAutoScalingGroup"] = lambda _body: next(answers)
    launch(plan_of(gate))
    assert len(machines_of(gate)) == 1


def test_a_launch_that_ended_is_followed_by_another_under_its_name(gate: AwsGate) -> None:
    first = plan_of(gate)
    launch(first)
    folder = folder_of(first)
    folder.add_event("i-1", "trains")
    folder.request_stop()
    folder.write_done(Ending(1, "it failed", time.time()))
    second = plan_of(gate, command=("train", "--arch", "resnet50"))
    with pytest.raises(ImnetprepError, match="not gone yet"):
        launch(second)
    gate.client("autoscaling").update_auto_scaling_group(
        AutoScalingGroupName="imnetprep-demo", MinSize=0, MaxSize=0, DesiredCapacity=0
    )
    launch(second)
    assert folder.done() is None and not folder.is_stop_requested()
    assert [each.kind for each in folder.events()] == ["launched"]
    orders = folder.orders()
    assert orders == second.orders
    group = group_of(gate)
    assert (group["MaxSize"], group["DesiredCapacity"], len(machines_of(gate))) == (1, 1, 1)
    [action] = schedule_of(gate)
    assert action["StartTime"].timestamp() == int(second.orders.deadline)


def test_a_launch_that_its_deadline_ended_may_go_on_under_its_name(gate: AwsGate) -> None:
    over = plan_of(gate, deadline=time.time() - 1)
    folder = folder_of(over)
    folder.write_orders(over.orders)
    launch(plan_of(gate, command=("train", "--arch", "resnet50")))
    assert len(machines_of(gate)) == 1


def test_a_group_whose_orders_are_gone_is_not_launched_over(gate: AwsGate) -> None:
    plan = plan_of(gate)
    launch(plan)
    folder = folder_of(plan)
    folder.remove("launch.json")
    with pytest.raises(ImnetprepError, match="is not there any more") as error:
        launch(plan)
    assert "--terminate" in error.value.hint


def test_what_aws_refuses_is_told(gate: AwsGate) -> None:
    gate.refusals["CreateAutoScalingGroup"] = (
        "AccessDenied",
        "User: x is not authorized to perform: iam:PassRole on",
    )
    with pytest.raises(ImnetprepError, match="may not do iam:PassRole"):
        launch(plan_of(gate))
