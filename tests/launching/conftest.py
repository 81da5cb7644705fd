"""AWS, a bucket and drawn archives, for all tests of launches."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from imnetprep.synthetic import draw_dataset
from tests.aws_gate import AwsGate, aws_served
from tests.conftest import TRAIN, VAL
from tests.launching.launched import PLACE, fresh
from tests.servers import S3Server, s3_served


@pytest.fixture(scope="package")
def aws() -> Iterator[AwsGate]:
    """moto behind its gate: each test resets it."""
    with aws_served() as gate:
        yield gate


@pytest.fixture(scope="package")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """SeaweedFS: each test has a prefix of its own."""
    with s3_served(tmp_path_factory.mktemp("weed")) as server:
        yield server


@pytest.fixture(scope="package")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Archives of three drawn classes, and their definition."""
    folder = tmp_path_factory.mktemp("drawings")
    return draw_dataset(folder, classes=3, train_per_class=20, val_per_class=4, side_px=40).parent


@pytest.fixture
def gate(aws: AwsGate, monkeypatch: pytest.MonkeyPatch) -> AwsGate:
    """AWS as this process reaches it: an account with nothing in it but a bucket."""
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    fresh(aws)
    return aws


@pytest.fixture
def archives(gate: AwsGate, packed: Path) -> None:
    """Both archives of `packed` at PLACE."""
    for name in (TRAIN, VAL):
        body = (packed.parent / name).read_bytes()
        key = (PLACE / f"archives/{name}").key
        gate.client("s3").put_object(Bucket=PLACE.bucket, Key=key, Body=body)
    gate.calls.clear()
