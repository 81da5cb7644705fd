"""The printed policies: enough for a launch and its machine, and no more than is needed."""

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from imnetprep.launching.aws import Aws
from imnetprep.launching.folder import Ending, LaunchFolder
from imnetprep.launching.group import set_to_none
from imnetprep.launching.policies import Scope, actions, launcher_policy, machine_policy, role_name
from imnetprep.launching.tags import PLACE_TAG, TAG
from imnetprep.messages import ImnetprepError
from imnetprep.s3.address import S3Address, Settings
from imnetprep.s3.bucket import Bucket
from tests.aws_gate import ACCOUNT, IMAGE, REGION, AwsGate
from tests.conftest import Run
from tests.launching.launched import PLACE, launch, plan_of
from tests.servers import BUCKET, S3Server, s3_served

SCOPE = Scope(ACCOUNT, REGION, PLACE)
# What AWS asks for behind a call, and moto does not.
UNASKED = {
    "ec2:CreateTags",
    "ec2:RunInstances",
    "iam:CreateServiceLinkedRole",
    "iam:PassRole",
    "iam:TagInstanceProfile",
    "iam:TagRole",
}
# What the plan of a launch asks.
OF_THE_PLAN = {
    "ec2:DescribeImages",
    "ec2:DescribeInstanceTypeOfferings",
    "ec2:DescribeInstanceTypes",
    "ec2:DescribeSpotPriceHistory",
    "ec2:DescribeSubnets",
    "pricing:GetProducts",
    "servicequotas:GetServiceQuota",
    "ssm:GetParameter",
}
# What `launch --check` asks beyond the plan.
OF_THE_CHECK = {"ec2:GetEbsDefaultKmsKeyId", "iam:SimulatePrincipalPolicy"}
# What the gate answers itself, and no IAM is asked.
OF_THE_GATE = {"autoscaling:DescribeScalingActivities"}
_NAMED = re.compile(r"(?:may not do|credentials need) ([a-z0-9]+:[A-Za-z]+)")


def test_the_policies_are_small_enough_for_iam() -> None:
    largest = Scope("1" * 12, "ap-southeast-2", S3Address("b" * 63, "p" * 60))
    managed = json.dumps(launcher_policy(largest, create_role=True), separators=(",", ":"))
    assert len(managed) <= 6144
    inline = json.dumps(machine_policy(largest), separators=(",", ":"))
    assert len(inline) <= 10240


def test_no_statement_has_two_names() -> None:
    for policy in (launcher_policy(SCOPE, create_role=True), machine_policy(SCOPE)):
        names = [each["Sid"] for each in policy["Statement"]]
        assert len({*names}) == len(names)
        assert all(name.isalnum() for name in names)  # IAM takes no other


def test_a_role_is_of_one_place() -> None:
    names = {
        role_name(S3Address(*place))
        for place in (("a", "b-c"), ("a-b", "c"), ("a", "b/c"), ("a" * 63, "p" * 900), ("a", "ü"))
    }
    assert len(names) == 5
    assert all(len(name) <= 64 and name.startswith("imnetprep-") for name in names)


def test_a_role_in_china_or_of_the_government_is_named_as_there() -> None:
    assert Scope("1", "cn-north-1", PLACE).bucket == f"arn:aws-cn:s3:::{BUCKET}"
    assert Scope("1", "us-gov-west-1", PLACE).bucket == f"arn:aws-us-gov:s3:::{BUCKET}"


