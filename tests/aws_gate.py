"""AWS on loopback: moto over HTTP, behind a gate that adds what EC2 has and moto lacks.

    with aws_served() as aws:           # aws.environment is what a client's process needs
        aws.refusals["RunInstances"] = "InsufficientInstanceCapacity", "no g5.2xlarge left"
        …
        assert not aws.writing_calls

Added: Deep Learning images and their parameters, client tokens that are honoured, AlreadyExists for
the name of a group, activities of a group, its tags and spot lifecycle on its machines, prices,
quotas, refusals on demand, calls that no longer come through, and a list of all calls.
"""

import contextlib
import functools
import json
import logging
import threading
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import cache
from io import BytesIO
from typing import Any
from xml.sax.saxutils import escape

import pytest

ACCOUNT, REGION = "123456789012", "us-east-1"
IMAGE = "ami-0d1a0000000000024"
IMAGE_NAME = "Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 24.04) 20261017"
IMAGE_GIB = 75
PARAMETER = (
    "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id"
)
KEY, SECRET = "testing", "of-loopback"
# USD an hour on demand, and a GiB and month; vCPUs.
PRICES = {
    "g5.2xlarge": 1.212, "g6.2xlarge": 0.9776, "g4dn.xlarge": 0.526, "t3.large": 0.0832,
    "gp3": 0.08,
}  # fmt: skip
SPOT_PRICES = {"g5.2xlarge": 0.45, "g6.2xlarge": 0.39, "g4dn.xlarge": 0.2}
QUOTAS = {"L-DB2E81BA": 64.0, "L-3819A6DF": 64.0, "L-417A185B": 0.0, "L-7212CCBC": 0.0}
NO_CAPACITY = (
    "Could not launch Spot Instances. UnfulfillableCapacity - There is no Spot capacity available"
    " that matches your request. Launching EC2 instance failed."
)
_READING = ("Describe", "Get", "List", "Head", "Simulate")
_AUTOSCALING = "http://autoscaling.amazonaws.com/doc/2011-01-01/"
Refuse = Callable[[Mapping[str, Any]], tuple[str, str] | None]


@dataclass(frozen=True)
class Call:
    """One request: `action` is the operation, or the method and the path where S3 is asked."""

    service: str
    action: str
    body: Mapping[str, Any] = field(repr=False)

    @property
    def is_writing(self) -> bool:
        """Does it change anything?"""
        return not self.action.startswith(("GET ", "HEAD ", *_READING))


