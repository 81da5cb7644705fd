"""What AWS refuses, told in two lines: what happened, and what to type."""

import pytest

from imnetprep.launching.aws import Aws
from imnetprep.launching.refusals import Refusal, explain, quota_name
from imnetprep.messages import ImnetprepError, SourceFailed
from tests.aws_gate import AwsGate


@pytest.mark.parametrize(
    ("code", "message", "said", "typed"),
    [
        (
            "VcpuLimitExceeded",
            "You have requested more vCPU capacity than your current vCPU limit of 0 allows",
            "quota in us-east-1 is too small",
            "https://us-east-1.console.aws.amazon.com/servicequotas/home/services/ec2/quotas",
        ),
        (
            "InsufficientInstanceCapacity",
            "We currently do not have sufficient g5.2xlarge capacity",
            "no such machine to give in us-east-1 now",
            "--instance A,B,C",
        ),
        (
            "VPCIdNotSpecified",
            "No default VPC for this user",
            "us-east-1 has no default VPC",
            "aws ec2 create-default-vpc --region us-east-1",
        ),
        ("RequestExpired", "Request has expired.", "session with AWS has expired", "aws sso login"),
        (
            "AuthFailure",
            "AWS was not able to validate the provided access credentials",
            "AWS does not know these credentials",
            "aws sts get-caller-identity",
        ),
        (
            "OptInRequired",
            "You are not subscribed to this service",
            "us-east-1 or EC2 itself is off for this account",
            "aws account enable-region --region-name us-east-1",
        ),
        (
            "UnauthorizedOperation",
            "You are not authorized to perform this operation. User: arn:aws:iam::1:user/u is not"
            " authorized to perform: ec2:DescribeVpcs on resource: * Encoded authorization failure"
            " message: AAAA-BBBB",
            "may not do ec2:DescribeVpcs",
            "imnetprep launch --print policy",
        ),
        ("UnauthorizedOperation", "no", "may not do ec2:DescribeVpcs", "add ec2:DescribeVpcs"),
        (
            "PendingVerification",
            "Your request for accessing resources in this region is being validated",
            "AWS still has to check this account",
            "in some hours",
        ),
        ("InvalidAMIID.NotFound", "The image id does not exist", "no such image", "--region"),
        ("SomethingNew", "of next year", "SomethingNew: of next year", "get-caller-identity"),
    ],
)
def test_a_refusal_says_what_happened_and_what_to_type(
    gate: AwsGate, code: str, message: str, said: str, typed: str
) -> None:
    gate.refusals["DescribeVpcs"] = code, message
    with pytest.raises(Refusal) as refusal:
        Aws().call("ec2", "describe_vpcs")
    assert refusal.value.code == code
    assert said in str(refusal.value)
    assert typed in refusal.value.hint
    assert "AAAA-BBBB" not in str(refusal.value), "an encoded message is for nobody to read"


@pytest.mark.parametrize(
    ("message", "said", "typed"),
    [
        (
            "Could not launch Spot Instances. MaxSpotInstanceCountExceeded - Max spot instance"
            " count exceeded. Launching EC2 instance failed.",
            "quota in us-east-1 is too small",
            "quotas/L-3819A6DF",
        ),
        (
            "Could not launch Spot Instances. UnfulfillableCapacity - There is no Spot capacity"
            " available that matches your request. Launching EC2 instance failed.",
            "no such machine to give",
            "--on-demand",
        ),
        (
            "Instance became unhealthy while waiting for instance to be in InService state."
            " Termination Reason: Client.InternalError: Client error on launch",
            "key that encrypts volumes",
            "aws kms create-grant",
        ),
        (
            "Termination Reason: Client.InvalidKMSKey.InvalidState: The KMS key provided is in an"
            " incorrect state",
            "key that encrypts volumes",
            "aws ec2 reset-ebs-default-kms-key-id --region us-east-1",
        ),
        (
            "Invalid IAM Instance Profile name. Launching EC2 instance failed.",
            "the role of the machine is not there",
            "--create-role",
        ),
    ],
)
def test_an_activity_of_a_group_says_so_too(message: str, said: str, typed: str) -> None:
    sentence, hint = explain(message, region="us-east-1", types=["g5.2xlarge"], is_spot=True)
    assert said in sentence
    assert typed in hint


@pytest.mark.parametrize(
    ("type_name", "is_spot", "code"),
    [
        ("g5.2xlarge", True, "L-3819A6DF"),
        ("g6e.xlarge", False, "L-DB2E81BA"),
        ("vt1.3xlarge", False, "L-DB2E81BA"),
        ("p4d.24xlarge", False, "L-417A185B"),
        ("p4d.24xlarge", True, "L-7212CCBC"),
        ("p5.48xlarge", True, "L-C4BD4855"),
        ("p5.48xlarge", False, "L-417A185B"),
        ("t3.large", False, "L-1216C47A"),
        ("inf2.xlarge", True, None),
    ],
)
def test_each_type_counts_against_its_quota(
    type_name: str, is_spot: bool, code: str | None
) -> None:
    assert quota_name(type_name, is_spot=is_spot).code == code


def test_a_region_that_is_none_is_told(gate: AwsGate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(ImnetprepError) as error:
        Aws(region="us-east1").call("ec2", "describe_vpcs")
    assert "us-east1 is no region that is known here: --region us-east-1" in error.value.hint


def test_a_server_that_cannot_prove_who_it_is_is_told(
    gate: AwsGate, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = gate.url.replace("http:", "https:")
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    with pytest.raises(SourceFailed, match=f"{url} is not trusted") as error:
        Aws().call("ec2", "describe_vpcs")
    assert error.value.hint.startswith("AWS_CA_BUNDLE=FILE")


def test_no_region_is_told_before_anything_is_asked(
    gate: AwsGate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    with pytest.raises(ImnetprepError) as error:
        Aws()
    assert "--region us-east-1" in error.value.hint
    assert not gate.calls


def test_no_credentials_are_told(gate: AwsGate, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/nowhere")
    with pytest.raises(ImnetprepError) as error:
        Aws().call("ec2", "describe_vpcs")
    assert "no AWS credentials" in str(error.value)
    assert "aws configure" in error.value.hint
