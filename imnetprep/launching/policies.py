"""What the laptop and the machine must be allowed to do: policies of IAM, no larger than they work.

The role of the machines is of one place in a bucket: it reads what lies there, writes runs and
launches, and can end groups of that place. It can neither start a machine nor enlarge a group.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from imnetprep.launching.folder import LAUNCHES
from imnetprep.launching.orders import GROUP_PREFIX
from imnetprep.launching.tags import PLACE_TAG, TAG
from imnetprep.s3.address import S3Address

Policy = Mapping[str, Any]

_LONGEST_ROLE = 64
# By which Session Manager opens a shell on a machine whose ports are all closed.
_SESSION_MANAGER = (
    "ssm:UpdateInstanceInformation",
    "ssmmessages:CreateControlChannel",
    "ssmmessages:CreateDataChannel",
    "ssmmessages:OpenControlChannel",
    "ssmmessages:OpenDataChannel",
)
TRUST: Policy = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "ec2.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    ],
}


@dataclass(frozen=True)
class Scope:
    """The account, the region and the place in a bucket that a policy is for; `*`: any."""

    account: str
    region: str
    address: S3Address

    @property
    def partition(self) -> str:
        """`aws`, or that of China or of the US government."""
        return {"cn": "aws-cn", "us-gov": "aws-us-gov"}.get(
            "us-gov" if self.region.startswith("us-gov-") else self.region.partition("-")[0], "aws"
        )

    def arn(self, service: str, resource: str, *, region: str = "", account: str = "") -> str:
        """The name of `resource` in AWS."""
        return f"arn:{self.partition}:{service}:{region}:{account}:{resource}"

    @property
    def bucket(self) -> str:
        """The ARN of the bucket."""
        return self.arn("s3", self.address.bucket)

    def objects(self, name: str) -> str:
        """The ARN of objects below the place; `name` may have a star."""
        return self.arn("s3", f"{self.address.bucket}/{(self.address / name).key}")

    @property
    def groups(self) -> str:
        """The ARN of every Auto Scaling group of ours."""
        resource = f"autoScalingGroup:*:autoScalingGroupName/{GROUP_PREFIX}*"
        return self.arn("autoscaling", resource, region=self.region, account=self.account)


def role_name(address: S3Address) -> str:
    """The name of the role, and of its instance profile, for machines that work at `address`."""
    digest = hashlib.sha256(str(address).encode()).hexdigest()[:8]
    words = re.sub(r"[^A-Za-z0-9.-]+", "-", f"{address.bucket}-{address.key}").strip("-")
    room = _LONGEST_ROLE - len(GROUP_PREFIX) - len(digest) - 1
    return f"{GROUP_PREFIX}{words[:room].strip('-')}-{digest}"


def machine_policy(scope: Scope) -> Policy:
    """What the role of the machines is allowed."""
    prefix = (scope.address / "*").key
    return _policy(
        _allow(
            "SeeWhatIsThere",
            "s3:ListBucket",
            resource=scope.bucket,
            StringLike={"s3:prefix": prefix},
        ),
        _allow("SeeUnfinishedUploads", "s3:ListBucketMultipartUploads", resource=scope.bucket),
        _allow("Read", "s3:GetObject", resource=scope.objects("*")),
        _allow(
            "WriteRunsAndLaunches",
            "s3:PutObject",
            "s3:ListMultipartUploadParts",
            "s3:AbortMultipartUpload",
            resource=[scope.objects(each) for each in ("runs/*", f"{LAUNCHES}/*", "receipt.json")],
        ),
        _allow("RemoveWhatIsTold", "s3:DeleteObject", resource=scope.objects(f"{LAUNCHES}/*")),
        _allow(
            "EndAGroupAndNothingElse",
            "autoscaling:UpdateAutoScalingGroup",
            resource=scope.groups,
            StringEquals={f"autoscaling:ResourceTag/{PLACE_TAG}": str(scope.address)},
            NumericEquals={"autoscaling:MaxSize": "0"},
        ),
        _allow("SessionManager", *_SESSION_MANAGER),
    )


def launcher_policy(scope: Scope, *, create_role: bool) -> Policy:
    """What `launch` and `machines` need; with `create_role` also what --create-role does."""
    return _policy(*_launching(scope), *(_role_making(scope) if create_role else ()))


def _launching(scope: Scope) -> tuple[Policy, ...]:
    absence = {f"aws:ResourceTag/{TAG}": "false"}  # is it without?
    role = scope.arn("iam", f"role/{GROUP_PREFIX}*", account=scope.account)
    return (
        _allow(
            "SeeWhatThereIs",
            "ec2:DescribeImages",
            "ec2:DescribeInstanceTypeOfferings",
            "ec2:DescribeInstanceTypes",
            "ec2:DescribeInstances",
            "ec2:DescribeLaunchTemplateVersions",
            "ec2:DescribeLaunchTemplates",
            "ec2:DescribeSecurityGroups",
            "ec2:DescribeSpotPriceHistory",
            "ec2:DescribeSubnets",
            "ec2:DescribeVolumes",
            "ec2:GetEbsDefaultKmsKeyId",
            "autoscaling:DescribeAutoScalingGroups",
            "autoscaling:DescribeScalingActivities",
            "pricing:GetProducts",
            "servicequotas:GetServiceQuota",
        ),
        _allow(  # of a user; what a role may do, an administrator sees
            "SeeWhatOneMayDo",
            "iam:SimulatePrincipalPolicy",
            resource=scope.arn("iam", "user/${aws:username}", account=scope.account),
        ),
        _allow(
            "NameTheImage",
            "ssm:GetParameter",
            resource=scope.arn("ssm", "parameter/aws/service/*", region=scope.region),
        ),
        _allow(
            "MakeWhatIsTagged",
            "ec2:CreateLaunchTemplate",
            "ec2:CreateSecurityGroup",
            "ec2:CreateTags",
        ),
        _allow(
            "LaunchByATemplate",
            "ec2:RunInstances",
            ArnLike={
                "ec2:LaunchTemplate": scope.arn(
                    "ec2", "launch-template/*", region=scope.region, account=scope.account
                )
            },
        ),
        _allow(
            "ChangeAndRemoveWhatIsTagged",
            "ec2:CreateLaunchTemplateVersion",
            "ec2:DeleteLaunchTemplate",
            "ec2:DeleteSecurityGroup",
            "ec2:DeleteVolume",
            "ec2:TerminateInstances",
            Null=absence,
        ),
        _allow(
            "KeepAGroupOfOne",
            "autoscaling:CreateAutoScalingGroup",
            "autoscaling:DeleteAutoScalingGroup",
            "autoscaling:PutScheduledUpdateGroupAction",
            "autoscaling:SuspendProcesses",
            "autoscaling:UpdateAutoScalingGroup",
            resource=scope.groups,
        ),
        _allow(
            "SeeTheRole",
            "iam:GetInstanceProfile",
            resource=scope.arn("iam", f"instance-profile/{GROUP_PREFIX}*", account=scope.account),
        ),
        _allow(
            "GiveTheRole",
            "iam:PassRole",
            resource=role,
            StringEquals={"iam:PassedToService": "ec2.amazonaws.com"},
        ),
        _allow(
            "OnceInAnAccount",
            "iam:CreateServiceLinkedRole",
            resource=scope.arn("iam", "role/aws-service-role/*", account=scope.account),
            StringEquals={
                "iam:AWSServiceName": ["autoscaling.amazonaws.com", "spot.amazonaws.com"]
            },
        ),
        _allow(
            "SeeTheBucket",
            "s3:ListBucket",
            resource=scope.bucket,
            StringLike={"s3:prefix": (scope.address / "*").key},
        ),
        _allow("ReadTheBucket", "s3:GetObject", resource=scope.objects("*")),
        _allow(
            "GiveOrders", "s3:PutObject", "s3:DeleteObject", resource=scope.objects(f"{LAUNCHES}/*")
        ),
    )


def _role_making(scope: Scope) -> tuple[Policy, ...]:
    return (
        _allow("SeeRoles", "iam:ListInstanceProfiles"),
        _allow(
            "MakeAndRemoveTheRole",
            "iam:AddRoleToInstanceProfile",
            "iam:CreateInstanceProfile",
            "iam:CreateRole",
            "iam:DeleteInstanceProfile",
            "iam:DeleteRole",
            "iam:DeleteRolePolicy",
            "iam:GetRole",
            "iam:PutRolePolicy",
            "iam:RemoveRoleFromInstanceProfile",
            "iam:TagInstanceProfile",
            "iam:TagRole",
            resource=[
                scope.arn("iam", f"{kind}/{GROUP_PREFIX}*", account=scope.account)
                for kind in ("role", "instance-profile")
            ],
        ),
    )


def actions(policy: Policy) -> frozenset[str]:
    """The actions that a policy allows."""
    return frozenset(each for statement in policy["Statement"] for each in statement["Action"])


def _policy(*statements: Policy) -> Policy:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def _allow(name: str, *names: str, resource: str | list[str] = "*", **conditions: Any) -> Policy:
    condition = {"Condition": conditions} if conditions else {}
    return {
        "Sid": name,
        "Effect": "Allow",
        "Action": list(names),
        "Resource": resource,
        **condition,
    }
