"""What each machine of a launch is made of: its launch template, and a security group."""

import base64
from collections.abc import Mapping
from typing import Any

from imnetprep.launching.aws import Aws
from imnetprep.launching.orders import Orders
from imnetprep.launching.plan import LaunchPlan
from imnetprep.launching.tags import require_ours, specification
from imnetprep.launching.user_data import user_data


def security_group(aws: Aws, orders: Orders, vpc: str) -> tuple[str, bool]:
    """The id of a security group that lets nobody in, and whether it is new."""
    filters = [
        {"Name": "group-name", "Values": [orders.group]},
        {"Name": "vpc-id", "Values": [vpc]},
    ]
    for each in aws.items("ec2", "describe_security_groups", "SecurityGroups", Filters=filters):
        require_ours(each, orders, "security group")
        return str(each["GroupId"]), False
    answer = aws.call(
        "ec2",
        "create_security_group",
        GroupName=orders.group,
        Description="imnetprep: nobody gets in",
        VpcId=vpc,
        TagSpecifications=specification(orders, "security-group"),
    )
    return str(answer["GroupId"]), True


def launch_template(aws: Aws, orders: Orders, data: Mapping[str, Any]) -> tuple[str, bool]:
    """The version of the launch template that says `data`, and whether it is new."""
    filters = [{"Name": "launch-template-name", "Values": [orders.group]}]
    name = {"LaunchTemplateName": orders.group}
    for each in aws.items("ec2", "describe_launch_templates", "LaunchTemplates", Filters=filters):
        require_ours(each, orders, "launch template")
        answer = aws.call("ec2", "describe_launch_template_versions", Versions=["$Latest"], **name)
        latest = answer["LaunchTemplateVersions"][0]
        if _says(latest["LaunchTemplateData"], data):
            return str(latest["VersionNumber"]), False
        answer = aws.call("ec2", "create_launch_template_version", LaunchTemplateData=data, **name)
        return str(answer["LaunchTemplateVersion"]["VersionNumber"]), True
    aws.call(
        "ec2",
        "create_launch_template",
        LaunchTemplateData=data,
        TagSpecifications=specification(orders, "launch-template"),
        **name,
    )
    return "1", True


def _says(answer: Any, data: Any) -> bool:
    """Does AWS have all of `data`? It may add what was not asked for."""
    if isinstance(data, Mapping):
        keys = data.keys() - {"TagSpecifications"}  # which the name of the template decides
        return all(key in answer and _says(answer[key], data[key]) for key in keys)
    if isinstance(data, list):
        return len(answer) == len(data) and all(map(_says, answer, data))
    return bool(answer == data)


def template_data(plan: LaunchPlan, orders: Orders, security: str) -> dict[str, Any]:
    """What a machine is made of: closed, encrypted, and gone once it shuts down."""
    volume = {
        "VolumeSize": plan.volume_gib,
        "VolumeType": "gp3",
        "Encrypted": True,
        "DeleteOnTermination": True,
    }
    metadata = {"HttpEndpoint": "enabled", "HttpTokens": "required", "HttpPutResponseHopLimit": 1}
    return {
        "ImageId": plan.image.id,
        "InstanceType": orders.types[0],
        "IamInstanceProfile": {"Name": plan.role},
        "UserData": base64.b64encode(user_data(orders).encode()).decode(),
        "BlockDeviceMappings": [{"DeviceName": plan.image.root_device, "Ebs": volume}],
        "MetadataOptions": metadata,
        "InstanceInitiatedShutdownBehavior": "terminate",
        "SecurityGroupIds": [security],
        "TagSpecifications": specification(orders, "instance", "volume"),
    }