class User:
    """A user of whom IAM wants to know what is allowed; our own policy is not asked."""

    def __init__(self, gate: AwsGate, patch: pytest.MonkeyPatch) -> None:
        self.gate, self.patch = gate, patch
        gate.client("iam").create_user(UserName="somebody")
        self.key = gate.client("iam").create_access_key(UserName="somebody")["AccessKey"]

    def may(self, names: set[str] | frozenset[str]) -> None:
        """Let the user do these actions, with anything."""
        statement = {"Effect": "Allow", "Action": sorted(names), "Resource": "*"}
        self.gate.client("iam").put_user_policy(
            UserName="somebody",
            PolicyName="all",
            PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [statement]}),
        )

    def does(self, act: Callable[[], str]) -> str:
        """Act as the user; what was said, be it an error."""
        import moto.settings

        with self.patch.context() as patch:
            patch.setenv("AWS_ACCESS_KEY_ID", self.key["AccessKeyId"])
            patch.setenv("AWS_SECRET_ACCESS_KEY", self.key["SecretAccessKey"])
            patch.setattr(moto.settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)
            try:
                return act()
            except ImnetprepError as error:
                text = f"{error}\n{error.hint}"
                if not _NAMED.search(text):
                    raise
                return text

    def needs(self, *acts: Callable[[], str]) -> set[str]:
        """Act; each action that an error names is allowed from then on, and it is tried again."""
        names = {"sts:GetCallerIdentity"}  # which needs no permission
        for act in acts:
            self.may(names)
            while lacks := {*_NAMED.findall(said := self.does(act))}:
                assert not lacks & names, said
                names |= lacks
                self.may(names)
            assert "denied" not in said, said
        return names - {"sts:GetCallerIdentity"}


@pytest.fixture
def user(gate: AwsGate, monkeypatch: pytest.MonkeyPatch) -> User:
    return User(gate, monkeypatch)


@pytest.mark.slow
def test_a_launch_needs_what_its_policy_says_and_names_each_action_that_it_lacks(
    user: User, here: Run
) -> None:
    gate = user.gate
    first, second = plan_of(gate), plan_of(gate, deadline=time.time() + 7200)
    orphan = [{"Key": TAG, "Value": "orphan"}, {"Key": PLACE_TAG, "Value": str(PLACE)}]
    gate.client("ec2").create_volume(
        Size=1,
        AvailabilityZone=f"{REGION}a",
        TagSpecifications=[{"ResourceType": "volume", "Tags": orphan}],
    )
    gate.client("ec2").run_instances(
        ImageId=IMAGE,
        MinCount=1,
        MaxCount=1,
        TagSpecifications=[{"ResourceType": "instance", "Tags": orphan}],
    )

    def launch_in_vain() -> str:
        gate.no_capacity = {*second.orders.types}
        return str(launch(second))

    def machines(*words: str) -> Callable[[], str]:
        def act() -> str:
            done = here("machines", *words)
            text = str(done.stdout + done.stderr)
            assert done.returncode == 0 or _NAMED.search(text), text
            return text

        return act

    names = user.needs(
        lambda: str(launch(first)),
        machines("demo"),
        machines("demo", "--stop"),
        machines("demo", "--terminate"),
        launch_in_vain,
        machines("demo"),
        machines("demo", "--terminate"),
        machines("--clean", "--yes"),
    )
    calls = {f"{each.service}:{each.action}" for each in gate.calls}
    policy = actions(launcher_policy(SCOPE, create_role=True))
    assert names | (calls & OF_THE_GATE) == policy - UNASKED - OF_THE_PLAN - OF_THE_CHECK


def test_a_launch_by_a_role_that_is_there_needs_no_right_to_make_one(user: User) -> None:
    launch(plan_of(user.gate, "first"))
    plan = plan_of(user.gate, creates_role=False)
    user.may(actions(launcher_policy(SCOPE, create_role=False)))
    assert "denied" not in user.does(lambda: str(launch(plan)))


def test_who_has_just_the_printed_policy_passes_the_check(user: User, here: Run) -> None:
    gate, policy = user.gate, launcher_policy(SCOPE, create_role=False)
    gate.policy = [
        {**each, "Resource": "*" if "${" in each["Resource"] else each["Resource"]}
        for each in policy["Statement"]
    ]
    gate.calls.clear()
    said = here("launch", "--check", "--root", str(PLACE)).stdout
    assert f"policy          all of {len(actions(policy))} actions are allowed" in said
    calls = {f"{each.service}:{each.action}" for each in gate.calls if each.service != "s3"}
    assert calls >= OF_THE_CHECK
    assert calls - {"sts:GetCallerIdentity"} <= actions(policy)
    gate.policy = gate.policy[1:]
    said = here("launch", "--check", "--root", str(PLACE)).stdout
    assert f"not allowed: {', '.join(policy['Statement'][0]['Action'])}" in said


def test_a_machine_needs_one_action_to_end_its_group(user: User) -> None:
    launch(plan_of(user.gate))

    def end() -> str:
        set_to_none(Aws(), "imnetprep-demo")
        return ""

    names = user.needs(end)
    assert names == {"autoscaling:UpdateAutoScalingGroup"}
    assert names <= actions(machine_policy(SCOPE))