@dataclass
class AwsGate:
    """What a test sets and reads. `refusals`: by action, a code and a message, or what decides it
    by the parameters; `calls_left`: how many more are answered, None: all of them;
    `group_refusal`: why no group can start a machine; `no_capacity`: types that no group gets;
    `denials`: actions that IAM says are not allowed, where it is asked, and `policy`: statements
    that allow all else (None: anything); `ebs_key`: of volumes.
    """

    url: str = ""
    calls: list[Call] = field(default_factory=list)
    calls_left: int | None = None
    refusals: dict[str, tuple[str, str] | Refuse] = field(default_factory=dict)
    group_refusal: str | None = None
    no_capacity: set[str] = field(default_factory=set)
    prices: dict[str, float] = field(default_factory=lambda: dict(PRICES))
    spot_prices: dict[str, float] = field(default_factory=lambda: dict(SPOT_PRICES))
    quotas: dict[str, float] = field(default_factory=lambda: dict(QUOTAS))
    denials: set[str] = field(default_factory=set)
    policy: list[Mapping[str, Any]] | None = None
    ebs_key: str = "alias/aws/ebs"
    activities: list[dict[str, str]] = field(default_factory=list)
    answers: dict[tuple[str, str], tuple[Any, ...]] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to be a client of all services."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @property
    def writing_calls(self) -> list[Call]:
        """The calls that change anything."""
        return [call for call in self.calls if call.is_writing]

    def client(self, service: str, *, region: str = REGION) -> Any:
        """A client of the test's own."""
        return _client(self.url, service, region)

    def reset(self) -> None:
        """Forget all that was made, called and set, and seed anew."""
        from moto.core.base_backend import BackendDict

        BackendDict.reset()
        fresh = AwsGate(self.url)
        for name in vars(fresh):
            setattr(self, name, getattr(fresh, name))
        _seed(REGION)

    def start_machines(self) -> None:
        """What a group does every few minutes: start what it lacks, if it now can."""
        for group in _groups().values():
            group.set_desired_capacity(group.desired_capacity)

    def pass_time(self, now: datetime) -> None:
        """Carry out the scheduled actions of all groups that are due at `now`."""
        backend = _backend("autoscaling")
        for each in list(backend.scheduled_actions):
            group = backend.autoscaling_groups.get(each.auto_scaling_group_name)
            if group is not None and _moment(each.start_time) <= now:
                group.min_size, group.max_size = int(each.min_size), int(each.max_size)
                group.set_desired_capacity(int(each.desired_capacity))
                backend.scheduled_actions.remove(each)

    def start_in_group(
        self, group: Any, start: Callable[..., None], count: int, tags: dict[str, str]
    ) -> None:
        """Start machines of a group as EC2 does, or note as an activity why there is none."""
        launch = (group.mixed_instances_policy or {}).get("LaunchTemplate", {})
        overrides = launch.get("Overrides", [])
        free = [each for each in overrides if each["InstanceType"] not in self.no_capacity]
        if refusal := self.group_refusal or (None if free or not overrides else NO_CAPACITY):
            self._add_activity(group.name, "Failed", refusal)
            return
        before = {each.instance.id for each in group.instance_states}
        launch["Overrides"] = free
        try:
            start(group, count, tags)
        finally:
            launch["Overrides"] = overrides
        distribution = (group.mixed_instances_policy or {}).get("InstancesDistribution", {})
        for each in group.instance_states:
            if each.instance.id not in before:
                if str(distribution.get("OnDemandPercentageAboveBaseCapacity")) == "0":
                    each.instance.lifecycle = "spot"
                carried = [tag for tag in group.tags if tag.get("PropagateAtLaunch")]
                each.instance.add_tags({tag["Key"]: tag["Value"] for tag in carried})
                self._add_activity(group.name, "Successful", f"Launching {each.instance.id}")

    def _add_activity(self, group: str, status: str, message: str) -> None:
        self.activities.insert(
            0, {"AutoScalingGroupName": group, "StatusCode": status, "StatusMessage": message}
        )

    def answer(self, call: Call) -> tuple[int, str, str] | None:
        """An answer of the gate's own: status, type, text; None where moto's will do."""
        is_json = call.service in ("pricing", "servicequotas", "ssm")
        if self.calls_left is not None:
            self.calls_left -= 1
            if self.calls_left < 0:
                return _refusal("AccessDenied", "no call comes through any more", json=is_json)
        refusal = self.refusals.get(call.action)
        if callable(refusal):
            refusal = refusal(call.body)
        if refusal:
            return _refusal(*refusal, json=is_json)
        own = getattr(self, f"_{call.action}", None)
        result: tuple[int, str, str] | None = own(call.body) if own else None
        return result

    def _GetProducts(self, body: Mapping[str, Any]) -> tuple[int, str, str]:  # noqa: N802
        filters = {each["Field"]: each["Value"] for each in body.get("Filters", [])}
        unit = "GB-Mo" if "volumeApiName" in filters else "Hrs"
        price = self.prices.get(filters.get("volumeApiName", filters.get("instanceType", "")))
        dimension = {"unit": unit, "pricePerUnit": {"USD": f"{price:.10f}"}} if price else {}
        term = {"OnDemand": {"T": {"priceDimensions": {"D": dimension}}}}
        product = {"product": {"attributes": filters}, "terms": term}
        products = [json.dumps(product)] if price else []
        return _json({"FormatVersion": "aws_v1", "PriceList": products})

    def _GetServiceQuota(self, body: Mapping[str, Any]) -> tuple[int, str, str]:  # noqa: N802
        code = body["QuotaCode"]
        if code not in self.quotas:
            return _refusal("NoSuchResourceException", "no such quota", json=True)
        return _json({"Quota": {"QuotaCode": code, "Value": self.quotas[code], "Unit": "None"}})

    def _DescribeSpotPriceHistory(self, body: Mapping[str, Any]) -> tuple[int, str, str]:  # noqa: N802
        types = [value for name, value in body.items() if name.startswith("InstanceType.")]
        items = "".join(
            f"<item><instanceType>{each}</instanceType><spotPrice>{price + 0.01 * zone:.6f}"
            f"</spotPrice><availabilityZone>{REGION}{'ba'[zone]}</availabilityZone>"
            f"<productDescription>Linux/UNIX</productDescription>"
            f"<timestamp>{_now()}</timestamp></item>"
            for each in types
            if (price := self.spot_prices.get(each)) is not None
            for zone in range(2)
        )
        name = "DescribeSpotPriceHistoryResponse"
        return (
            200,
            "text/xml",
            f"<{name}><spotPriceHistorySet>{items}</spotPriceHistorySet></{name}>",
        )

    def _SimulatePrincipalPolicy(self, body: Mapping[str, Any]) -> tuple[int, str, str]:  # noqa: N802
        name = "SimulatePrincipalPolicy"
        items = "".join(
            f"<member><EvalActionName>{action}</EvalActionName>"
            f"<EvalDecision>{'allowed' if self._is_allowed(action, body) else 'implicitDeny'}"
            "</EvalDecision></member>"
            for key, action in body.items()
            if key.startswith("ActionNames.")
        )
        return 200, "text/xml", (
            f"<{name}Response><{name}Result><EvaluationResults>{items}</EvaluationResults>"
            f"<IsTruncated>false</IsTruncated></{name}Result></{name}Response>"
        )  # fmt: skip

    def _is_allowed(self, action: str, body: Mapping[str, Any]) -> bool:
        """Does the policy allow an action with the resource and the context of a simulation?"""
        keys = [key for key in body if key.endswith(".ContextKeyName")]
        context = {body[key]: body[key.replace("KeyName", "KeyValues.member.1")] for key in keys}
        resource = body.get("ResourceArns.member.1", "*")
        return action not in self.denials and any(
            action in each["Action"]
            and fnmatchcase(resource, each["Resource"])
            and all(
                key in context and (test == "Null" or context[key] in value)
                for test, fields in each.get("Condition", {}).items()
                for key, value in fields.items()
            )
            for each in self.policy or [{"Action": action, "Resource": "*"}]
        )

    def _GetEbsDefaultKmsKeyId(self, _body: Mapping[str, Any]) -> tuple[int, str, str]:  # noqa: N802
        name = "GetEbsDefaultKmsKeyIdResponse"
        return 200, "text/xml", f"<{name}><kmsKeyId>{self.ebs_key}</kmsKeyId></{name}>"

    def _CreateAutoScalingGroup(self, body: Mapping[str, Any]) -> tuple[int, str, str] | None:  # noqa: N802
        if body["AutoScalingGroupName"] not in _groups():
            return None
        return _refusal("AlreadyExists", "AutoScalingGroup by this name already exists")

    def _DescribeScalingActivities(self, body: Mapping[str, Any]) -> tuple[int, str, str]:  # noqa: N802
        name = "DescribeScalingActivities"
        items = "".join(
            "<member>"
            + "".join(f"<{key}>{escape(value)}</{key}>" for key, value in each.items())
            + f"<ActivityId>a-{number}</ActivityId><Cause>a test</Cause>"
            f"<StartTime>{_now()}</StartTime><Progress>100</Progress></member>"
            for number, each in enumerate(self.activities)
            if each["AutoScalingGroupName"] == body.get("AutoScalingGroupName")
        )
        return 200, "text/xml", (
            f'<{name}Response xmlns="{_AUTOSCALING}"><{name}Result><Activities>{items}</Activities>'
            f"</{name}Result></{name}Response>"
        )  # fmt: skip


