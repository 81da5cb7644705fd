"""What a launch needs of an account, looked at before there is a plan; each with its mend."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any

from imnetprep.launching.aws import Aws
from imnetprep.launching.contents import require_near
from imnetprep.launching.facts import read_image, read_quota, read_subnets, read_types
from imnetprep.launching.policies import Scope, launcher_policy, role_name
from imnetprep.launching.refusals import KMS_HINT, Refusal
from imnetprep.messages import ImnetprepError
from imnetprep.s3.address import S3Address, Settings
from imnetprep.s3.bucket import Bucket

_OWN_KEY = "alias/aws/ebs"


@dataclass(frozen=True)
class Check:
    """One thing looked at: `text` says how it is; `mend`: what to type, None: it is as needed."""

    name: str
    text: str
    mend: str | None


def checks(
    aws: Aws, types: Sequence[str], address: S3Address | None, settings: Settings
) -> Iterator[Check]:
    """Each thing that a launch of `types` needs; after credentials that fail there is no other."""
    try:
        identity = aws.call("sts", "get_caller_identity")
    except ImnetprepError as error:
        yield Check("credentials", str(error), error.hint)
        return
    yield Check("credentials", identity["Arn"], None)
    yield _checked("region", lambda: _region(aws, types))
    yield _checked("image", lambda: _image(aws))
    yield _policy(aws, identity["Arn"], address)
    for is_spot in (True, False):
        yield _quota(aws, types, is_spot=is_spot)
    yield _key(aws)
    if address is not None:
        yield _checked("endpoint", lambda: _bucket(aws, address, settings))
        yield _role(aws, address)


def _checked(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, look(), None)
    except ImnetprepError as error:
        return Check(name, str(error), error.hint)


def _region(aws: Aws, types: Sequence[str]) -> str:
    read_types(aws, types, needs_gpu=False, is_spot=False)
    vpc, subnets = read_subnets(aws, types, zone=None)
    zones = ", ".join(each.zone for each in subnets)
    return f"{aws.region}: {' or '.join(types)} in {zones} ({vpc})"


def _image(aws: Aws) -> str:
    image = read_image(aws)
    return f"{image.id} {image.name}, {image.size_gib} GiB"


def _policy(aws: Aws, arn: str, address: S3Address | None) -> Check:
    """What the credentials may do, as IAM simulates it; else as a dry run of EC2 says.

    Of a bucket only where its address is given: who may reach one may not reach any.
    """
    scope = Scope(arn.split(":")[4], aws.region, address or S3Address("BUCKET", ""))
    statements = [
        each
        for each in launcher_policy(scope, create_role=False)["Statement"]
        if address is not None or not each["Action"][0].startswith("s3:")
    ]
    try:
        gaps = [gap for each in statements for gap in _gaps(aws, _principal(arn), each)]
    except ImnetprepError:
        return _dry_run(aws)
    if gaps:
        return Check("policy", f"not allowed: {', '.join(gaps)}", "imnetprep launch --print policy")
    number = sum(len(each["Action"]) for each in statements)
    return Check("policy", f"all of {number} actions are allowed", None)


def _gaps(aws: Aws, principal: str, statement: Mapping[str, Any]) -> Iterator[str]:
    """The actions of a statement that `principal` may not do. Raises ImnetprepError.

    IAM is asked of the statement's own resources and conditions: of any resource, which it takes
    where none is named, who has just this policy may do next to nothing.
    """
    resources = statement["Resource"]
    context = [
        {"ContextKeyName": key, "ContextKeyType": "string", "ContextKeyValues": [_example(value)]}
        for test in statement.get("Condition", {}).values()
        for key, value in test.items()
    ]
    answers = aws.items(
        "iam", "simulate_principal_policy", "EvaluationResults", PolicySourceArn=principal,
        ActionNames=statement["Action"], ContextEntries=context,
        ResourceArns=[principal if "${" in resources else resources],
    )  # fmt: skip
    for each in answers:
        if each["EvalDecision"] != "allowed":
            yield each["EvalActionName"]


def _example(value: str | list[str]) -> str:
    """A value that meets a condition; `false` is that of Null: any."""
    return value if isinstance(value, str) else value[0]


def _principal(arn: str) -> str:
    """The role of a session: `…:sts::1:assumed-role/R/S` as `…:iam::1:role/R`."""
    head, _, rest = arn.partition(":assumed-role/")
    return f"{head.replace(':sts:', ':iam:')}:role/{rest.split('/')[0]}" if rest else arn


def _dry_run(aws: Aws) -> Check:
    try:
        aws.call(
            "ec2",
            "create_security_group",
            GroupName="imnetprep-check",
            Description="-",
            DryRun=True,
        )
    except Refusal as error:
        if error.code != "DryRunOperation":
            return Check("policy", str(error), error.hint)
    return Check(
        "policy", "EC2 would let these credentials launch; of the rest IAM says nothing", None
    )


def _quota(aws: Aws, types: Sequence[str], *, is_spot: bool) -> Check:
    name = f"quota {'spot' if is_spot else 'on demand'}"
    try:
        quota = read_quota(aws, types[0], is_spot=is_spot)
        least = min(each.vcpus for each in read_types(aws, types, needs_gpu=False, is_spot=False))
    except ImnetprepError as error:
        return Check(name, str(error), error.hint)
    page = quota.name.page(aws.region)
    if quota.free is None:
        return Check(name, f"unknown ({quota.name.title}): {page}", None)
    text = f"{quota.free:g} of {quota.vcpus:g} vCPU free ({quota.name.title}, {quota.name.code})"
    mend = f"{least} are needed; ask for more, which takes hours or days: {page}"
    return Check(name, text, mend if quota.free < least else None)


def _key(aws: Aws) -> Check:
    try:
        key = str(aws.call("ec2", "get_ebs_default_kms_key_id")["KmsKeyId"])
    except ImnetprepError as error:
        return Check("volumes", f"which key encrypts them is unknown: {error}", None)
    if key.endswith(_OWN_KEY):
        return Check("volumes", "encrypted by AWS's own key", None)
    return Check("volumes", f"encrypted by {key}", KMS_HINT.format(region=aws.region))


def _bucket(aws: Aws, address: S3Address, settings: Settings) -> str:
    with closing(Bucket(address.bucket, settings)) as bucket:
        require_near(bucket, address, aws.region)
        return f"{address} answers at {bucket.endpoint}"


def _role(aws: Aws, address: S3Address) -> Check:
    name = role_name(address)
    with suppress(ImnetprepError):
        aws.call("iam", "get_instance_profile", InstanceProfileName=name)
        return Check("role", name, None)
    return Check("role", f"{name} is not there", "launch with --create-role makes it")
