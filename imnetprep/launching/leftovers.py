"""What launches made in AWS and is still there: found by both tags of ours, and removed by them."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from imnetprep.launching.aws import Aws
from imnetprep.launching.group import is_alive
from imnetprep.launching.machines import OUR_TAG, tagged_groups, tagged_instances
from imnetprep.launching.orders import GROUP_PREFIX
from imnetprep.launching.refusals import Refusal
from imnetprep.launching.role import find_profile, remove_role
from imnetprep.launching.tags import PLACE_TAG, TAG, has_both, tags_of
from imnetprep.messages import shell_command

_IN_USE = ("DependencyViolation", "ResourceInUse", "ScalingActivityInProgress", "VolumeInUse")
_BY_THE_SECOND, _BY_THE_MONTH, _FREE = "paid by the second", "paid by the month", "free"
# The operation that removes a thing, and the parameter that names it.
_REMOVALS = {
    "group": ("autoscaling", "delete_auto_scaling_group", "AutoScalingGroupName"),
    "launch template": ("ec2", "delete_launch_template", "LaunchTemplateId"),
    "security group": ("ec2", "delete_security_group", "GroupId"),
    "volume": ("ec2", "delete_volume", "VolumeId"),
}


@dataclass(frozen=True)
class Leftover:
    """A thing in AWS that a launch made; a role is of all runs at `address`.

    `cost`: whether it is paid for; `obstacle`: why it is not to be removed now, and what ends that.
    """

    kind: str
    name: str
    id: str
    run: str
    address: str
    cost: str
    obstacle: str | None = None


def find_leftovers(aws: Aws, run: str | None = None) -> list[Leftover]:
    """All that carries our tags, in the order in which it can be removed; touches nothing.

    With `run` what is of that run alone: not the role, which is of all.
    """
    groups = tagged_groups(aws)
    places = [tags_of(each) for each in groups if is_alive(each)]
    users = sorted((each[PLACE_TAG], each[TAG]) for each in places)
    return [
        replace(each, obstacle=each.obstacle or _user(each, users))
        for each in (*_things(aws, groups), *(_roles(aws) if run is None else ()))
        if run in (None, each.run)
    ]


def carry_out_clean(aws: Aws, run: str | None = None) -> Iterator[Leftover]:
    """Look again, and remove what nothing uses; yields each, with an `obstacle` where it stays."""
    for each in find_leftovers(aws, run):
        if each.obstacle is None:
            try:
                _remove(aws, each)
            except Refusal as refusal:
                if refusal.code not in _IN_USE:
                    raise
                yield replace(each, obstacle=f"not yet: {refusal}")
                continue
        yield each


def _user(thing: Leftover, users: Iterable[tuple[str, str]]) -> str | None:
    """What is said of a thing that a living group uses."""
    for address, run in users:
        if thing.address == address and (thing.run == run or thing.kind == "role"):
            end = shell_command("imnetprep", "machines", run, "--terminate")
            return f"{run} uses it; {end} ends that"
    return None


def _things(aws: Aws, groups: Iterable[Any]) -> Iterator[Leftover]:
    for each in tagged_instances(aws):
        name = f"{each['InstanceId']} {each['InstanceType']} ({each['State']['Name']})"
        ending = "it is ending" if each["State"]["Name"] == "shutting-down" else None
        thing = _leftover("machine", name, each["InstanceId"], each, _BY_THE_SECOND)
        yield replace(thing, obstacle=ending)
    for each in groups:
        name = each["AutoScalingGroupName"]
        thing = _leftover("group", name, name, each, _FREE)
        yield replace(thing, obstacle="it is being removed" if each.get("Status") else None)
    for each in _tagged(aws, "describe_launch_templates", "LaunchTemplates"):
        name, id_ = each["LaunchTemplateName"], each["LaunchTemplateId"]
        yield _leftover("launch template", name, id_, each, _FREE)
    for each in _tagged(aws, "describe_security_groups", "SecurityGroups"):
        yield _leftover("security group", each["GroupName"], each["GroupId"], each, _FREE)
    for each in _tagged(aws, "describe_volumes", "Volumes"):
        name = f"{each['VolumeId']} {each['Size']} GiB"
        in_use = None if each["State"] == "available" else f"it is {each['State']}"
        thing = _leftover("volume", name, each["VolumeId"], each, _BY_THE_MONTH)
        yield replace(thing, obstacle=in_use)


def _tagged(aws: Aws, operation: str, field: str) -> Iterator[Any]:
    for each in aws.items("ec2", operation, field, Filters=[OUR_TAG]):
        if has_both(tags_of(each)):
            yield each


def _leftover(kind: str, name: str, id_: str, thing: Mapping[str, Any], cost: str) -> Leftover:
    tags = tags_of(thing)
    return Leftover(kind, name, id_, tags[TAG], tags[PLACE_TAG], cost)


def _roles(aws: Aws) -> Iterator[Leftover]:
    """Roles by their instance profiles, which are made first and removed last."""
    try:
        profiles = list(aws.items("iam", "list_instance_profiles", "InstanceProfiles"))
    except Refusal as refusal:
        if not refusal.code.startswith("AccessDenied"):
            raise
        yield Leftover("role", f"{GROUP_PREFIX}…", "", "", "", _FREE, f"not seen: {refusal}")
        return
    for each in profiles:
        name = each["InstanceProfileName"]
        if name.startswith(GROUP_PREFIX):
            profile = find_profile(aws, name)  # a listing has no tags
            if profile is not None and has_both(tags_of(profile)):
                yield _leftover("role", name, name, profile, _FREE)


def _remove(aws: Aws, thing: Leftover) -> None:
    if thing.kind == "machine":
        aws.call("ec2", "terminate_instances", InstanceIds=[thing.id])
    elif thing.kind == "role":
        remove_role(aws, thing.id)
    else:
        service, operation, field = _REMOVALS[thing.kind]
        aws.call(service, operation, **{field: thing.id})
