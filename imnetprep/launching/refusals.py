"""What AWS refuses, as we say it: what happened, and what to type. The quotas of EC2, by code."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from imnetprep.messages import SourceFailed
from imnetprep.outside_text import quoted

_CONSOLE = "https://{region}.console.aws.amazon.com/servicequotas/home/services/ec2/quotas"
_IDENTITY_HINT = "aws sts get-caller-identity shows who you are"
# Their unit is the vCPU; spot and on demand are counted apart. By the letters of a type's family.
_QUOTAS = {
    "G and VT": (r"(g|gr|vt)\d", "L-DB2E81BA", "L-3819A6DF"),
    "P5": (r"p5", "L-417A185B", "L-C4BD4855"),
    "P4, P3 and P2": (r"p[234]", "L-417A185B", "L-7212CCBC"),
    "P": (r"p\d", "L-417A185B", None),
    "Standard": (r"(a|c|d|h|i|im|is|m|r|t|z)\d", "L-1216C47A", "L-34B43A08"),
}  # fmt: skip


class Refusal(SourceFailed):
    """What a service of AWS refused: `code` as AWS has it, `InvalidAMIID.NotFound`."""

    code = ""


class QuotaName(NamedTuple):
    """A quota of EC2, counted in vCPUs; `code` is None where none is known for such a type."""

    title: str
    code: str | None

    def page(self, region: str) -> str:
        """Where a higher one is asked for."""
        page = _CONSOLE.format(region=region)
        return f"{page}/{self.code}" if self.code else page


def quota_name(type_name: str, *, is_spot: bool) -> QuotaName:
    """The quota that a machine of that type counts against."""
    way = "spot" if is_spot else "on demand"
    for title, (pattern, on_demand, spot) in _QUOTAS.items():
        if re.match(pattern, type_name):
            if not is_spot and title[0] == "P":
                title = "P"
            return QuotaName(f"{title} {way}", spot if is_spot else on_demand)
    return QuotaName(f"{type_name.partition('.')[0]} {way}", None)


class _Rule(NamedTuple):
    """A `pattern` of `CODE: message`, and what is said of it; no sentence: what AWS says."""

    pattern: str
    sentence: str
    hint: str


_LOGIN_HINT = "log in again (aws sso login, or new keys), then run the same command"
KMS_HINT = (
    "aws ec2 reset-ebs-default-kms-key-id --region {region} takes AWS's own key; or give"
    " AWSServiceRoleForAutoScaling a grant: aws kms create-grant, operations Decrypt,"
    " GenerateDataKeyWithoutPlaintext and CreateGrant"
)
_RULES = (
    _Rule(
        r"VcpuLimitExceeded|MaxSpotInstanceCountExceeded|Max spot instance count|vCPU limit",
        "your quota in {region} is too small for another machine: {message}",
        "ask for a higher one, which takes hours or days: {quotas}",
    ),
    _Rule(
        r"InsufficientInstanceCapacity|UnfulfillableCapacity|no Spot capacity|sufficient .*capacity"
        r"|InsufficientCapacity|capacity-not-available",
        "EC2 has no such machine to give in {region} now: {message}",
        "the group tries again by itself; more types (--instance A,B,C), any zone (no --zone) or"
        " --on-demand find one sooner",
    ),
    _Rule(
        r"VPCIdNotSpecified|DefaultVpcDoesNotExist|[Nn]o default (VPC|subnet)",
        "{region} has no default VPC, and so no subnet for the machine",
        "aws ec2 create-default-vpc --region {region} makes one, which costs nothing",
    ),
    _Rule(
        r"ExpiredToken|RequestExpired|TokenRefreshRequired|security token .* expired",
        "your session with AWS has expired",
        _LOGIN_HINT,
    ),
    _Rule(
        r"RequestTimeTooSkewed|SignatureDoesNotMatch: Signature (not yet current|expired)",
        "the clock of this machine is not that of AWS",
        "set it (timedatectl set-ntp true), then run the same command",
    ),
    _Rule(
        r"AuthFailure|InvalidClientTokenId|UnrecognizedClient|InvalidAccessKeyId"
        r"|SignatureDoesNotMatch|IncompleteSignature|InvalidToken",
        "AWS does not know these credentials in {region}: {message}",
        f"{_IDENTITY_HINT}; --profile NAME takes others; a region that is off for the account,"
        " (aws account list-regions), knows none",
    ),
    _Rule(
        r"OptInRequired",
        "{region} or EC2 itself is off for this account: {message}",
        "aws account enable-region --region-name {region}, or another --region",
    ),
    _Rule(
        r"PendingVerification|Blocked: |account is currently blocked",
        "AWS still has to check this account: {message}",
        "run the same command in some hours; https://support.console.aws.amazon.com if it stays so",
    ),
    _Rule(
        r"KMS|Client\.InternalError|[Kk]ms ?[Kk]ey",
        "the key that encrypts volumes in {region} does not let the group use it: {message}",
        KMS_HINT,
    ),
    _Rule(
        r"Invalid IAM Instance Profile|instance profile .*(not|cannot) be found|NoSuchEntity",
        "the role of the machine is not there: {message}",
        "--create-role makes it; or imnetprep launch --print policy shows what it needs",
    ),
    _Rule(
        r"[Ss]ervice-[Ll]inked [Rr]ole .*(not be found|does not exist)",
        "this account has never had an Auto Scaling group: {message}",
        "aws iam create-service-linked-role --aws-service-name autoscaling.amazonaws.com",
    ),
    _Rule(
        r"InvalidAMIID|AMI .*(does not exist|not found)|ParameterNotFound",
        "{region} has no such image: {message}",
        "another --region: aws ec2 describe-regions lists those of the account",
    ),
    _Rule(
        r"InvalidInstanceType|instance types? .*(do|does) not exist",
        "{region} has no such type of machine: {message}",
        "aws ec2 describe-instance-type-offerings --region {region} lists those there are",
    ),
    _Rule(
        r"Unsupported|not supported in your requested Availability Zone",
        "EC2 cannot run such a machine there: {message}",
        "leave out --zone, or name another type by --instance",
    ),
    _Rule(
        r"InvalidBlockDeviceMapping|smaller than snapshot",
        "the volume does not fit the image: {message}",
        "leave out --volume, or make it larger",
    ),
    _Rule(
        r"VolumeLimitExceeded|MaxIOPSLimitExceeded",
        "your quota of volumes in {region} is used up: {message}",
        "aws ec2 describe-volumes --region {region} shows them; remove some, or a smaller --volume",
    ),
    _Rule(
        r"Throttling|RequestLimitExceeded|TooManyRequests|ServiceUnavailable|InternalFailure"
        r"|InternalError|Unavailable",
        "AWS is busy: {message}",
        "run the same command in a minute; it resumes",
    ),
)
_ACTION = re.compile(r"not authorized to perform: ([a-z0-9-]{1,32}:[A-Za-z]{1,64})")
_DENIALS = r"(UnauthorizedOperation|AccessDenied|AccessDeniedException|UnauthorizedAccess): "
_ENCODING = re.compile(r"\s*Encoded authorization failure message: \S+")


def explain(
    text: str, *, region: str, action: str = "", types: Sequence[str] = (), is_spot: bool = True
) -> tuple[str, str]:
    """What happened, and what to type, of `CODE: message`, or of the message of a group's activity.

    `action`: the one that was asked for, `ec2:RunInstances`; `types`: those of the machine.
    """
    text = _ENCODING.sub("", text)
    message = quoted(text.partition(": ")[2] or text)
    if re.match(_DENIALS, text):
        match = _ACTION.search(text)
        right = match[1] if match else action
        return (
            f"access denied: your credentials may not do {right}",
            f"add {right} to their policy (imnetprep launch --print policy); {_IDENTITY_HINT}",
        )
    for rule in _RULES:
        if re.search(rule.pattern, text):
            words = {"region": region, "message": message}
            words["quotas"] = ", ".join(_quota_pages(region, types, is_spot=is_spot))
            return rule.sentence.format(**words), rule.hint.format(**words)
    return f"AWS refuses {action or 'the launch'}: {quoted(text)}", _IDENTITY_HINT


def _quota_pages(region: str, types: Sequence[str], *, is_spot: bool) -> Iterator[str]:
    names = dict.fromkeys(quota_name(each, is_spot=is_spot) for each in types)
    for name in names or [QuotaName("of EC2", None)]:
        yield f"{name.title} {f'({name.code}) ' if name.code else ''}at {name.page(region)}"
