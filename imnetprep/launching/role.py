"""The role of the machines of one place in a bucket, and the instance profile that carries it."""

import json
from collections.abc import Mapping
from typing import Any

from imnetprep.launching.aws import Aws
from imnetprep.launching.plan import LaunchPlan
from imnetprep.launching.policies import TRUST, Scope, machine_policy
from imnetprep.launching.refusals import Refusal
from imnetprep.launching.tags import has_both, tag_list, tags_of
from imnetprep.messages import ImnetprepError
from imnetprep.s3.address import parse_s3_address

_POLICY = "imnetprep"


def find_profile(aws: Aws, name: str) -> Any:
    """The instance profile of that name; None: there is none."""
    try:
        return aws.call("iam", "get_instance_profile", InstanceProfileName=name)["InstanceProfile"]
    except Refusal as refusal:
        if refusal.code != "NoSuchEntity":
            raise
    return None


def require_role(aws: Aws, plan: LaunchPlan) -> None:
    """Raise ImnetprepError where the machine would have no role."""
    profile = find_profile(aws, plan.role)
    if profile is None or not profile["Roles"]:
        raise ImnetprepError(
            f"the machine would have no right to {plan.orders.address}: there is no role"
            f" {plan.role}",
            hint="--create-role makes it; without it, imnetprep launch --print policy shows what"
            " whoever may make roles has to make",
        )


def create_role(aws: Aws, plan: LaunchPlan) -> bool:
    """Make the role and its profile, or what of them is not there; True where it is new.

    The profile comes first: by it all that follows is found again, and cleaned. The policy is that
    of this version, whenever the role was made.
    """
    name, tags = plan.role, tag_list(plan.orders, run="role")
    profile = find_profile(aws, name)
    if profile is None:
        answer = aws.call("iam", "create_instance_profile", InstanceProfileName=name, Tags=tags)
        profile = answer["InstanceProfile"]
    else:
        _require_ours(profile, name)
    scope = Scope(profile["Arn"].split(":")[4], aws.region, parse_s3_address(plan.orders.address))
    is_new = not profile["Roles"]
    if is_new:
        trust = json.dumps(TRUST)
        try:
            aws.call("iam", "create_role", RoleName=name, AssumeRolePolicyDocument=trust, Tags=tags)
        except Refusal as refusal:
            if refusal.code != "EntityAlreadyExists":
                raise
            _require_ours(aws.call("iam", "get_role", RoleName=name)["Role"], name)
    policy = json.dumps(machine_policy(scope))
    aws.call("iam", "put_role_policy", RoleName=name, PolicyName=_POLICY, PolicyDocument=policy)
    if is_new:
        aws.call("iam", "add_role_to_instance_profile", InstanceProfileName=name, RoleName=name)
    return is_new


def _require_ours(thing: Mapping[str, Any], name: str) -> None:
    """Raise ImnetprepError where somebody else made the role, or its profile."""
    if not has_both(tags_of(thing)):
        raise ImnetprepError(
            f"there is a role {name}, and --create-role did not make it",
            hint="leave out --create-role to use it as it is",
        )


def remove_role(aws: Aws, name: str) -> None:
    """Remove the role with its policy, if it is ours, and then the profile that led to it."""
    profile = find_profile(aws, name)
    for each in profile["Roles"] if profile is not None else ():
        role = each["RoleName"]
        aws.call(
            "iam", "remove_role_from_instance_profile", InstanceProfileName=name, RoleName=role
        )
    try:
        role = aws.call("iam", "get_role", RoleName=name)["Role"]
    except Refusal as refusal:
        if refusal.code != "NoSuchEntity":
            raise
    else:
        if has_both(tags_of(role)):
            try:
                aws.call("iam", "delete_role_policy", RoleName=name, PolicyName=_POLICY)
            except Refusal as refusal:
                if refusal.code != "NoSuchEntity":
                    raise
            aws.call("iam", "delete_role", RoleName=name)
    aws.call("iam", "delete_instance_profile", InstanceProfileName=name)
