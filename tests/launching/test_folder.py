"""What laptop and machines say to each other by objects of a bucket."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from imnetprep.launching.folder import Ending, LaunchFolder
from imnetprep.launching.orders import Orders
from imnetprep.messages import WrongBytes
from imnetprep.s3.address import S3Address, Settings
from imnetprep.s3.bucket import Bucket
from tests.servers import BUCKET, S3Server

ORDERS = Orders(
    run="demo",
    address=f"s3://{BUCKET}/p",
    command=("train", "--arch", "resnet18"),
    region="us-east-1",
    types=("g5.2xlarge",),
    endpoint_url=None,
    source="archives",
    dataset=None,
    dataset_files=(),
    wheel="imnetprep-0.1-py3-none-any.whl",
    wheel_sha256="0" * 64,
    version="0.1",
    needed_bytes=155_000_000_000,
    needs_gpu=True,
    deadline=1_800_000_000.0,
    keep_minutes=0,
    push_s=120.0,
    lease_s=300.0,
    starts=3,
)


@pytest.fixture
def folder(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LaunchFolder]:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    with closing(Bucket(BUCKET, Settings())) as bucket:
        yield LaunchFolder(bucket, S3Address(BUCKET, tmp_path.name), "demo")


def test_orders_are_written_once_and_come_back_as_they_were(folder: LaunchFolder) -> None:
    assert folder.orders() is None
    assert folder.write_orders(ORDERS)
    assert not folder.write_orders(replace(ORDERS, region="eu-west-1"))
    assert folder.orders() == ORDERS


@pytest.mark.parametrize(
    "body", [b"[]", b"{", b"{}", b"[" * 9999, ORDERS.as_json().replace("300.0", "NaN").encode()]
)
def test_orders_of_a_stranger_are_refused(folder: LaunchFolder, body: bytes) -> None:
    folder.write("launch.json", body)
    with pytest.raises(WrongBytes, match=r"launch\.json cannot be used"):
        folder.orders()


def test_two_that_write_events_at_once_lose_none(folder: LaunchFolder) -> None:
    other = LaunchFolder(folder.bucket, S3Address(BUCKET, folder.place.key.split("/")[0]), "demo")
    folder.write(
        "events/000001.json", b'{"at": 1.0, "instance": "i-1", "kind": "a", "details": {}}'
    )
    assert folder.add_event("i-2", "begins").number == 2
    assert other.add_event("i-3", "begins", code=0).number == 3
    assert [(each.instance, each.kind) for each in folder.events()] == [
        ("i-1", "a"),
        ("i-2", "begins"),
        ("i-3", "begins"),
    ]


def test_events_can_be_had_from_either_end(folder: LaunchFolder) -> None:
    assert folder.first_event() is None
    for kind in ("launched", "begins", "trains"):
        folder.add_event("i-1", kind)
    first = folder.first_event()
    assert first is not None and first.kind == "launched"
    assert [each.kind for each in folder.events(latest=2)] == ["begins", "trains"]


def test_the_log_is_read_on_from_where_a_reader_was(folder: LaunchFolder) -> None:
    assert (folder.log(0), folder.last_line()) == (b"", None)
    folder.write("log.txt", b"one\ntwo words\n\n")
    assert folder.log(4) == b"two words\n\n"
    assert folder.log(15) == folder.log(99) == b""
    assert folder.last_line() == "two words"


def test_one_machine_at_a_time_holds_the_lease(folder: LaunchFolder) -> None:
    first = folder.take_lease("i-1", lease_s=60, moment=1000)
    assert first is not None
    assert folder.take_lease("i-2", lease_s=60, moment=1059) is None
    renewed = folder.renew_lease(first, lease_s=60, moment=1050)
    assert renewed is not None
    assert folder.take_lease("i-2", lease_s=60, moment=1061) is None
    second = folder.take_lease("i-2", lease_s=60, moment=1111)
    assert second is not None
    assert folder.renew_lease(renewed, lease_s=60, moment=1112) is None
    folder.give_up_lease(second)
    assert folder.take_lease("i-3", lease_s=60, moment=1113) is not None


def test_a_stop_and_an_end_are_seen(folder: LaunchFolder) -> None:
    assert not folder.is_stop_requested()
    folder.request_stop()
    assert folder.is_stop_requested()
    assert folder.done() is None
    folder.write_done(Ending(0, "trained", 1000.0))
    assert folder.done() == Ending(0, "trained", 1000.0)