@functools.cache
def _client(url: str, service: str, region: str) -> Any:
    """A client, of which each takes half a second to make."""
    import boto3

    return boto3.client(
        service,
        endpoint_url=url,
        region_name=region,
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
    )


def _backend(service: str, region: str = REGION) -> Any:
    import moto.backends

    get_backend: Callable[[str], Any] = moto.backends.get_backend  # type: ignore[assignment]
    return get_backend(service)[ACCOUNT][region]


def _groups() -> dict[str, Any]:
    groups: dict[str, Any] = _backend("autoscaling").autoscaling_groups
    return groups


def _seed(region: str) -> None:
    """The image that a launch asks for, and the parameter that names it."""
    from moto.ec2.models.amis import Ami
    from moto.ssm.models import Parameter

    class Image(Ami):
        @property
        def block_device_mappings(self) -> list[dict[str, Any]]:
            device = super().block_device_mappings[0]
            return [device | {"Ebs": device["Ebs"] | {"VolumeSize": IMAGE_GIB}}]

    ec2 = _backend("ec2", region)
    ec2.amis[IMAGE] = Image(
        ec2, IMAGE, name=IMAGE_NAME, owner_id="898082745236", owner_alias="amazon", public=True,
        architecture="x86_64", root_device_type="ebs", virtualization_type="hvm",
        region_name=f"{region}a",
    )  # fmt: skip
    parameter = Parameter(  # type: ignore[abstract]
        ACCOUNT, PARAMETER, IMAGE, "String", None, None, None, datetime.now(UTC), 1, "text"
    )
    _backend("ssm", region)._parameters[PARAMETER].append(parameter)


def _moment(text: Any) -> datetime:
    moment = text if isinstance(text, datetime) else datetime.fromisoformat(str(text))
    return moment.replace(tzinfo=moment.tzinfo or UTC)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _json(value: Mapping[str, Any], status: int = 200) -> tuple[int, str, str]:
    return status, "application/x-amz-json-1.1", json.dumps(value)


def _refusal(code: str, message: str, *, json: bool = False) -> tuple[int, str, str]:
    status = 403 if "Denied" in code or "Unauthorized" in code else 400
    if json:
        return _json({"__type": code, "message": message}, status)
    error = f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
    # EC2 and S3 have it in `Errors` or alone, the others in `ErrorResponse`: each is found there.
    return status, "text/xml", f"<ErrorResponse><Errors>{error}</Errors>{error}</ErrorResponse>"


