"""A launch carried out: orders in the bucket, a group of one that ends by itself, then its machine.

The group is made for no machine, its end is set, and only then is a machine asked for. At whatever
call this is killed, no machine runs without an end; run again it finds what there is and goes on.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from imnetprep.launching.aws import Aws
from imnetprep.launching.folder import Ending, LaunchFolder
from imnetprep.launching.orders import Orders
from imnetprep.launching.plan import LaunchPlan
from imnetprep.launching.refusals import Refusal
from imnetprep.launching.role import create_role, require_role
from imnetprep.launching.tags import require_ours, tag_list
from imnetprep.launching.template import launch_template, security_group, template_data
from imnetprep.messages import TERMINATED_EXIT_CODE, ImnetprepError, WrongBytes, shell_command
from imnetprep.retry import retried

LAPTOP, LAUNCH = "laptop", "launched"  # of the one event that no machine writes
# IAM tells other services of a new role after some seconds.
_TRIES_OF_A_NEW_ROLE = 8
_EMPTY = {"MinSize": 0, "MaxSize": 0, "DesiredCapacity": 0}


@dataclass(frozen=True)
class Step:
    """One thing that a launch needs, and whether it had to be made."""

    kind: str
    name: str
    is_new: bool


class _RoleUnseen(Refusal):
    """A role that was just made is not yet known to the group."""


def carry_out_launch(plan: LaunchPlan, aws: Aws, folder: LaunchFolder) -> Iterator[Step]:
    """Launch; yields each thing as it is there. Launched before with the same orders: goes on.

    Raises ImnetprepError where the name stands for something else, or AWS or the bucket refuses.
    """
    group = _our_group(aws, plan.orders)
    if not plan.creates_role:
        require_role(aws, plan)
    orders, is_new = _settled_orders(plan.orders, folder, has_machine=is_alive(group))
    yield Step("orders", str(folder.place / "launch.json"), is_new)
    if is_alive(group):
        yield Step("group", orders.group, is_new=False)
        return
    for name, body in plan.files.items():
        folder.write(name, body)
        yield Step("file", str(folder.place / name), is_new=True)
    if plan.creates_role:
        yield Step("role", plan.role, create_role(aws, plan))
    security, is_new = security_group(aws, orders, plan.vpc)
    yield Step("security group", security, is_new)
    version, is_new = launch_template(aws, orders, template_data(plan, orders, security))
    yield Step("launch template", f"{orders.group}, version {version}", is_new)
    yield _group_of_none(
        aws, orders, _group_settings(plan, orders, version), is_there=group is not None
    )
    yield _end(aws, orders)
    if folder.first_event() is None:
        folder.add_event(LAPTOP, LAUNCH, deadline=orders.deadline, usd_per_hour=plan.usd_per_hour)
    _update(aws, orders.group, DesiredCapacity=1)
    yield Step("machine", " or ".join(orders.types), is_new=True)


def set_to_none(aws: Aws, group: str) -> None:
    """Let the group have no machine, and start none."""
    _update(aws, group, **_EMPTY)


def _update(aws: Aws, group: str, **settings: Any) -> None:
    aws.call("autoscaling", "update_auto_scaling_group", AutoScalingGroupName=group, **settings)


def is_alive(group: Any) -> bool:
    """Does a group, as AWS describes it, have a machine or ask for one?"""
    return group is not None and bool(group["DesiredCapacity"] or group["Instances"])


def _our_group(aws: Aws, orders: Orders) -> Any:
    """The group of that name; None: there is none."""
    answer = aws.call(
        "autoscaling", "describe_auto_scaling_groups", AutoScalingGroupNames=[orders.group]
    )
    for group in answer["AutoScalingGroups"]:
        require_ours(group, orders, "group")
        if group.get("Status"):  # which only a group has that is being deleted
            raise ImnetprepError(
                f"the group {orders.group} of an earlier launch is being removed",
                hint="run the same command in a minute",
            )
        return group
    return None


def _settled_orders(
    orders: Orders, folder: LaunchFolder, *, has_machine: bool
) -> tuple[Orders, bool]:
    """The orders that count from now on, and whether they are new: those of a launch that goes on
    keep their deadline. Raises ImnetprepError where they differ in more.
    """
    place = folder.place / "launch.json"
    answer = folder.read("launch.json")
    if answer is None and has_machine:
        raise WrongBytes(
            f"{orders.run} is launched already, and {place} is not there any more",
            hint=shell_command("imnetprep", "machines", orders.run, "--terminate") + " ends it",
        )
    if answer is None and folder.write_orders(orders):
        return orders, True
    answer = answer or folder.read("launch.json")
    assert answer is not None, place
    earlier = Orders.parse(answer[0], place)
    ending = folder.done()
    if ending is None and earlier.deadline > time.time():
        _require_equal(earlier, orders)
        return earlier, False
    if has_machine:
        raise ImnetprepError(
            f"the machine of the earlier launch of {orders.run} is not gone yet",
            hint="run the same command in a minute; "
            + shell_command("imnetprep", "machines", orders.run, "--terminate")
            + " ends it at once",
        )
    _begin_anew(orders, folder, etag=answer[1], ending=ending, deadline=earlier.deadline)
    return orders, True


def _require_equal(earlier: Orders, orders: Orders) -> None:
    values = asdict(replace(orders, deadline=earlier.deadline))
    earlier_values = asdict(earlier)
    if names := [name for name in earlier_values if earlier_values[name] != values[name]]:
        name = names[0]
        rest = f"; so do {', '.join(names[1:])}" if names[1:] else ""
        raise ImnetprepError(
            f"{orders.run} is launched already, and its {name} differs:"
            f" {_shown(earlier_values[name])}, not {_shown(values[name])}{rest}",
            hint="launch under another name (--run NAME), or end the other one first: "
            + shell_command("imnetprep", "machines", orders.run, "--stop"),
        )


def _shown(value: Any) -> str:
    """A value of the orders as a user types it."""
    return shell_command(*value) if isinstance(value, tuple) else str(value)


def _begin_anew(
    orders: Orders, folder: LaunchFolder, *, etag: str, ending: Ending | None, deadline: float
) -> None:
    """Let the orders of a launch that is over be followed by new ones.

    Its end is removed last: until then a launch that was killed here begins anew once more.
    """
    if ending is None:
        folder.write_done(Ending(TERMINATED_EXIT_CODE, "its deadline had come", deadline))
    if folder.write("launch.json", orders.as_json().encode(), IfMatch=etag) is None:
        raise WrongBytes(
            f"{folder.place / 'launch.json'} has changed meanwhile",
            hint=shell_command("imnetprep", "machines", orders.run) + " shows who launched it",
        )
    prefix = folder.place.key + "/"
    names = [each.key.removeprefix(prefix) for each in folder.bucket.objects(f"{prefix}events/")]
    for name in (*names, "stop", "lease", "log.txt", "done"):
        folder.remove(name)


def _group_settings(plan: LaunchPlan, orders: Orders, version: str) -> dict[str, Any]:
    return {
        "MinSize": 0,
        "MaxSize": 1,
        "DesiredCapacity": 0,
        "VPCZoneIdentifier": ",".join(each.id for each in plan.subnets),
        "CapacityRebalance": False,  # which starts a second machine before the first is gone
        "MixedInstancesPolicy": {
            "LaunchTemplate": {
                "LaunchTemplateSpecification": {
                    "LaunchTemplateName": orders.group,
                    "Version": version,
                },
                "Overrides": [{"InstanceType": each} for each in orders.types],
            },
            "InstancesDistribution": {
                "OnDemandBaseCapacity": 0,
                "OnDemandPercentageAboveBaseCapacity": 0 if plan.is_spot else 100,
                "SpotAllocationStrategy": "price-capacity-optimized",
            },
        },
    }


def _group_of_none(
    aws: Aws, orders: Orders, settings: Mapping[str, Any], *, is_there: bool
) -> Step:
    """A group as it is to be, without a machine yet; no zone is evened out by a second machine."""
    if is_there:
        _update(aws, orders.group, **settings)
    else:
        tags = [{**each, "PropagateAtLaunch": True} for each in tag_list(orders)]

        def create() -> None:
            try:
                aws.call(
                    "autoscaling",
                    "create_auto_scaling_group",
                    AutoScalingGroupName=orders.group,
                    Tags=tags,
                    **settings,
                )
            except Refusal as refusal:
                if "instance profile" in str(refusal).lower():
                    raise _RoleUnseen(str(refusal), hint=refusal.hint) from refusal
                raise

        retried(create, on=(_RoleUnseen,), times=_TRIES_OF_A_NEW_ROLE)
    aws.call(
        "autoscaling",
        "suspend_processes",
        AutoScalingGroupName=orders.group,
        ScalingProcesses=["AZRebalance"],
    )
    return Step("group", orders.group, is_new=not is_there)


def _end(aws: Aws, orders: Orders) -> Step:
    """Let AWS itself end the group at the deadline, with laptop and machine both dead."""
    at = datetime.fromtimestamp(orders.deadline, UTC).replace(microsecond=0)
    aws.call(
        "autoscaling",
        "put_scheduled_update_group_action",
        AutoScalingGroupName=orders.group,
        ScheduledActionName="deadline",
        StartTime=at,
        **_EMPTY,
    )
    return Step("end", f"{at:%Y-%m-%d %H:%M} UTC", is_new=True)
