"""The printed policies: enough for a launch and its machine, and no more than is needed."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from imnetprep.launching.folder import Ending, LaunchFolder
from imnetprep.launching.policies import Scope, launcher_policy, machine_policy, role_name
from imnetprep.s3.address import S3Address, Settings
from imnetprep.s3.bucket import Bucket
from tests.conftest import Run
from tests.servers import BUCKET, S3Server, s3_served

PLACE = S3Address(BUCKET, "p")
SCOPE = Scope("123456789012", "us-east-1", PLACE)


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


MACHINE = "machine"


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
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
def on_board(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The environment of the machine."""
    for name, value in s3.environment_of(MACHINE).items():
        monkeypatch.setenv(name, value)
    return s3


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