MACHINE = "machine"


@pytest.fixture(scope="module")
def strict_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A bucket whose policy allows the user `machine` what a machine's role is allowed."""
    with s3_served(tmp_path_factory.mktemp("weed"), {MACHINE: ()}) as server:
        statements = [
            {**each, "Principal": {"AWS": f"arn:aws:iam::*:user/{MACHINE}"}}
            for each in machine_policy(SCOPE)["Statement"]
            if each["Action"][0].startswith("s3:")
        ]
        policy = {"Version": "2012-10-17", "Statement": statements}
        server.client().put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(policy))
        yield server


@pytest.fixture
def on_board(strict_s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The environment of the machine."""
    for name, value in strict_s3.environment_of(MACHINE).items():
        monkeypatch.setenv(name, value)
    return strict_s3


def test_a_machine_may_do_its_work_in_the_bucket(on_board: S3Server) -> None:
    on_board.client().put_object(Bucket=BUCKET, Key="p/launches/demo/stop", Body=b"")
    with closing(Bucket(BUCKET, Settings())) as bucket:
        folder = LaunchFolder(bucket, PLACE, "demo")
        assert folder.orders() is None
        folder.add_event("i-1", "begins")
        folder.add_event("i-1", "trains")
        assert len(list(folder.events())) == 2
        lease = folder.take_lease("i-1", lease_s=60, moment=1000.0)
        assert lease is not None
        assert folder.renew_lease(lease, lease_s=60, moment=1001.0) is not None
        assert folder.is_stop_requested()
        folder.remove("stop")
        folder.write("log.txt", b"one\n")
        folder.write_done(Ending(0, "trained", 1.0))


def test_a_machine_may_push_its_run_and_pull_it_again(
    on_board: S3Server, organized: Path, tmp_path: Path, run: Run
) -> None:
    (organized / "runs" / "first").mkdir(parents=True)
    (organized / "runs" / "first" / "log.jsonl").write_text("{}\n")
    (organized / "runs" / "first" / "last.pt").write_bytes(bytes(20 << 20))  # in parts
    pushed = run("sync-s3", PLACE, "--root", organized, "--push", "--what", "runs")
    assert pushed.returncode == 0, pushed.stderr
    root = tmp_path / "other"
    pulled = run("sync-s3", PLACE, "--root", root, "--pull", "--what", "runs")
    assert pulled.returncode == 0, pulled.stderr
    assert (root / "runs" / "first" / "log.jsonl").read_text() == "{}\n"


@pytest.mark.parametrize(
    "key", ["p/archives/a.tar", "p/shards/train/a.tar", "p/manifest.db", "q/runs/first/last.pt"]
)
def test_a_machine_may_write_no_data_and_no_other_place(on_board: S3Server, key: str) -> None:
    on_board.client().put_object(Bucket=BUCKET, Key=key, Body=b"data")
    client = on_board.client(MACHINE)
    with pytest.raises(client.exceptions.ClientError, match="AccessDenied"):
        client.put_object(Bucket=BUCKET, Key=key, Body=b"other")
    with pytest.raises(client.exceptions.ClientError, match="AccessDenied"):
        client.delete_object(Bucket=BUCKET, Key=key)


def test_a_machine_may_remove_no_run_and_read_no_other_place(on_board: S3Server) -> None:
    for key in ("p/runs/first/last.pt", "q/a"):
        on_board.client().put_object(Bucket=BUCKET, Key=key, Body=b"data")
    client = on_board.client(MACHINE)
    with pytest.raises(client.exceptions.ClientError, match="AccessDenied"):
        client.delete_object(Bucket=BUCKET, Key="p/runs/first/last.pt")
    with pytest.raises(client.exceptions.ClientError, match="AccessDenied"):
        client.get_object(Bucket=BUCKET, Key="q/a")
    with pytest.raises(client.exceptions.ClientError, match="AccessDenied"):
        client.list_objects_v2(Bucket=BUCKET, Prefix="q/")
    assert client.list_objects_v2(Bucket=BUCKET, Prefix="p/runs/")["KeyCount"] > 0
