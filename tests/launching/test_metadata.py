"""What a machine reads of the metadata service: itself, and that it is about to be taken back."""

from collections.abc import Iterator

import pytest

from imnetprep.launching.metadata import MetadataService
from imnetprep.messages import SourceFailed
from tests.pocket import Metadata, metadata_served


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> Iterator[Metadata]:
    served = Metadata("i-1", "")
    with metadata_served(served) as address:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", address)
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")  # nobody listens
        yield served


def test_a_machine_knows_itself(metadata: Metadata) -> None:
    service = MetadataService()
    assert service.instance_id() == "i-1"
    assert service.instance_type() == "g5.2xlarge"
    assert service.zone() == "us-east-1a"
    assert metadata.refused == []


def test_a_notice_is_seen_when_it_comes(metadata: Metadata) -> None:
    service = MetadataService()
    assert service.notice() is None and not service.is_at_risk()
    metadata.texts["spot/instance-action"] = (
        '{"action": "terminate", "time": "2026-11-25T21:45:16Z"}'
    )
    metadata.recommend_rebalance()
    notice = service.notice()
    assert notice is not None
    assert (notice.action, notice.at) == ("terminate", 1795643116.0)
    assert service.is_at_risk()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"action": "terminate", "time": "soon"}'])
def test_a_notice_that_nobody_understands_counts(metadata: Metadata, text: str) -> None:
    metadata.texts["spot/instance-action"] = text
    assert MetadataService().notice() is not None


def test_a_token_that_ran_out_is_replaced(metadata: Metadata) -> None:
    service = MetadataService()
    assert service.instance_id() == "i-1"
    metadata.tokens.clear()
    assert service.zone() == "us-east-1a"
    assert metadata.refused == ["/latest/meta-data/placement/availability-zone"]


def test_where_there_is_no_such_service_an_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(SourceFailed, match="no metadata of this machine"):
        MetadataService().instance_id()