class _Gate:
    """WSGI around moto's: the gate's answers first, and one answer for one client token."""

    def __init__(self, inner: Any, gate: AwsGate) -> None:
        self.inner, self.gate, self.lock = inner, gate, threading.RLock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        raw = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = BytesIO(raw)
        call = _call_of(environ, raw)
        with self.lock:
            self.gate.calls.append(call)
            if call.service == "s3" and (moved := _moved(environ)):
                start_response("301 -", [("x-amz-bucket-region", moved), ("Content-Length", "0")])
                return (b"",)
            if own := self.gate.answer(call):
                return _respond(start_response, *own)
            token = call.body.get("ClientToken")
            if not token:
                return (b"".join(self.inner(environ, start_response)),)
            answer = self.gate.answers.get((call.action, token))
            if answer is None:
                noted: list[Any] = []
                body = b"".join(self.inner(environ, lambda *words: noted.extend(words)))
                answer = (noted[0], noted[1], body, dict(call.body))
                if noted[0].startswith("2"):
                    self.gate.answers[call.action, token] = answer
            elif answer[3] != call.body:
                mismatch = "IdempotentParameterMismatch", "other parameters under this token"
                return _respond(start_response, *_refusal(*mismatch))
            start_response(*answer[:2])
            return (answer[2],)


def _moved(environ: Mapping[str, Any]) -> str | None:
    """The region of the bucket that is asked, where the client means another."""
    name = environ["PATH_INFO"].split("/")[1]
    bucket = _backend("s3", "aws").buckets.get(name)
    scope = environ.get("HTTP_AUTHORIZATION", "").split("/")
    is_near = bucket is None or len(scope) < 3 or bucket.region_name == scope[2]
    return None if is_near else str(bucket.region_name)


def _respond(start_response: Any, status: int, kind: str, text: str) -> Iterable[bytes]:
    body = text.encode()
    headers = [("Content-Type", kind), ("Content-Length", str(len(body)))]
    start_response(f"{status} -", headers)
    return (body,)


def _call_of(environ: Mapping[str, Any], raw: bytes) -> Call:
    credential = environ.get("HTTP_AUTHORIZATION", "").split("/")
    service = credential[3] if len(credential) > 4 else "s3"
    if service == "s3":
        return Call(service, f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}", {})
    if target := environ.get("HTTP_X_AMZ_TARGET", ""):
        return Call(service, target.rpartition(".")[2], json.loads(raw or b"{}"))
    body = dict(urllib.parse.parse_qsl(raw.decode(errors="replace")))
    return Call(service, body.get("Action", ""), body)


@contextlib.contextmanager
def aws_served() -> Iterator[AwsGate]:
    """AWS with one account, seeded in one region; skips where moto is not installed."""
    pytest.importorskip("moto", reason="moto is not installed")
    from botocore import loaders, session
    from moto.autoscaling.models import FakeAutoScalingGroup
    from moto.core.types import Base64EncodedString
    from moto.ec2.models.launch_templates import LaunchTemplate
    from moto.ec2.utils import parse_user_data
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    gate = AwsGate()
    inner = DomainDispatcherApplication(create_backend_app)
    start = FakeAutoScalingGroup.replace_autoscaling_group_instances

    def start_in_group(group: Any, count: int, tags: dict[str, str]) -> None:
        gate.start_in_group(group, start, count, tags)

    update = FakeAutoScalingGroup.update

    make_version = LaunchTemplate.create_version

    def create_version(template: Any, data: dict[str, Any], description: str) -> Any:
        """Make a version, whose user data moto reads of the first version alone."""
        text = data.get("UserData")
        if not isinstance(text, Base64EncodedString):
            data = {**data, "UserData": parse_user_data(text)}
        return make_version(template, data, description)

    def keep_policy(group: Any, **settings: Any) -> None:
        """Update a group, which keeps what is not named: moto would forget its types."""
        policy = settings["mixed_instances_policy"] or group.mixed_instances_policy
        if policy is not None:
            policy["LaunchTemplate"]["LaunchTemplateSpecification"].pop("LaunchTemplateId", None)
        update(group, **{**settings, "mixed_instances_policy": policy})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeAutoScalingGroup, "update", keep_policy)
        patch.setattr(LaunchTemplate, "create_version", create_version)
        # Each session would read the models of EC2 anew, half a second of CPU.
        patch.setattr(session, "create_loader", cache(loaders.create_loader))
        patch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
        patch.setattr(FakeAutoScalingGroup, "replace_autoscaling_group_instances", start_in_group)
        server = make_server("127.0.0.1", 0, _Gate(inner, gate), threaded=True)
        gate.url = f"http://127.0.0.1:{server.port}"
        gate.reset()
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield gate
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
